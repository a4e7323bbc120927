"""Every combination of the options of ``linear_cross_entropy``, forward and all gradients.

The formulas in float64 are the truth; torch's composition in the same dtype is the bar.
"""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import reference
import xent
from composition import (
    Arguments,
    assert_true,
    differentiable,
    example,
    loss_and_gradients,
    needs_torchs,
    truth,
)
from composition import poisoned as poisoned
from exactness import largest_error
from xent.statistics.linear import products

pytestmark = pytest.mark.usefixtures("backend")

HALVES = [torch.float16, torch.bfloat16]
DTYPES = [*HALVES, torch.float32, torch.float64]
# (hidden states, outputs of the classifier): one, a matrix, a batch of sequences, K-dimensional
SHAPES = [
    ((6,), (5,)),
    ((7, 6), (11,)),
    ((2, 3, 4), (9,)),
    ((5, 4), (3, 2)),
    ((2, 3, 4), (3, 2, 2)),
    ((4, 3), (1,)),
    ((4, 1), (5,)),
    ((3, 2), (130,)),
]
OPTIONS = [
    dict(zip(("weighted", "label_smoothing", "reduction"), values, strict=True))
    for values in itertools.product([False, True], [0.0, 0.1, 1.0], ["none", "mean", "sum"])
]


def name(value: object) -> str:
    if isinstance(value, dict):
        return "-".join(f"{v}" for v in value.values())
    return str(value).removeprefix("torch.").replace(" ", "")


def check(arguments: Arguments, names: list[str] | None = None) -> None:
    names = differentiable(arguments) if names is None else names
    ours = loss_and_gradients(xent.linear_cross_entropy, arguments, names)
    assert_true(ours, arguments, names)


def with_ignored(arguments: Arguments, *labels: int) -> Arguments:
    target = arguments["target"]
    for label in labels:
        target = torch.where(torch.rand(target.shape) < 0.3, label, target)
    return {**arguments, "target": target}


@pytest.mark.parametrize("options", OPTIONS, ids=name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=name)
def test_index_targets(dtype, options) -> None:
    arguments = example((2, 4, 6), (9,), dtype, weighted=options["weighted"])
    arguments |= {k: v for k, v in options.items() if k != "weighted"}
    names = ["input", "linear_weight", "linear_bias"]
    for chunk_bytes in (1, 3 * 9 * 4, None):  # a row at a time, three of eight, all
        check({**with_ignored(arguments, -100), "chunk_bytes": chunk_bytes}, names)


@pytest.mark.parametrize("options", OPTIONS, ids=name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=name)
def test_probability_targets(dtype, options) -> None:
    arguments = example((2, 4, 6), (9,), dtype, "probabilities", weighted=options["weighted"])
    arguments |= {k: v for k, v in options.items() if k != "weighted"}
    arguments["chunk_bytes"] = 3 * 9 * 4
    # Gradients at labels and class weights take another way than those that a forward can make.
    check(arguments, ["input", "linear_weight", "linear_bias"])
    check(arguments)


@pytest.mark.parametrize("labels", ["index", "probabilities"])
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize(("shape", "outputs"), SHAPES, ids=name)
def test_every_shape(shape, outputs, dtype, labels) -> None:
    arguments = example(shape, outputs, dtype, labels, bias=dtype != torch.float16)
    for reduction in ("none", "mean"):
        for chunk_bytes in (60, None):
            check({**arguments, "reduction": reduction, "chunk_bytes": chunk_bytes})


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=name)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_class_weights_have_a_gradient_with_index_targets_too(smoothing, dtype, reduction) -> None:
    arguments = example((5, 6), (7,), dtype, weighted=True)
    options = {"reduction": reduction, "label_smoothing": smoothing, "chunk_bytes": 60}
    check({**arguments, **options})
    check({**arguments, **options}, ["weight"])


@pytest.mark.parametrize("labels", ["index", "probabilities"])
@pytest.mark.parametrize("denominator", [None, "valid", "weight", "batch", 3.5, torch.tensor(7.0)])
def test_what_a_mean_divides_by(denominator, labels) -> None:
    arguments = example((2, 4, 6), (9,), labels=labels, weighted=True)
    if labels == "index":
        arguments = with_ignored(arguments, 1)
        arguments["ignore_index"] = 1
    arguments |= {"denominator": denominator, "label_smoothing": 0.2, "chunk_bytes": 100}
    arguments["sample_weight"] = torch.tensor([[1.0, 0.0, 2.0, 0.5], [0.25, 1.5, 0.0, 1.0]])
    names = ["input", "linear_weight", "linear_bias"]
    check(arguments, names)
    if denominator in (None, "weight", 3.5):
        arguments["sample_weight"] = torch.rand(2, 4) + 0.5
        check(arguments)  # at sample and class weights, too, which are in the divisor


