"""The bytes that real calls reduce over their ranks: counted, not read from the code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import xent
from distributed_cost import FLOAT32

OWN_CLASSES = 8
FEATURES = 16


@contextmanager
def counted() -> Iterator[list[int]]:
    """Of each all-reduce that this process takes part in meanwhile, the bytes."""
    sizes: list[int] = []
    real = dist.all_reduce

    def all_reduce(tensor: Tensor, *args: Any, **options: Any) -> Any:
        sizes.append(tensor.numel() * tensor.element_size())
        return real(tensor, *args, **options)

    dist.all_reduce = all_reduce
    try:
        yield sizes
    finally:
        dist.all_reduce = real


def _indices(rows: int, **options: Any) -> Tensor:
    shards = xent.class_shards(OWN_CLASSES, dist.group.WORLD)
    logits = torch.randn(rows, OWN_CLASSES, requires_grad=True)
    target = torch.arange(rows) % shards.classes
    return xent.cross_entropy(logits, target, group=shards, **options)


def _probabilities(rows: int, **options: Any) -> Tensor:
    shards = xent.class_shards(OWN_CLASSES, dist.group.WORLD)
    logits = torch.randn(rows, OWN_CLASSES, requires_grad=True)
    masses = torch.full((rows, OWN_CLASSES), 1 / shards.classes)
    return xent.cross_entropy(logits, masses, group=shards, **options)


def _linear(rows: int, **options: Any) -> Tensor:
    shards = xent.class_shards(OWN_CLASSES, dist.group.WORLD)
    hidden = torch.randn(rows, FEATURES).bfloat16().requires_grad_()
    classifier = torch.randn(OWN_CLASSES, FEATURES).bfloat16().requires_grad_()
    target = torch.arange(rows) % shards.classes
    return xent.linear_cross_entropy(hidden, classifier, target, group=shards, **options)


CALLS: dict[str, Callable[[int], Tensor]] = {
    "class indices": _indices,
    "class weights": lambda rows: _indices(rows, weight=torch.rand(OWN_CLASSES)),
    "label smoothing": lambda rows: _indices(rows, label_smoothing=0.1),
    "class weights and label smoothing": lambda rows: _indices(
        rows, weight=torch.rand(OWN_CLASSES), label_smoothing=0.1
    ),
    "probabilities": _probabilities,
    "probabilities and label smoothing": lambda rows: _probabilities(rows, label_smoothing=0.1),
    "linear_cross_entropy": _linear,
}
"""By what they are asked for, losses of so many rows in the default group."""


def sent(call: str, rows: int) -> dict[str, list[int]]:
    """Bytes of each all-reduce of this rank in a call's forward, and in its backward."""
    with counted() as sizes:
        loss = CALLS[call](rows)
        forward = list(sizes)
        loss.backward()
    return {"forward": forward, "backward": sizes[len(forward) :]}


def vectors_of(sizes: list[int], rows: int) -> int:
    """How many vectors of float32 the second round of a forward has.

    >>> vectors_of([40, 124], rows=10)  # a few bytes more are no vector
    3
    """
    return sizes[1] // (FLOAT32 * rows)
