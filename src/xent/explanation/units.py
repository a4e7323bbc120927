"""Nats, bits and perplexity."""

from __future__ import annotations

import math


def in_all_units(nats: float) -> tuple[float, float, float]:
    """The same in nats, in bits, and as the number of classes of an even guess."""
    return nats, nats / math.log(2), perplexity(nats)


def perplexity(nats: float) -> float:
    """exp(nats), or infinity where a float ends."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
