"""The language between the floors: rows, their statistics, and the coefficients of a backward.

Formulas hand rows to the primitive, the primitive hands them to a backend. Shapes: ``[outer, C,
inner]`` for what has classes, ``[outer, inner]`` for what has one value per position.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor


class Rows(NamedTuple):
    """Checked, canonical rows. At most one of ``target`` and ``probabilities`` is there."""

    logits: Tensor
    """``[outer, C, inner]``, any of the four floating dtypes."""
    target: Tensor | None = None
    """int64 ``[outer, inner]``: on a CPU in [0, C), and 0 where a position does not count."""
    probabilities: Tensor | None = None
    """``[outer, C, inner]``."""
    weight: Tensor | None = None
    """Class weights ``[C]``: they enter ``uniform`` and ``cross``, not ``nll``."""
    valid: Tensor | None = None
    """bool ``[outer, inner]``: the positions that count; None means all."""


class LinearRows(NamedTuple):
    """Rows whose logits are made when they are needed: hidden · classifierᵀ + bias."""

    hidden: Tensor
    """``[outer, D]``."""
    classifier: Tensor
    """``[C · inner, D]``, the classes outermost."""
    bias: Tensor | None
    """``[C · inner]``."""
    target: Tensor | None
    """This and what follows as in ``Rows``."""
    probabilities: Tensor | None
    weight: Tensor | None
    valid: Tensor | None
    inner: int
    """How many positions share one hidden state, each with a classifier of its own; mostly 1."""
    kind: torch.dtype
    """In which dtype the matrices are multiplied."""
    chunk_bytes: int
    """What may be held of logits at a time, in bytes."""

    @property
    def classes(self) -> int:
        """C."""
        return self.classifier.shape[0] // self.inner if self.inner else 0

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All that derivatives may be taken of, and what they are taken at."""
        return self[:LINEAR_TENSORS]


LINEAR_TENSORS: Final = 7
"""So many fields of ``LinearRows`` are tensors or None; the others, behind them, are numbers."""


class Vectors(NamedTuple):
    """The statistics of rows, each ``[outer, inner]``; zero where a position does not count.

    float32, or float64 for float64 logits. In reverse mode ``maximum`` is a constant, and the
    derivative of ``rest`` is exp(x − maximum) at every class, the largest included: together they
    give lse its derivative, softmax.
    """

    maximum: Tensor
    """max_c x_c."""
    rest: Tensor
    """Σ_c exp(x_c − maximum) over all classes but one of the largest."""
    nll: Tensor | None = None
    """lse − x_y, for an index."""
    uniform: Tensor | None = None
    """Σ_c v_c (lse − x_c), if asked for."""
    cross: Tensor | None = None
    """Σ_c v_c q_c (lse − x_c), for probabilities."""
    mass: Tensor | None = None
    """``[2, outer, inner]``, not differentiated: Σ_c v_c q_c, and the same over the classes below
    the maximum. A backend that reads the labels only once leaves them for its gradient."""

    @property
    def statistics(self) -> tuple[Tensor | None, ...]:
        """What derivatives are taken of: all but the mass."""
        return self[:5]

    @property
    def lse(self) -> Tensor:
        """log Σ exp, also for rows of −inf (−inf) and rows that hold +inf (+inf)."""
        lse = self.maximum + torch.log1p(self.rest)
        return torch.where(self.maximum.isinf(), self.maximum, lse)

    @property
    def of_labels(self) -> Tensor:
        """What the labels cost: nll for indices, cross for probabilities."""
        cost = self.cross if self.nll is None else self.nll
        if cost is None:
            raise LookupError("statistics without a target have no cost of labels")
        return cost


class Beyond(NamedTuple):
    """What the statistics of a part of the classes become when the others count, too.

    Each ``[outer, inner]``.
    """

    maximum: Tensor
    """Of all classes, as ``rest``."""
    rest: Tensor
    nll: Tensor | None
    """−log p of the class that ``Rows.target`` names in this part."""
    at_top: Tensor
    """bool: whether the maximum is one of this part."""

    def seen_by(self, own: Vectors) -> Vectors:
        """The statistics of all classes, for the gradient of a part that has these of its own.

        The largest logit is behind the maximum by nothing, however often its digits are computed.
        """
        maximum = torch.where(self.at_top, own.maximum, self.maximum)
        return Vectors(maximum, self.rest, self.nll, mass=own.mass)


class Prediction(NamedTuple):
    """What the softmax of a row says before it is told the label, each ``[outer, inner]``."""

    entropy: Tensor
    """−Σ_c p_c log p_c; zero where a position does not count."""
    argmax: Tensor
    """int64: the first of the most probable classes; −1 where a position does not count."""


class Coefficients(NamedTuple):
    """The gradients at the statistics, ``[outer, inner]``; None is zero.

    What they are at positions that do not count does not matter.

    grad_c = (lse + nll + uniform·Σv + cross·Σvq)·p_c − nll·[c = y] − uniform·v_c − cross·v_c·q_c
    """

    lse: Tensor | None
    nll: Tensor | None
    uniform: Tensor | None
    cross: Tensor | None
