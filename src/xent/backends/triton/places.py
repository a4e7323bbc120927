"""Which rows a program has."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def row_places(program, blocks, rows, ROWS: tl.constexpr):
    """Batch, rows in it, their numbers among all, and whether they are there: int64."""
    batch = (program // blocks).to(tl.int64)
    row = (program % blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    return batch, row, batch * rows + row, row < rows


@triton.jit
def row_offsets(batch, row, batch_step, row_step, ALIGNED: tl.constexpr):
    """Where the rows begin: written as a multiple of what all steps are a multiple of.

    So the compiler can see which logits may be read at once.
    """
    return (batch * (batch_step // ALIGNED) + row * (row_step // ALIGNED)) * ALIGNED
