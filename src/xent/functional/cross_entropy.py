"""Cross-entropy of logits with class indices or class probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xent.contract.call import Call, checked_call
from xent.contract.dtypes import check_dtype
from xent.contract.groups import Group, RankGroup
from xent.contract.inspection import eager, is_distributed
from xent.contract.overwriting import check_inplace_backward
from xent.contract.reduction import Denominator, OnEmpty, checked_reduction
from xent.contract.shards import Shard
from xent.contract.targets import Check
from xent.functional.positions import position_losses
from xent.functional.ranks import ALONE, Ranks, announce, averaging, reduced, to_be_the_same
from xent.statistics.batches import batch_loss
from xent.statistics.rows import canonical_statistics


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int | Sequence[int] = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    dim: int | None = None,
    sample_weight: Tensor | None = None,
    denominator: Denominator | None = None,
    on_empty: OnEmpty = "nan",
    dtype: torch.dtype | None = None,
    inplace_backward: bool = False,
    check: Check | None = None,
    group: Group | None = None,
    dp_group: RankGroup | None = None,
) -> Tensor:
    """Cross-entropy between logits and labels: torch's function, closer to the mathematics.

    Domain: any logits; −inf masks a class. Labels are class indices in [0, C), or
    non-negative probabilities that sum to 1 over the classes (values are not checked).

    With p = softmax(x), class weights v (or 1), sample weight s (or 1) and label smoothing ε, in
    nats, a position costs

    - index y: s · [(1 − ε) · v_y · (−log p_y) + (ε/C) · Σ_c v_c · (−log p_c)]
    - probabilities q: s · Σ_c v_c · ((1 − ε) q_c + ε/C) · (−log p_c)

    ``mean`` divides the sum over positions by torch's rule: Σ s·v_y over the positions that
    are not ignored (index), or Σ s, which is the number of positions (probabilities). A position
    with sample weight 2 thus counts as if it stood in the batch twice. ``denominator`` names
    another divisor.

    Args:
        input: logits ``(C)``, ``(N, C)`` or ``(N, C, d1, …, dK)``; float16, bfloat16, float32,
            float64.
        target: class indices of any integer dtype, the shape of ``input`` without its class
            axis; or class probabilities, floating-point, the shape of ``input``.
        weight: class weights ``(C)``; with index targets in the dtype of ``input``.
        size_average: deprecated, see ``reduction``.
        ignore_index: label, or labels, of positions that neither cost nor count nor get a
            gradient, whatever their logits hold. With probabilities it must be negative and marks
            nothing; use ``sample_weight``.
        reduce: deprecated, see ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: ε in [0, 1], spread evenly over all classes.
        dim: the class axis; None is torch's rule, 1, or 0 for unbatched input.
        sample_weight: one factor per position, the shape of index targets, any real dtype. Zero
            leaves a position out as ``ignore_index`` does, unless the factors themselves are
            differentiated (or made inside ``torch.func.jvp``, where that can't be told).
        denominator: what ``mean`` divides by: None (above); ``"valid"``, the number of
            positions that are neither ignored nor of sample weight 0; ``"weight"``, Σ s·v_y, or
            Σ s·Σ_c v_c q_c for probabilities; ``"batch"``, the size of the batch axis;
            or a number or 0-d tensor, such as the number of valid positions over all micro-batches.
        on_empty: the mean when the divisor is zero, ``"nan"`` as torch or ``"zero"``; its gradients
            are zero either way.
        dtype: dtype of the returned loss.
        inplace_backward: the backward overwrites the logits with their gradient: one tensor of
            their size less. Whatever else needs the logits later (a second backward, a layer that
            saved its output) is refused by autograd. Compiled code plans its own memory and
            ignores it.
        check: ``"values"`` waits for the device that the labels are on and looks at them: indices
            are in bounds, probabilities finite and not negative. Indices on a CPU always are
            looked at; elsewhere a bad one makes the loss NaN, and ``check_errors`` names it. With
            ``group`` the ranks also compare their labels and sample weights.
        group: the ranks that share the classes of the same rows, as a ``ProcessGroup``, a
            ``DeviceMesh`` of one axis, or ``class_shards``; None: all classes are here. ``input``
            and probabilities hold the classes of this rank, class indices count over all;
            ``weight`` is for either. The loss is the same on every rank, to the bit. Logits in a
            ``DTensor`` know their group. Differentiated once, by ``backward``.
        dp_group: the ranks that have other rows and average their gradients, as DDP and FSDP do:
            ``mean`` divides by the average of their divisors, so that this average of gradients is
            the gradient of the mean over all rows. A rank that raises leaves the others waiting.

    Returns:
        A 0-d tensor, or the positions' shape for ``"none"``. Its dtype is ``dtype`` or what
        torch returns: that of ``input`` (promoted with probabilities and weight), float32 for
        half types under autocast. It is rounded once; sums are kept in float32 or float64.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an unknown option, a batch size that differs, sample weights of another shape,
            with ``check`` a negative or infinite probability.
        RuntimeError: the labels' dtype or shape, weight, a device, label_smoothing; logits that
            ``inplace_backward`` must not overwrite.
        IndexError: a label outside [0, C), named by position and value; on CPU, where the values
            can be looked at without waiting, or with ``check``.
        NotImplementedError: logits that are not floating-point; second derivatives, forward mode
            and ``torch.func`` with ``group``.

    Source: Bishop, Pattern Recognition and Machine Learning (2006), eq. 4.108; label smoothing:
    Szegedy et al. (2016), section 7. Differences from torch: ignored positions are inert even
    with NaN logits; a masked class (−inf) without label mass costs 0, not NaN; negative
    smoothing raises; ``weight`` gets a gradient for index targets too.

    Example:
        >>> import torch, xent
        >>> logits = torch.log(torch.tensor([[0.1, 0.7, 0.2]])).requires_grad_()
        >>> loss = xent.cross_entropy(logits, torch.tensor([0]))
        >>> round(loss.item(), 4)  # −log 0.1
        2.3026
        >>> loss.backward()
        >>> [round(v, 4) for v in logits.grad[0].tolist()]  # p − y
        [-0.9, 0.7, 0.2]
    """
    if (
        size_average is None
        and reduce is None
        and dim is None
        and sample_weight is None
        and denominator is None
        and on_empty == "nan"
        and dtype is None
        and inplace_backward is False
        and check is None
        and group is None
        and dp_group is None
    ):
        usual = (input, target, weight, ignore_index, reduction, label_smoothing)
        loss = batch_loss(_general, *usual)
        if loss is not None:
            return loss
    general = _general
    if group is not None or dp_group is not None or is_distributed(input):
        general = eager(_general)
    return general(
        input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing,
        dim=dim, sample_weight=sample_weight, denominator=denominator, on_empty=on_empty,
        dtype=dtype, inplace_backward=inplace_backward, check=check, group=group, dp_group=dp_group,
    )  # fmt: skip


def _general(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int | Sequence[int] = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    dim: int | None = None,
    sample_weight: Tensor | None = None,
    denominator: Denominator | None = None,
    on_empty: OnEmpty = "nan",
    dtype: torch.dtype | None = None,
    inplace_backward: bool = False,
    check: Check | None = None,
    group: Group | None = None,
    dp_group: RankGroup | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    if is_distributed(input):
        from xent.functional.dtensors import dtensor_loss  # loaded by whoever made one

        return dtensor_loss(
            _general, input, target, weight, size_average=size_average, ignore_index=ignore_index,
            reduce=reduce, reduction=reduction, label_smoothing=label_smoothing, dim=dim,
            sample_weight=sample_weight, denominator=denominator, on_empty=on_empty, dtype=dtype,
            inplace_backward=inplace_backward, check=check, group=group, dp_group=dp_group,
        )  # fmt: skip
    try:
        reduction_ = checked_reduction(
            reduction, size_average, reduce, denominator=denominator, on_empty=on_empty, depth=2
        )
        check_dtype(dtype)
        ranks = averaging(ranks, dp_group, reduction_)
    except Exception as error:  # of any type: other ranks would wait for this one
        announce(error, group, check)
        raise

    def checked(shard: Shard | None, weight: Tensor | None) -> Call:
        call = checked_call(
            input, target, weight, ignore_index=ignore_index, label_smoothing=label_smoothing,
            dim=dim, sample_weight=sample_weight, check=check, shard=shard,
        )  # fmt: skip
        check_inplace_backward(inplace_backward, input)
        return call

    if group is None:
        call = checked(None, weight)
        uniform = call.label_smoothing > 0
        vectors = canonical_statistics(
            call.rows, uniform=uniform, inplace_backward=inplace_backward
        )
    else:
        from xent.statistics import shards  # most losses have all their classes

        in_full = check is not None
        call, part = shards.agreed(
            checked, group, weight, in_full=in_full,
            **to_be_the_same(reduction_, ignore_index, label_smoothing, in_full),
        )  # fmt: skip
        uniform = call.label_smoothing > 0
        vectors, known = shards.canonical_statistics(
            call.rows, part, uniform=uniform, inplace_backward=inplace_backward
        )
        call = call.with_weights_of_labels(known)
    loss = reduced(position_losses(vectors, call), call, reduction_, ranks)
    loss = loss.to(dtype or call.natural)
    return call.layout.restore(loss) if reduction_.mode == "none" else loss
