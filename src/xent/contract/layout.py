"""Any accepted shape as rows: *outer × classes × inner*, without moving the logits in memory.

``inner == 1`` means that a row's classes are neighbours in memory: a matrix ``(N, C)``, the
last axis of a language model's ``(B, T, V)``, a channels-last image. ``inner > 1`` usually means
that positions are neighbours and classes lie a stride apart: ``(N, C, H, W)`` as images come.
Only where no split of the axes fits their strides (an image cropped on two sides) is a copy made.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from xent.contract.dtypes import is_supported_float
from xent.contract.errors import described, mistake, require_tensor
from xent.contract.shards import Shard


@dataclass(frozen=True)
class Layout:
    """Where the classes of a tensor are, and how its positions line up as rows.

    The first ``split`` position axes are *outer*, the others *inner*.
    """

    shape: tuple[int, ...]
    dim: int
    split: int
    name: str = "input"
    """What messages call the tensor of this shape."""
    shard: Shard | None = None
    """Which of the classes these are, if other ranks hold the others."""

    @property
    def classes(self) -> int:
        """C, over all ranks."""
        return self.shape[self.dim] if self.shard is None else self.shard.classes

    @property
    def own_classes(self) -> int:
        """How many of them are here."""
        return self.shape[self.dim]

    @property
    def positions(self) -> tuple[int, ...]:
        """The shape without its class axis: the shape of index targets and unreduced losses."""
        return self.shape[: self.dim] + self.shape[self.dim + 1 :]

    @property
    def count(self) -> int:
        """Number of positions."""
        return math.prod(self.positions)

    @property
    def batch(self) -> int:
        """Size of the batch axis; 1 when there is none."""
        return self.positions[0] if self.positions else 1

    @property
    def outer(self) -> int:
        """Number of rows in the outer axes."""
        return math.prod(self.positions[: self.split])

    def rows(self, tensor: Tensor) -> Tensor:
        """A tensor of the logits' shape as ``[outer, C, inner]``."""
        outer, inner = self._sizes()
        return tensor.movedim(self.dim, self.split).reshape(outer, self.own_classes, inner)

    def vectors(self, tensor: Tensor) -> Tensor:
        """A tensor with one value per position as ``[outer, inner]``."""
        return tensor.reshape(self._sizes())

    def restore(self, vectors: Tensor) -> Tensor:
        """``[outer, inner]`` back in the shape of the positions."""
        return vectors.reshape(self.positions)

    def _sizes(self) -> tuple[int, int]:
        return self.outer, math.prod(self.positions[self.split :])


def layout_of(logits: Tensor, dim: int | None, shard: Shard | None = None) -> Layout:
    """The layout of checked logits; ``dim=None`` is torch's rule: axis 1, or 0 if unbatched."""
    dim = (1 if logits.ndim > 1 else 0) if dim is None else checked_dim(dim)
    if not -logits.ndim <= dim < logits.ndim:
        raise mistake(
            IndexError,
            "dim",
            expected=f"an axis of input, {-logits.ndim}..{logits.ndim - 1}",
            got=str(dim),
            remedy="dim is the axis that holds the classes.",
        )
    dim %= logits.ndim
    return Layout(tuple(logits.shape), dim, _split(logits, dim), shard=shard)


def checked_dim(dim: Any) -> int:
    """An axis is an int, of Python or of numpy."""
    if isinstance(dim, bool) or not isinstance(dim, int | numbers.Integral):
        raise mistake(TypeError, "dim", expected="an int", got=described(dim))
    return int(dim)


def _split(logits: Tensor, dim: int) -> int:
    """The split with which the logits become rows where they are, if there is one.

    Classes that are neighbours want all positions outer; else the axes keep their order. Slices,
    such as the shifted logits of a language model, may need another one.
    """
    sizes = [(logits.shape[i], logits.stride(i)) for i in range(logits.ndim) if i != dim]
    neighbours = dim == logits.ndim - 1 or logits.stride(dim) == 1
    usual = len(sizes) if neighbours else dim
    candidates: list[int] = [usual, *range(len(sizes), -1, -1)]
    for split in candidates:
        if _in_one_piece(sizes[:split]) and _in_one_piece(sizes[split:]):
            return split
    return usual


def _in_one_piece(axes: list[tuple[int, int]]) -> bool:
    """True if axes of these sizes and strides are one axis in memory."""
    long = [(size, stride) for size, stride in axes if size != 1]
    return all(before == size * stride for (_, before), (size, stride) in pairwise(long))


def check_logits(
    logits: Tensor, target: Tensor | None, *, name: str = "input", scalars: bool = False
) -> None:
    """Logits are floating-point tensors, with at least a class axis unless ``scalars``."""
    require_tensor(name, logits)
    if not is_supported_float(logits.dtype) or logits.layout != torch.strided:
        swapped = isinstance(target, Tensor) and target.is_floating_point()
        integers = not logits.is_floating_point() and not logits.is_complex()
        remedy = "Are these classes? Pass the logits, before argmax." if integers else ""
        if integers and swapped:
            remedy = "Are logits and labels swapped? The logits come first."
        raise mistake(
            NotImplementedError,
            name,
            expected="dense logits in one of float16, bfloat16, float32, float64",
            got=described(logits) + ("" if logits.layout == torch.strided else ", sparse"),
            remedy=remedy,
        )
    if logits.ndim == 0 and not scalars:
        indices = isinstance(target, Tensor) and not target.is_floating_point()
        raise mistake(
            RuntimeError if indices else IndexError,
            name,
            expected="logits with a class axis: (C), (N, C) or (N, C, d1, …, dK)",
            got="a tensor with no axes",
        )
