"""The programs that are compared: the mean loss of logits whose classes are spread over ranks.

Each is made for one case and does one mode of it: ``run`` computes and keeps the loss and the
gradient at this rank's logits, ``release`` lets go of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import loss_parallel

import xent
from distributed_three import three_all_reduces
from xent.benchmark.cases import Mode
from xent.benchmark.floors import Floor
from xent.contract.groups import ClassShards

ROWS_AT_ONCE = 64  # of the truth, in float64


@dataclass(frozen=True)
class Case:
    """Float32 logits of so many rows and classes."""

    rows: int
    classes: int

    @property
    def title(self) -> str:
        """The sizes."""
        return f"{self.rows}×{self.classes}"


@dataclass(frozen=True)
class Truth:
    """In float64, by one process: the mean, and its gradient at this rank's logits."""

    loss: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Data:
    """What a rank has: logits of its classes, all labels, and who else there is."""

    logits: Tensor
    target: Tensor
    shards: ClassShards
    mesh: DeviceMesh
    truth: Truth


def made(case: Case) -> Data:
    """The same numbers on every rank, of which each keeps its own classes."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    logits = torch.randn(case.rows, case.classes)
    target = torch.randint(0, case.classes, (case.rows,))
    start, stop = (case.classes * r // ranks for r in (rank, rank + 1))
    return Data(
        logits[:, start:stop].clone(),
        target,
        xent.class_shards((start, stop), dist.group.WORLD),
        init_device_mesh("cpu", (ranks,)),
        _truth_of(logits, target, slice(start, stop)),
    )


def _truth_of(logits: Tensor, target: Tensor, own: slice) -> Truth:
    """By torch's loss in float64, some rows at a time."""
    gradient = torch.empty(len(logits), own.stop - own.start, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for first in range(0, len(logits), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        part = logits[rows].double().requires_grad_()
        loss = F.cross_entropy(part, target[rows], reduction="sum") / len(logits)
        (at,) = torch.autograd.grad(loss, part)
        gradient[rows] = at[:, own]
        total += loss.detach()
    return Truth(total, gradient)


@dataclass(frozen=True)
class Peer:
    """A loss of this rank's logits, and how it is called."""

    loss: Callable[[Tensor, Data], Tensor]
    takes_dtensor: bool = False
    around: Callable[[], AbstractContextManager[object]] = nullcontext


PEERS = {
    "xent": Peer(lambda x, data: xent.cross_entropy(x, data.target, group=data.shards)),
    "xent, process group": Peer(
        lambda x, data: xent.cross_entropy(x, data.target, group=dist.group.WORLD)
    ),
    "xent, DTensor": Peer(lambda x, data: xent.cross_entropy(x, data.target), takes_dtensor=True),
    "loss_parallel": Peer(
        lambda x, data: F.cross_entropy(x, data.target), takes_dtensor=True, around=loss_parallel
    ),
    "three all-reduces": Peer(
        lambda x, data: three_all_reduces(x, data.target, data.shards.own.start).mean()
    ),
}
"""By name. All but the second know who holds which classes."""


class Program:
    """One peer at one case and mode."""

    def __init__(self, peer: str, data: Data, mode: Mode) -> None:
        self._peer, self._data, self._mode = PEERS[peer], data, mode
        # the values are shared: no peer writes on them
        logits = data.logits.detach()
        if self._peer.takes_dtensor:
            shape = torch.Size((len(logits), data.shards.classes))
            stride = (data.shards.classes, 1)
            logits = DTensor.from_local(logits, data.mesh, [Shard(1)], shape=shape, stride=stride)
        self._logits = logits.requires_grad_(mode is Mode.BOTH)
        self._loss: Tensor | None = None

    def run(self) -> None:
        """The loss, and the gradient if the mode asks for it."""
        with self._peer.around(), torch.set_grad_enabled(self._mode is Mode.BOTH):
            loss = self._peer.loss(self._logits, self._data)
            if self._mode is Mode.BOTH:
                loss.backward()
        self._loss = loss.detach()

    def release(self) -> None:
        """Nothing is kept for the next round."""
        self._loss = self._logits.grad = None

    @property
    def loss(self) -> Tensor | None:
        """The mean over all rows and classes, as this rank knows it."""
        return _here(self._loss)

    @property
    def gradient(self) -> Tensor | None:
        """At this rank's logits."""
        return _here(self._logits.grad)


class Least:
    """The floor: what must be read and written here, and said to the others."""

    def __init__(self, data: Data, mode: Mode, sizes: list[int]) -> None:
        copy = None
        if mode is Mode.BOTH:  # zeros would map every page to the same empty one
            copy = data.logits, torch.ones_like(data.logits)
        self._floor = Floor((data.logits,), copy)
        self._vectors = [torch.zeros(size // 4) for size in sizes]

    def run(self) -> None:
        """A sum, an all-reduce of each size, a copy."""
        self._floor.run()
        for vector in self._vectors:
            dist.all_reduce(vector)

    def release(self) -> None:
        """Nothing to let go of."""


def _here(tensor: Tensor | None) -> Tensor | None:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
