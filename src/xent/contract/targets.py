"""Labels: class indices or class probabilities, and which positions count at all."""

from __future__ import annotations

import functools
import numbers
import operator
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from xent.contract import remedies
from xent.contract.dtypes import is_supported_float
from xent.contract.errors import described, mistake, require_same_device, require_tensor
from xent.contract.inspection import has_values, values_at_hand
from xent.contract.layout import Layout

Check = Literal["values"]
"""What may be asked for in full, though it waits for a device."""

_INTEGERS = (
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)


@dataclass(frozen=True)
class Targets:
    """Checked labels in canonical form: ``index`` or ``probabilities``, never both.

    ``valid`` marks the positions that count; None means that all do. On a CPU ignored positions
    have index 0, so that they can be looked up without a thought and masked afterwards; elsewhere
    nobody may have looked at the labels, and ``within`` makes them safe to look up.
    """

    index: Tensor | None = None  # int64 [outer, inner]
    probabilities: Tensor | None = None  # [outer, C, inner]
    valid: Tensor | None = None  # bool [outer, inner]
    weights: Tensor | None = None  # v_y or Σ_c v_c q_c, [outer, inner], if other ranks told them


def within(index: Tensor, classes: int) -> Tensor:
    """Labels that can be looked up: on a CPU all can, elsewhere a wrong one ends the process."""
    return index if index.is_cpu else index.clamp(0, max(0, classes - 1))


def canonical_targets(
    target: Tensor,
    logits: Tensor,
    layout: Layout,
    ignore_index: int | Sequence[int],
    check: Check | None = None,
) -> Targets:
    """Checks the labels and brings them into canonical form.

    Torch's rule decides which kind they are: the logits' own shape means probabilities. The
    values of indices are looked at where they are at hand; with ``check`` all that there are.
    """
    require_tensor("target", target)
    in_full = checked_check(check) and not torch.compiler.is_compiling() and has_values(target)
    ignored = ignored_values(ignore_index)
    require_same_device("target", target, logits, f"Move it: target.to({str(logits.device)!r}).")
    if target.shape == logits.shape:
        _check_probabilities(target, layout, ignored)
        if in_full:
            _check_probability_values(target)
        return Targets(probabilities=layout.rows(target))
    _check_indices(target, layout)
    return _indices(target, layout, ignored, in_full)


def checked_check(check: Any) -> bool:
    """``check=``: None, or "values" to wait for the values of the labels and look at them."""
    if check not in (None, "values"):
        raise mistake(ValueError, "check", expected="None or 'values'", got=repr(check))
    return check is not None


def ignored_values(ignore_index: Any) -> tuple[int, ...]:
    """One label to ignore, or several, as a tuple of ints."""
    several = isinstance(ignore_index, Sequence | AbstractSet)
    values = tuple(ignore_index) if several else (ignore_index,)
    if isinstance(ignore_index, str | bytes) or not all(map(_is_integer, values)):
        raise mistake(
            TypeError,
            "ignore_index",
            expected="an int or a sequence of ints",
            got=described(ignore_index),
            remedy="The default, -100, never equals a class.",
        )
    return tuple(value if isinstance(value, int) else operator.index(value) for value in values)


def stored_ignore_index(ignore_index: Any) -> int | tuple[int, ...]:
    """What a Module keeps of it: one int, as torch's does, or a tuple."""
    values = ignored_values(ignore_index)
    return values[0] if len(values) == 1 else values


def equal_to_any(labels: Tensor, values: tuple[int, ...]) -> Tensor:
    """Marks the labels that are one of the values, compared in a dtype that holds both."""
    wide = labels if labels.dtype == torch.float64 else labels.to(_comparable(labels.dtype))
    found = [wide == value for value in values if -(2**63) <= value < 2**63]
    return functools.reduce(torch.logical_or, found or [torch.zeros_like(wide, dtype=torch.bool)])


def _is_integer(value: Any) -> bool:
    if isinstance(value, Tensor) and (value.ndim or value.dtype not in _INTEGERS):
        return False
    return isinstance(value, int | numbers.Integral | Tensor) and not isinstance(value, bool)


