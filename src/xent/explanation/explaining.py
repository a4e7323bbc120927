"""``explain``: one call of a loss, taken apart once, with the library's own formulas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from xent.contract.reduction import Denominator, OnEmpty, checked_reduction
from xent.explanation.explanation import Explanation
from xent.explanation.options import binary_options_of, is_binary, options_of, refuse_both
from xent.explanation.row import checked_extent
from xent.explanation.source import Inputs, factors_of, labels_of, logits_of
from xent.explanation.tracing import explained, explained_binary
from xent.functional.dense_cross_entropy import checked_labels
from xent.nn import DenseCrossEntropyLoss


def explain(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    ignore_index: int | Sequence[int] = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    dim: int | None = None,
    sample_weight: Any = None,
    denominator: Denominator | None = None,
    on_empty: OnEmpty = "nan",
    dtype: torch.dtype | None = None,
    loss: Any = None,
    class_names: Sequence[str] | None = None,
    row: int | Sequence[int] | None = 0,
    top: int | None = 10,
    steps: int = 5,
    step_size: float = 1.0,
) -> Explanation:
    """Takes one call of ``cross_entropy`` apart: every number from the logits to the gradient.

    The options are those of ``cross_entropy``, or come with ``loss``, a configured Module of
    torch's or xent's. The numbers (nats, float64) are read off the statistics that the losses of
    this library stand on, and their derivatives.

    Args:
        input: logits, as for ``cross_entropy``; lists of numbers will do.
        target: class indices or class probabilities, as for ``cross_entropy``.
        weight: class weights ``(C)``.
        size_average: deprecated, see ``reduction``.
        ignore_index: label or labels of positions that do not count.
        reduce: deprecated, see ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: ε in [0, 1].
        dim: the class axis; None is torch's rule.
        sample_weight: one factor per position.
        denominator: what ``mean`` divides by.
        on_empty: the mean when the divisor is zero.
        dtype: dtype of the returned loss.
        loss: a ``CrossEntropyLoss`` (torch's or xent's), ``DenseCrossEntropyLoss``, or a
            ``BCEWithLogitsLoss``, for which see ``explain_binary``, instead of options.
        class_names: one name per class; None numbers them.
        row: the position that is taken apart: its number in the order of the positions' shape,
            or an index into that shape; None leaves only the batch.
        top: so many of the likeliest classes are shown of long rows, with those of the label and
            one line for the rest; None shows all.
        steps: of gradient descent on the logits of the row.
        step_size: of the descent.

    Returns:
        An ``Explanation``: print it, display it in a notebook, or turn it into text, Markdown,
        HTML, JSON or Python; ``why("gradient")`` answers questions with its numbers.

    Raises:
        TypeError, ValueError, RuntimeError, IndexError, NotImplementedError: as
            ``cross_entropy``; IndexError also for a row that is not there, ValueError for names
            that are too few and options beside ``loss``.

    Source: the gradient p − y is Bishop, Pattern Recognition and Machine Learning (2006),
    eq. 4.109. Torch has no counterpart.

    Example:
        >>> import torch, xent
        >>> told = xent.explain(torch.tensor([[0.1, 0.7, 0.2]]).log(), torch.tensor([0]))
        >>> [round(c.gradient, 4) for c in told.row.classes]  # p − y
        [-0.9, 0.7, 0.2]
        >>> round(told.batch.value, 4)  # −log 0.1
        2.3026
    """
    options: dict[str, Any] = {
        "weight": factors_of(weight), "ignore_index": ignore_index, "reduction": reduction,
        "label_smoothing": label_smoothing, "dim": dim, "denominator": denominator,
        "on_empty": on_empty, "dtype": dtype,
    }  # fmt: skip
    if loss is not None:
        old = {"size_average": size_average, "reduce": reduce}
        refuse_both(loss, {**options, **old}, _DEFAULTS)
        if is_binary(loss):
            refuse_both(loss, {"sample_weight": factors_of(sample_weight)}, _DEFAULTS)
            return explain_binary(
                input, target, loss=loss, class_names=class_names, row=row, steps=steps,
                step_size=step_size,
            )  # fmt: skip
        options.update(options_of(loss))
    checked = checked_reduction(
        options["reduction"], size_average, reduce,
        denominator=options["denominator"], on_empty=options["on_empty"],
    )  # fmt: skip
    options["reduction"] = checked.mode
    options["sample_weight"] = factors_of(sample_weight)
    x, y = logits_of(input), labels_of(target)
    if isinstance(loss, DenseCrossEntropyLoss):
        y = checked_labels(x, y)
    inputs = Inputs(x, y, options)
    return explained(inputs, checked, class_names, row, checked_extent(top, steps, step_size))


def explain_binary(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Any = None,
    *,
    ignore_index: int | Sequence[int] | None = None,
    label_smoothing: float = 0.0,
    loss: Any = None,
    class_names: Sequence[str] | None = None,
    row: int | Sequence[int] | None = 0,
    steps: int = 5,
    step_size: float = 1.0,
) -> Explanation:
    """Takes one call of ``binary_cross_entropy_with_logits`` apart, as ``explain`` does.

    One logit x against an unspoken 0: the sigmoid is the softmax over the pair (0, x), and the
    explanation shows that pair, "no" and "yes". Its gradient at "yes" is that at x: p − y. (The
    0 is no parameter: what it would get goes nowhere.)

    Args:
        input: logits of any shape; numbers or lists of them will do.
        target: labels of the same shape, probabilities of "yes" in [0, 1].
        weight: one factor per element, of a shape that broadcasts to that of ``input``.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        pos_weight: factor of the "yes" side, of a shape that broadcasts to that of ``input``.
        ignore_index: label or labels of elements that do not count.
        label_smoothing: ε in [0, 1], spread evenly over the two sides.
        loss: a ``BCEWithLogitsLoss`` (torch's or xent's) instead of options.
        class_names: a name for each logit along the last axis; or two, for "no" and "yes".
        row: the element that is taken apart, its number or its index; None leaves only the batch.
        steps: of gradient descent on the logit.
        step_size: of the descent.

    Returns:
        An ``Explanation`` of two classes, of the kind ``"binary"``.

    Raises:
        TypeError, ValueError, RuntimeError, NotImplementedError: as
            ``binary_cross_entropy_with_logits``; IndexError for an element that is not there.

    Source: Bishop, Pattern Recognition and Machine Learning (2006), eq. 4.90.

    Example:
        >>> import xent
        >>> told = xent.explain_binary([2.0], [0])
        >>> no, yes = told.row.classes
        >>> round(yes.p, 4), round(yes.gradient, 4)  # sigmoid(2), and p − y
        (0.8808, 0.8808)
    """
    options: dict[str, Any] = {
        "weight": factors_of(weight), "reduction": reduction,
        "pos_weight": factors_of(pos_weight), "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
    }  # fmt: skip
    if loss is not None:
        old = {"size_average": size_average, "reduce": reduce}
        refuse_both(loss, {**options, **old}, _BINARY_DEFAULTS)
        options.update(binary_options_of(loss))
    checked = checked_reduction(options["reduction"], size_average, reduce)
    options["reduction"] = checked.mode
    inputs = Inputs(logits_of(input), labels_of(target), options)
    extent = checked_extent(None, steps, step_size)
    return explained_binary(inputs, checked, class_names, row, extent)


_BINARY_DEFAULTS = {
    "weight": None, "reduction": "mean", "pos_weight": None, "ignore_index": None,
    "label_smoothing": 0.0, "size_average": None, "reduce": None,
}  # fmt: skip
_DEFAULTS = {
    "weight": None, "ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0,
    "dim": None, "denominator": None, "on_empty": "nan", "dtype": None,
    "size_average": None, "reduce": None, "sample_weight": None,
}  # fmt: skip
