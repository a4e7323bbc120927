"""Factors: one per class (``weight``), one per position (``sample_weight``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xent.contract.dtypes import is_supported_float, under_autocast
from xent.contract.errors import (
    as_number,
    described,
    mistake,
    plain,
    require_same_device,
    require_tensor,
    shape,
)
from xent.contract.inspection import is_differentiated, values_at_hand
from xent.contract.layout import Layout


def checked_class_weight(
    weight: Tensor | None, logits: Tensor, layout: Layout, *, same_dtype: bool
) -> Tensor | None:
    """One factor per class, on the logits' device; for index targets also in their dtype.

    Of a shard's classes, if these are not all: factors may come for them or for all.
    """
    if weight is None:
        return None
    require_tensor("weight", weight)
    if weight.is_complex() or (weight.is_floating_point() and not is_supported_float(weight.dtype)):
        raise mistake(RuntimeError, "weight", expected="real factors", got=described(weight))
    _check_class_count(weight, layout)
    require_same_device(
        "weight",
        weight,
        logits,
        "In a Module, pass it to the constructor: it is a buffer there and moves with .to().",
    )
    if same_dtype and under_autocast(weight) != under_autocast(logits):
        raise mistake(
            RuntimeError,
            "weight",
            expected=f"{plain(logits.dtype)}, the dtype of input",
            got=plain(weight.dtype),
            remedy="Cast it: weight.to(input.dtype).",
        )
    shard = layout.shard
    if shard is None or not shard.is_known or len(weight) == layout.own_classes:
        return weight
    return weight[shard.start : shard.stop]


def _check_class_count(weight: Tensor, layout: Layout) -> None:
    given, own, classes = tuple(weight.shape), layout.own_classes, layout.classes
    known = layout.shard is None or layout.shard.is_known
    if given == (classes,) or given == (own,) or (len(given) == 1 and not known):
        return
    expected = "one factor for each class"
    if known:
        here = "" if own == classes else f", or of the {own} of this rank"
        expected = f"one factor for each of the {classes} classes, shape ({classes},){here}"
    raise mistake(
        RuntimeError,
        "weight",
        expected=expected,
        got=f"shape {shape(weight)}",
        remedy="It holds one factor per class, not per position.",
    )


def canonical_sample_weight(
    sample_weight: Tensor | None, logits: Tensor, layout: Layout
) -> Tensor | None:
    """One factor per position as ``[outer, inner]``, in its own dtype."""
    if sample_weight is None:
        return None
    require_tensor("sample_weight", sample_weight)
    if tuple(sample_weight.shape) != layout.positions:
        raise mistake(
            ValueError,
            "sample_weight",
            expected=f"one factor per position, shape {layout.positions}",
            got=f"shape {shape(sample_weight)}",
            remedy="It has the shape of index targets. For one factor per class use weight.",
        )
    if sample_weight.is_complex():
        raise mistake(
            TypeError, "sample_weight", expected="real factors", got=described(sample_weight)
        )
    require_same_device("sample_weight", sample_weight, logits, "Move it there with .to().")
    return layout.vectors(sample_weight)


def canonical_valid(valid: Tensor | None, logits: Tensor, layout: Layout) -> Tensor | None:
    """A mask of the positions that count, as ``[outer, inner]``."""
    if valid is None:
        return None
    require_tensor("valid", valid)
    if tuple(valid.shape) != layout.positions or valid.dtype != torch.bool:
        raise mistake(
            ValueError,
            "valid",
            expected=f"a bool tensor, one value per position, shape {layout.positions}",
            got=described(valid),
        )
    require_same_device("valid", valid, logits, "Move it there with .to().")
    return layout.vectors(valid)


def weighty_positions(sample_weight: Tensor | None, layout: Layout) -> Tensor | None:
    """Marks positions of non-zero weight, ``[outer, inner]``; None means all.

    A factor of zero leaves its position out for good, NaN logits and all — unless a derivative
    with respect to the factors is wanted, for which the loss behind the zero must be known.
    """
    if sample_weight is None or is_differentiated(sample_weight):
        return None
    weighty = layout.vectors(sample_weight) != 0
    return None if values_at_hand(weighty) and bool(weighty.all()) else weighty


def zeroed(vector: Tensor, valid: Tensor | None) -> Tensor:
    """The vector, with zeros where a position does not count."""
    return vector if valid is None else vector.masked_fill(~valid, 0)


def jointly_valid(valid: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Positions that count by both masks, either of which may be None for all."""
    if valid is None or other is None:
        return other if valid is None else valid
    return valid & other


def checked_label_smoothing(label_smoothing: Any) -> float:
    """A number in [0, 1]. Torch takes negative numbers and NaN for 0, without a word."""
    number = as_number(label_smoothing)
    expected = "a number between 0.0 and 1.0"
    if number is None:
        got = described(label_smoothing)
        raise mistake(TypeError, "label_smoothing", expected=expected, got=got)
    if not 0.0 <= number <= 1.0:  # NaN too
        raise mistake(
            RuntimeError,
            "label_smoothing",
            expected=expected,
            got=str(number),
            remedy="It is the share of each label that is spread evenly over all classes.",
        )
    return number
