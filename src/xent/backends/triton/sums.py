"""Statistics: one way through the logits, and what is written at its end."""

from __future__ import annotations

import triton
import triton.language as tl

from xent.backends.triton.functions import log1p
from xent.backends.triton.places import row_offsets, row_places
from xent.backends.triton.states import folded, joined, moved, others


@triton.jit(do_not_specialize=["units", "blocks"])
def statistics(
    x, x_batch, x_row, x_class,
    q, q_batch, q_row, q_class,
    v, target, valid, note,
    maximum, rest, nll, uniform, cross, mass, parts,
    units, rows, classes, blocks, span,
    ROWS: tl.constexpr, LANES: tl.constexpr, FOLD: tl.constexpr,
    NEIGHBOURS: tl.constexpr, ALIGNED: tl.constexpr, EVEN: tl.constexpr, BESIDE: tl.constexpr,
    LONG: tl.constexpr, UNIFORM: tl.constexpr,
):  # fmt: skip
    """``contract.rows.Vectors`` of ROWS rows, or with ``parts`` their states over some classes.

    Programs: blocks of rows × spans of classes.
    """
    classes = classes // EVEN * EVEN
    batch, row, unit, there, live = row_places(tl.program_id(0), blocks, rows, valid, ROWS)
    at = row_offsets(batch, row, x_batch, x_row, ALIGNED)[:, None, None]
    labels_at = 0
    if q is not None:
        labels_at = row_offsets(batch, row, q_batch, q_row, ALIGNED)[:, None, None]
    read = there if BESIDE else live
    first = tl.program_id(1) * span
    last = tl.minimum(first + span, classes)
    last = tl.where(tl.max(live.to(tl.int32), 0) > 0, last, first)  # ignored rows are not read
    whole = first + (last - first) // (LANES * FOLD) * (LANES * FOLD)

    nothing = tl.zeros((ROWS, LANES), rest.dtype.element_ty)
    m, r = nothing - float("inf"), nothing - 1.0
    du, vu, dq, vq, oq = nothing, nothing, nothing, nothing, nothing
    for start in range(first, whole, LANES * FOLD):
        m, r, du, vu, dq, vq, oq = _with_tile(
            m, r, du, vu, dq, vq, oq, x, at, x_class, q, labels_at, q_class, v, start, last,
            read, LANES, FOLD, NEIGHBOURS, LONG, UNIFORM, False,
        )  # fmt: skip
    if whole < last:
        m, r, du, vu, dq, vq, oq = _with_tile(
            m, r, du, vu, dq, vq, oq, x, at, x_class, q, labels_at, q_class, v, whole, last,
            read, LANES, FOLD, NEIGHBOURS, LONG, UNIFORM, True,
        )  # fmt: skip
    m, r, du, vu, dq, vq, oq = _of_row(m, r, du, vu, dq, vq, oq, UNIFORM, q is not None)

    if parts is not None:
        part = parts + tl.program_id(1).to(tl.int64) * units + unit
        plane = tl.num_programs(1).to(tl.int64) * units
        tl.store(part, m, mask=there)
        tl.store(part + plane, r, mask=there)
        if UNIFORM:
            tl.store(part + 2 * plane, du, mask=there)
            tl.store(part + 3 * plane, vu, mask=there)
        if q is not None:
            tl.store(part + 4 * plane, dq, mask=there)
            tl.store(part + 5 * plane, vq, mask=there)
            tl.store(part + 6 * plane, oq, mask=there)
    else:
        _write(
            m, r, du, vu, dq, vq, oq, x, batch * x_batch + row * x_row, x_class, target, note,
            maximum, rest, nll, uniform, cross, mass, unit, units, classes, there, live,
        )  # fmt: skip


@triton.jit(do_not_specialize=["units", "blocks"])
def joined_statistics(
    x, x_batch, x_row, x_class,
    target, valid, note,
    maximum, rest, nll, uniform, cross, mass, parts,
    units, rows, classes, blocks, spans,
    ROWS: tl.constexpr, SPANS: tl.constexpr,
):  # fmt: skip
    """The same of the states that were left for each span of classes."""
    batch, row, unit, there, live = row_places(tl.program_id(0), blocks, rows, valid, ROWS)
    place = tl.arange(0, SPANS)[None, :]
    plane = spans.to(tl.int64) * units
    part = parts + place.to(tl.int64) * units + unit[:, None]
    known = there[:, None] & (place < spans)
    m = tl.load(part, mask=known, other=-float("inf"))
    r = tl.load(part + plane, mask=known, other=-1.0)
    nothing = tl.zeros((ROWS, SPANS), rest.dtype.element_ty)
    du, vu, dq, vq, oq = nothing, nothing, nothing, nothing, nothing
    if uniform is not None:
        du = tl.load(part + 2 * plane, mask=known, other=0.0)
        vu = tl.load(part + 3 * plane, mask=known, other=0.0)
    if cross is not None:
        dq = tl.load(part + 4 * plane, mask=known, other=0.0)
        vq = tl.load(part + 5 * plane, mask=known, other=0.0)
        oq = tl.load(part + 6 * plane, mask=known, other=0.0)
    m, r, du, vu, dq, vq, oq = _of_row(
        m, r, du, vu, dq, vq, oq, uniform is not None, cross is not None
    )
    _write(
        m, r, du, vu, dq, vq, oq, x, batch * x_batch + row * x_row, x_class, target, note,
        maximum, rest, nll, uniform, cross, mass, unit, units, classes, there, live,
    )  # fmt: skip


