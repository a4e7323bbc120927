"""Row statistics and their derivatives as plain torch operations: the definition.

Half types are widened to float32 on entry. Autograd can differentiate everything here, as often as
wanted: ``statistics`` in either mode, and the gradients, to which the saved maximum is a constant.

Notation: m = max_c x_c; rest = (Σ_c exp(x_c − m)) − 1, the sum without the maximum's own 1;
log Σ exp x = m + log1p(rest); surprise_c = −log p_c = log1p(rest) + (m − x_c).
"""

from __future__ import annotations

import torch
from torch import Tensor

from xent.backends.torch.limits import cost
from xent.contract.rows import Coefficients, Prediction, Rows, Vectors
from xent.contract.targets import within
from xent.contract.weights import zeroed


def statistics(rows: Rows, with_uniform: bool) -> Vectors:
    """The statistics of rows; what was not asked for is None."""
    x = _inert(_widened(rows.logits), rows.valid)
    if x.shape[1] == 0:
        return _without_classes(rows, x.sum(1), with_uniform)
    maximum, place = x.max(1, keepdim=True)
    # At the maximum itself x − maximum is the constant 0 (NaN where there is no softmax): then no
    # derivative contains 1 − 1, and the tail keeps its digits under autograd as well.
    zero = torch.zeros_like(maximum).masked_fill(~maximum.isfinite(), torch.nan)
    others = (x - maximum).scatter(1, place, zero - torch.inf)
    rest = torch.exp(others).sum(1)
    maximum, log_sum = maximum.squeeze(1), torch.log1p(rest)
    nll = uniform = cross = None
    if rows.target is not None:
        target = _row(within(rows.target, x.shape[1]))
        behind = others.gather(1, target).masked_fill(target == place, 0)
        nll = log_sum - behind.squeeze(1)
        if not nll.is_cpu:  # there nobody has looked whether each label is a class
            nll = nll.masked_fill(target.squeeze(1) != rows.target, torch.nan)
    if with_uniform or rows.probabilities is not None:
        surprise = _row(log_sum) - others.scatter(1, place, zero)
        if with_uniform:
            uniform = cost(_class_mass(rows, x), surprise).sum(1)
        if rows.probabilities is not None:
            cross = cost(_label_mass(rows, x), surprise).sum(1)
    costs = (v if v is None else zeroed(v, rows.valid) for v in (nll, uniform, cross))
    return Vectors(zeroed(maximum, rows.valid), zeroed(rest, rows.valid), *costs)


def logit_gradient(
    rows: Rows, vectors: Vectors, coefficients: Coefficients, *, inplace: bool = False
) -> Tensor:
    """The gradient at the logits, in their dtype; ``Coefficients`` has its formula.

    Where a class may be nearly certain, p − 1 keeps its digits: at the label it is expm1(−nll),
    at the maximum −rest / (1 + rest). The part of ``uniform`` is a plain difference. With
    ``inplace`` it overwrites the logits.
    """
    if rows.logits.numel() == 0:
        return torch.zeros_like(rows.logits)
    gradient = _logit_gradient(rows, vectors, _counting(coefficients, rows.valid))
    return rows.logits.detach().copy_(gradient) if inplace else gradient


def _logit_gradient(rows: Rows, vectors: Vectors, coefficients: Coefficients) -> Tensor:
    x = _inert(_widened(rows.logits), rows.valid)
    v = _class_mass(rows, x)
    exp = (x - _row(vectors.maximum)).exp_()  # p = exp / (1 + rest)
    even, total = coefficients.uniform, coefficients.lse
    if total is None:
        total = torch.zeros_like(vectors.rest)
    if even is not None:
        total = total + even * v.sum()
    spread = total if coefficients.nll is None else total + coefficients.nll
    grad = exp * _row(spread / (1 + vectors.rest))
    if even is not None:
        grad = grad - _row(even) * v
    if coefficients.nll is not None and rows.target is not None and vectors.nll is not None:
        at_label = total * torch.exp(-vectors.nll) + coefficients.nll * torch.expm1(-vectors.nll)
        target = within(rows.target, x.shape[1])
        if even is not None:
            at_label = at_label - even * v.flatten()[target]
        grad = grad.scatter(1, _row(target), _row(at_label))
    if coefficients.cross is not None:
        mass = _row(coefficients.cross) * _label_mass(rows, x)
        grad = grad + _cross_gradient(mass, exp, vectors.rest, x.max(1, keepdim=True).indices)
    return grad.to(rows.logits.dtype)


