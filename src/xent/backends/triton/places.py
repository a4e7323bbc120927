"""Which rows a program has."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def row_places(program, blocks, rows, valid, ROWS: tl.constexpr):
    """Batch, rows in it, their numbers among all; which of them are there, and which count."""
    batch = (program // blocks).to(tl.int64)
    row = (program % blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    unit, there = batch * rows + row, row < rows
    live = there
    if valid is not None:
        live = there & (tl.load(valid + unit, mask=there, other=0) != 0)
    return batch, row, unit, there, live


@triton.jit
def row_offsets(batch, row, batch_step, row_step, ALIGNED: tl.constexpr):
    """Where the rows begin: written as a multiple of what all steps are a multiple of.

    So the compiler can see which logits may be read at once.
    """
    return (batch * (batch_step // ALIGNED) + row * (row_step // ALIGNED)) * ALIGNED
