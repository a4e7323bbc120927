"""An element of the binary loss as a row of two classes, "no" and "yes"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xent.contract.targets import equal_to_any, ignored_values
from xent.explanation.names import checked_names
from xent.explanation.source import Inputs, RowSource, position_of

ANSWERS = ("no", "yes")


def ignored_of(inputs: Inputs) -> Tensor | None:
    """Which elements have an ignored label, flat, in memory order; None if no label is one."""
    values = inputs.options["ignore_index"]
    if values is None:
        return None
    return equal_to_any(inputs.target, ignored_values(values)).flatten().cpu()


def sides_of(class_names: Sequence[str] | None, x: Tensor, place: int | None) -> tuple[str, str]:
    """Names of "no" and "yes": two names for the sides, or one for each logit of the last axis."""
    if class_names is None:
        return "no", "yes"
    last = x.shape[-1] if x.ndim else 1
    named = list(class_names)
    if len(named) == 2 and (x.ndim < 2 or last != 2):
        no, yes = checked_names(named, 2) or ANSWERS
        return no, yes
    names = checked_names(class_names, last, of="logit of the last axis") or ()
    if place is None:
        return "no", "yes"
    name = names[place % last]
    return f"not {name}", name


def pair_of(
    inputs: Inputs, place: int, ignored: Tensor | None, sides: tuple[str, str]
) -> RowSource:
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