def _comparable(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.is_floating_point else torch.int64


def _check_probabilities(target: Tensor, layout: Layout, ignored: tuple[int, ...]) -> None:
    if not is_supported_float(target.dtype):
        raise mistake(
            RuntimeError,
            "target",
            expected=f"floating-point class probabilities, since it has the shape of {layout.name}",
            got=described(target),
            remedy=remedies.for_integers_in_the_shape_of_logits(layout),
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


def _check_probability_values(target: Tensor) -> None:
    """Probabilities are finite and not negative; what they sum to may be meant."""
    wrong = ~((target >= 0) & (target < torch.inf))
    if bool(wrong.any()):
        place = wrong.nonzero()[0].tolist()
        raise mistake(
            ValueError,
            f"target[{', '.join(map(str, place))}]",
            expected="a probability, finite and not negative",
            got=str(target[tuple(place)].item()),
            remedy="Are these logits? Pass torch.softmax of them.",
        )


def _check_indices(target: Tensor, layout: Layout) -> None:
    if target.dtype not in _INTEGERS:
        raise mistake(
            RuntimeError,
            "target",
            expected="class indices of an integer dtype, since its shape is not that of "
            f"{layout.name}",
            got=described(target),
            remedy=remedies.for_dtype(target, layout),
        )
    positions, got = layout.positions, tuple(target.shape)
    if got == positions or (positions == () and got == (1,)):
        return
    raise mistake(
        _kind_of_shape_error(got, positions),
        "target",
        expected=f"class indices of shape {positions} for {layout.name} of shape {layout.shape} "
        f"with its classes on axis {layout.dim}",
        got=f"shape {got}",
        remedy=remedies.for_shape(got, layout),
    )


def _kind_of_shape_error(got: tuple[int, ...], positions: tuple[int, ...]) -> type[Exception]:
    """The exception type torch raises for this pair of shapes."""
    if positions:
        return ValueError if got == () or got[0] != positions[0] else RuntimeError
    return ValueError if len(got) == 1 else RuntimeError


def _indices(target: Tensor, layout: Layout, ignored: tuple[int, ...], in_full: bool) -> Targets:
    index = layout.vectors(target).to(torch.int64)
    at_hand = in_full or values_at_hand(index)
    if at_hand and _all_counted(index, ignored, layout.classes):
        return Targets(index=index)
    skipped = equal_to_any(index, ignored)
    if at_hand and (layout.shard is None or layout.shard.is_known):
        outside = ((index < 0) | (index >= layout.classes)) & ~skipped
        if bool(outside.any()):
            raise _out_of_range(target, outside.reshape(target.shape), ignored, layout.classes)
    if index.is_cpu or in_full:
        index = index.masked_fill(skipped, 0)
    return Targets(index=index, valid=~skipped)


def _all_counted(index: Tensor, ignored: tuple[int, ...], classes: int) -> bool:
    """True if every label is a class and none is ignored: the usual case, seen in one look."""
    if not index.numel():
        return True
    lowest, highest = (int(value) for value in index.aminmax())
    within = lowest >= 0 and highest < classes
    return within and not any(lowest <= value <= highest for value in ignored)


def _out_of_range(
    target: Tensor, outside: Tensor, ignored: tuple[int, ...], classes: int
) -> IndexError:
    """Names the first bad label by position and value, and guesses the cause from all of them."""
    place = outside.nonzero()[0].tolist()
    bad = int(target.to(torch.int64)[tuple(place)])
    bad += 2**64 if target.dtype == torch.uint64 and bad < 0 else 0
    name = f"target[{', '.join(map(str, place))}]" if place else "target"
    others = int(outside.sum()) - 1
    more = f" ({others} more label{'s' if others > 1 else ''} out of range)" if others else ""
    allowed = f"0..{classes - 1}" if classes else "nothing (input has no classes)"
    or_ignored = f" or ignore_index={', '.join(map(str, ignored))}" if ignored else ""
    counted = target.to(torch.int64)[~equal_to_any(target, ignored)]
    remedy = remedies.for_range(target, bad, counted, ignored, classes)
    return IndexError(f"{name} is {bad}{more}; expected {allowed}{or_ignored}. {remedy}")
