"""Cross-entropy of hidden states through a classifier, without the logits of all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xent.contract.dtypes import check_dtype
from xent.contract.groups import Group, RankGroup
from xent.contract.inspection import eager
from xent.contract.linear import LinearCall, checked_linear_call
from xent.contract.reduction import Denominator, OnEmpty, checked_reduction
from xent.contract.shards import Shard
from xent.contract.targets import Check
from xent.functional.positions import position_losses, position_masses
from xent.functional.ranks import (
    ALONE,
    announce,
    averaging,
    reduced,
    reduced_total,
    to_be_the_same,
)
from xent.statistics.linear.rows import canonical_statistics, canonical_total


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | Sequence[int] | None = -100,
    label_smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
    denominator: Denominator | None = None,
    on_empty: OnEmpty = "nan",
    dtype: torch.dtype | None = None,
    chunk_bytes: int | None = None,
    check: Check | None = None,
    group: Group | None = None,
    dp_group: RankGroup | None = None,
) -> Tensor:
    """``cross_entropy`` of input · linear_weightᵀ + linear_bias; the logits are never all there.

    For language models, whose logits are the largest tensor of a step. Some rows' logits are made,
    used and overwritten at a time; the gradients of ``input`` and classifier come from them, too.

    Domain, formula (nats) and what ``mean`` divides by: those of ``cross_entropy``, with the logits
    x = input · linear_weightᵀ + linear_bias. The logits of half types are not rounded on a CPU, and
    the classifier's gradient is summed in float32, whatever its dtype.

    ``"mean"`` and ``"sum"`` take one matrix product forward, and three with the gradients, which
    are made in the forward and scaled in the backward; evaluate, and export, under
    ``torch.no_grad()``. ``"none"``, and gradients at ``weight`` or at probabilities, take four.

    Args:
        input: hidden states ``(D)``, ``(N, D)`` or ``(…, D)``; float16, bfloat16, float32, float64.
        linear_weight: classifier ``(C, D)``, as in ``torch.nn.Linear``; or ``(C, d1, …, dK, D)``
            with a classifier for each of d1 × … × dK positions per hidden state.
        target: class indices of any integer dtype, the shape of ``input`` without D (and d1 … dK
            behind it); or class probabilities, floating-point, the shape of the logits:
            ``(…, C)`` or ``(…, C, d1, …, dK)``.
        linear_bias: the shape of ``linear_weight`` without D.
        weight: class weights ``(C)``; with index targets in the dtype of ``input``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        ignore_index: label, or labels, of positions that neither cost nor count nor get a gradient;
            they are left out before the matrix product, whatever they hold. None is −100. With
            probabilities it must be negative and marks nothing; use ``sample_weight``.
        label_smoothing: ε in [0, 1], spread evenly over all classes.
        sample_weight: one factor per position, the shape of index targets; see ``cross_entropy``.
        denominator: what ``mean`` divides by; see ``cross_entropy``.
        on_empty: the mean when the divisor is zero, ``"nan"`` as torch or ``"zero"``.
        dtype: dtype of the returned loss.
        chunk_bytes: what may be held of logits at a time, one row at least. None is the size of
            the classifier in the precision of the sums, for at most 1024 float32 rows (2048 on a
            GPU), or 64 MiB if that is more.
        check: ``"values"`` looks at the labels, also where that is to wait; see ``cross_entropy``.
        group: the ranks that share the classes: ``linear_weight`` and ``linear_bias`` are this
            rank's, ``input`` is the same on all, and its gradient is summed over them in the
            backward; see ``cross_entropy``. The logits are made twice.
        dp_group: the ranks that have other rows; see ``cross_entropy``.

    Returns:
        A 0-d tensor, or the positions' shape for ``"none"``; in ``dtype`` or in that of ``input``,
        promoted with probabilities and weight, float32 for half types under autocast.

    Raises:
        RuntimeError: shapes or dtypes of input, linear_weight and linear_bias that don't fit; the
            labels' dtype or shape, weight, a device, label_smoothing.
        ValueError: an unknown option, a batch size that differs, sample weights of another shape.
        TypeError: an argument is of the wrong kind.
        IndexError: a label outside [0, C), named by position and value; on CPU, or with ``check``.
        NotImplementedError: hidden states that are not floating-point.

    Source: as ``cross_entropy``; the chunks and their gradients in the forward: Hsu et al.,
    Liger Kernel (2024), section 3.2. Differences from torch's ``linear_cross_entropy``: every
    option works in chunks; a second backward and derivatives of any order are right; ignored hidden
    states are inert; ``chunk_bytes`` is in the place of ``options``.

    Example:
        >>> import torch, xent
        >>> hidden = torch.tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True)
        >>> classifier = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]])
        >>> target = torch.tensor([0, 1])
        >>> loss = xent.linear_cross_entropy(hidden, classifier, target)
        >>> round(loss.item(), 4)
        0.4076
        >>> loss.backward()
        >>> round(torch.dist(loss, xent.cross_entropy(hidden @ classifier.T, target)).item(), 6)
        0.0
    """
    general = _general if group is None and dp_group is None else eager(_general)
    return general(
        input, linear_weight, target, weight, reduction, denominator, on_empty,
        dtype=dtype, group=group, dp_group=dp_group, linear_bias=linear_bias,
        ignore_index=ignore_index, label_smoothing=label_smoothing, sample_weight=sample_weight,
        chunk_bytes=chunk_bytes, check=check,
    )  # fmt: skip


def _general(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    denominator: Denominator | None,
    on_empty: OnEmpty,
    *,
    dtype: torch.dtype | None,
    group: Group | None,
    dp_group: RankGroup | None,
    **options: Any,
) -> Tensor:
    try:
        reduction_ = checked_reduction(reduction, denominator=denominator, on_empty=on_empty)
        check_dtype(dtype)
        ranks = averaging(ALONE, dp_group, reduction_)
    except Exception as error:  # of any type: other ranks would wait for this one
        announce(error, group, options["check"])
        raise

    def checked(shard: Shard | None, weight: Tensor | None) -> LinearCall:
        return checked_linear_call(
            input, linear_weight, target, weight=weight, shard=shard, **options
        )

    if group is None:
        call, rows = checked(None, weight)
        if reduction_.mode != "none":
            total = canonical_total(rows, position_masses(call))
            return reduced_total(total, call, reduction_, ranks).to(dtype or call.natural)
        vectors = canonical_statistics(rows, uniform=call.label_smoothing > 0).vectors
    else:
        from xent.statistics import shards  # most classifiers have all their classes

        in_full = options["check"] is not None
        (call, rows), part = shards.agreed(
            checked, group, weight, in_full=in_full,
            **to_be_the_same(
                reduction_, options["ignore_index"], options["label_smoothing"], in_full
            ),
        )  # fmt: skip
        vectors, known = shards.canonical_linear_statistics(
            rows, part, uniform=call.label_smoothing > 0
        )
        call = call.with_weights_of_labels(known)
    losses = reduced(position_losses(vectors, call), call, reduction_, ranks)
    losses = losses.to(dtype or call.natural)
    return call.layout.restore(losses) if reduction_.mode == "none" else losses
