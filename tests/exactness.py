"""The rule of comparison: never further from the truth than torch, and where the truth comes from.

An error is measured against float64 (or more digits). A result passes if its largest error is no
larger than torch's own, or within the rounding that no float of its dtype can avoid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mpmath
import torch
from torch import Tensor

# In units of the largest result. Half types are rounded once: half a unit, and what float32 lost
# before. In the others a result is the end of a chain of about eight roundings of half a unit.
UNITS = {torch.float16: 0.51, torch.bfloat16: 0.51, torch.float32: 4.0, torch.float64: 4.0}


def assert_no_further(ours: Tensor, theirs: Tensor, truth: Tensor) -> None:
    """Asserts that ours is as near to the float64 truth as torch's, and of torch's dtype, shape."""
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if not truth.numel():
        return
    assert torch.equal(ours.isnan(), truth.isnan())
    scale = truth[truth.isfinite()].abs().max() if truth.isfinite().any() else torch.tensor(0.0)
    allowed = max(largest_error(theirs, truth), UNITS[ours.dtype] * unit(scale, ours.dtype))
    assert largest_error(ours, truth) <= allowed


def largest_error(result: Tensor, truth: Tensor) -> float:
    """The largest absolute error; infinities must agree and cost nothing."""
    result = result.double()
    both = result.isfinite() & truth.isfinite()
    assert torch.equal(result[~both].nan_to_num(nan=0.5), truth[~both].nan_to_num(nan=0.5))
    return float((result - truth)[both].abs().max()) if both.any() else 0.0


def unit(value: Tensor, dtype: torch.dtype) -> float:
    """The distance between neighbouring floats of this dtype at this value."""
    if value == 0:
        return float(torch.finfo(dtype).smallest_normal)
    exponent = int(torch.frexp(value.double()).exponent) - 1
    return float(torch.finfo(dtype).eps) * 2.0**exponent


def loss_and_gradients(
    loss: Callable[..., Tensor], tensors: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """A loss of fresh leaves and its gradients at them."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    value = loss(*leaves)
    value.backward(grad_output_for(value).to(value.dtype))
    return value.detach(), [leaf.grad for leaf in leaves]


def grad_output_for(value: Tensor) -> Tensor:
    """What every backward here starts from: never 1, not constant, and exact in every dtype."""
    return (0.75 + torch.arange(value.numel(), dtype=torch.float64) % 7 / 8).reshape(value.shape)


def exact_nll(row: Sequence[float], target: int) -> tuple[float, list[float]]:
    """−log p_y and its gradient with 60 digits: the truth where float64 runs out of them."""
    with mpmath.workdps(60):
        exp = [mpmath.exp(mpmath.mpf(x)) for x in row]
        total = mpmath.fsum(exp)
        loss = -mpmath.log(exp[target] / total)
        p = [e / total for e in exp]
        rest = mpmath.fsum(e for j, e in enumerate(exp) if j != target) / total
        return float(loss), [float(-rest if j == target else q) for j, q in enumerate(p)]
