"""Statistics alone, in tiles of rows × classes.

A product of many rows with some classes is faster than one of few rows with all classes, and the
tile is read before it has left the cache. What the tiles of a row say is merged.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xent.contract.inspection import values_at_hand
from xent.contract.notes import note_labels
from xent.contract.rows import LinearRows, Rows, Vectors
from xent.statistics.dispatch import GPUS, backend_for
from xent.statistics.linear.products import Products
from xent.statistics.linear.selections import (
    KERNELS,
    CountingRows,
    Selection,
    put,
    rows_within,
)
from xent.statistics.linear.terms import Statistics
from xent.statistics.memory import reused
from xent.statistics.merging import merged, merged_predictions

WIDTH = 2048
"""Classes of a tile on a CPU: it stays in the cache."""
WIDTH_ON_A_DEVICE = 16384
"""Elsewhere: a product has to keep all of a device busy, and each tile is some launches."""


def statistics_of(rows: LinearRows, predicted: bool) -> Statistics:
    """The statistics for class indices, or for no labels: one matrix product."""
    found = Statistics.zeros(rows, uniform=False, predicted=predicted)
    counting = CountingRows(rows)
    width = min(_width(rows.hidden), rows.classes)
    height = max(1, min(counting.count, rows_within(rows, width, KERNELS)))
    tile = reused((height * width * rows.inner,), rows.kind, rows.hidden.device)
    products = Products(rows)
    for selection in counting.selections(height):
        part = _of_rows(counting, products, selection, tile, predicted)
        put(found.vectors, selection, part.vectors)
        put(found[1:], selection, part[1:])
    return found


def _of_rows(
    counting: CountingRows, products: Products, selection: Selection, tile: Tensor, predicted: bool
) -> Statistics:
    rows = counting.rows
    hidden = counting.hidden(selection)
    target, _, valid = counting.labels(selection)
    if target is not None:
        _check_labels(target, valid, rows.classes)
    found: Statistics | None = None
    logit: Tensor | None = None  # of the label
    width = _width(hidden)
    for first in range(0, max(1, rows.classes), width):
        classes = min(width, rows.classes - first)
        outputs = classes * rows.inner
        logits = tile[: len(hidden) * outputs].view(len(hidden), outputs)
        products.logits(hidden, logits, first * rows.inner)
        chunk = Rows(logits.view(len(hidden), classes, rows.inner), valid=valid)
        if target is not None:
            logit = _label_logit(chunk.logits, target - first, logit)
        part = _of_tile(chunk, predicted, first)
        found = part if found is None else _merged(found, part)
    assert found is not None  # one tile there is, if with no class
    maximum, rest, *_ = found.vectors
    nll = None if logit is None else torch.log1p(rest) + (maximum - logit)
    if nll is not None and valid is not None:
        nll = nll.masked_fill(~valid, 0)
    return found._replace(vectors=Vectors(maximum, rest, nll))


def _of_tile(chunk: Rows, predicted: bool, first: int) -> Statistics:
    backend = backend_for(chunk.logits, chunk.valid)
    vectors = backend.statistics(chunk, with_uniform=False)
    if not predicted:
        return Statistics(vectors)
    entropy, argmax = backend.prediction(chunk, vectors)
    return Statistics(vectors, entropy, argmax.where(argmax < 0, argmax + first))


def _width(hidden: Tensor) -> int:
    return WIDTH if hidden.is_cpu else WIDTH_ON_A_DEVICE


def _check_labels(target: Tensor, valid: Tensor | None, classes: int) -> None:
    """A label outside of all tiles raises where it can be seen; elsewhere its loss is NaN.

    Callers have looked already, but for compiled code, which has its values only now.
    """
    if not classes:
        return
    if target.device.type in GPUS:
        note_labels(target, valid, classes)
    elif values_at_hand(target) and bool(((target < 0) | (target >= classes)).any()):
        raise IndexError(f"target: expected labels in 0..{classes - 1}; got one outside.")


def _label_logit(logits: Tensor, place: Tensor, known: Tensor | None) -> Tensor:
    """Logits of the labels, where they are in this tile; ``place`` counts from its start."""
    classes = logits.shape[1]
    if known is None:
        known = torch.full_like(place, torch.nan, dtype=logits.dtype)
    if not classes:  # then no label counts
        return known.zero_()
    here = logits.gather(1, place.clamp(0, classes - 1).unsqueeze(1)).squeeze(1)
    return torch.where((place >= 0) & (place < classes), here, known)


def _merged(first: Statistics, second: Statistics) -> Statistics:
    vectors = merged(first.vectors, second.vectors)
    if first.prediction is None or second.prediction is None:
        return Statistics(vectors)
    parts = (first.vectors, first.prediction), (second.vectors, second.prediction)
    return Statistics(vectors, *merged_predictions(*parts, vectors))
