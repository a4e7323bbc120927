"""The primitive: a few numbers per row, differentiable, on which every loss is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from xent.backends.torch import rows as definition
from xent.contract.groups import Group
from xent.contract.inspection import eager, plain_operations_only
from xent.contract.layout import Layout, check_logits, layout_of
from xent.contract.rows import Rows, Vectors
from xent.contract.shards import Shard
from xent.contract.targets import Check, Targets, canonical_targets, checked_check
from xent.contract.weights import canonical_valid, checked_class_weight, jointly_valid
from xent.statistics.derivatives import differentiable_statistics
from xent.statistics.dispatch import compiles_to_an_operator


@dataclass(frozen=True)
class RowStatistics:
    """What losses are written on: one value per position, in the shape of the positions."""

    lse: Tensor
    """log Σ_c exp x_c."""
    nll: Tensor | None = None
    """lse − x_y = −log p_y: with an index target."""
    uniform: Tensor | None = None
    """Σ_c v_c (lse − x_c), v = class weights or ones: with ``uniform=True``."""
    cross: Tensor | None = None
    """Σ_c v_c q_c (lse − x_c): with a probability target q."""


def row_statistics(
    input: Tensor,
    target: Tensor | None = None,
    *,
    weight: Tensor | None = None,
    ignore_index: int | Sequence[int] = -100,
    valid: Tensor | None = None,
    uniform: bool = False,
    dim: int = -1,
    check: Check | None = None,
    group: Group | None = None,
) -> RowStatistics:
    """The few numbers per row that every cross-entropy is made of; write your own loss on them.

    For logits x and p = softmax(x), in nats:

    - lse = log Σ_c exp x_c
    - nll = lse − x_y = −log p_y
    - uniform = Σ_c v_c (lse − x_c)
    - cross = Σ_c v_c q_c (lse − x_c), where a class with v_c q_c = 0 costs nothing

    All are differentiable as often as wanted, forwards and backwards, with respect to ``input``,
    to probability targets and to ``weight``; they work under ``torch.func`` and
    ``torch.compile``. nll keeps its relative precision however small it is, down to margins of 87
    between logits (708 in float64), where exp reaches the end of the floats.

    Args:
        input: logits of any shape with a class axis; float16, bfloat16, float32, float64.
            −inf (a masked class) is legal. Rows without a finite maximum have no softmax: their
            lse is its limit, ±inf or NaN, the other statistics are NaN.
        target: None; or class indices, any integer dtype, the shape of ``input`` without its class
            axis; or class probabilities, floating-point, the shape of ``input``.
        weight: class weights v, shape (C). They enter uniform and cross, not nll.
        ignore_index: label or labels of positions that do not count. With probability targets
            it must be negative, and marks nothing.
        valid: bool, the shape of the positions; False leaves a position out as well.
        uniform: whether uniform is computed.
        dim: the class axis.
        check: ``"values"`` looks at the labels, also where that is to wait; see ``cross_entropy``.
        group: the ranks that share the classes of the same rows; see ``cross_entropy``. The
            statistics are the same on all of them, those of all classes.

    Returns:
        RowStatistics of the positions' shape, float32 (float64 for float64 input). Positions that
        do not count are 0 in all of them, and their logits get zero gradient, even where they
        hold NaN.

    Raises:
        TypeError, ValueError, RuntimeError, IndexError, NotImplementedError: as ``cross_entropy``.

    Source: Goodfellow, Bengio & Courville, Deep Learning (2016), section 6.2.2.3; the gradients
    follow by hand. Torch has no counterpart.

    Example: a focal loss (Lin et al. 2017, eq. 4) with γ = 2.

        >>> import torch, xent
        >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
        >>> nll = xent.row_statistics(logits, torch.tensor([0, 2])).nll
        >>> focal = torch.expm1(-nll) ** 2 * nll
        >>> [round(v, 4) for v in focal.tolist()]
        [0.0041, 0.4883]
    """
    if group is not None:
        return eager(_over_ranks)(
            input, target, weight, ignore_index, valid, uniform, dim, check, group
        )
    layout, rows, _ = _checked(input, target, weight, ignore_index, valid, dim, check)
    return _shaped(layout, canonical_statistics(rows, uniform=uniform))


class _Call(NamedTuple):
    layout: Layout
    rows: Rows
    sample_weight: None = None


def _checked(
    input: Tensor,
    target: Tensor | None,
    weight: Tensor | None,
    ignore_index: int | Sequence[int],
    valid: Tensor | None,
    dim: int,
    check: Check | None,
    shard: Shard | None = None,
) -> _Call:
    checked_check(check)
    check_logits(input, target)
    layout = layout_of(input, dim, shard)
    weight = checked_class_weight(weight, input, layout, same_dtype=False)
    targets = Targets()
    if target is not None:
        targets = canonical_targets(target, input, layout, ignore_index, check)
    counting = jointly_valid(targets.valid, canonical_valid(valid, input, layout))
    rows = Rows(layout.rows(input), targets.index, targets.probabilities, weight, counting)
    return _Call(layout, rows)


def _over_ranks(
    input: Tensor,
    target: Tensor | None,
    weight: Tensor | None,
    ignore_index: int | Sequence[int],
    valid: Tensor | None,
    uniform: bool,
    dim: int,
    check: Check | None,
    group: Group,
) -> RowStatistics:
    from xent.statistics import shards  # it stands on this module

    def checked(shard: Shard | None, weight: Tensor | None) -> _Call:
        return _checked(input, target, weight, ignore_index, valid, dim, check, shard)

    (layout, rows, _), part = shards.agreed(
        checked, group, weight, in_full=check is not None,
        ignore_index=ignore_index, uniform=uniform, valid="none" if valid is None else "there",
    )  # fmt: skip
    return _shaped(layout, shards.canonical_statistics(rows, part, uniform=uniform).vectors)


def _shaped(layout: Layout, vectors: Vectors) -> RowStatistics:
    found = (vectors.lse, *vectors.statistics[2:])
    shaped = (None if v is None else layout.restore(v) for v in found)
    return RowStatistics(*shaped)  # type: ignore[arg-type]  # lse is never None


def canonical_statistics(
    rows: Rows, *, uniform: bool = False, inplace_backward: bool = False
) -> Vectors:
    """Statistics of checked, canonical rows: what every loss of this library calls."""
    if plain_operations_only():
        return definition.statistics(rows, uniform)
    if torch.compiler.is_compiling() and compiles_to_an_operator(rows.logits):
        from xent.statistics import compiled  # its operators are registered when first needed

        return compiled.statistics(rows, uniform)
    return differentiable_statistics(rows, uniform, inplace_backward)
