"""The same training twice: in one process, and shared by ranks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import xent
from lm_model import SPREAD, LanguageModel
from lm_sequences import Sequences, drawn
from lm_training import LONGEST_GRADIENT, WEIGHT_DECAY, Settings, adamw, rate
from tp_ranks import class_range, gathered, gathered_states, total_norm

DTYPE = torch.float64
"""Of both trainings. In float32 a sum depends on its order, and one step whose gradient is fifty
times its usual length makes 5e-5 nats of that."""


class Step(NamedTuple):
    """One update of the weights."""

    loss: float
    """Nats per token, before the update."""
    norm: float
    """Of the gradient of all parameters, before it is shortened."""


class Training(ABC):
    """A body, a classifier, and what every training of them does alike."""

    def __init__(
        self, body: nn.Module, classifier: nn.Parameter, sequences: Sequences, settings: Settings
    ) -> None:
        self.body, self.classifier = body, classifier
        self.optimizer = adamw(body.parameters())
        # A group of its own: AdamW takes a group's tensors together, and FSDP's are DTensors.
        self.optimizer.add_param_group({"params": [classifier], "weight_decay": WEIGHT_DECAY})
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: rate(step, settings.steps)
        )
        self.batches = drawn(sequences, settings.batch_size, settings.seed)

    @abstractmethod
    def loss(self, batch: Sequences) -> Tensor:
        """The mean over all labels of the batch that count, in nats."""

    @abstractmethod
    def norm(self) -> Tensor:
        """Of the gradient of all parameters of the model."""

    def run(self, steps: int) -> Iterator[Step]:
        """Takes so many more steps.

        Raises:
            FloatingPointError: a loss is not finite; on all ranks, as all have the same.
        """
        for number in range(1, steps + 1):
            loss = self.loss(next(self.batches))
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"The training loss is not finite in step {number}.")
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            norm = self.norm()
            for parameters in (self.body.parameters(), [self.classifier]):
                torch.nn.utils.clip_grads_with_norm_(parameters, LONGEST_GRADIENT, norm)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            yield Step(loss.item(), norm.item())


class Whole(Training):
    """In this process alone: what the other has to equal."""

    def __init__(self, sequences: Sequences, vocabulary: int, settings: Settings) -> None:
        body, classifier = start(vocabulary, settings)
        super().__init__(body, nn.Parameter(classifier), sequences, settings)

    def loss(self, batch: Sequences) -> Tensor:
        """As in any training."""
        return xent.linear_cross_entropy(self.body(batch.inputs), self.classifier, batch.labels)

    def norm(self) -> Tensor:
        """As in any training."""
        everything = (*self.body.parameters(), self.classifier)
        return torch.nn.utils.get_total_norm([p.grad for p in everything if p.grad is not None])


class Sharded(Training):
    """By all ranks: each has a share of every batch, and a part of the classes of all of it."""

    def __init__(
        self,
        sequences: Sequences,
        vocabulary: int,
        settings: Settings,
        group: ProcessGroup,
        wrap: str,
    ) -> None:
        body, classifier = start(vocabulary, settings)
        self.group, self.rank, self.ranks = group, group.rank(), group.size()
        first, behind = class_range(vocabulary, self.rank, self.ranks)
        own = nn.Parameter(classifier[first:behind].clone())  # not wrapped: nobody averages it
        # Asked once: from here on a loss is two all-reduces, and one in its backward.
        self.shards = xent.class_shards((first, behind), group)
        super().__init__(wrapped(body, wrap, self.ranks), own, sequences, settings)

    def loss(self, batch: Sequences) -> Tensor:
        """The same on every rank, to the bit.

        A rank looks at its own share of the batch. Afterwards all labels are on all ranks, so the
        mean over those that count is that of the whole batch: it needs neither ``denominator`` nor
        ``dp_group``. Several micro-batches would need one:
        ``denominator=xent.valid_denominator(labels)``, with the gathered labels of all of them.
        """
        own = batch.split(len(batch.inputs) // self.ranks)[self.rank]
        hidden = gathered_states(self.body(own.inputs), self.group)  # [B, L, D]
        labels = gathered(own.labels, self.group)
        return xent.linear_cross_entropy(hidden, self.classifier, labels, group=self.shards)

    def norm(self) -> Tensor:
        """Over all ranks."""
        return total_norm(self.body.parameters(), self.classifier, self.group)


def start(vocabulary: int, settings: Settings) -> tuple[LanguageModel, Tensor]:
    """Body and classifier ``[V, D]`` at the start: the same wherever the settings are."""
    torch.manual_seed(settings.seed)
    body = LanguageModel(
        vocabulary, settings.context, settings.width, settings.layers, settings.heads
    )
    return body.to(DTYPE), torch.randn(vocabulary, settings.width, dtype=DTYPE) * SPREAD


def wrapped(body: LanguageModel, wrap: str, ranks: int) -> nn.Module:
    """The body on all ranks, its gradients averaged: in parts (``fsdp``) or as copies (``ddp``)."""
    if wrap == "ddp":
        return DistributedDataParallel(body)
    mesh = init_device_mesh("cpu", (ranks,))
    for block in body.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(body, mesh=mesh)  # the rest: embedding, positions, the last norm
    return body
