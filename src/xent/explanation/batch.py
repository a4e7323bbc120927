"""How the losses of all positions became the value that was returned."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from xent.backends.torch.limits import cost
from xent.contract.call import Call
from xent.contract.errors import plain
from xent.contract.reduction import Reduction
from xent.explanation.source import position_of
from xent.explanation.trace import BatchTrace, PositionTrace
from xent.explanation.units import in_all_units

SHOWN = 12
"""Positions up to which a batch is shown whole."""


class Losses(NamedTuple):
    """What every position costs, counts and is labelled, each flat, in memory order."""

    losses: Tensor
    shares: Tensor | None
    """What each adds to the divisor of the mean; None where that is no sum over positions."""
    ignored: Tensor | None
    labels: Tensor
    """Class of each label, the likeliest of soft ones."""
    shape: tuple[int, ...]
    """Of the positions."""
    frequencies: Tensor | None
    """The mean label over the positions that count, ``[C]``; None if none does."""


def trace_batch(
    batch: Losses,
    reduction: Reduction,
    divisor: float | None,
    words: str,
    value: Tensor,
    names: tuple[str, ...] | None,
    place: int | None,
) -> BatchTrace:
    """All of a batch in short: ``place`` is the position that is explained, and always shown."""
    scalar = value.item() if value.ndim == 0 else None
    _, bits, perplexity = (None, None, None) if scalar is None else in_all_units(scalar)
    return BatchTrace(
        shape=batch.shape,
        count=batch.losses.numel(),
        ignored=0 if batch.ignored is None else int(batch.ignored.sum()),
        reduction=reduction.mode,
        denominator=words if reduction.mode == "mean" else "",
        positions=tuple(_position(batch, i, names) for i in _shown(batch.losses, place)),
        total=float(batch.losses.double().sum()),
        divisor=divisor,
        value=scalar,
        value_dtype=plain(value.dtype),
        bits=bits,
        perplexity=perplexity,
        label_entropy=_label_entropy(batch.frequencies),
    )


def in_words(rule: object, call: Call) -> str:
    """What ``denominator=rule`` divides by, without factors that are not there."""
    if rule is not None and not isinstance(rule, str):
        return "the number given as denominator"
    if rule == "batch":
        return "the size of the batch axis"
    factors = []
    if rule != "valid":
        if call.sample_weight is not None:
            factors.append("sample weights")
        if call.targets.index is None and rule == "weight":
            factors.append("label masses Σ_c weight · label")
        elif call.targets.index is not None and call.rows.weight is not None:
            factors.append("class weights of the labels")
    if factors:
        return f"the sum of the {' times the '.join(factors)}"
    return "the number of positions that count"


def _position(batch: Losses, place: int, names: tuple[str, ...] | None) -> PositionTrace:
    ignored = batch.ignored is not None and bool(batch.ignored[place])
    label = int(batch.labels[place])
    share = None if batch.shares is None else float(batch.shares[place])
    name = str(label) if names is None else names[label]
    return PositionTrace(
        position=position_of(place, batch.shape),
        label="" if ignored else name,
        loss=float(batch.losses[place]),
        share=share,
        ignored=ignored,
    )


def _shown(losses: Tensor, place: int | None) -> list[int]:
    """All positions in their order; or, of many, the explained one and the costliest ones."""
    if losses.numel() <= SHOWN:
        return list(range(losses.numel()))
    costliest = losses.nan_to_num(nan=torch.inf).topk(SHOWN - 2).indices.tolist()
    first = [] if place is None else [place]
    return list(dict.fromkeys([*first, *costliest]))


def _label_entropy(frequencies: Tensor | None) -> float | None:
    if frequencies is None:
        return None
    q = frequencies.double()
    return float(cost(q, -q.log()).sum()) + 0.0
