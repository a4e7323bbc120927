"""From the arguments of a call to its explanation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from xent.contract.call import Call, checked_call
from xent.contract.dtypes import accumulation
from xent.contract.errors import mistake
from xent.contract.reduction import Reduction
from xent.contract.targets import ignored_values
from xent.contract.weights import checked_label_smoothing
from xent.explanation.batch import Losses, in_words, trace_batch
from xent.explanation.explanation import Explanation
from xent.explanation.names import checked_names, place_of
from xent.explanation.pair import ignored_of, pair_of, sides_of
from xent.explanation.row import Extent, trace_row
from xent.explanation.source import Inputs, RowSource, row_of
from xent.explanation.trace import Options
from xent.functional import binary_cross_entropy_with_logits, cross_entropy
from xent.functional.positions import position_losses
from xent.statistics.rows import canonical_statistics

_OF_A_POSITION = ("weight", "ignore_index", "label_smoothing", "dim", "sample_weight")


def explained(
    inputs: Inputs,
    reduction: Reduction,
    class_names: Sequence[str] | None,
    row: int | Sequence[int] | None,
    extent: Extent,
) -> Explanation:
    """A call of ``cross_entropy``, explained."""
    options = inputs.options
    call = call_of(inputs)
    if not call.layout.classes:
        raise mistake(ValueError, "input", expected="at least one class", got="none")
    names = checked_names(class_names, call.layout.classes)
    place = None if row is None else place_of(row, call.layout.positions)
    with torch.no_grad():
        value = cross_entropy(inputs.logits, inputs.target, **options)
        losses = _losses(call, reduction)
    divisor = _divisor(call, reduction)
    batch = trace_batch(
        losses, reduction, divisor, in_words(reduction.denominator, call), value, names, place
    )
    source = None if place is None else row_of(call, place, names)
    return Explanation(
        kind="probabilities" if call.targets.index is None else "index",
        class_count=call.layout.classes,
        options=Options(
            label_smoothing=call.label_smoothing,
            weighted=call.rows.weight is not None,
            sample_weighted=call.sample_weight is not None,
            ignore_index=ignored_values(options["ignore_index"]),
        ),
        batch=batch,
        row=None if source is None else trace_row(source, extent, _factor(reduction, divisor)),
        source=source,
        extent=extent,
        inputs=replace(inputs, class_names=names),
    )


def explained_binary(
    inputs: Inputs,
    reduction: Reduction,
    class_names: Sequence[str] | None,
    row: int | Sequence[int] | None,
    extent: Extent,
) -> Explanation:
    """A call of ``binary_cross_entropy_with_logits``, explained."""
    x, y, options = inputs.logits, inputs.target, inputs.options
    with torch.no_grad():
        value = binary_cross_entropy_with_logits(x, y, **options)
    ignored = ignored_of(inputs)
    losses = _binary_losses(inputs, ignored, reduction)
    count = x.numel() if ignored is None else x.numel() - int(ignored.sum())
    divisor = float(count) if reduction.mode == "mean" else None
    place = None if row is None else place_of(row, tuple(x.shape))
    sides, answers = sides_of(class_names, x, place), sides_of(class_names, x, None)
    words = "the number of elements that count"
    source = None if place is None else pair_of(inputs, place, ignored, sides)
    return Explanation(
        kind="binary",
        class_count=2,
        options=Options(
            label_smoothing=checked_label_smoothing(options["label_smoothing"]),
            weighted=options["pos_weight"] is not None,
            sample_weighted=options["weight"] is not None,
            ignore_index=()
            if options["ignore_index"] is None
            else ignored_values(options["ignore_index"]),
        ),
        batch=trace_batch(losses, reduction, divisor, words, value, answers, place),
        row=None if source is None else trace_row(source, extent, _factor(reduction, divisor)),
        source=source,
        extent=extent,
        inputs=replace(inputs, class_names=None if class_names is None else tuple(class_names)),
    )


class Sources(NamedTuple):
    """All rows of a call, by their number in memory order."""

    at: Callable[[int], RowSource]
    first: int | None
    """The first that counts."""


def sources_of(told: Explanation) -> Sources:
    """The rows of a call that is explained."""
    inputs = told.inputs
    if told.kind == "binary":
        ignored = ignored_of(inputs)
        return Sources(
            lambda place: pair_of(
                inputs, place, ignored, sides_of(inputs.class_names, inputs.logits, place)
            ),
            _first_that_counts(ignored, told.batch.count),
        )
    call = call_of(inputs)
    ignored = None if call.rows.valid is None else ~call.rows.valid.flatten().cpu()
    return Sources(
        lambda place: row_of(call, place, inputs.class_names),
        _first_that_counts(ignored, told.batch.count),
    )


def _first_that_counts(ignored: Tensor | None, count: int) -> int | None:
    if ignored is None:
        return 0 if count else None
    counting = (~ignored).nonzero()
    return int(counting[0]) if len(counting) else None


def call_of(inputs: Inputs) -> Call:
    """The arguments of a call of ``cross_entropy``, checked."""
    options = inputs.options
    of_a_position = {name: options[name] for name in _OF_A_POSITION if name in options}
    return checked_call(inputs.logits, inputs.target, **of_a_position)


def _binary_losses(inputs: Inputs, ignored: Tensor | None, reduction: Reduction) -> Losses:
    """The same for the elements of a binary loss, each of which adds 1."""
    x, y = inputs.logits, inputs.target
    # Half types are not rounded before they are summed.
    y = y.to(accumulation(y.dtype)) if y.is_floating_point() else y
    options = {**inputs.options, "reduction": "none"}
    with torch.no_grad():
        each = binary_cross_entropy_with_logits(x.to(accumulation(x.dtype)), y, **options)
    flat = y.flatten().cpu()
    counts = torch.ones_like(flat, dtype=torch.bool) if ignored is None else ~ignored
    yes = flat[counts].double().mean() if counts.any() else None
    return Losses(
        each.flatten().cpu(),
        counts.double() if reduction.mode == "mean" else None,
        ignored,
        (flat > 0.5).long(),
        tuple(x.shape),
        None if yes is None else torch.stack([1 - yes, yes]),
    )


def _losses(call: Call, reduction: Reduction) -> Losses:
    """What each position costs, by the formula of the loss, and what it adds to the divisor."""
    losses = position_losses(
        canonical_statistics(call.rows, uniform=call.label_smoothing > 0), call
    )
    rule, shares = reduction.denominator, None
    if reduction.mode == "mean" and (rule is None or rule in ("valid", "weight")):
        shares = call.divisor_shares(rule)
        shares = torch.ones_like(losses) if shares is None else shares
    if call.targets.index is not None:
        labels = call.targets.index
    else:
        labels = call.rows.probabilities.argmax(1)  # type: ignore[union-attr]  # one or the other
    valid = call.rows.valid
    return Losses(
        losses.flatten().cpu(),
        None if shares is None else shares.flatten().cpu(),
        None if valid is None else ~valid.flatten().cpu(),
        labels.flatten().cpu(),
        call.layout.positions,
        _frequencies(call),
    )


def _frequencies(call: Call) -> Tensor | None:
    """The mean label over the positions that count, ``[C]``."""
    valid = call.rows.valid
    count = call.layout.count if valid is None else int(valid.sum())
    if not count:
        return None
    if call.rows.target is not None:
        index = call.rows.target if valid is None else call.rows.target[valid]
        return index.flatten().bincount(minlength=call.layout.classes).double().cpu() / count
    if call.rows.probabilities is None:
        raise LookupError("a call without a target has no labels")
    q = call.rows.probabilities.double()
    q = q if valid is None else q.masked_fill(~valid.unsqueeze(1), 0)
    return q.sum((0, 2)).cpu() / count


def _divisor(call: Call, reduction: Reduction) -> float | None:
    return float(call.divisor(reduction.denominator)) if reduction.mode == "mean" else None


def _factor(reduction: Reduction, divisor: float | None) -> float:
    """∂value/∂loss of a position: what the reduction does to every gradient."""
    if reduction.mode != "mean" or divisor is None:
        return 1.0
    return 1 / divisor if divisor else 0.0  # a mean over nothing moves nothing
