"""What a mean of cross-entropies divides by."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xent.contract.dtypes import accumulation
from xent.contract.layout import Layout
from xent.contract.reduction import summed
from xent.contract.targets import Targets, within
from xent.contract.weights import zeroed


def divisor(
    rule: Any,
    layout: Layout,
    targets: Targets,
    weight: Tensor | None,
    sample_weight: Tensor | None,
) -> Tensor | float:
    """The divisor that ``denominator=rule`` names; all tensors canonical.

    None is torch's rule: the weights of the labels for class indices; for probabilities the
    number of positions, never class weights. Either way a position counts sample-weight times.
    """
    if rule is not None and not isinstance(rule, str):
        return rule  # type: ignore[no-any-return]  # a number or 0-d tensor, checked before
    if rule == "batch":
        return layout.batch
    shares = divisor_shares(rule, targets, weight, sample_weight)
    return layout.count if shares is None else summed(shares)


def divisor_shares(
    rule: str | None, targets: Targets, weight: Tensor | None, sample_weight: Tensor | None
) -> Tensor | None:
    """What each position adds to a divisor that is a sum, ``[outer, inner]``; None: all add 1."""
    if rule == "valid":
        weighty = None if sample_weight is None else sample_weight != 0
        return _product(targets.valid, weighty)
    if rule == "weight" or (rule is None and targets.index is not None):
        return _product(targets.valid, sample_weight, label_weight(targets, weight))
    return _product(targets.valid, sample_weight)


def label_weight(targets: Targets, weight: Tensor | None) -> Tensor | None:
    """The class weight of each label, v_y or Σ_c v_c q_c, ``[outer, inner]``; None means 1."""
    if targets.weights is not None:
        return targets.weights
    if targets.index is not None:
        if weight is None:
            return None
        return zeroed(weight[within(targets.index, len(weight))], targets.valid)
    if targets.probabilities is None:
        return None
    q = targets.probabilities.to(accumulation(targets.probabilities.dtype))
    return (q if weight is None else q * weight.reshape(1, -1, 1)).sum(1)


def _product(valid: Tensor | None, *factors: Tensor | None) -> Tensor | None:
    """The product of these factors, zero at the positions that do not count."""
    product = valid
    for factor in factors:
        if factor is not None:
            masked = zeroed(factor, valid)
            product = masked if product is None else product * masked
    return product