@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("labels", ["index", "probabilities"])
def test_sample_weights(labels, reduction) -> None:
    arguments = example((5, 6), (7, 2), labels=labels)
    arguments |= {"sample_weight": torch.rand(5, 2) + 0.5, "reduction": reduction}
    for smoothing in (0.0, 0.3):
        check({**arguments, "label_smoothing": smoothing, "chunk_bytes": 150})
        check({**arguments, "label_smoothing": smoothing}, ["input", "linear_weight"])


@pytest.mark.parametrize("ignored", [(-100, 3), (2,), [0, 1, -5]], ids=str)
def test_several_labels_are_ignored(ignored) -> None:
    arguments = with_ignored(example((9, 4), (6,)), *ignored)
    for reduction in ("none", "mean"):
        check({**arguments, "ignore_index": ignored, "reduction": reduction, "chunk_bytes": 50},
              ["input", "linear_weight", "linear_bias"])  # fmt: skip


def test_no_ignore_index_is_minus_100() -> None:
    arguments = with_ignored(example(), -100)
    names = ["input", "linear_weight"]
    none = loss_and_gradients(xent.linear_cross_entropy, {**arguments, "ignore_index": None}, names)
    assert_true(none, arguments, names)
    with pytest.raises(IndexError, match="target"):
        xent.linear_cross_entropy(**arguments, ignore_index=-1)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_integer_dtype(kind) -> None:
    arguments = example()
    loss = xent.linear_cross_entropy(**arguments)
    arguments["target"] = arguments["target"].to(kind)
    assert torch.equal(xent.linear_cross_entropy(**arguments), loss)


@pytest.mark.parametrize("labels", ["index", "probabilities"])
def test_the_truth_is_that_of_the_formulas_in_extended_precision(labels) -> None:
    """Whose logits and gradients are numpy's, written out by hand."""
    arguments = example((5, 4), (6,), torch.float64, labels, bias=False, weighted=True)
    options = {"label_smoothing": 0.1, "reduction": "none"}
    names = ["input", "linear_weight"]
    loss, gradients = loss_and_gradients(truth, {**arguments, **options}, names)
    x, w = arguments["input"], arguments["linear_weight"]
    formulas = reference.cross_entropy(x @ w.T, arguments["target"], arguments["weight"], **options)
    at_logits = formulas.logits_gradient
    expected = [formulas.loss, at_logits @ w, at_logits.T @ x]
    torch.testing.assert_close([loss, *gradients], expected, rtol=1e-13, atol=1e-13)


@needs_torchs
@pytest.mark.parametrize("dtype", HALVES, ids=name)
def test_half_types_keep_the_digits_that_torchs_chunks_lose(dtype) -> None:
    arguments = example((64, 32), (50,), dtype, bias=False)
    true = truth(**{k: v.double() if v.is_floating_point() else v for k, v in arguments.items()})
    unrounded = xent.linear_cross_entropy(**arguments, dtype=torch.float32, chunk_bytes=2000)
    assert abs(unrounded - true) < 1e-6 * true
    names = ["input", "linear_weight"]
    rounded = loss_and_gradients(xent.linear_cross_entropy, arguments, names)
    assert_true(rounded, arguments, names)
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=8, chunking_method=None)
    theirs = F.linear_cross_entropy(**arguments, options=options)
    assert 100 * abs(unrounded - true) < abs(theirs - true)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
def test_dtype_is_that_of_the_loss(dtype) -> None:
    arguments = example(dtype=torch.bfloat16)
    for reduction in ("none", "mean"):
        loss = xent.linear_cross_entropy(**arguments, dtype=dtype, reduction=reduction)
        assert loss.dtype == dtype
        assert xent.linear_cross_entropy(**arguments, reduction=reduction).dtype == torch.bfloat16


@pytest.mark.parametrize("wide", ["target", "weight"])
def test_float64_labels_and_weights_ask_for_the_digits_of_one(wide) -> None:
    arguments = example(labels="probabilities", weighted=True)
    arguments[wide] = arguments[wide].double()
    names = differentiable(arguments)
    loss, gradients = loss_and_gradients(xent.linear_cross_entropy, arguments, names)
    true, correct = loss_and_gradients(truth, arguments, names, wide=True)
    assert loss.dtype == torch.float64
    assert abs(loss - true) < 1e-14
    for n, mine, expected in zip(names, gradients, correct, strict=True):
        assert mine.dtype == arguments[n].dtype
        assert (
            largest_error(mine, expected) <= 2 * torch.finfo(mine.dtype).eps * expected.abs().max()
        )


@pytest.mark.parametrize("labels", ["index", "probabilities"])
def test_a_classifier_is_widened_piece_by_piece(labels) -> None:
    arguments = example((3, 200), (3001,), torch.bfloat16, labels)
    arguments["input"] /= 8
    assert arguments["linear_weight"].numel() * 4 > products.PIECE_BYTES
    for reduction in ("none", "mean"):
        options = {**arguments, "reduction": reduction}
        check(options, ["input", "linear_weight", "linear_bias"])
        with torch.no_grad():
            evaluated = xent.linear_cross_entropy(**options)
        torch.testing.assert_close(evaluated, xent.linear_cross_entropy(**options))
