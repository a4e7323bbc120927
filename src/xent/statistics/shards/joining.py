"""The statistics of rows whose classes are spread over ranks, from those of each rank's classes.

Two rounds. The first finds the maximum m of a row over all ranks. The second adds up, of a rank
whose own classes have the maximum m_r, the rest R_r (``Vectors``) and D_r = (m − m_r) − log1p(R_r):

- (1 + R_r)·exp(m_r − m), but R_r where m_r = m; and how many ranks that is: the 1 of the maximum
  itself counts once, and log1p(rest) keeps the digits of a confident prediction;
- m − x_y = D_r + nll_r, where the label is one of its classes;
- Σ v_c (m − x_c) = uniform_r + V_r·D_r and Σ v_c q_c (m − x_c) = cross_r + Q_r·D_r, with
  V_r = Σ v_c and Q_r = Σ v_c q_c; and V_r, Q_r.

To each cost log1p(rest) is added, once for each unit of mass, when rest is known. No sum but that
for m − m_r has terms of two signs. Nothing here communicates: whoever has the parts can add them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from xent.backends.torch.limits import cost
from xent.contract.rows import Vectors
from xent.contract.weights import zeroed


class Own(NamedTuple):
    """What a rank knows by itself; ``[outer, inner]`` each."""

    vectors: Vectors
    """Of its classes. ``nll`` is that of the label, or of its first class if that is elsewhere."""
    here: Tensor | None = None
    """Whether the label is one of its classes: with class indices."""
    weight_of_label: Tensor | None = None
    """v_y where it is here, with class weights."""
    spread: Tensor | None = None
    """V_r, 0-d: with uniform."""
    mass: Tensor | None = None
    """Q_r: with probabilities."""

    @property
    def maximum(self) -> Tensor:
        """What the first round compares: NaN is not compared, but counted in the second."""
        maximum = self.vectors.maximum
        return maximum.masked_fill(maximum.isnan(), -torch.inf)


class Sums(NamedTuple):
    """What the second round adds up."""

    rest: Tensor
    tops: Tensor
    """How many ranks have the maximum; NaN if one of them has NaN logits."""
    behind: Tensor | None
    weight_of_label: Tensor | None
    uniform: Tensor | None
    spread: Tensor | None
    cross: Tensor | None
    mass: Tensor | None
    beside: Tensor | None
    """Q_r of the ranks that do not have the maximum."""

    def flat(self) -> Tensor:
        """One vector, for one sum."""
        return torch.cat([part.flatten() for part in self if part is not None])

    def filled(self, flat: Tensor) -> Sums:
        """These parts, out of the summed vector."""
        sizes = [part.numel() for part in self if part is not None]
        pieces = iter(torch.split(flat, sizes))
        return Sums(*(part if part is None else next(pieces).view_as(part) for part in self))  # type: ignore[arg-type]  # two are always there


class Joined(NamedTuple):
    """What a rank knows in the end: of all classes, and what its own backward needs."""

    vectors: Vectors
    """Of all classes, the same on every rank."""
    weight_of_label: Tensor | None
    """v_y or Σ_c v_c q_c, the same on every rank."""
    rest: Tensor
    """That of the vectors, but NaN where a label is no rank's: then the gradient is."""
    at_top: Tensor
    """Whether one of the own classes is the largest."""
    nll: Tensor | None
    """That of the label if it is here, else of the first of the own classes."""
    spread_elsewhere: Tensor | None
    """Σ v_c of the other ranks' classes, 0-d."""
    mass_elsewhere: Tensor | None
    """Σ v_c q_c of the other ranks' classes."""


def addends(own: Own, maximum: Tensor) -> Sums:
    """What a rank adds in the second round, when the maximum over all ranks is known."""
    m, rest, nll, uniform, cross, _ = own.vectors
    none = m == -torch.inf  # no logit of this rank is finite: it adds nothing, and costs inf
    at_top = (m == maximum) & ~none
    part = torch.where(at_top, rest, (1 + rest) * torch.exp(m - maximum)).masked_fill(none, 0)
    tops = at_top.to(rest.dtype).masked_fill(m.isnan(), torch.nan)
    step = (maximum - m) - torch.log1p(rest)
    behind = None
    if nll is not None and own.here is not None:
        behind = (nll + step).clamp(min=0).masked_fill(none, torch.inf).masked_fill(~own.here, 0)
    if uniform is not None and own.spread is not None:
        uniform = _moved(uniform, own.spread, step, none)
    beside = None
    if cross is not None and own.mass is not None:
        cross = _moved(cross, own.mass, step, none)
        beside = own.mass.masked_fill(at_top, 0)
    return Sums(
        part, tops, behind, own.weight_of_label, uniform, own.spread, cross, own.mass, beside
    )


def joined(
    own: Own, maximum: Tensor, sums: Sums, classes: int, valid: Tensor | None, known: Tensor | None
) -> Joined:
    """All classes' statistics; ``known`` marks the labels that are a class of some rank."""
    has_nan = sums.tops.isnan()
    maximum = maximum.masked_fill(has_nan, torch.nan)
    rest = sums.rest + (sums.tops - 1).clamp(min=0)
    if classes:  # a row of −inf has no softmax; a row without classes has nothing
        rest = rest.masked_fill(maximum == -torch.inf, torch.nan)
    log_sum = torch.log1p(rest)
    nll = uniform = cross = elsewhere = spread_elsewhere = own_nll = None
    if sums.behind is not None:
        nll = sums.behind + log_sum
        if known is not None:
            nll = nll.masked_fill(~known, torch.nan)
    if sums.uniform is not None and sums.spread is not None and own.spread is not None:
        uniform = sums.uniform + sums.spread * log_sum
        spread_elsewhere = sums.spread - own.spread
    at_top = own.vectors.maximum == maximum
    if sums.cross is not None and sums.mass is not None and own.mass is not None:
        cross = sums.cross + sums.mass * log_sum
        # Beside a certain class the others' mass must not be a difference: its digits would go.
        elsewhere = torch.where(at_top & (sums.tops == 1), sums.beside, sums.mass - own.mass)  # type: ignore[arg-type]  # it is there
    if nll is not None:
        own_nll = _own_nll(own, maximum, log_sum, nll)
    costs = (None if v is None else zeroed(v, valid) for v in (nll, uniform, cross))
    vectors = Vectors(zeroed(maximum, valid), zeroed(rest, valid), *costs)
    weight = sums.weight_of_label if sums.mass is None else sums.mass
    return Joined(
        vectors,
        None if weight is None else zeroed(weight, valid),
        vectors.rest if known is None else vectors.rest.masked_fill(~known, torch.nan),
        at_top, own_nll, spread_elsewhere, elsewhere,
    )  # fmt: skip


def _moved(costs: Tensor, mass: Tensor, step: Tensor, none: Tensor) -> Tensor:
    """Σ mass·(lse_r − x) as Σ mass·(m − x); infinite where no logit of the mass is finite."""
    infinite = torch.full_like(costs, torch.inf)
    return torch.where(none, cost(mass.expand_as(costs), infinite), costs + mass * step)


def _own_nll(own: Own, maximum: Tensor, log_sum: Tensor, nll: Tensor) -> Tensor:
    """−log p of the label, or of the class in its place, for the gradient of the own classes."""
    m, rest, there, *_ = own.vectors
    assert there is not None  # it is a call with indices
    assert own.here is not None
    other = (there + ((maximum - m) + (log_sum - torch.log1p(rest)))).clamp(min=0)
    other = other.masked_fill((m == -torch.inf) & ~log_sum.isnan(), torch.inf)
    return torch.where(own.here, nll, other)
