"""Row statistics of logits that never exist all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xent.contract.dtypes import accumulation
from xent.contract.inspection import plain_operations_only
from xent.contract.linear import checked_linear_call, linear_rows, logits_in_name
from xent.contract.reduction import summed
from xent.contract.rows import LinearRows
from xent.contract.targets import Check, checked_check
from xent.contract.weights import canonical_valid, checked_class_weight, jointly_valid
from xent.statistics.linear import definition, derivatives
from xent.statistics.linear.terms import Statistics, Wanted
from xent.statistics.masses import Masses, weighed


@dataclass(frozen=True)
class LinearRowStatistics:
    """What is known of each position, in the shape of the positions; nats."""

    lse: Tensor
    """log Σ_c exp x_c."""
    nll: Tensor | None = None
    """lse − x_y = −log p_y: with an index target."""
    uniform: Tensor | None = None
    """Σ_c v_c (lse − x_c), v = class weights or ones: with ``uniform=True``."""
    cross: Tensor | None = None
    """Σ_c v_c q_c (lse − x_c): with a probability target q."""
    entropy: Tensor | None = None
    """−Σ_c p_c log p_c: with ``predictions=True``."""
    argmax: Tensor | None = None
    """int64, the first of the most probable classes: with ``predictions=True``."""


def linear_row_statistics(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | None = None,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int | Sequence[int] | None = -100,
    valid: Tensor | None = None,
    uniform: bool = False,
    predictions: bool = False,
    chunk_bytes: int | None = None,
    check: Check | None = None,
) -> LinearRowStatistics:
    """``row_statistics`` of input · linear_weightᵀ + linear_bias, without the logits of all rows.

    For scoring a language model, the perplexity of a long text or a loss of one's own, in bounded
    memory. For logits x and p = softmax(x), in nats:

    - lse = log Σ_c exp x_c
    - nll = lse − x_y = −log p_y
    - uniform = Σ_c v_c (lse − x_c)
    - cross = Σ_c v_c q_c (lse − x_c), where a class with v_c q_c = 0 costs nothing
    - entropy = −Σ_c p_c log p_c
    - argmax = the most probable class; ``argmax == target`` says where the model is right

    All but argmax are differentiable as often as wanted with respect to ``input``,
    ``linear_weight``, ``linear_bias``, to probability targets and to ``weight``. A backward makes
    the logits a second time, a chunk after the other: with it four matrix products, without it one.

    Args:
        input: hidden states ``(…, D)``; float16, bfloat16, float32, float64.
        linear_weight: classifier ``(C, D)``, or ``(C, d1, …, dK, D)`` with a classifier for each of
            d1 × … × dK positions per hidden state.
        target: None; or class indices of any integer dtype, the shape of ``input`` without D (and
            d1 … dK behind it); or class probabilities, the shape of the logits.
        linear_bias: the shape of ``linear_weight`` without D.
        weight: class weights v ``(C)``. They enter uniform and cross, not nll.
        ignore_index: label or labels of positions that do not count; None is −100.
        valid: bool, the shape of the positions; False leaves a position out as well.
        uniform: whether uniform is computed.
        predictions: whether entropy and argmax are computed.
        chunk_bytes: what may be held of logits at a time, one row at least. None is the size of
            the classifier in the precision of the sums, for at most 1024 float32 rows (2048 on a
            GPU), or 64 MiB if that is more.
        check: ``"values"`` looks at the labels, also where that is to wait; see ``cross_entropy``.

    Returns:
        LinearRowStatistics of the positions' shape, float32 (float64 for float64 input). Positions
        that do not count are 0 in all of them, −1 in argmax, and their hidden states may hold NaN.
        argmax means nothing in a row that has no softmax.

    Raises:
        TypeError, ValueError, RuntimeError, IndexError, NotImplementedError: as
            ``linear_cross_entropy``.

    Source: as ``row_statistics``; Shannon (1948), section 6, for the entropy. Torch has no
    counterpart.

    Example: the perplexity of a text, and how often the likeliest token is the right one.

        >>> import torch, xent
        >>> hidden, embedding = torch.eye(3), 2 * torch.eye(3)
        >>> text = torch.tensor([0, 1, 0])
        >>> of = xent.linear_row_statistics(hidden, embedding, text, predictions=True)
        >>> round(of.nll.mean().exp().item(), 3)
        2.475
        >>> (of.argmax == text).tolist()
        [True, True, False]
    """
    checked_check(check)
    if target is None:
        logits, layout = logits_in_name(input, linear_weight, linear_bias)
        weight = checked_class_weight(weight, logits, layout, same_dtype=False)
        working = accumulation(logits.dtype)
        rows = linear_rows(input, linear_weight, linear_bias, layout, working, chunk_bytes)
        rows = rows._replace(weight=None if weight is None else weight.to(working))
    else:
        call, rows = checked_linear_call(
            input, linear_weight, target, linear_bias, weight,
            ignore_index=ignore_index, chunk_bytes=chunk_bytes, check=check,
        )  # fmt: skip
        logits, layout = call.rows.logits, call.layout
    counting = jointly_valid(rows.valid, canonical_valid(valid, logits, layout))
    found = canonical_statistics(rows._replace(valid=counting), uniform, predictions)
    vectors = (found.vectors.lse, *found.vectors.statistics[2:], found.entropy, found.argmax)
    shaped = (None if v is None else layout.restore(v) for v in vectors)
    return LinearRowStatistics(*shaped)  # type: ignore[arg-type]  # lse is never None


def canonical_statistics(
    rows: LinearRows, uniform: bool = False, predictions: bool = False
) -> Statistics:
    """Statistics of checked, canonical rows."""
    if plain_operations_only():
        return definition.statistics_of(rows, uniform, predictions)
    if torch.compiler.is_compiling():
        from xent.statistics.linear import compiled  # registered when first needed

        return compiled.statistics(rows, uniform, predictions)
    return derivatives.statistics(rows, uniform, predictions)


def canonical_total(rows: LinearRows, masses: Masses) -> Tensor:
    """Σ mass · statistic over all positions.

    Where a gradient is asked for it is made on the way, while the logits are there.
    """
    wanted = _wanted(rows)
    general = (
        wanted.of_labels
        or plain_operations_only()
        or torch._C._are_functorch_transforms_active()
        or not wanted.of_logits
    )
    if general:
        found = canonical_statistics(rows, masses.uniform is not None)
        return summed(weighed(found.vectors, masses))
    if torch.compiler.is_compiling():
        from xent.statistics.linear import compiled

        return compiled.total(rows, masses, wanted)
    return derivatives.total(rows, masses, wanted)


def _wanted(rows: LinearRows) -> Wanted:
    hidden, classifier, bias, _, probabilities, weight, _ = (
        tensor is not None and tensor.requires_grad and torch.is_grad_enabled()
        for tensor in rows.tensors
    )
    return Wanted(hidden, classifier, bias, probabilities, weight)
