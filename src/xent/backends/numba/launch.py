"""Rows of torch tensors, handed to the kernels: how they lie in memory, and who computes which."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xent.backends.numba import positions as position_kernels
from xent.backends.numba import rows as row_kernels
from xent.backends.numba.lanes import REGISTER, REGISTERS
from xent.backends.numba.memory import gradient_like
from xent.backends.numba.predictions import predictions
from xent.backends.numba.threads import in_ranges
from xent.contract.dtypes import accumulation
from xent.contract.rows import Coefficients, Prediction, Rows, Vectors

GRAIN = 1 << 17
"""Logits that are worth waking a thread: it takes as long as they do."""

_STAND_INS = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}  # as in ``access``
_ALL_COUNT: Any = np.empty(0, np.bool_)


class _Walk(NamedTuple):
    """Rows as the kernels go through them, in one of two ways.

    Rows: ``logits`` is [outer, inner, C] with classes as neighbours. Positions: [outer, C, inner]
    with positions as neighbours.
    """

    kernels: ModuleType
    logits: Tensor
    swapped: tuple[int, int]
    """The two axes of [outer, C, inner] that changed places."""

    @property
    def classes(self) -> int:
        return self.logits.shape[2 if self.kernels is row_kernels else 1]

    @property
    def inner(self) -> int:
        return self.logits.shape[1 if self.kernels is row_kernels else 2]

    @property
    def units(self) -> int:
        """Rows, or groups of neighbouring positions."""
        outer, middle, last = self.logits.shape
        return outer * middle if self.kernels is row_kernels else outer * -(-last // self._group)

    @property
    def grain(self) -> int:
        """How many units are worth a thread."""
        group = 1 if self.kernels is row_kernels else self._group
        return max(1, GRAIN // (group * self.classes))

    @property
    def _group(self) -> int:
        return REGISTERS * REGISTER // accumulation(self.logits.dtype).itemsize

    def along(self, tensor: Tensor) -> Tensor:
        """A tensor of the rows' shape in the order of the walk, neighbours included."""
        tensor = tensor.transpose(*self.swapped)
        return tensor if tensor.stride(2) == 1 else tensor.contiguous()


def statistics(rows: Rows, with_uniform: bool) -> Vectors:
    """The statistics of rows; what was not asked for is None."""
    outer, _, inner = rows.logits.shape
    walk = _walk(rows.logits)

    def vector(wanted: bool = True) -> Tensor | None:
        kind = accumulation(rows.logits.dtype)
        return torch.empty((outer, inner), dtype=kind, device="cpu") if wanted else None

    vectors = Vectors(
        vector(),  # type: ignore[arg-type]  # wanted
        vector(),  # type: ignore[arg-type]  # wanted, too
        nll=vector(rows.target is not None),
        uniform=vector(with_uniform),
        cross=vector(rows.probabilities is not None),
    )
    weighed = with_uniform or rows.probabilities is not None
    in_ranges(
        walk.kernels.statistics,
        walk.units,
        *_described(rows, walk, weighed),
        *map(_memory, vectors.statistics),
        grain=walk.grain,
    )
    return vectors


def logit_gradient(
    rows: Rows, vectors: Vectors, coefficients: Coefficients, *, inplace: bool = False
) -> Tensor:
    """The gradient at the logits, in their dtype; with ``inplace`` it overwrites them."""
    walk = _walk(rows.logits)
    gradient = walk.logits.detach() if inplace else gradient_like(walk.logits)
    weighed = coefficients.uniform is not None or coefficients.cross is not None
    stepped = [_stepped(c, vectors.rest.dtype) for c in coefficients]
    in_ranges(
        walk.kernels.gradient,
        walk.units,
        *_described(rows, walk, weighed),
        _vector(vectors.maximum),
        _vector(vectors.rest),
        *(memory for memory, _ in stepped),
        tuple(step for _, step in stepped),
        _memory(gradient),
        gradient.stride()[:2],
        grain=walk.grain,
    )
    gradient = gradient.transpose(*walk.swapped)
    if inplace and gradient.data_ptr() != rows.logits.data_ptr():  # the walk was through a copy
        return rows.logits.detach().copy_(gradient)
    return gradient


def prediction(rows: Rows, vectors: Vectors) -> Prediction:
    """Entropy and most probable class of rows whose statistics are known."""
    walk = _walk(rows.logits)
    if walk.kernels is not row_kernels:  # nobody has asked for pixels yet: one kernel is enough
        walk = _walk(rows.logits.transpose(1, 2).contiguous().transpose(1, 2))
    entropy = torch.empty_like(vectors.rest, memory_format=torch.contiguous_format)
    argmax = torch.empty_like(entropy, dtype=torch.int64)
    in_ranges(
        predictions,
        walk.units,
        _memory(walk.logits),
        walk.logits.stride()[:2],
        walk.classes,
        walk.inner,
        _ALL_COUNT if rows.valid is None else _vector(rows.valid),
        _vector(vectors.maximum),
        _vector(vectors.rest),
        _memory(entropy),
        _memory(argmax),
        grain=walk.grain,
    )
    return Prediction(entropy, argmax)


def _walk(logits: Tensor) -> _Walk:
    """The way through the logits where they are, if there is one; else through a copy."""
    logits = logits.resolve_neg()
    _, classes, inner = logits.shape
    if classes == 1 or logits.stride(1) == 1:
        return _Walk(row_kernels, logits.transpose(1, 2), (1, 2))
    if logits.stride(2) == 1 and inner > 1:
        return _Walk(position_kernels, logits, (0, 0))
    if inner == 1 and logits.stride(0) == 1:
        return _Walk(position_kernels, logits.transpose(0, 2), (0, 2))
    return _walk(logits.contiguous())


def _described(rows: Rows, walk: _Walk, weighed: bool) -> tuple[Any, ...]:
    """What both kernels want to know of the rows."""
    kind = accumulation(walk.logits.dtype)
    q = rows.probabilities
    if q is not None:
        q = walk.along(q.resolve_neg() if accumulation(q.dtype) == kind else q.to(kind))
    weight = rows.weight if weighed else None
    return (
        _memory(walk.logits),
        walk.logits.stride()[:2],
        walk.classes,
        walk.inner,
        _vector(rows.target),
        _memory(q),
        (0, 0) if q is None else q.stride()[:2],
        _vector(None if weight is None else weight.to(kind)),
        _ALL_COUNT if rows.valid is None else _vector(rows.valid),
    )


def _memory(tensor: Tensor | None) -> Any:
    """A tensor's memory from its first element on, as kernels take it."""
    if tensor is None:
        return None
    tensor = tensor.detach()
    if tensor.dtype in _STAND_INS:
        tensor = tensor.view(_STAND_INS[tensor.dtype])
    if tensor.is_contiguous():
        return tensor.numpy().reshape(-1)
    return tensor.as_strided((1,), (1,)).numpy()


def _vector(tensor: Tensor | None) -> Any:
    """One value per position or class, as kernels take it."""
    return None if tensor is None else _memory(tensor.contiguous().resolve_neg())


def _stepped(coefficient: Tensor | None, kind: torch.dtype) -> tuple[Any, int]:
    """A coefficient and how far apart its values are: 0 where one number serves all positions."""
    if coefficient is None:
        return None, 1
    if not any(coefficient.stride()):  # a number that autograd expanded
        return _memory(coefficient[:1, :1].to(kind)), 0
    return _vector(coefficient.to(kind)), 1
