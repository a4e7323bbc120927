"""Binary cross-entropy: one logit per decision, and its sigmoid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from xent.backends.torch.limits import cost
from xent.contract.binary import check_factor, check_labels, result_dtype
from xent.contract.dtypes import accumulation, promoted
from xent.contract.layout import check_logits
from xent.contract.reduction import checked_reduction
from xent.contract.targets import equal_to_any, ignored_values
from xent.contract.weights import checked_label_smoothing


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
    *,
    ignore_index: int | Sequence[int] | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of yes-or-no labels, each with one logit: softmax over the pair (0, x).

    Domain: any logits, ±inf included; labels y are probabilities of "yes" in [0, 1] (values are
    not checked).

    With p = sigmoid(x), element weight w (or 1), weight of the positive class v (or 1) and label
    smoothing y' = (1 − ε) y + ε/2, in nats, an element costs

        w · [v · y' · (−log p) + (1 − y') · (−log(1 − p))]

    where a side without label mass costs nothing: with y = 0 the loss at x = −inf is 0.
    ``mean`` divides by the number of elements that are not ignored, never by weights.

    Args:
        input: logits of any shape; float16, bfloat16, float32, float64.
        target: labels, the shape of ``input``; floating-point, integer or bool.
        weight: factor w, of a shape that broadcasts to that of ``input``.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        pos_weight: factor v, of a shape that broadcasts to that of ``input``.
        ignore_index: label, or labels, of elements that neither cost nor count nor get a
            gradient, whatever their logits hold.
        label_smoothing: ε in [0, 1], spread evenly over the two classes.

    Returns:
        A 0-d tensor, or the shape of ``input`` for ``"none"``. In the dtype of floating-point
        labels, as torch, else that of ``input``; float32 for half types under autocast.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: a target of another shape, an unknown reduction.
        RuntimeError: a weight that does not broadcast, a device, label_smoothing.
        NotImplementedError: logits that are not floating-point.

    Source: Bishop, Pattern Recognition and Machine Learning (2006), eq. 4.90. Differences from
    torch: integer and bool labels work; the limits at ±inf are right; the tail of confident
    negatives keeps its digits; weights get gradients.

    Example: one logit against zero is a softmax over two classes.
        >>> import torch, xent
        >>> x = torch.tensor([1.5, -0.5])
        >>> y = torch.tensor([1, 0])
        >>> binary = xent.binary_cross_entropy_with_logits(x, y)
        >>> pair = torch.stack([torch.zeros(2), x], dim=1)
        >>> torch.allclose(binary, xent.cross_entropy(pair, y))
        True
    """
    reduction_ = checked_reduction(reduction, size_average, reduce)
    check_logits(input, target, scalars=True)
    check_labels(target, input)
    check_factor("weight", weight, input)
    check_factor("pos_weight", pos_weight, input)
    label_smoothing = checked_label_smoothing(label_smoothing)
    working = accumulation(promoted(input, target if target.is_floating_point() else None))
    x, y = input.to(working), target.to(working)
    valid = None
    if ignore_index is not None:
        valid = ~equal_to_any(target, ignored_values(ignore_index))
        x, y = x.masked_fill(~valid, 0), y.masked_fill(~valid, 0)
    if label_smoothing:
        y = (1 - label_smoothing) * y + label_smoothing / 2
    losses = _formula(x, y, pos_weight, working)
    if weight is not None:
        losses = losses * weight.to(working)
    if valid is not None:
        losses = losses.masked_fill(~valid, 0)
    by = losses.numel() if valid is None else valid.sum()
    return reduction_.of(losses, by).to(result_dtype(input, target))


def _formula(x: Tensor, y: Tensor, pos_weight: Tensor | None, working: torch.dtype) -> Tensor:
    """v · y · (−log p) + (1 − y) · (−log(1 − p)): no cancellation, every term is a cost."""
    yes = y if pos_weight is None else y * pos_weight.to(working)
    return cost(yes, -F.logsigmoid(x)) + cost(1 - y, -F.logsigmoid(-x))
