"""A loss that is linear in the statistics: what multiplies them, and their weighed sum."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from xent.backends.torch.limits import cost
from xent.contract.rows import Coefficients, Vectors

Mass = Tensor | float
"""One number per position, ``[outer, inner]``, or one for all."""


class Masses(NamedTuple):
    """What the statistics of a position are multiplied by in its loss."""

    labels: Mass
    """Of nll for class indices, of cross for probabilities."""
    uniform: Mass | None = None
    """Of uniform; None where nothing is spread."""

    def coefficients(self, like: Vectors) -> Coefficients:
        """The gradient of the weighed sum at the statistics."""

        def per_position(mass: Mass | None) -> Tensor | None:
            if mass is None or isinstance(mass, Tensor):
                return mass
            return torch.full_like(like.rest[:1, :1], mass).expand_as(like.rest)

        labels, uniform = map(per_position, self)
        if like.nll is None:
            return Coefficients(None, None, uniform, labels)
        return Coefficients(None, labels, uniform, None)


def weighed(vectors: Vectors, masses: Masses) -> Tensor:
    """labels · (nll or cross) + uniform · uniform, ``[outer, inner]``."""
    losses = _product(masses.labels, vectors.of_labels)
    if masses.uniform is None or vectors.uniform is None:
        return losses
    return losses + _product(masses.uniform, vectors.uniform)


def at_mass(mass: Tensor, statistic: Tensor) -> Tensor:
    """The derivative of the product with respect to the mass: that of ``cost``."""
    return statistic.masked_fill((mass == 0) & (statistic == torch.inf), 0)


def _product(mass: Mass, statistic: Tensor) -> Tensor:
    """mass · statistic; what has no mass costs nothing."""
    if not isinstance(mass, Tensor) and mass == 0.0:
        mass = torch.zeros_like(statistic)  # a derivative of zero is a derivative
    if isinstance(mass, Tensor):
        return cost(mass, statistic)
    return statistic if mass == 1.0 else mass * statistic
