"""Any accepted shape as rows: *outer × classes × inner*, without moving the logits in memory.

``inner == 1`` means that a row's classes are neighbours in memory: a matrix ``(N, C)``, the
last axis of a language model's ``(B, T, V)``, a channels-last image. ``inner > 1`` means that
positions are neighbours and classes lie a stride apart: ``(N, C, H, W)`` as images usually come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from xent.contract.errors import described, mistake, plain, require_tensor

_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Layout:
    """Where the classes of a tensor are, and how its positions line up as rows."""

    shape: tuple[int, ...]
    dim: int
    rows_in_memory: bool

    @property
    def classes(self) -> int:
        """C."""
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

    def rows(self, tensor: Tensor) -> Tensor:
        """A tensor of the logits' shape as ``[outer, C, inner]``."""
        if self.rows_in_memory:
            return tensor.movedim(self.dim, -1).reshape(self.count, self.classes, 1)
        before, after = self.shape[: self.dim], self.shape[self.dim + 1 :]
        return tensor.reshape(math.prod(before), self.classes, math.prod(after))

    def vectors(self, tensor: Tensor) -> Tensor:
        """A tensor with one value per position as ``[outer, inner]``."""
        outer = self.count if self.rows_in_memory else math.prod(self.shape[: self.dim])
        inner = 1 if self.rows_in_memory else math.prod(self.shape[self.dim + 1 :])
        return tensor.reshape(outer, inner)

    def restore(self, vectors: Tensor) -> Tensor:
        """``[outer, inner]`` back in the shape of the positions."""
        return vectors.reshape(self.positions)


def layout_of(logits: Tensor, dim: int | None) -> Layout:
    """The layout of checked logits; ``dim=None`` is torch's rule: axis 1, or 0 if unbatched."""
    if dim is None:
        dim = 1 if logits.ndim > 1 else 0
    elif isinstance(dim, bool) or not isinstance(dim, int):
        raise mistake(TypeError, "dim", expected="an int", got=described(dim))
    elif not -logits.ndim <= dim < logits.ndim:
        raise mistake(
            IndexError,
            "dim",
            expected=f"an axis of input, {-logits.ndim}..{logits.ndim - 1}",
            got=str(dim),
            remedy="dim is the axis that holds the classes.",
        )
    dim %= logits.ndim
    last = dim == logits.ndim - 1
    return Layout(tuple(logits.shape), dim, rows_in_memory=last or logits.stride(dim) == 1)


def check_logits(
    logits: Tensor, target: Tensor | None, *, name: str = "input", scalars: bool = False
) -> None:
    """Logits are floating-point tensors, with at least a class axis unless ``scalars``."""
    require_tensor(name, logits)
    if plain(logits.dtype) not in _FLOATS:
        swapped = isinstance(target, Tensor) and target.is_floating_point()
        raise mistake(
            NotImplementedError,
            name,
            expected=f"logits in one of {', '.join(_FLOATS)}",
            got=described(logits),
            remedy="Are logits and labels swapped? The logits come first."
            if swapped
            else f"Convert them: {name}.float().",
        )
    if logits.ndim == 0 and not scalars:
        indices = isinstance(target, Tensor) and not target.is_floating_point()
        raise mistake(
            RuntimeError if indices else IndexError,
            name,
            expected="logits with a class axis: (C), (N, C) or (N, C, d1, …, dK)",
            got="a tensor with no axes",
        )
