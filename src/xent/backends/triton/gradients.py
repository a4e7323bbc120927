"""The gradient at the logits: one read and one write."""

from __future__ import annotations

import triton
import triton.language as tl

from xent.backends.triton.functions import expm1_of_minus, narrowed
from xent.backends.triton.places import row_offsets, row_places


@triton.jit(do_not_specialize=["units", "blocks"])
def gradient(
    x, x_batch, x_row, x_class,
    q, q_batch, q_row, q_class,
    out, out_batch, out_row, out_class,
    v, v_sum, target, valid,
    maximum, rest, nll, mass,
    of_lse, of_nll, of_uniform, of_cross,
    lse_step, nll_step, uniform_step, cross_step,
    units, rows, classes, blocks, span,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, ALIGNED: tl.constexpr, EVEN: tl.constexpr,
    BESIDE: tl.constexpr, LONG: tl.constexpr,
):  # fmt: skip
    """The gradient at ROWS rows and some classes; ``contract.rows.Coefficients`` has its formula.

    ``out`` may be ``x``: no logit is read after its gradient has been written.
    """
    classes = classes // EVEN * EVEN
    batch, row, unit, there, live = row_places(tl.program_id(0), blocks, rows, valid, ROWS)
    at = row_offsets(batch, row, x_batch, x_row, ALIGNED)[:, None]
    to = row_offsets(batch, row, out_batch, out_row, ALIGNED)[:, None]
    labels_at = 0
    if q is not None:
        labels_at = row_offsets(batch, row, q_batch, q_row, ALIGNED)[:, None]

    m, y, sure, scale, even, soft, at_label, at_top = _of_rows(
        v_sum, target, maximum, rest, nll, mass, of_lse, of_nll, of_uniform, of_cross,
        lse_step, nll_step, uniform_step, cross_step, unit, units, classes, live, ROWS,
    )  # fmt: skip
    read = there if BESIDE else live
    kind: tl.constexpr = m.dtype
    first = tl.program_id(1) * span
    last = tl.minimum(first + span, classes)
    for start in range(first, last, WIDTH):
        c = start + tl.arange(0, WIDTH)[None, :]
        inside = c < last
        if LONG:
            c = c.to(tl.int64)
        mask = read[:, None] & inside
        logits = tl.load(x + at + c * x_class, mask=mask, other=0.0).to(kind)
        g = tl.exp(logits - m[:, None]) * scale[:, None]
        if of_cross is not None:
            labels = tl.load(q + labels_at + c * q_class, mask=mask, other=0.0).to(kind)
            if v is not None:
                labels *= tl.load(v + c, mask=inside, other=0.0)
            g -= soft[:, None] * labels
            g = tl.where(sure[:, None] & (logits == m[:, None]), at_top[:, None], g)
        if of_nll is not None:
            g = tl.where(c == y[:, None], at_label[:, None], g)
        if of_uniform is not None:
            if v is not None:
                g -= even[:, None] * tl.load(v + c, mask=inside, other=0.0)
            else:
                g -= even[:, None]
        g = tl.where(live[:, None], g, 0.0)
        tl.store(
            out + to + c * out_class, narrowed(g, out.dtype.element_ty), there[:, None] & inside
        )


@triton.jit
def _of_rows(
    v_sum, target, maximum, rest, nll, mass, of_lse, of_nll, of_uniform, of_cross,
    lse_step, nll_step, uniform_step, cross_step, unit, units, classes, live, ROWS: tl.constexpr,
):  # fmt: skip
    """What the gradients of a row have in common, and those that are not made like the others.

    Where a class may be nearly certain its gradient is no difference: at the label it is made of
    expm1(−nll), at the largest logit, if it is a ``sure`` one, of the mass of the others and rest.
    """
    m = tl.load(maximum + unit, mask=live, other=0.0)
    r = tl.load(rest + unit, mask=live, other=0.0)
    kind: tl.constexpr = m.dtype
    zero = tl.zeros((ROWS,), kind)
    total, sharp, even, soft = zero, zero, zero, zero
    if of_lse is not None:
        total = tl.load(of_lse + unit * lse_step, mask=live, other=0.0).to(kind)
    if of_uniform is not None:
        even = tl.load(of_uniform + unit * uniform_step, mask=live, other=0.0).to(kind)
        total += even * tl.load(v_sum).to(kind)
    y, at_label = tl.full((ROWS,), -1, tl.int32), zero
    if of_nll is not None:
        sharp = tl.load(of_nll + unit * nll_step, mask=live, other=0.0).to(kind)
        label = tl.load(target + unit, mask=live, other=-1)
        known = (label >= 0) & (label < classes)
        y = tl.where(known, label, -1).to(tl.int32)
        cost = tl.load(nll + unit, mask=live, other=0.0)
        at_label = total * tl.exp(-cost) + sharp * expm1_of_minus(cost)
        # A label that is no class: the loss is NaN, and the gradient says so as well.
        total = tl.where(live & ~known, float("nan"), total)
    spread, at_top, sure = total + sharp, zero, live & (r < 1.0)
    if of_cross is not None:
        soft = tl.load(of_cross + unit * cross_step, mask=live, other=0.0).to(kind)
        all_labels = tl.load(mass + unit, mask=live, other=0.0)
        beside = tl.load(mass + units + unit, mask=live, other=0.0)
        at_top = spread / (1.0 + r) + soft * (beside - all_labels * (r / (1.0 + r)))
        spread += soft * all_labels
    return m, y, sure, spread / (1.0 + r), even, soft, at_label, at_top