@triton.jit
def _with_tile(
    m, r, du, vu, dq, vq, oq,
    x, at, x_class, q, labels_at, q_class, v,
    start, last, read,
    LANES: tl.constexpr, FOLD: tl.constexpr, NEIGHBOURS: tl.constexpr,
    LONG: tl.constexpr, UNIFORM: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """The states of LANES lanes, and FOLD more logits for each.

    A thread has whole lanes, so that nothing is exchanged between threads. Its logits are
    neighbours if they can be read at once, else LANES apart, so that threads read neighbours.
    """
    lane, step = tl.arange(0, LANES)[None, :, None], tl.arange(0, FOLD)[None, None, :]
    c = start + (lane * FOLD + step if NEIGHBOURS else step * LANES + lane)
    mask = read[:, None, None]
    if MASKED:
        mask = mask & (c < last)
    if LONG:
        c = c.to(tl.int64)
    logits = tl.load(x + at + c * x_class, mask=mask, other=-float("inf")).to(r.dtype)
    their_m, their_r = folded(logits, 0.0, 2)
    top = tl.maximum(m, their_m)
    ones = tl.where(mask, 1.0, tl.zeros(logits.shape, r.dtype))
    masses = ones if v is None else ones * tl.load(v + c, mask=c < last, other=0.0)
    if UNIFORM:
        even = masses
        far = tl.sum(moved(0.0, even, logits, their_m[:, :, None]), 2)
        even = tl.sum(even, 2)
        du = moved(du, vu, m, top) + moved(far, even, their_m, top)
        vu += even
    if q is not None:
        soft = tl.load(q + labels_at + c * q_class, mask=mask, other=0.0).to(r.dtype)
        soft = soft if v is None else soft * masses
        far = tl.sum(moved(0.0, soft, logits, their_m[:, :, None]), 2)
        beside = tl.sum(others(0.0, soft, logits, their_m[:, :, None]), 2)
        soft = tl.sum(soft, 2)
        dq = moved(dq, vq, m, top) + moved(far, soft, their_m, top)
        oq = others(oq, vq, m, top) + others(beside, soft, their_m, top)
        vq += soft
    m, r = joined(m, r, their_m, their_r)
    return m, r, du, vu, dq, vq, oq


@triton.jit
def _of_row(
    m, r, du, vu, dq, vq, oq,
    UNIFORM: tl.constexpr, DENSE: tl.constexpr,
):  # fmt: skip
    """The states along axis 1 as one."""
    top, rest = folded(m, r, 1)
    du = tl.sum(moved(du, vu, m, top[:, None]) if UNIFORM else du, 1)
    dq = tl.sum(moved(dq, vq, m, top[:, None]) if DENSE else dq, 1)
    oq = tl.sum(others(oq, vq, m, top[:, None]) if DENSE else oq, 1)
    return top, rest, du, tl.sum(vu, 1), dq, tl.sum(vq, 1), oq


@triton.jit
def _write(
    m, r, du, vu, dq, vq, oq,
    x, at, x_class, target, note,
    maximum, rest, nll, uniform, cross, mass,
    unit, units, classes, there, live,
):  # fmt: skip
    """The statistics that follow from states of whole rows; zero for rows that do not count."""
    m = tl.where(r == r, m, r)  # NaN in the row
    r = tl.where(tl.abs(m) < float("inf"), r, float("nan"))  # no finite maximum: no softmax
    log_sum = log1p(r)
    tl.store(maximum + unit, tl.where(live, m, 0.0), mask=there)
    tl.store(rest + unit, tl.where(live, r, 0.0), mask=there)
    if nll is not None:
        y = tl.load(target + unit, mask=live, other=0)
        known = (y >= 0) & (y < classes)
        logit = tl.load(x + at + y * x_class, mask=live & known, other=float("nan"))
        cost = log_sum + (m - logit.to(m.dtype))
        tl.store(nll + unit, tl.where(live, cost, 0.0), mask=there)
        if note is not None:  # any one of them is told of
            first = tl.zeros_like(y)
            tl.store(note + first, _noted(unit, y), mask=live & ~known)
            tl.store(note + 1 + first, first + classes, mask=live & ~known)
    if uniform is not None:
        cost = du + vu * log_sum
        tl.store(uniform + unit, tl.where(live, cost, 0.0), mask=there)
    if cross is not None:
        cost = dq + vq * log_sum
        tl.store(cross + unit, tl.where(live, cost, 0.0), mask=there)
        tl.store(mass + unit, tl.where(live, vq, 0.0), mask=there)
        tl.store(mass + units + unit, tl.where(live, oq, 0.0), mask=there)


@triton.jit
def _noted(unit, y):
    """Position and label in one number, never 0; see ``contract.notes``."""
    near = tl.minimum(tl.maximum(y, -(1 << 31) + 1), (1 << 31) - 1)
    return ((unit + 1) << 32) | (near & 0xFFFFFFFF)
