"""Row statistics and their derivatives as plain torch operations: the definition.

Shapes: logits and probabilities ``[outer, C, inner]``, vectors ``[outer, inner]``, class weights
``[C]``. Half types are widened to float32 on entry. Autograd can differentiate everything here:
``statistics`` as often as wanted in either mode, and the two gradients, which take the saved
maximum for a constant, once more.

Notation: m = max_c x_c; rest = (Σ_c exp(x_c − m)) − 1, the sum without the maximum's own 1;
log Σ exp x = m + log1p(rest); surprise_c = −log p_c = log1p(rest) + (m − x_c).
"""

from __future__ import annotations

import torch
from torch import Tensor

from xent.backends.torch.limits import cost
from xent.contract.weights import zeroed


def statistics(
    logits: Tensor,
    index: Tensor | None,
    probabilities: Tensor | None,
    weight: Tensor | None,
    valid: Tensor | None,
    with_uniform: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """``(maximum, rest, nll, uniform, cross)``; what was not asked for is None.

    Rows that don't count have zeros.
    """
    x = _inert(_widened(logits), valid)
    maximum, rest, shifted = _softmax_parts(x)
    log_sum = torch.log1p(rest)
    nll = uniform = cross = None
    if index is not None:
        nll = zeroed(log_sum - _at(shifted, index), valid)
    if with_uniform:
        uniform = cost(_class_mass(weight, x), _row(log_sum) - shifted).sum(1)
        uniform = zeroed(uniform, valid)
    if probabilities is not None:
        mass = _probability_mass(probabilities, weight, x, valid)
        cross = zeroed(cost(mass, _row(log_sum) - shifted).sum(1), valid)
    return zeroed(maximum, valid), zeroed(rest, valid), nll, uniform, cross


def logit_gradient(
    logits: Tensor,
    index: Tensor | None,
    probabilities: Tensor | None,
    weight: Tensor | None,
    valid: Tensor | None,
    maximum: Tensor,
    rest: Tensor,
    nll: Tensor | None,
    a: Tensor,
    b: Tensor | None,
    u: Tensor | None,
    d: Tensor | None,
) -> Tensor:
    """The gradient at the logits, given those at lse (``a``), nll (``b``), uniform, cross.

    grad_c = (a + b + u·Σv + d·Σvq)·p_c − b·[c = y] − u·v_c − d·v_c·q_c

    Where a class may be nearly certain, p − 1 keeps its digits: at the label it is expm1(−nll),
    at the maximum −rest / (1 + rest).
    The coefficients of rows that don't count must be zero.
    """
    if logits.numel() == 0:
        return torch.zeros_like(logits)
    x = _inert(_widened(logits), valid)
    v = _class_mass(weight, x)
    exp = (x - _row(maximum)).exp_()  # p = exp / (1 + rest)
    a = a if u is None else a + u * v.sum()
    grad = exp * _row((a if b is None else a + b) / (1 + rest))
    if u is not None:
        grad = grad - _row(u) * v
    if b is not None and index is not None and nll is not None:
        at_target = a * torch.exp(-nll) + b * torch.expm1(-nll)
        if u is not None:
            at_target = at_target - u * v.flatten()[index]
        grad = grad.scatter(1, _row(index), _row(at_target))
    if d is not None and probabilities is not None:
        mass = _row(d) * _probability_mass(probabilities, weight, x, valid)
        grad = grad + _cross_gradient(mass, exp, rest, x.max(1, keepdim=True).indices)
    return grad.to(logits.dtype)


def label_gradients(
    logits: Tensor,
    probabilities: Tensor | None,
    weight: Tensor | None,
    valid: Tensor | None,
    maximum: Tensor,
    rest: Tensor,
    u: Tensor | None,
    d: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients at the probabilities, d·v_c·surprise_c, and at the class weights."""
    x = _inert(_widened(logits), valid)
    surprise = _surprise(x, maximum, rest)
    v_gradient = torch.zeros_like(surprise)  # still per row
    q_gradient = None
    if u is not None:
        v_gradient = v_gradient + cost(_row(u), surprise)
    if d is not None and probabilities is not None:
        q_gradient = cost(_row(d) * _class_mass(weight, x), surprise).to(probabilities.dtype)
        mass = _row(d) * _probability_mass(probabilities, None, x, valid)
        v_gradient = v_gradient + cost(mass, surprise)
    return q_gradient, None if weight is None else v_gradient.sum((0, 2)).to(weight.dtype)


def _softmax_parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``(maximum, rest, shifted)``: shifted is x − maximum, and a constant at the maximum itself.

    So no derivative of these contains 1 − 1: the tail keeps its digits under autograd as well.
    """
    if x.shape[1] == 0:  # no classes: log Σ exp = −inf
        empty = x.sum(1)
        return torch.full_like(empty, -torch.inf), empty, x
    maximum, place = x.max(1, keepdim=True)
    zero = maximum - maximum  # but NaN for ±inf: rows without a finite maximum have no softmax
    shifted = (x - maximum).scatter(1, place, zero)
    rest = torch.exp(shifted).scatter(1, place, zero).sum(1)
    return maximum.squeeze(1), rest, shifted


def _surprise(x: Tensor, maximum: Tensor, rest: Tensor) -> Tensor:
    """−log p from saved statistics, with the maximum constant."""
    return _row(torch.log1p(rest)) - (x - _row(maximum))


def _cross_gradient(mass: Tensor, exp: Tensor, rest: Tensor, place: Tensor) -> Tensor:
    """total·p − mass, where total is the mass of the row and ``place`` that of its maximum.

    There it is the mass of the others less total·(1 − p): both are sums, neither cancels.
    """
    others = mass.scatter(1, place, 0).sum(1, keepdim=True)
    total = others + mass.gather(1, place)
    grad = exp * (total / _row(1 + rest)) - mass
    not_p = _row(rest) + (1 - exp.gather(1, place))  # rest, with the derivative of 1 + rest − exp
    return grad.scatter(1, place, others - total * (not_p / _row(1 + rest)))


def _class_mass(weight: Tensor | None, x: Tensor) -> Tensor:
    """v_c as ``[1, C, 1]``: the class weights, or ones."""
    if weight is None:
        return torch.ones((1, x.shape[1], 1), dtype=x.dtype, device=x.device)
    return weight.to(x.dtype).reshape(1, -1, 1)


def _probability_mass(
    probabilities: Tensor, weight: Tensor | None, x: Tensor, valid: Tensor | None
) -> Tensor:
    """v_c · q_c."""
    q = _inert(probabilities.to(x.dtype), valid)
    return q if weight is None else q * _class_mass(weight, x)


def _widened(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _inert(rows: Tensor, valid: Tensor | None) -> Tensor:
    """Rows that don't count, replaced by zeros: nothing they hold can reach a result."""
    return rows if valid is None else rows.masked_fill(_row(~valid), 0)


def _at(rows: Tensor, index: Tensor) -> Tensor:
    """The element of each row at the target: ``[outer, inner]``."""
    if rows.shape[1] == 0:  # no classes, so every position is ignored: any finite value will do
        return rows.sum(1)
    return rows.gather(1, _row(index)).squeeze(1)


def _row(vector: Tensor) -> Tensor:
    """``[outer, inner]`` as ``[outer, 1, inner]``, to meet rows."""
    return vector.unsqueeze(1)
