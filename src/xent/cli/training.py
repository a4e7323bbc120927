"""The demonstration's experiment: three trainings on real digits, step by step together."""

from __future__ import annotations

import copy
import itertools
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import xent
from xent.cli.outcome import ConfusedDigit, Environment, Outcome, Run, Setup

Loss = Callable[[Tensor, Tensor], Tensor]

HIDDEN = 64
BATCH = 64
HELD_OUT = 0.25
WARM_UP = 5
SMOOTHING = 0.1


def experiment(epochs: int, seed: int, on_epoch: Callable[[], object]) -> Outcome:
    """Trains with torch's loss, with xent's, and with soft labels; measures as it goes.

    All three see the same batches from the same start and never touch each other again. They take
    each step together, in all orders in turn, so that noise of the machine falls on all alike.

    Args:
        epochs: passes over the training images.
        seed: of the split, the start and the batches.
        on_epoch: called after every epoch, outside of what is timed.

    Returns:
        What was measured.

    Raises:
        FloatingPointError: a training loss is not finite.
    """
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    digits = _digits(generator)
    trainings = _trainings(digits, _model(digits, seed))
    orders = itertools.cycle(itertools.permutations(trainings))
    for _ in range(epochs):
        shuffled = torch.randperm(len(digits.train), generator=generator)
        for batch in torch.split(digits.train[shuffled], BATCH):
            for training in next(orders):
                training.step(digits.images[batch], batch)
        on_epoch()
    by_torch, by_xent, by_soft = (training.run(digits) for training in trainings)
    return Outcome(
        environment=_environment(),
        setup=_setup(digits, trainings, epochs, seed),
        torch=by_torch,
        xent=by_xent,
        soft=by_soft,
        confused=_most_confused(trainings[1].model, digits),
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _Digits:
    """The data: pixels ``[N, 64]`` in [0, 1], labels ``[N]``, and the two sides of the split."""

    images: Tensor
    labels: Tensor
    image_shape: tuple[int, int]
    train: Tensor
    held_out: Tensor

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1


def _digits(generator: torch.Generator) -> _Digits:
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.as_tensor(data.data, dtype=torch.float32)
    shuffled = torch.randperm(len(images), generator=generator)
    held_out, train = shuffled.tensor_split([round(HELD_OUT * len(images))])
    height, width = data.images.shape[1:]
    return _Digits(
        images / images.max(), torch.as_tensor(data.target), (height, width), train, held_out
    )


def _model(digits: _Digits, seed: int) -> torch.nn.Sequential:
    # tanh is smooth: at a kink such as ReLU's, units switched by a last digit would drive
    # trainings apart that differ by rounding only.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Linear(digits.images.shape[1], HIDDEN),
            torch.nn.Tanh(),
            torch.nn.Linear(HIDDEN, digits.classes),
        )


def _trainings(digits: _Digits, start: torch.nn.Sequential) -> list[_Training]:
    one_hot = torch.nn.functional.one_hot(digits.labels, digits.classes).float()
    soft = (1 - SMOOTHING) * one_hot + SMOOTHING / digits.classes
    index = ("class indices", digits.labels)
    losses: list[tuple[str, Loss, str, Tensor]] = [
        ("torch.nn.CrossEntropyLoss", torch.nn.CrossEntropyLoss(), *index),
        ("xent.CrossEntropyLoss", xent.CrossEntropyLoss(), *index),
        ("xent.DenseCrossEntropy", xent.DenseCrossEntropy(), "soft labels", soft),
    ]
    return [_Training(*loss, copy.deepcopy(start)) for loss in losses]


@dataclass
class _Training:
    """A model on its way, with its loss and what was measured so far."""

    name: str
    loss: Loss
    labels: str
    targets: Tensor
    model: torch.nn.Sequential
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)

    def step(self, images: Tensor, batch: Tensor) -> None:
        """One step of descent; only the loss and its backward to the logits are timed."""
        targets = self.targets[batch]
        self.optimizer.zero_grad()
        logits = self.model(images)
        leaf = logits.detach().requires_grad_()
        start = time.perf_counter()
        loss = self.loss(leaf, targets)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        self.seconds.append(time.perf_counter() - start)
        logits.backward(leaf.grad)
        self.optimizer.step()
        self.losses.append(loss.item())
        if not math.isfinite(self.losses[-1]):
            raise FloatingPointError(
                f"The training loss with {self.name} is {self.losses[-1]} "
                f"at step {len(self.losses)}; expected a finite number."
            )

    def run(self, digits: _Digits) -> Run:
        """What came of it."""
        with torch.no_grad():
            predicted = self.model(digits.images[digits.held_out]).argmax(1)
        right = predicted == digits.labels[digits.held_out]
        return Run(
            criterion=self.name,
            labels=self.labels,
            losses=tuple(self.losses),
            loss_seconds=tuple(self.seconds[WARM_UP:]),
            accuracy=right.double().mean().item(),
        )


def _most_confused(model: torch.nn.Sequential, digits: _Digits) -> ConfusedDigit:
    with torch.no_grad():
        logits = model(digits.images[digits.held_out])
        labels = digits.labels[digits.held_out]
        worst = xent.cross_entropy(logits, labels, reduction="none").argmax()
    row, image = logits[worst].requires_grad_(), int(digits.held_out[worst])  # row: [C]
    loss = xent.cross_entropy(row, labels[worst])
    (gradient,) = torch.autograd.grad(loss, row)
    return ConfusedDigit(
        image=image,
        pixels=tuple(map(tuple, digits.images[image].view(digits.image_shape).tolist())),
        label=int(labels[worst]),
        predicted=int(row.argmax()),
        loss=loss.item(),
        probabilities=tuple(row.softmax(0).tolist()),
        gradient=tuple(gradient.tolist()),
    )


def _setup(digits: _Digits, trainings: list[_Training], epochs: int, seed: int) -> Setup:
    linear = [m for m in trainings[0].model if isinstance(m, torch.nn.Linear)]
    sizes = [linear[0].in_features, *(m.out_features for m in linear)]
    descent = trainings[0].optimizer.defaults
    return Setup(
        epochs=epochs,
        seed=seed,
        train_images=len(digits.train),
        held_out_images=len(digits.held_out),
        image_shape=digits.image_shape,
        classes=digits.classes,
        batch_size=BATCH,
        model=f"MLP {'-'.join(map(str, sizes))} with tanh, float32",
        optimizer=f"SGD, learning rate {descent['lr']}, momentum {descent['momentum']}",
        warm_up_steps=WARM_UP,
        label_smoothing=SMOOTHING,
        soft_label_entropy=torch.special.entr(trainings[2].targets[0]).sum().item(),
    )


def _environment() -> Environment:
    return Environment(
        python=platform.python_version(),
        torch=torch.__version__,
        xent=xent.__version__,
        threads=torch.get_num_threads(),
        cpu=_cpu(),
    )


def _cpu() -> str:
    """The processor's name; Linux tells it in a file only."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