def label_gradients(
    rows: Rows, vectors: Vectors, coefficients: Coefficients
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients at the probabilities, cross·v_c·surprise_c, and at the class weights."""
    coefficients = _counting(coefficients, rows.valid)
    x = _inert(_widened(rows.logits), rows.valid)
    surprise = _row(torch.log1p(vectors.rest)) - (x - _row(vectors.maximum))  # −log p
    at_weight = torch.zeros_like(surprise)  # still per row
    at_probabilities = None
    if coefficients.uniform is not None:
        at_weight = at_weight + cost(_row(coefficients.uniform), surprise)
    if coefficients.cross is not None and rows.probabilities is not None:
        d = _row(coefficients.cross)
        at_probabilities = cost(d * _class_mass(rows, x), surprise).to(rows.probabilities.dtype)
        mass = d * _label_mass(rows._replace(weight=None), x)
        at_weight = at_weight + cost(mass, surprise)
    if rows.weight is None:
        return at_probabilities, None
    return at_probabilities, at_weight.sum((0, 2)).to(rows.weight.dtype)


def mass(rows: Rows, vectors: Vectors) -> Tensor:
    """Σ_c v_c q_c, and the same over all classes below the maximum: ``Vectors.mass``."""
    x = _inert(_widened(rows.logits), rows.valid)
    masses = _label_mass(rows, x)
    below = masses.masked_fill(x >= _row(vectors.maximum), 0)
    return torch.stack((masses.sum(1), below.sum(1)))


def prediction(rows: Rows, vectors: Vectors) -> Prediction:
    """Entropy and most probable class of rows whose statistics are known."""
    x = _inert(_widened(rows.logits), rows.valid)
    behind = _row(vectors.maximum) - x
    spread = cost(torch.exp(-behind), behind).sum(1) / (1 + vectors.rest)
    argmax = x.argmax(1) if x.shape[1] else torch.full_like(x.sum(1), -1, dtype=torch.int64)
    if rows.valid is not None:
        argmax = argmax.masked_fill(~rows.valid, -1)
    return Prediction(zeroed(torch.log1p(vectors.rest) + spread, rows.valid), argmax)


def entropy_gradient(rows: Rows, vectors: Vectors, entropy: Tensor, grad: Tensor) -> Tensor:
    """grad · p_c · (−log p_c − entropy) at every logit, in the precision of the statistics."""
    x = _inert(_widened(rows.logits), rows.valid)
    behind = _row(vectors.maximum) - x
    p = torch.exp(-behind) / _row(1 + vectors.rest)
    surplus = cost(p, behind) + p * _row(torch.log1p(vectors.rest) - entropy)
    return surplus * _row(zeroed(grad, rows.valid))


def _counting(coefficients: Coefficients, valid: Tensor | None) -> Coefficients:
    """The coefficients, zero where a position does not count."""
    return Coefficients(*(None if c is None else zeroed(c, valid) for c in coefficients))


def _without_classes(rows: Rows, zero: Tensor, with_uniform: bool) -> Vectors:
    """Sums over nothing: log Σ exp = −inf, and no cost."""
    return Vectors(
        torch.full_like(zero, -torch.inf),
        rest=zero,
        nll=None if rows.target is None else zero,
        uniform=zero if with_uniform else None,
        cross=None if rows.probabilities is None else zero,
    )


def _cross_gradient(mass: Tensor, exp: Tensor, rest: Tensor, place: Tensor) -> Tensor:
    """total·p − mass, where total is the mass of the row and ``place`` that of its maximum.

    There it is the mass of the others less total·(1 − p): both are sums, neither cancels.
    """
    others = mass.scatter(1, place, 0).sum(1, keepdim=True)
    total = others + mass.gather(1, place)
    grad = exp * (total / _row(1 + rest)) - mass
    not_p = _row(rest) + (1 - exp.gather(1, place))  # rest, with the derivative of 1 + rest − exp
    return grad.scatter(1, place, others - total * (not_p / _row(1 + rest)))


def _class_mass(rows: Rows, x: Tensor) -> Tensor:
    """v_c as ``[1, C, 1]``: the class weights, or ones."""
    if rows.weight is None:
        return torch.ones((1, x.shape[1], 1), dtype=x.dtype, device=x.device)
    return rows.weight.to(x.dtype).reshape(1, -1, 1)


def _label_mass(rows: Rows, x: Tensor) -> Tensor:
    """v_c · q_c, for rows with probabilities."""
    if rows.probabilities is None:
        raise LookupError("rows without probabilities have no mass of labels")
    q = _inert(rows.probabilities.to(x.dtype), rows.valid)
    return q if rows.weight is None else q * _class_mass(rows, x)


def _widened(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _inert(rows: Tensor, valid: Tensor | None) -> Tensor:
    """Rows that don't count, replaced by zeros: nothing they hold can reach a result."""
    return rows if valid is None else rows.masked_fill(_row(~valid), 0)


def _row(vector: Tensor) -> Tensor:
    """``[outer, inner]`` as ``[outer, 1, inner]``, to meet rows."""
    return vector.unsqueeze(1)
