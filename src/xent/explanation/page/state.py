"""An explanation as what the page opens on: a few classes of a few rows, never a vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from xent.explanation.blocks import placed
from xent.explanation.document import plain
from xent.explanation.explanation import Explanation
from xent.explanation.names import place_of
from xent.explanation.row import trace_row
from xent.explanation.source import RowSource
from xent.explanation.trace import PositionTrace, RowTrace
from xent.explanation.tracing import sources_of

CLASSES = 8
"""Bars that a reader can compare."""
ROWS = 6


def state_of(told: Explanation) -> dict[str, Any] | None:
    """Plain data for the page, or None if there is nothing to play with.

    Nothing to play with: no position that counts (``row=None``), a single class, or a row without
    a finite logit. Numbers that JSON lacks are strings.

    Returns:
        ``kind``, ``class_count``, ``label_smoothing``, ``reduction``, ``value`` (what the loss
        returned) as in ``to_dict``; and

        - ``names``: of the shown classes; ``weight``: their class weights, or None;
        - ``rows``: the explained position, ``current`` among them, and others, in memory order;
          ``batch`` says if they are the whole batch. Each has ``position``, the shown ``logits``
          and ``label`` (as given; zeros where ignored), ``index`` (the place of an index target
          among the shown classes, or None), ``ignored``, ``sample_weight`` and ``rest``;
        - ``rest``, of a row and of the explained one: the classes that are not shown, or None.
          ``classes``, how many; ``max``, the largest x; ``lse``, log Σ exp x; ``sum``, Σ x;
          ``label``, Σ y; ``label_logit``, Σ y·x; and ``weighted``, with class weights v:
          ``weight``, Σ v; ``sum``, Σ v·x; ``label``, Σ v·y; ``label_logit``, Σ v·y·x;
        - ``denominator``: the divisor of the mean if it does not follow torch's rule, else None.
    """
    sources = sources_of(told)
    place = sources.first
    if told.row is not None:
        place = place_of(told.row.position, told.batch.shape)
    if place is None or not _playable(sources.at(place), told.kind):
        return None
    source = sources.at(place)
    trace = trace_row(source, replace(told.extent, steps=0)) if told.row is None else told.row
    classes = _Classes.of(trace)
    places = _places(told, place, sources.at)
    rows = [_row(sources.at(each), classes) for each in places]
    state = {
        "kind": told.kind,
        "names": [source.name(c) for c in classes.shown],
        "rest": rows[places.index(place)]["rest"],
        "class_count": told.class_count,
        "rows": rows,
        "current": places.index(place),
        "weight": None if source.weight is None else source.weight[classes.shown].tolist(),
        "label_smoothing": told.options.label_smoothing,
        "reduction": told.batch.reduction,
        "denominator": _denominator(told),
        "value": told.batch.value,
        "batch": len(places) == told.batch.count,
    }
    data: dict[str, Any] = plain(state)
    return data


@dataclass(frozen=True)
class _Classes:
    """Which classes are shown, in order, and which are not."""

    shown: list[int]
    hidden: list[int]

    @classmethod
    def of(cls, row: RowTrace) -> _Classes:
        """Of those in the trace the labels and then the likeliest, in the order of the trace."""
        first = sorted(row.classes, key=lambda c: (-c.label, -c.p))[:CLASSES]
        chosen = {c.index for c in first}
        shown = [c.index for c in row.classes if c.index in chosen]
        return cls(shown, [c for c in range(row.class_count) if c not in chosen])


def _playable(source: RowSource, kind: str) -> bool:
    least = 2 if kind == "binary" else 1  # the unspoken 0 is finite, too
    return len(source.logits) > 1 and int(source.logits.isfinite().sum()) >= least


def _places(told: Explanation, explained: int, row_at: Callable[[int], RowSource]) -> list[int]:
    """The explained position and others: all of a small batch, of a large one the costliest."""
    candidates = list(range(told.batch.count))
    if told.batch.count > ROWS:
        costliest = sorted(told.batch.positions, key=_cost, reverse=True)
        candidates = [place_of(p.position, told.batch.shape) for p in costliest]
    fits = _alike(row_at(explained))
    others = [i for i in candidates if i != explained and fits(row_at(i))]
    return sorted([explained, *others[: ROWS - 1]])


def _cost(position: PositionTrace) -> float:
    return math.inf if math.isnan(position.loss) else position.loss


def _alike(source: RowSource) -> Callable[[RowSource], bool]:
    """Elements of the binary loss may differ in their names and weights; the page has one set."""

    def fits(other: RowSource) -> bool:
        if source.weight is None or other.weight is None:
            return source.names == other.names
        return source.names == other.names and torch.equal(source.weight, other.weight)

    return fits


def _row(source: RowSource, classes: _Classes) -> dict[str, Any]:
    position = source.position or (0,)
    index = source.label_index
    return {
        "position": placed(position),
        "logits": source.logits[classes.shown].tolist(),
        "label": source.label[classes.shown].tolist(),
        "index": classes.shown.index(index) if index in classes.shown else None,
        "ignored": source.ignored,
        "sample_weight": source.sample_weight,
        "rest": _rest(source, classes.hidden),
    }


def _rest(source: RowSource, hidden: list[int]) -> dict[str, Any] | None:
    if not hidden:
        return None
    logits, label = source.logits[hidden], source.label[hidden]
    rest: dict[str, Any] = {
        "classes": len(hidden),
        "max": float(logits.max()),
        "lse": float(logits.logsumexp(0)),
        "sum": float(logits.sum()),
        "label": float(label.sum()),
        "label_logit": _dot(label, logits),
        "weighted": None,
    }
    if source.weight is not None:
        weight = source.weight[hidden]
        rest["weighted"] = {
            "weight": float(weight.sum()),
            "sum": _dot(weight, logits),
            "label": _dot(weight, label),
            "label_logit": _dot(weight * label, logits),
        }
    return rest


def _dot(factors: Tensor, values: Tensor) -> float:
    """Σ factor · value, where a factor of zero makes nothing of −inf."""
    return float(torch.where(factors == 0, 0.0, factors * values).sum())


def _denominator(told: Explanation) -> float | None:
    """The divisor, unless the mean divides by what torch's would."""
    rule = told.inputs.options.get("denominator")
    weighted = told.options.weighted or told.options.sample_weighted
    as_torch = rule is None or (rule == "weight" and told.kind == "index")
    if as_torch or (isinstance(rule, str) and rule == "valid" and not weighted):
        return None
    return told.batch.divisor
