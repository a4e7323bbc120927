"""What a wrong label tensor most likely is, in the words of a remedy."""

from __future__ import annotations

import torch
from torch import Tensor

from xent.contract.errors import shape
from xent.contract.layout import Layout


def for_shape(got: tuple[int, ...], layout: Layout) -> str:
    """Index targets of the wrong shape: the usual ways to get there, most certain first."""
    logits, positions, dim = layout.shape, layout.positions, layout.dim
    same_rank = len(got) == len(positions)
    if got == (*logits[:dim], 1, *logits[dim + 1 :]):
        return f"The class axis is kept with size 1: target.squeeze({dim})."
    if got == logits[:-1]:
        return (
            "Are the classes on the last axis? Say dim=-1, or move them there: "
            f"input.movedim(-1, {dim})."
        )
    if got == logits[1:] and dim == 1:
        return "Is there no batch axis? Say dim=0."
    if got == ():
        return "One label per position is needed."
    if not positions:
        return "Without a batch axis there is one label."
    if _count(got) == _count(positions):
        return f"Their number is right: target.reshape({positions})."
    if len(got) == 1 and got[0] == _count(logits[:-1]):
        return f"Flatten the logits as well: input.reshape(-1, {logits[-1]})."
    if same_rank and got[1:] == positions[1:]:
        return f"The batch sizes differ: {positions[0]} and {got[0]}."
    if same_rank:
        axis = next(i for i in range(len(got)) if got[i] != positions[i])
        return f"They differ on axis {axis} of target: {positions[axis]} and {got[axis]}."
    if got[: len(positions)] == positions:
        return "One class per position is needed; for several at once use BCEWithLogitsLoss."
    return ""


def for_dtype(target: Tensor, layout: Layout) -> str:
    """Labels that are neither integer indices nor probabilities in the logits' shape."""
    if target.dtype == torch.bool:
        return (
            "If two classes are meant: target.long(), or binary_cross_entropy_with_logits "
            "for one logit per position."
        )
    if target.is_complex():
        return ""
    return (
        "Class indices: target.long(). Class probabilities: give them the shape of input, "
        f"{shape(layout.shape)}."
    )


def for_integers_in_the_shape_of_logits(layout: Layout) -> str:
    """One-hot integers, most of the time."""
    if layout.classes == 1:
        return (
            "With one class there is nothing to choose; for one logit per yes-or-no label use "
            "binary_cross_entropy_with_logits."
        )
    return (
        "For one-hot labels: target.float() keeps them, "
        f"target.argmax({layout.dim}) turns them into class indices."
    )


def for_range(target: Tensor, bad: int, counted: Tensor, ignored: tuple[int, ...], c: int) -> str:
    """A label outside [0, c): ``bad`` is the first, ``counted`` all that are not ignored."""
    wrapped = [value for value in ignored if value < 0 and bad == value % 256]
    if target.dtype == torch.uint8 and wrapped:
        return f"uint8 cannot hold {wrapped[0]}, which became {bad}: keep labels in int64."
    if target.dtype == torch.int8 and bad < 0:
        return "int8 ends at 127; larger labels become negative: keep labels in int64."
    if int(counted.min()) >= 1 and int(counted.max()) == c:
        return "Do the labels count from 1? Subtract 1 from them."
    if bad == 255:
        return "Is 255 the mark of unlabelled pixels? Then say ignore_index=255."
    return "Is a padding id missing from ignore_index?"


def _count(sizes: tuple[int, ...]) -> int:
    return torch.Size(sizes).numel()
