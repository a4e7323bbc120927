"""The trace of one row, read off the library's own statistics and their derivatives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from xent.backends.torch.limits import cost
from xent.contract.errors import as_number, described, mistake
from xent.contract.rows import Rows
from xent.explanation.source import RowSource
from xent.explanation.trace import ClassTrace, Descent, Rest, RowTrace, Step
from xent.explanation.units import in_all_units
from xent.statistics import backend
from xent.statistics.rows import canonical_statistics


@dataclass(frozen=True)
class Extent:
    """How much of a row is shown, and how far it descends."""

    top: int | None = 10
    """So many classes of the highest probabilities, and of the labels; None shows all."""
    steps: int = 5
    step_size: float = 1.0


def checked_extent(top: Any, steps: Any, step_size: Any) -> Extent:
    """Numbers of lines and steps that make sense."""
    for name, value, least in (("top", top, 1), ("steps", steps, 0)):
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if not whole and not (name == "top" and value is None):
            expected = f"an int of at least {least}" + (" or None" if name == "top" else "")
            kind = ValueError if isinstance(value, int) else TypeError
            raise mistake(kind, name, expected=expected, got=described(value))
    size = as_number(step_size)
    if size is None or not math.isfinite(size):
        kind = TypeError if size is None else ValueError
        raise mistake(kind, "step_size", expected="a finite number", got=described(step_size))
    return Extent(top, steps, size)


@dataclass(frozen=True, eq=False)
class _Columns:
    """Everything that has one value per class, ``[C]``, and a few numbers of the row."""

    maximum: float
    exp_sum: float
    lse: float
    shifted: Tensor
    p: Tensor
    surprise: Tensor  # −log p
    gradient: Tensor
    loss: float
    cross_entropy: float


def trace_row(source: RowSource, extent: Extent, factor: float = 1.0) -> RowTrace:
    """Every number of a row; ``factor`` is ∂value/∂loss, by which a reduction scales gradients."""
    columns = _columns(source)
    shown = _shown(columns.p, source, extent.top)
    classes = _classes(source, columns, shown, factor)
    entropy = float(cost(source.target, -source.target.log()).sum())
    _, bits, perplexity = in_all_units(columns.cross_entropy)
    return RowTrace(
        position=source.position,
        class_count=len(source.logits),
        ignored=source.ignored,
        label_index=source.label_index,
        predicted=int(columns.shifted.nan_to_num(nan=-math.inf).argmax()),
        maximum=columns.maximum,
        exp_sum=columns.exp_sum,
        lse=columns.lse,
        classes=classes,
        rest=_rest(source, columns, shown, factor),
        target_sum=float(source.target.sum()),
        mass=float(source.mass.sum()),
        sample_weight=source.sample_weight,
        loss=source.sample_weight * columns.loss,
        cross_entropy=columns.cross_entropy,
        entropy=entropy,
        divergence=columns.cross_entropy - entropy,
        bits=bits,
        perplexity=perplexity,
        uniform_guess=source.sample_weight
        * float(source.mass.sum())
        * math.log(len(source.logits)),
        gradient_sum=source.sample_weight * float(columns.gradient.sum()),
        descent=_descent(source, shown, extent),
    )


def _columns(source: RowSource) -> _Columns:
    """One forward and one backward of the primitive: nothing is computed a second way."""
    # Copies made outside of inference mode have gradients, whatever mode the caller is in.
    with torch.inference_mode(False), torch.enable_grad(), backend("torch"):
        x = source.logits.clone().requires_grad_()
        t = source.target.clone().requires_grad_()
        rows = Rows(x[None, :, None], probabilities=t[None, :, None])
        plain = canonical_statistics(rows)
        lse, cross = plain.lse, plain.of_labels
        weighted = cross
        if source.weight is not None:
            weighted = canonical_statistics(rows._replace(weight=source.weight.clone())).of_labels
        (p,) = torch.autograd.grad(lse.sum(), x, retain_graph=True)
        (surprise,) = torch.autograd.grad(cross.sum(), t, retain_graph=True)
        (gradient,) = torch.autograd.grad(weighted.sum(), x)
    if source.ignored:  # inert, even if its logits are NaN
        gradient, weighted, cross = torch.zeros_like(x), lse.new_zeros(1), lse.new_zeros(1)
    return _Columns(
        maximum=plain.maximum.item(),
        exp_sum=1 + plain.rest.item(),
        lse=lse.item(),
        shifted=source.logits - plain.maximum.item(),
        p=p,
        surprise=surprise,
        gradient=gradient,
        loss=weighted.item(),
        cross_entropy=cross.item(),
    )


def _terms(source: RowSource, columns: _Columns) -> Tensor:
    surprise = columns.surprise
    return torch.zeros_like(surprise) if source.ignored else cost(source.mass, surprise)


def _classes(
    source: RowSource, columns: _Columns, shown: list[int], factor: float
) -> tuple[ClassTrace, ...]:
    terms = _terms(source, columns)
    # What the loss would gain from more probability at one class alone.
    at_p = torch.where(source.mass == 0, 0.0, -source.mass * columns.surprise.exp())
    reduced = source.sample_weight * factor
    return tuple(
        ClassTrace(
            index=c,
            name=source.name(c),
            logit=float(source.logits[c]),
            shifted=float(columns.shifted[c]),
            exp=float(columns.shifted[c].exp()),
            p=float(columns.p[c]),
            log_p=-float(columns.surprise[c]),
            label=float(source.label[c]),
            target=float(source.target[c]),
            weight=1.0 if source.weight is None else float(source.weight[c]),
            term=float(terms[c]),
            gradient_p=source.sample_weight * float(at_p[c]),
            gradient=source.sample_weight * float(columns.gradient[c]),
            gradient_reduced=reduced * float(columns.gradient[c]),
        )
        for c in shown
    )


def _rest(source: RowSource, columns: _Columns, shown: list[int], factor: float) -> Rest | None:
    others = torch.ones(len(source.logits), dtype=torch.bool)
    others[shown] = False
    if not others.any():
        return None

    def over_others(values: Tensor) -> float:
        return float(values[others].sum())

    gradient = source.sample_weight * over_others(columns.gradient)
    return Rest(
        classes=int(others.sum()),
        exp=over_others(columns.shifted.exp()),
        p=over_others(columns.p),
        label=over_others(source.label),
        target=over_others(source.target),
        term=over_others(_terms(source, columns)),
        gradient=gradient,
        gradient_reduced=gradient * factor,
    )


def _shown(p: Tensor, source: RowSource, top: int | None) -> list[int]:
    """All classes in their order; or, of many, those of the label and the likeliest ones."""
    if top is None or len(p) <= top + 2:  # a rest of one or two would save nothing
        return list(range(len(p)))
    likeliest = p.nan_to_num(nan=0.0).topk(top).indices.tolist()
    labelled = [c for c in source.label.topk(min(top, len(p))).indices.tolist() if source.label[c]]
    return sorted({*likeliest, *labelled}, key=lambda c: (c not in labelled, -float(p[c]), c))


def _descent(source: RowSource, shown: list[int], extent: Extent) -> Descent | None:
    if not extent.steps or source.ignored:
        return None
    steps, x = [], source.logits
    for number in range(extent.steps + 1):
        columns = _columns(replace(source, logits=x))
        p = tuple(columns.p[shown].tolist())
        rest = float(columns.p.sum()) - math.fsum(p) if len(shown) < len(x) else 0.0
        steps.append(Step(number, source.sample_weight * columns.loss, p, max(rest, 0.0)))
        moving = columns.gradient if source.free is None else columns.gradient * source.free
        x = x - extent.step_size * source.sample_weight * moving
    return Descent(extent.step_size, tuple(steps))
