"""Labels: class indices or class probabilities, and which positions count at all."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xent.contract.errors import (
    described,
    mistake,
    require_same_device,
    require_tensor,
    shape,
)
from xent.contract.inspection import values_at_hand
from xent.contract.layout import Layout

_INTEGERS = (
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)


@dataclass(frozen=True)
class Targets:
    """Checked labels in canonical form: ``index`` or ``probabilities``, never both.

    ``valid`` marks the positions that count; None means that all do. Ignored positions have
    index 0, so that they can be looked up without a thought and masked afterwards.
    """

    index: Tensor | None = None  # int64 [outer, inner]
    probabilities: Tensor | None = None  # [outer, C, inner]
    valid: Tensor | None = None  # bool [outer, inner]


def canonical_targets(
    target: Tensor, logits: Tensor, layout: Layout, ignore_index: int | Sequence[int]
) -> Targets:
    """Checks the labels and brings them into canonical form.

    Torch's rule decides which kind they are: the logits' own shape means probabilities.
    """
    require_tensor("target", target)
    ignored = ignored_values(ignore_index)
    require_same_device("target", target, logits, f"Move it: target.to({str(logits.device)!r}).")
    if target.shape == logits.shape:
        _check_probabilities(target, layout, ignored)
        return Targets(probabilities=layout.rows(target))
    _check_index_dtype(target, layout)
    _check_index_shape(target, layout)
    return _indices(target, layout, ignored)


def ignored_values(ignore_index: Any) -> tuple[int, ...]:
    """One label to ignore, or several, as a tuple."""
    several = isinstance(ignore_index, Iterable) and not isinstance(ignore_index, str | Tensor)
    values = tuple(ignore_index) if several else (ignore_index,)
    for value in values:
        is_integer = isinstance(value, int) or hasattr(value, "__index__")
        if isinstance(value, bool) or not is_integer or (isinstance(value, Tensor) and value.ndim):
            raise mistake(
                TypeError,
                "ignore_index",
                expected="an int or a sequence of ints",
                got=described(ignore_index),
                remedy="The default, -100, never equals a class.",
            )
    return tuple(value if isinstance(value, int) else operator.index(value) for value in values)


def _check_probabilities(target: Tensor, layout: Layout, ignored: tuple[int, ...]) -> None:
    if not target.is_floating_point():
        raise mistake(
            RuntimeError,
            "target",
            expected="floating-point class probabilities, since it has the shape of input",
            got=described(target),
            remedy="For one-hot labels: target.float() keeps them, "
            f"target.argmax({layout.dim}) turns them into class indices.",
        )
    legal = [value for value in ignored if value >= 0]
    if legal:
        raise mistake(
            RuntimeError,
            "ignore_index",
            expected="no class to ignore, since target holds class probabilities",
            got=str(legal[0]),
            remedy="To leave positions out, give them sample_weight 0.",
        )


def _check_index_dtype(target: Tensor, layout: Layout) -> None:
    if target.dtype in _INTEGERS:
        return
    if target.dtype == torch.bool:
        remedy = (
            "If two classes are meant: target.long(), or binary_cross_entropy_with_logits "
            "for one logit per position."
        )
    else:
        remedy = (
            f"Class indices: target.long(). Class probabilities: give them the shape of input, "
            f"{shape(layout.shape)}."
        )
    raise mistake(
        RuntimeError,
        "target",
        expected="class indices of an integer dtype, since its shape is not that of input",
        got=described(target),
        remedy=remedy,
    )


def _check_index_shape(target: Tensor, layout: Layout) -> None:
    positions, got = layout.positions, tuple(target.shape)
    if got == positions or (positions == () and got == (1,)):
        return
    raise mistake(
        _kind_of_shape_error(got, layout),
        "target",
        expected=f"class indices of shape {positions} for input of shape {layout.shape} "
        f"with its classes on axis {layout.dim}",
        got=f"shape {got}",
        remedy=_remedy_for_shape(got, layout),
    )


def _kind_of_shape_error(got: tuple[int, ...], layout: Layout) -> type[Exception]:
    """The exception type torch raises for this pair of shapes."""
    unbatched = len(layout.shape) == 1
    if unbatched or got == () or got[0] != layout.positions[0]:
        return ValueError
    return RuntimeError


def _remedy_for_shape(got: tuple[int, ...], layout: Layout) -> str:
    with_one = (*layout.shape[: layout.dim], 1, *layout.shape[layout.dim + 1 :])
    if got == with_one:
        return f"The class axis is kept with size 1: target.squeeze({layout.dim})."
    if got == layout.shape[:-1]:
        return (
            "Are the classes on the last axis? Say dim=-1, "
            f"or move them: input.transpose({layout.dim}, -1)."
        )
    if layout.positions and got[1:] == layout.positions[1:]:
        return f"The batch sizes differ: {layout.positions[0]} and {got[0] if got else 0}."
    if len(got) > len(layout.positions) and got[: len(layout.positions)] == layout.positions:
        return "One class per position is needed; for several at once use BCEWithLogitsLoss."
    return "dim= names the class axis where it is not axis 1."


def _indices(target: Tensor, layout: Layout, ignored: tuple[int, ...]) -> Targets:
    index = layout.vectors(target).to(torch.int64)
    at_hand = values_at_hand(index)
    if at_hand and _all_counted(index, ignored, layout.classes):
        return Targets(index=index)
    skipped = equal_to_any(index, ignored)
    if at_hand:
        outside = ((index < 0) | (index >= layout.classes)) & ~skipped
        if bool(outside.any()):
            found = outside.reshape(target.shape)
            raise _out_of_range(target, found, ignored, layout.classes)
    return Targets(index=index.masked_fill(skipped, 0), valid=~skipped)


def _all_counted(index: Tensor, ignored: tuple[int, ...], classes: int) -> bool:
    """True if every label is a class and none is ignored: the usual case, seen in one look."""
    if not index.numel():
        return True
    lowest, highest = (int(value) for value in index.aminmax())
    within = lowest >= 0 and highest < classes
    return within and not any(lowest <= value <= highest for value in ignored)


def equal_to_any(labels: Tensor, values: tuple[int, ...]) -> Tensor:
    """Marks the labels that are one of the values."""
    found = torch.zeros_like(labels, dtype=torch.bool)
    for value in values:
        found = found | (labels == value)
    return found


def _out_of_range(
    target: Tensor, outside: Tensor, ignored: tuple[int, ...], classes: int
) -> IndexError:
    """Names the first bad label by position and value, and guesses the cause from all of them."""
    index = target.to(torch.int64)
    place = outside.nonzero()[0].tolist()
    bad = int(index[tuple(place)])
    name = f"target[{', '.join(map(str, place))}]" if place else "target"
    others = int(outside.sum()) - 1
    more = f" ({others} more label{'s' if others > 1 else ''} out of range)" if others else ""
    allowed = f"0..{classes - 1}" if classes else "nothing (input has no classes)"
    values = ", ".join(map(str, ignored))
    counted = index[~equal_to_any(index, ignored)]
    wrapped = [value for value in ignored if value < 0 and bad == value % 256]
    if target.dtype == torch.uint8 and wrapped:
        remedy = f"uint8 cannot hold {wrapped[0]}, which became {bad}: keep labels in int64."
    elif int(counted.min()) >= 1 and int(counted.max()) == classes:
        remedy = "Do the labels count from 1? Subtract 1 from them."
    elif bad == 255:
        remedy = "Is 255 the mark of unlabelled pixels? Then say ignore_index=255."
    else:
        remedy = "Is a padding id missing from ignore_index?"
    return IndexError(
        f"{name} is {bad}{more}; expected {allowed} or ignore_index={values}. {remedy}"
    )
