"""What the softmax of a row says by itself: its entropy and its most probable class."""

from __future__ import annotations

import triton
import triton.language as tl

from xent.backends.triton.functions import log1p
from xent.backends.triton.places import row_offsets, row_places


@triton.jit(do_not_specialize=["blocks"])
def predictions(
    x, x_batch, x_row, x_class,
    valid, maximum, rest, entropy, argmax,
    rows, classes, blocks,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, ALIGNED: tl.constexpr, EVEN: tl.constexpr,
    BESIDE: tl.constexpr, LONG: tl.constexpr,
):  # fmt: skip
    """``contract.rows.Prediction`` of ROWS rows."""
    classes = classes // EVEN * EVEN
    batch, row, unit, there, live = row_places(tl.program_id(0), blocks, rows, valid, ROWS)
    at = row_offsets(batch, row, x_batch, x_row, ALIGNED)[:, None]
    m = tl.load(maximum + unit, mask=live, other=0.0)
    r = tl.load(rest + unit, mask=live, other=0.0)
    kind: tl.constexpr = m.dtype
    distance = tl.zeros((ROWS, WIDTH), kind)
    place = tl.full((ROWS, WIDTH), 0x7FFFFFFF, tl.int32)
    for start in range(0, classes, WIDTH):
        c = start + tl.arange(0, WIDTH)[None, :]
        mask = (there if BESIDE else live)[:, None] & (c < classes)
        far = c.to(tl.int64) if LONG else c
        logits = tl.load(x + at + far * x_class, mask=mask, other=-float("inf")).to(kind)
        behind = m[:, None] - logits
        e = tl.exp(-behind)
        distance += tl.where(e == 0.0, 0.0, e * behind)
        place = tl.minimum(place, tl.where(logits == m[:, None], c, 0x7FFFFFFF))
    found = tl.min(place, 1)
    found = tl.where(found == 0x7FFFFFFF, 0, found)  # NaN in the row
    spread = log1p(r) + tl.sum(distance, 1) / (1.0 + r)
    tl.store(entropy + unit, tl.where(live, spread, 0.0), mask=there)
    tl.store(argmax + unit, tl.where(live, found, -1).to(tl.int64), mask=there)
