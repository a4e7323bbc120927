"""Rows of torch tensors, handed to the kernels. Nothing here waits for the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from xent.backends.triton import gradients, predictions, sums
from xent.backends.triton.functions import INTERPRETED
from xent.backends.triton.tiles import Grid, Tile, Walk, grid_of, tile_of, walk_of
from xent.contract.dtypes import accumulation
from xent.contract.notes import note_of
from xent.contract.rows import Coefficients, Prediction, Rows, Vectors

JOINED = 1 << 10
"""States that a program puts together."""


def statistics(rows: Rows, with_uniform: bool) -> Vectors:
    """The statistics of rows; what was not asked for is None."""
    dense = rows.probabilities is not None
    rows = _readable(rows, weighed=with_uniform or dense)
    logits, target, q, weight, valid = rows
    outer, classes, inner = logits.shape
    kind, units = accumulation(logits.dtype), outer * inner

    def vector(wanted: bool, *planes: int) -> Tensor | None:
        return logits.new_empty((*planes, outer, inner), dtype=kind) if wanted else None

    vectors = Vectors(
        vector(True),  # type: ignore[arg-type]  # wanted
        vector(True),  # type: ignore[arg-type]  # wanted, too
        nll=vector(target is not None),
        uniform=vector(with_uniform),
        cross=vector(dense),
        mass=vector(dense, 2),
    )
    walk, tile, grid = _plan(logits, q, heavy=with_uniform or dense)
    note = None if target is None else note_of(logits.device)
    parts = None
    if grid.spans > 1:
        numbers = 7 if dense else 4 if with_uniform else 2  # of a state
        parts = logits.new_empty((numbers, grid.spans, units), dtype=kind)
    with _on(logits.device):
        sums.statistics[grid.programs, grid.spans](
            *_placed(logits, walk), *_placed(q, walk), weight, target, valid, note, *vectors, parts,
            units, walk.rows, classes, grid.blocks, grid.span,
            LANES=tile.lanes, FOLD=tile.fold, NEIGHBOURS=tile.neighbours, UNIFORM=with_uniform,
            **_common(tile),
        )  # fmt: skip
        if parts is None:
            return vectors
        spans = triton.next_power_of_2(grid.spans)
        together = max(1, JOINED // spans)
        blocks = -(-walk.rows // together)
        sums.joined_statistics[(blocks * walk.batches,)](
            *_placed(logits, walk), target, valid, note, *vectors, parts,
            units, walk.rows, classes, blocks, grid.spans, ROWS=together, SPANS=spans,
        )  # fmt: skip
    return vectors


def logit_gradient(
    rows: Rows, vectors: Vectors, coefficients: Coefficients, *, inplace: bool = False
) -> Tensor:
    """The gradient at the logits, in their dtype; with ``inplace`` it overwrites them."""
    dense = coefficients.cross is not None
    if dense and vectors.mass is None:  # the statistics are another backend's
        vectors = statistics(rows, with_uniform=False)
    given = rows.logits
    rows = _readable(rows, weighed=dense or coefficients.uniform is not None)
    logits, target, q, weight, valid = rows
    outer, classes, inner = logits.shape
    over = inplace and logits.data_ptr() == given.data_ptr()
    out = logits if over else torch.empty_like(logits)
    walk, tile, grid = _plan(logits, q, out, heavy=dense)
    total = None
    if coefficients.uniform is not None:
        kind = vectors.rest.dtype
        total = logits.new_full((), classes, dtype=kind) if weight is None else weight.sum()
    steps = [_stepped(c) for c in coefficients]
    with _on(logits.device):
        gradients.gradient[grid.programs, grid.spans](
            *_placed(logits, walk), *_placed(q, walk), *_placed(out, walk),
            weight, total, target, valid,
            *_lined_up(vectors.maximum, vectors.rest, vectors.nll, vectors.mass),
            *(vector for vector, _ in steps), *(step for _, step in steps),
            outer * inner, walk.rows, classes, grid.blocks, grid.span,
            WIDTH=tile.width, **_common(tile),
        )  # fmt: skip
    return given.detach().copy_(out) if inplace and not over else out


def prediction(rows: Rows, vectors: Vectors) -> Prediction:
    """Entropy and most probable class of rows whose statistics are known."""
    rows = _readable(rows, weighed=False)
    logits = rows.logits
    entropy = torch.empty_like(vectors.rest, memory_format=torch.contiguous_format)
    argmax = torch.empty_like(entropy, dtype=torch.int64)
    walk, tile, grid = _plan(logits, heavy=True)
    with _on(logits.device):
        predictions.predictions[(grid.programs,)](
            *_placed(logits, walk), rows.valid, *_lined_up(vectors.maximum, vectors.rest),
            entropy, argmax,
            walk.rows, walk.classes, grid.blocks, WIDTH=tile.width, **_common(tile),
        )  # fmt: skip
    return Prediction(entropy, argmax)


def probe(device: torch.device) -> None:
    """Raises whatever keeps kernels from running there: a driver, or a compiler for the launch."""
    if not INTERPRETED.value:
        triton.runtime.driver.active.get_current_target()
        statistics(Rows(torch.zeros((1, 1, 1), device=device)), with_uniform=False)


def _readable(rows: Rows, weighed: bool) -> Rows:
    """What kernels read: logits and probabilities as they lie in memory, signs turned."""
    kind = accumulation(rows.logits.dtype)
    logits, target, q, weight, valid = (
        None if tensor is None else tensor.detach().resolve_neg() for tensor in rows
    )
    if q is not None and accumulation(q.dtype) != kind:
        q = q.to(kind)
    return Rows(
        logits,  # type: ignore[arg-type]  # always there
        None if target is None else target.contiguous(),
        q,
        weight.to(kind).contiguous() if weight is not None and weighed else None,
        None if valid is None else valid.contiguous(),
    )


def _lined_up(*vectors: Tensor | None) -> tuple[Tensor | None, ...]:
    """One value after the other, also where another backend has made them."""
    return tuple(v if v is None else v.detach().contiguous() for v in vectors)


def _plan(logits: Tensor, *beside: Tensor | None, heavy: bool) -> tuple[Walk, Tile, Grid]:
    walk = walk_of(logits)
    tile = tile_of(walk, logits, *(t for t in beside if t is not None), heavy=heavy)
    return walk, tile, grid_of(walk, tile, logits.device)


def _placed(tensor: Tensor | None, walk: Walk) -> tuple[Any, ...]:
    """A tensor, and how far apart its batches, rows and classes are."""
    return (None, 0, 0, 0) if tensor is None else (tensor, *walk.strides(tensor))


def _common(tile: Tile) -> dict[str, int]:
    """What every kernel wants to know of a tile when it is compiled."""
    return {
        "ROWS": tile.rows,
        "ALIGNED": tile.aligned,
        "EVEN": tile.even,
        "BESIDE": tile.beside,
        "LONG": tile.long,
        "num_warps": tile.warps,
    }


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
    return getattr(torch, device.type).device(device)
