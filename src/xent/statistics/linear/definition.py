"""The same chunks as torch operations: for forward mode, transforms and second derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from xent.backends.torch import rows as definition
from xent.contract.dtypes import accumulation, without_autocast
from xent.contract.inspection import tracing
from xent.contract.rows import LINEAR_TENSORS, Coefficients, LinearRows, Rows, Vectors
from xent.statistics.linear.products import plain_logits
from xent.statistics.linear.selections import DIFFERENTIATED, chunk_length, zeroed_rows
from xent.statistics.linear.terms import Gradients, LinearCoefficients, Statistics, Wanted
from xent.statistics.rows import canonical_statistics


def statistics_of(rows: LinearRows, uniform: bool, predicted: bool = False) -> Statistics:
    """The statistics; autograd, if it looks, keeps the logits of all chunks."""
    parts = []
    for selection in _selections(rows):
        chunk = _rows_of(_chunk(rows, selection))
        vectors = definition.statistics(chunk, uniform)
        prediction = definition.prediction(chunk, vectors) if predicted else (None, None)
        parts.append((*vectors, *prediction))
    *joined, entropy, argmax = map(_joined, zip(*parts, strict=True))
    return Statistics(Vectors(*joined), entropy, argmax)  # type: ignore[arg-type]  # two are there


def gradients_of(
    rows: LinearRows, entropy: Tensor | None, coefficients: LinearCoefficients, wanted: Wanted
) -> Gradients:
    """The gradients, to be differentiated again; each chunk's logits are made when that happens."""
    checkpointed = _checkpointed()
    entropy = None if coefficients.entropy is None else entropy
    per_row = (entropy, coefficients.entropy, *coefficients.of_rows)

    def of_chunk(*tensors: Tensor | None) -> Gradients:
        chunk = LinearRows(*tensors[:LINEAR_TENSORS], *rows[LINEAR_TENSORS:])  # type: ignore[call-arg, arg-type]  # as they came
        entropy, at_entropy, *own = tensors[LINEAR_TENSORS:]
        return _of_chunk(chunk, entropy, LinearCoefficients(Coefficients(*own), at_entropy), wanted)

    parts = []
    for selection in _selections(rows):
        vectors = (None if v is None else v[selection] for v in per_row)
        parts.append(checkpointed(of_chunk, *_chunk(rows, selection).tensors, *vectors))
    at_hidden, at_classifier, at_bias, at_probabilities, at_weight = zip(*parts, strict=True)
    return Gradients(
        _joined(at_hidden), _sum(at_classifier), _sum(at_bias),
        _joined(at_probabilities), _sum(at_weight),
    )  # fmt: skip


def _of_chunk(
    chunk: LinearRows, entropy: Tensor | None, coefficients: LinearCoefficients, wanted: Wanted
) -> Gradients:
    rows = _rows_of(chunk)
    vectors = canonical_statistics(rows)  # of these logits; ``chunks.gradients_of`` says why
    of_rows, at_entropy = coefficients
    at_probabilities = at_weight = at_hidden = at_classifier = at_bias = None
    if wanted.of_labels:
        at_probabilities, at_weight = definition.label_gradients(rows, vectors, of_rows)
    if wanted.of_logits:
        at_logits = definition.logit_gradient(rows, vectors, of_rows)
        if entropy is not None and at_entropy is not None:
            at_logits = at_logits + definition.entropy_gradient(rows, vectors, entropy, at_entropy)
        outputs = at_logits.reshape(len(at_logits), -1).to(chunk.kind)
        hidden = _hidden(chunk)
        with without_autocast(hidden.device.type):
            if wanted.hidden:
                at_hidden = outputs @ chunk.classifier.to(chunk.kind)
            if wanted.classifier:
                at_classifier = (outputs.t() @ hidden).to(accumulation(chunk.kind))
            if wanted.bias:
                at_bias = outputs.sum(0, dtype=accumulation(chunk.kind))
    return Gradients(at_hidden, at_classifier, at_bias, at_probabilities, at_weight)


def _rows_of(chunk: LinearRows) -> Rows:
    _, _, _, *labels = chunk.tensors
    return Rows(plain_logits(chunk._replace(hidden=_hidden(chunk))), *labels)


def _hidden(chunk: LinearRows) -> Tensor:
    hidden = chunk.hidden.to(chunk.kind)
    return hidden if chunk.valid is None else zeroed_rows(hidden, chunk.valid)


def _chunk(rows: LinearRows, selection: slice) -> LinearRows:
    """Neighbouring rows with their labels."""

    def of(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[selection]

    return rows._replace(
        hidden=rows.hidden[selection],
        target=of(rows.target),
        probabilities=of(rows.probabilities),
        valid=of(rows.valid),
    )


def _selections(rows: LinearRows) -> Iterator[slice]:
    """The chunks; one for all where a trace must serve other numbers of rows as well."""
    if tracing() or torch.compiler.is_compiling():
        yield slice(None)
        return
    count = rows.hidden.shape[0]
    length = chunk_length(rows, count, DIFFERENTIATED)
    for start in range(0, max(count, 1), length):
        yield slice(start, start + length)


def _checkpointed() -> Callable[..., Any]:
    """Calls a function so that autograd keeps its arguments and nothing else, where it can."""
    if torch._C._are_functorch_transforms_active():  # they refuse what it is made of
        return lambda function, *arguments: function(*arguments)
    from torch.utils.checkpoint import checkpoint

    return lambda function, *arguments: checkpoint(
        function, *arguments, use_reentrant=False, preserve_rng_state=False
    )


def _joined(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def _sum(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return sum(present[1:], start=present[0]) if present else None
