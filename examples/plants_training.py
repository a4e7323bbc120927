"""The training: split, augmentation, mixup, and descent on ``xent.DenseCrossEntropy``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

import xent
from commands import BadInput
from plants_data import Labels
from resnet import resnet

LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05
WARM_UP = 0.3
"""Share of the steps in which the rate rises; a fourth of 4, one step, OneCycleLR divides by 0."""
SHIFT = 1 / 12
"""Of the side, by which an image moves at most, in each direction."""


@dataclass(frozen=True)
class Settings:
    """What a run depends on, beside its data; what a checkpoint must agree with."""

    model: str
    epochs: int
    batch_size: int
    seed: int
    size: int
    mixup: float
    val_share: float


@dataclass(frozen=True)
class Split:
    """Rows to train on, and rows held out."""

    train: Tensor
    validation: Tensor


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images and one over those held out; losses in nats."""

    epoch: int
    training_loss: float
    """The mean over the mixed labels, while the weights change."""
    validation_loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """What a model says about held-out images."""

    logits: Tensor
    """``[N, C]``"""
    labels: Tensor
    """``[N, C]``"""
    losses: Tensor
    """``[N]``, nats."""

    @property
    def right(self) -> Tensor:
        """``[N]``: whether the likeliest class is the label's."""
        return self.logits.argmax(1) == self.labels.argmax(1)


def stratified(table: Labels, share: float, seed: int) -> Split:
    """Holds out this share of every class, one image of each at least, never its last.

    An image is of the class with its highest probability.

    Raises:
        BadInput: no class has an image to spare, or fewer than two images are left to train on.
    """
    generator = torch.Generator().manual_seed(seed)
    kinds = table.probabilities.argmax(1)
    train, validation = [], []
    for kind in range(len(table.classes)):
        rows = (kinds == kind).nonzero().squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        count = min(max(1, round(share * len(rows))), max(0, len(rows) - 1))
        validation.append(rows[:count])
        train.append(rows[count:])
    split = Split(torch.cat(train).sort().values, torch.cat(validation).sort().values)
    if len(split.train) < 2 or len(split.validation) == 0:
        raise BadInput(
            f"{len(kinds)} images are too few: {len(split.train)} to train on and "
            f"{len(split.validation)} held out; expected two and one, or more."
        )
    return split


def augmented(images: Tensor) -> Tensor:
    """Each image flipped along either side or not, transposed or not, and shifted a little.

    A leaf has no upright position: all eight are as likely.

    Args:
        images: ``[N, 3, S, S]``.

    Returns:
        The same shape; what a shift leaves empty shows the mirrored edge.
    """
    size = images.shape[-1]
    most = round(SHIFT * size)
    turns = torch.randint(2, (len(images), 3)).bool()
    for turn, change in zip(turns.T, (_mirrored, _upended, _transposed), strict=True):
        images = torch.where(turn.view(-1, 1, 1, 1), change(images), images)
    padded = F.pad(images, (most,) * 4, mode="reflect")
    places = torch.randint(2 * most + 1, (len(images), 2)).tolist()
    crops = zip(padded, places, strict=True)
    return torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in crops])


def _mirrored(images: Tensor) -> Tensor:
    return images.flip(-1)


def _upended(images: Tensor) -> Tensor:
    return images.flip(-2)


def _transposed(images: Tensor) -> Tensor:
    return images.transpose(-1, -2)


def mixed(images: Tensor, labels: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al. 2017, arXiv:1710.09412): blends images, and their labels alike.

    Every image gets a partner from the batch and a share λ of its own from Beta(α, α).

    Args:
        images: ``[N, 3, S, S]``.
        labels: ``[N, C]``.
        alpha: 0 leaves both as they are.

    Returns:
        λ·own + (1 − λ)·partner's, of both.
    """
    if alpha == 0:
        return images, labels
    own = torch.distributions.Beta(alpha, alpha).sample((len(images),)).view(-1, 1)  # [N, 1]
    partner = torch.randperm(len(images))
    return (
        torch.lerp(images[partner], images, own.view(-1, 1, 1, 1)),
        torch.lerp(labels[partner], labels, own),
    )


class Training:
    """A model on its way. Whatever is drawn comes from torch's global generator."""

    def __init__(self, images: Tensor, labels: Tensor, split: Split, settings: Settings) -> None:
        self.images, self.labels, self.split, self.settings = images, labels, split, settings
        self.model = resnet(settings.model, labels.shape[1])
        self.criterion = xent.DenseCrossEntropy()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        self.batches = math.ceil(len(split.train) / settings.batch_size)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            LEARNING_RATE,
            total_steps=settings.epochs * self.batches,
            pct_start=WARM_UP,
        )
        self.history: list[Epoch] = []

    def run_epoch(self, on_batch: Callable[[], object]) -> Epoch:
        """Takes one more pass over the training images, and judges the model.

        Args:
            on_batch: called after every batch.

        Raises:
            FloatingPointError: the training loss is not finite.
        """
        started = time.perf_counter()
        number = len(self.history) + 1
        shuffled = self.split.train[torch.randperm(len(self.split.train))]
        total = 0.0
        self.model.train()
        for rows in shuffled.tensor_split(self.batches):  # even: batch norm needs two images
            total += len(rows) * self._step(rows)
            if not math.isfinite(total):
                raise FloatingPointError(f"The training loss is not finite in epoch {number}.")
            on_batch()
        judged = self.evaluate()
        epoch = Epoch(
            epoch=number,
            training_loss=total / len(shuffled),
            validation_loss=judged.losses.mean().item(),
            accuracy=judged.right.double().mean().item(),
            seconds=time.perf_counter() - started,
        )
        self.history.append(epoch)
        return epoch

    def _step(self, rows: Tensor) -> float:
        images = augmented(_normalised(self.images[rows]))
        images, labels = mixed(images, self.labels[rows], self.settings.mixup)
        self.optimizer.zero_grad()
        loss: Tensor = self.criterion(self.model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """The held-out images, as they are."""
        self.model.eval()
        batches = torch.split(self.split.validation, self.settings.batch_size)
        logits = torch.cat([self.model(_normalised(self.images[rows])) for rows in batches])
        labels = self.labels[self.split.validation]
        losses = xent.DenseCrossEntropy(reduction="none")(logits, labels)
        return Evaluation(logits, labels, losses)


def _normalised(images: Tensor) -> Tensor:
    """Bytes to [−1, 1]; the first batch norm takes it from there."""
    return images.float() / 127.5 - 1
