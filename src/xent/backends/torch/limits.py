"""The one rule that formulas need beyond arithmetic: what has no mass costs nothing."""

from __future__ import annotations

import torch
from torch import Tensor


def cost(mass: Tensor, surprise: Tensor) -> Tensor:
    """Returns mass · surprise with 0 · inf = 0, the limit of q · (−log p) where q is 0."""
    unneeded = (mass == 0) & (surprise == torch.inf)
    return mass * surprise.masked_fill(unneeded, 0)
