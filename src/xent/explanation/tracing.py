"""From the arguments of a call to its explanation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xent.contract.call import Call, checked_call
from xent.contract.dtypes import accumulation
from xent.contract.errors import mistake
from xent.contract.reduction import Reduction
from xent.contract.targets import equal_to_any, ignored_values
from xent.contract.weights import checked_label_smoothing
from xent.explanation.batch import Losses, in_words, trace_batch
from xent.explanation.explanation import Explanation
from xent.explanation.names import checked_names, place_of
from xent.explanation.row import Extent, trace_row
from xent.explanation.source import Inputs, RowSource, position_of, row_of
from xent.explanation.trace import Options
from xent.functional import binary_cross_entropy_with_logits, cross_entropy
from xent.functional.cross_entropy import position_losses
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
    of_a_position = {name: options[name] for name in _OF_A_POSITION if name in options}
    call = checked_call(inputs.logits, inputs.target, **of_a_position)
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
        inputs=inputs,
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
        # Half types are not rounded before they are summed.
        wide, truth = (t.to(accumulation(t.dtype)) if t.is_floating_point() else t for t in (x, y))
        each = binary_cross_entropy_with_logits(wide, truth, **{**options, "reduction": "none"})
    ignored = None
    if options["ignore_index"] is not None:
        ignored = equal_to_any(y, ignored_values(options["ignore_index"])).flatten().cpu()
    count = x.numel() if ignored is None else x.numel() - int(ignored.sum())
    divisor = float(count) if reduction.mode == "mean" else None
    labels = (y.flatten().cpu() > 0.5).long()
    counts = torch.ones(x.numel()) if ignored is None else (~ignored).double()
    shares = counts if reduction.mode == "mean" else None
    losses = Losses(each.flatten().cpu(), shares, ignored, labels, tuple(x.shape))
    place = None if row is None else place_of(row, tuple(x.shape))
    sides, answers = _sides(class_names, x, place), _sides(class_names, x, None)
    words = "the number of elements that count"
    source = None if place is None else _pair(inputs, place, ignored, sides)
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
        inputs=inputs,
    )


_ANSWERS = ("no", "yes")


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
    )


def _divisor(call: Call, reduction: Reduction) -> float | None:
    return float(call.divisor(reduction.denominator)) if reduction.mode == "mean" else None


def _factor(reduction: Reduction, divisor: float | None) -> float:
    """∂value/∂loss of a position: what the reduction does to every gradient."""
    if reduction.mode != "mean" or divisor is None:
        return 1.0
    return 1 / divisor if divisor else 0.0  # a mean over nothing moves nothing


def _sides(class_names: Sequence[str] | None, x: Tensor, place: int | None) -> tuple[str, str]:
    """Names of "no" and "yes": two names for the sides, or one for each logit of the last axis."""
    if class_names is None:
        return "no", "yes"
    last = x.shape[-1] if x.ndim else 1
    named = list(class_names)
    if len(named) == 2 and (x.ndim < 2 or last != 2):
        no, yes = checked_names(named, 2) or _ANSWERS
        return no, yes
    names = checked_names(class_names, last, of="logit of the last axis") or ()
    if place is None:
        return "no", "yes"
    name = names[place % last]
    return f"not {name}", name


def _pair(inputs: Inputs, place: int, ignored: Tensor | None, sides: tuple[str, str]) -> RowSource:
    """The element as a row of two logits, 0 for "no" and x for "yes"."""
    shape, options = tuple(inputs.logits.shape), inputs.options

    def at_place(factor: Tensor | None) -> float:
        if factor is None:
            return 1.0
        return float(factor.broadcast_to(shape).reshape(-1)[place])

    x, y = at_place(inputs.logits), at_place(inputs.target)
    skipped = ignored is not None and bool(ignored[place])
    # Softmax knows no +inf; against −inf, 0 is the same certainty.
    pair = (-torch.inf, 0.0) if x == torch.inf else (0.0, x)
    double = torch.float64
    return RowSource(
        logits=torch.tensor(pair, dtype=double),
        label=torch.tensor((0.0, 0.0) if skipped else (1 - y, y), dtype=double),
        names=sides,
        position=position_of(place, shape),
        label_index=int(y) if not skipped and y in (0, 1) else None,
        weight=None
        if options["pos_weight"] is None
        else torch.tensor((1.0, at_place(options["pos_weight"])), dtype=double),
        label_smoothing=float(options["label_smoothing"]),
        sample_weight=at_place(options["weight"]),
        ignored=skipped,
        free=torch.tensor((0.0, 1.0), dtype=double),
    )
