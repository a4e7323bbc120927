"""Cross-entropy with dense labels: one probability per class, classes on the last axis."""

from __future__ import annotations

import torch
from torch import Tensor

from xent.contract.errors import mistake, require_tensor, shape
from xent.contract.layout import check_logits
from xent.functional.cross_entropy import cross_entropy


def dense_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy with dense labels: log-softmax times the labels, summed over the classes.

    Domain: any logits; labels are non-negative and sum to 1 over the last axis (not checked);
    one-hot labels are the special case in which one class has it all, and give exactly (on a GPU
    to a rounding) the loss of ``cross_entropy`` with the index of that class.

    With p = softmax(logits), class weights v (or 1) and label smoothing ε, in nats, a position
    costs Σ_c v_c · ((1 − ε) q_c + ε/C) · (−log p_c).

    ``mean`` divides by the number of positions, also with class weights.

    Args:
        logits: ``(C)``, ``(N, C)`` or ``(…, C)``; float16, bfloat16, float32, float64.
        labels: the shape of ``logits``, any floating dtype; one-hot integers and bools as well.
        weight: class weights ``(C)``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: ε in [0, 1], spread evenly over all classes.

    Returns:
        A 0-d tensor, or the shape of ``logits`` without its last axis for ``"none"``; in the
        dtype of ``logits``, promoted with floating-point labels and weight.

    Raises:
        ValueError: labels of another shape, an unknown reduction.
        TypeError, RuntimeError, NotImplementedError: as ``cross_entropy``.

    Source: the ``DenseCrossEntropy`` module of the Plant Pathology 2020 kernels on Kaggle.
    Difference: that module computes in float32 whatever comes; here half types are only
    accumulated in float32, and float64 stays float64.

    Example:
        >>> import torch, xent
        >>> logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 3.0, 1.0]])
        >>> one_hot = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
        >>> dense = xent.dense_cross_entropy(logits, one_hot)
        >>> bool(dense == xent.cross_entropy(logits, torch.tensor([1, 0])))
        True
    """
    labels = checked_labels(logits, labels)
    return cross_entropy(
        logits, labels, weight, reduction=reduction, label_smoothing=label_smoothing, dim=-1
    )


def checked_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Labels of the logits' shape, as probabilities."""
    check_logits(logits, labels, name="logits")
    require_tensor("labels", labels)
    if labels.shape != logits.shape:
        raise mistake(
            ValueError,
            "labels",
            expected=f"one probability per class, the shape of logits, {shape(logits)}",
            got=f"shape {shape(labels)}",
            remedy="For class indices use cross_entropy.",
        )
    if not labels.is_floating_point():
        return labels.to(torch.promote_types(labels.dtype, logits.dtype))
    return labels
