"""Rows of torch tensors, handed to the kernels. Nothing here waits for the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from xent.backends.triton import gradients, predictions, sums
from xent.backends.triton.functions import INTERPRETED
from xent.backends.triton.labels import note_of
from xent.backends.triton.tiles import HEAVY, LIGHT, grid_of, tile_of, walk_of
from xent.contract.dtypes import accumulation
from xent.contract.rows import Coefficients, Prediction, Rows, Vectors

JOINED = 1 << 10
"""States that a program puts together at a time."""
PLANES = 7
"""Numbers of a state, with those of uniform and cross."""


def statistics(rows: Rows, with_uniform: bool) -> Vectors:
    """The statistics of rows; what was not asked for is None."""
    rows = _readable(rows, with_uniform or rows.probabilities is not None)
    logits, target, q, weight, valid = rows
    outer, classes, inner = logits.shape
    kind, units = accumulation(logits.dtype), outer * inner

    def vector(wanted: bool, *planes: int) -> Tensor | None:
        return logits.new_empty((*planes, outer, inner), dtype=kind) if wanted else None

    dense = q is not None
    vectors = Vectors(
        vector(True),  # type: ignore[arg-type]  # wanted
        vector(True),  # type: ignore[arg-type]  # wanted, too
        nll=vector(target is not None),
        uniform=vector(with_uniform),
        cross=vector(dense),
        mass=vector(dense, 2),
    )
    walk = walk_of(logits)
    of_thread = HEAVY if with_uniform or dense else LIGHT
    tile = tile_of(walk, logits, *(() if q is None else (q,)), of_thread=of_thread)
    grid = grid_of(walk, tile, logits.device)
    bad = None if target is None else note_of(logits.device, classes)
    parts = None
    if grid.spans > 1:
        parts = logits.new_empty((PLANES, grid.spans, units), dtype=kind)
    at, of_q = (logits, *walk.strides(logits)), (q, *((0, 0, 0) if q is None else walk.strides(q)))
    with _on(logits.device):
        sums.statistics[(grid.programs, grid.spans)](
            *at, *of_q, weight, target, valid, bad, *vectors, parts,
            units, walk.rows, classes, grid.blocks, grid.span,
            ROWS=tile.rows, LANES=tile.lanes, FOLD=tile.fold, NEIGHBOURS=tile.neighbours,
            LONG=tile.long, ALIGNED=tile.aligned, EVEN=tile.even, BESIDE=tile.beside, UNIFORM=with_uniform, num_warps=tile.warps,
        )  # fmt: skip
        if parts is not None:
            spans = triton.next_power_of_2(grid.spans)
            together = max(1, JOINED // spans)
            blocks = -(-walk.rows // together)
            sums.joined_statistics[(blocks * walk.batches,)](
                *at, target, valid, bad, *vectors, parts,
                units, walk.rows, classes, blocks, grid.spans,
                ROWS=together, SPANS=spans,
            )  # fmt: skip
    return vectors


def logit_gradient(
    rows: Rows, vectors: Vectors, coefficients: Coefficients, *, inplace: bool = False
) -> Tensor:
    """The gradient at the logits, in their dtype; with ``inplace`` it overwrites them."""
    if coefficients.cross is not None and vectors.mass is None:  # another backend's statistics
        vectors = statistics(rows, with_uniform=False)
    given = rows.logits
    rows = _readable(rows, coefficients.uniform is not None or coefficients.cross is not None)
    logits, target, q, weight, valid = rows
    in_place = inplace and logits is given
    out = logits.detach() if in_place else torch.empty_like(logits)
    walk = walk_of(logits)
    tile = tile_of(walk, logits, out, *(() if q is None else (q,)), of_thread=LIGHT if q is None else HEAVY)
    grid = grid_of(walk, tile, logits.device)
    outer, classes, inner = logits.shape
    of_rows = coefficients._replace(
        nll=None if target is None else coefficients.nll,
        cross=None if q is None else coefficients.cross,
    )
    steps = [_stepped(c) for c in of_rows]
    v_sum = None
    if of_rows.uniform is not None:
        kind = vectors.rest.dtype
        v_sum = logits.new_full((), classes, dtype=kind) if weight is None else weight.sum()
    with _on(logits.device):
        gradients.gradient[(grid.programs, grid.spans)](
            logits, *walk.strides(logits), q, *((0, 0, 0) if q is None else walk.strides(q)),
            out, *walk.strides(out), weight, v_sum, target, valid,
            vectors.maximum, vectors.rest, vectors.nll, vectors.mass,
            *(vector for vector, _ in steps), *(step for _, step in steps),
            outer * inner, walk.rows, classes, grid.blocks, grid.span,
            ROWS=tile.rows, WIDTH=tile.width, LONG=tile.long, ALIGNED=tile.aligned, EVEN=tile.even, BESIDE=tile.beside,
            num_warps=tile.warps,
        )  # fmt: skip
    return given.detach().copy_(out) if inplace and not in_place else out


def prediction(rows: Rows, vectors: Vectors) -> Prediction:
    """Entropy and most probable class of rows whose statistics are known."""
    rows = _readable(rows, weighed=False)
    logits = rows.logits
    entropy = torch.empty_like(vectors.rest, memory_format=torch.contiguous_format)
    argmax = torch.empty_like(entropy, dtype=torch.int64)
    walk = walk_of(logits)
    tile = tile_of(walk, logits, of_thread=HEAVY)
    grid = grid_of(walk, tile, logits.device)
    with _on(logits.device):
        predictions.predictions[(grid.programs,)](
            logits, *walk.strides(logits), rows.valid, vectors.maximum, vectors.rest,
            entropy, argmax, walk.rows, walk.classes, grid.blocks,
            ROWS=tile.rows, WIDTH=tile.width, LONG=tile.long, ALIGNED=tile.aligned, EVEN=tile.even, BESIDE=tile.beside,
            num_warps=tile.warps,
        )  # fmt: skip
    return Prediction(entropy, argmax)


def _readable(rows: Rows, weighed: bool) -> Rows:
    """What the kernels read: detached, as it lies in memory, one value after another in vectors."""
    logits, target, q, weight, valid = (
        None if tensor is None else tensor.detach().resolve_neg() for tensor in rows
    )
    assert logits is not None
    logits = rows.logits if logits.data_ptr() == rows.logits.data_ptr() else logits
    kind = accumulation(logits.dtype)
    return Rows(
        logits,
        None if target is None else target.contiguous(),
        q if q is None or accumulation(q.dtype) == kind else q.to(kind),
        weight.to(kind).contiguous() if weight is not None and weighed else None,
        None if valid is None else valid.contiguous(),
    )


def _stepped(coefficient: Tensor | None) -> tuple[Tensor | None, int]:
    """A coefficient and how far apart its values are: 0 where one number serves all positions."""
    if coefficient is None:
        return None, 1
    coefficient = coefficient.detach().resolve_neg()
    return (coefficient, 0) if not any(coefficient.stride()) else (coefficient.contiguous(), 1)


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Kernels are launched on the current device: it becomes that of the tensors."""
    if INTERPRETED.value or device.index is None:
        return nullcontext()
    return getattr(torch, device.type).device(device)  # type: ignore[no-any-return]  # torch.cuda, torch.xpu
