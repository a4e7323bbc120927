"""What a wrong label tensor most likely is, in the words of a remedy."""

from __future__ import annotations

import torch
from torch import Tensor

from xent.contract.errors import plain, shape
from xent.contract.layout import Layout

_ONE_LOGIT = (
    "For one logit per yes-or-no label use binary_cross_entropy_with_logits, "
    "with labels in the shape of input."
)


def for_shape(got: tuple[int, ...], layout: Layout) -> str:
    """Index targets of the wrong shape: the usual ways to get there, most certain first."""
    logits, positions, dim = layout.shape, layout.positions, layout.dim
    if got == (*logits[:dim], 1, *logits[dim + 1 :]):
        return f"The class axis is kept with size 1: target.squeeze({dim})."
    if layout.name == "input" and (misplaced := _for_class_axis(got, layout)):
        return misplaced
    if _count(got) == _count(positions):
        return for_order(got, positions)
    if len(got) == len(positions) > 0:
        return _for_sizes(got, positions)
    if len(got) == len(logits) and sorted(got) == sorted(logits):
        return (
            f"In the shape of {layout.name} it would be class probabilities: move its class axis."
        )
    if len(got) == len(logits) and got[:dim] + got[dim + 1 :] == positions:
        return f"Its class axis holds {got[dim]}, that of {layout.name} {layout.classes}."
    return ""


def _for_class_axis(got: tuple[int, ...], layout: Layout) -> str:
    """Labels that fit if the classes, or the batch, are elsewhere; for logits as they are given."""
    logits = layout.shape
    if got == logits[:-1]:
        return (
            "Are the classes on the last axis? Say dim=-1, or move them there: "
            f"input.movedim(-1, {layout.dim})."
        )
    if got == logits[1:] and layout.dim == 1 and len(logits) > 2:
        return "Is there no batch axis? Say dim=0."
    if len(got) == 1 and got[0] == _count(logits[:-1]) != _count(layout.positions):
        return f"Flatten the logits as well: input.reshape(-1, {logits[-1]})."
    return ""


def for_order(got: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """The right number of labels in another shape; a reshape must not mix them up."""
    same_order = [n for n in got if n != 1] == [n for n in wanted if n != 1]
    if same_order or len(got) == 1 or len(wanted) == 1:
        return f"Their number is right: target.reshape({wanted})."
    if sorted(got) == sorted(wanted):
        return "Its axes are in another order: see target.permute."
    return ""


def for_dtype(target: Tensor, layout: Layout) -> str:
    """Labels that are neither integer indices nor probabilities in the logits' shape."""
    if layout.classes == 1:
        return _ONE_LOGIT
    if target.dtype == torch.bool:
        return (
            "If two classes are meant: target.long(), or binary_cross_entropy_with_logits "
            "for one logit per position."
        )
    if target.is_complex():
        return ""
    if layout.shard is not None and target.ndim == len(layout.shape):
        return (
            "With group, probabilities are those of this rank's classes: give them the shape of "
            f"{layout.name}, {shape(layout.shape)}."
        )
    return (
        "Class indices: target.long(). Class probabilities: give them the shape of "
        f"{layout.name}, {shape(layout.shape)}."
    )


def for_integers_in_the_shape_of_logits(layout: Layout) -> str:
    """One-hot integers most of the time, else labels of a binary loss."""
    if layout.classes == 1 or len(layout.shape) == 1:
        return _ONE_LOGIT
    return (
        "For one-hot labels: target.float() keeps them, "
        f"target.argmax({layout.dim}) turns them into class indices."
    )


def for_range(target: Tensor, bad: int, counted: Tensor, ignored: tuple[int, ...], c: int) -> str:
    """A label outside [0, c): ``bad`` is the first, ``counted`` all that are not ignored."""
    dtype = target.dtype
    span = 2 ** torch.iinfo(dtype).bits
    wrapped = [value for value in ignored if value < 0 and bad == value % span]
    if wrapped:
        return f"{plain(dtype)} cannot hold {wrapped[0]}, which became {bad}: keep labels in int64."
    if dtype == torch.int8 and bad < 0 and c > 128:
        return "int8 ends at 127; larger labels become negative: keep labels in int64."
    if c == 1:
        return _ONE_LOGIT
    if int(counted.min()) >= 1 and int(counted.max()) == c:
        return "Do the labels count from 1? Subtract 1 from them."
    if bad == 255:
        return "Is 255 the mark of unlabelled pixels? Then say ignore_index=255."
    padding = "Is a padding id missing from ignore_index?"
    return padding if bad < 0 else f"{padding} Or are there more classes than outputs?"


def _for_sizes(got: tuple[int, ...], positions: tuple[int, ...]) -> str:
    axis = next(i for i in range(len(got)) if got[i] != positions[i])
    if axis == 0 and got[1:] == positions[1:]:
        return f"The batch sizes differ: {positions[0]} and {got[0]}."
    return f"They differ on axis {axis} of target: {positions[axis]} and {got[axis]}."


def _count(sizes: tuple[int, ...]) -> int:
    return torch.Size(sizes).numel()
