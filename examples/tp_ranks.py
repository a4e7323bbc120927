"""Ranks that share a model: who they are, which classes are whose, and whose a gradient is."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TypeVar

import click
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor

from commands import OneLineErrors

T = TypeVar("T")


def place() -> tuple[int, int]:
    """This rank and the number of ranks, as torchrun says; without it there is one."""
    if not dist.is_torchelastic_launched():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


class FirstRankSpeaks(OneLineErrors):
    """A command that all ranks run and one prints.

    What is wrong with the arguments is wrong on all. The others end without a word and with exit
    code 0: torchrun ends everyone as soon as one fails, and that one has to be the one that speaks.
    """

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs the command."""
        if place()[0] == 0:
            return super().main(*args, **options)
        with redirect_stdout(io.StringIO()):  # of --help
            try:
                return super().main(*args, **options | {"standalone_mode": False})
            except (click.ClickException, click.Abort):
                return None


@contextmanager
def all_ranks() -> Iterator[ProcessGroup]:
    """The group of all ranks that torchrun started, or of this process alone."""
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    else:
        store = dist.HashStore()  # type: ignore[attr-defined]  # torch does not list its names
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        group = dist.group.WORLD
        assert group is not None  # since just now
        yield group
    finally:
        dist.destroy_process_group()


def from_first_rank(read: Callable[[], T], group: ProcessGroup) -> T | None:
    """What rank 0 reads, on all ranks; if it cannot, None on the others, and its error there."""
    found: list[T | None] = [None]
    try:
        if group.rank() == 0:
            found = [read()]
    finally:  # the others wait for an answer, whatever it is
        dist.broadcast_object_list(found, group=group, group_src=0)
    return found[0]


def class_range(classes: int, rank: int, ranks: int) -> tuple[int, int]:
    """Which classes are this rank's: first, and one behind the last. Shares differ by one."""
    return rank * classes // ranks, (rank + 1) * classes // ranks


def gathered(own: Tensor, group: ProcessGroup) -> Tensor:
    """The rows of all ranks, ``[W·n, …]``, of each one's ``[n, …]``; all have equally many."""
    everyones = own.new_empty(group.size() * len(own), *own.shape[1:])
    dist.all_gather(list(everyones.chunk(group.size())), own.contiguous(), group=group)
    return everyones


def gathered_states(own: Tensor, group: ProcessGroup) -> Tensor:
    """The same of hidden states, with the gradient that a wrapper which averages needs."""
    found: Tensor = _GatheredStates.apply(own, group)  # type: ignore[no-untyped-call]  # torch's
    return found


class _GatheredStates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        return gathered(own, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return own_share(gradient, ctx.group.rank(), ctx.group.size()), None


def own_share(gradient: Tensor, rank: int, ranks: int) -> Tensor:
    """This rank's rows of the gradient at all hidden states, times the number of ranks W.

    The backward of a loss with ``group=`` has summed the gradient over the ranks' classes: each
    rank has dL/dh of all rows h, and nobody needs to be asked. Through its own rows h_r the body
    makes of it g_r = (dh_r/dθ)ᵀ dL/dh_r, and dL/dθ = Σ_r g_r. DDP and FSDP take the mean,
    (1/W) Σ_r, as if each rank had a loss of its own; here all have the same one. So W comes in,
    once.
    """
    return gradient.chunk(ranks)[rank] * ranks


def total_norm(body: Iterable[nn.Parameter], own: nn.Parameter, group: ProcessGroup) -> Tensor:
    """The norm of the gradient of the whole model, the same on all ranks.

    Each entry counts once: those of ``own`` and of FSDP's DTensors lie in parts, whose squares are
    summed over the group; what DDP has averaged is there on every rank.
    """
    parts, copies = [own.grad], []
    for parameter in body:
        gradient = parameter.grad
        if isinstance(gradient, DTensor):
            parts.append(gradient.to_local())
        else:
            copies.append(gradient)
    square = _square(parts)
    dist.all_reduce(square, group=group)
    return (square + _square(copies)).sqrt()


def _square(gradients: Iterable[Tensor | None]) -> Tensor:
    """Σ g², in float64 whatever they are.

    All updates are scaled by what becomes of it, and torch's own norm of half a million float32
    entries is 1e-4 off on a CPU: another error for each way to cut them into parts.
    """
    square = torch.zeros((), dtype=torch.float64)
    for gradient in gradients:
        if gradient is not None:
            square += gradient.double().square().sum()
    return square
