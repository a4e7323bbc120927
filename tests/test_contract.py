"""Every combination of the contract's options, forward and gradient.

The formulas in extended precision are the truth; torch in the same dtype is the bar.
"""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

import reference
import xent
from exactness import assert_no_further, loss_and_gradients

pytestmark = pytest.mark.usefixtures("backend")

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SHAPES = [(5,), (6, 5), (4, 7, 3), (2, 3, 4, 2), (3, 1), (2, 130, 6)]
REDUCTIONS = ["none", "mean", "sum"]
OPTIONS = [
    dict(zip(("weighted", "label_smoothing", "reduction"), values, strict=True))
    for values in itertools.product([False, True], [0.0, 0.1, 1.0], REDUCTIONS)
]


def name(value: object) -> str:
    if isinstance(value, dict):
        return "-".join(f"{v}" for v in value.values())
    return str(value).removeprefix("torch.").replace(" ", "")


def logits_of(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return (3 * torch.randn(shape)).to(dtype)


def class_axis(shape: tuple[int, ...]) -> int:
    return 1 if len(shape) > 1 else 0


def positions(shape: tuple[int, ...]) -> tuple[int, ...]:
    axis = class_axis(shape)
    return shape[:axis] + shape[axis + 1 :]


def arguments(options: dict, classes: int, dtype: torch.dtype) -> tuple[list[torch.Tensor], dict]:
    weight = [torch.rand(classes).add(0.2).to(dtype)] if options["weighted"] else []
    return weight, {k: v for k, v in options.items() if k != "weighted"}


@pytest.mark.parametrize("options", OPTIONS, ids=name)
@pytest.mark.parametrize("ignored", [None, -100, 1], ids=lambda v: f"ignore{v}")
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("shape", SHAPES, ids=name)
def test_index_targets(shape, dtype, ignored, options) -> None:
    classes = shape[class_axis(shape)]
    logits = logits_of(shape, dtype)
    weight, options = arguments(options, classes, dtype)
    target = torch.randint(0, classes, positions(shape))
    if ignored is not None:
        options["ignore_index"] = ignored
        target = torch.where(torch.rand(target.shape) < 0.3, ignored % max(classes, 101), target)
        target = torch.where(target == 1, ignored, target) if ignored < 0 else target
        target = target.clamp(max=classes - 1) if ignored >= 0 else target

    def of(function):
        return lambda x: function(x, target, *weight, **options)

    ours = loss_and_gradients(of(xent.cross_entropy), [logits])
    theirs = loss_and_gradients(of(F.cross_entropy), [logits])
    truth = reference.cross_entropy(logits, target, *weight, **options)
    assert_no_further(ours[0], theirs[0], truth.loss)
    assert_no_further(ours[1][0], theirs[1][0], truth.logits_gradient)


@pytest.mark.parametrize("options", OPTIONS, ids=name)
@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("shape", SHAPES, ids=name)
def test_probability_targets(shape, dtype, options) -> None:
    axis = class_axis(shape)
    logits = logits_of(shape, dtype)
    weight, options = arguments(options, shape[axis], dtype)
    target = torch.randn(shape).softmax(axis).to(dtype)

    def of(function):
        return lambda x, q, *w: function(x, q, *w, **options)

    ours = loss_and_gradients(of(xent.cross_entropy), [logits, target, *weight])
    theirs = loss_and_gradients(of(F.cross_entropy), [logits, target, *weight])
    truth = reference.cross_entropy(logits, target, *weight, **options)
    assert_no_further(ours[0], theirs[0], truth.loss)
    true = (truth.logits_gradient, truth.target_gradient, truth.weight_gradient)
    for mine, other, gradient in zip(ours[1], theirs[1], true, strict=False):
        assert_no_further(mine, other, gradient)


@pytest.mark.parametrize("logits", [torch.float16, torch.float32, torch.float64], ids=name)
@pytest.mark.parametrize("labels", [torch.bfloat16, torch.float32, torch.float64], ids=name)
@pytest.mark.parametrize("factors", [None, torch.float32, torch.float64], ids=name)
def test_probabilities_of_another_dtype_are_promoted_as_in_torch(logits, labels, factors) -> None:
    """And computed in the widest: a float64 loss has the digits of one."""
    x = torch.randn(5, 4).to(logits)
    q = torch.rand(5, 4).softmax(1).to(labels)
    weight = None if factors is None else torch.rand(4).to(factors)
    loss = xent.cross_entropy(x, q, weight)
    assert loss.dtype == F.cross_entropy(x, q, weight).dtype
    truth = reference.cross_entropy(x, q, weight).loss
    assert abs(loss.item() - truth) <= 4 * torch.finfo(loss.dtype).eps * truth


def test_sample_weights_of_ignored_positions_do_not_matter() -> None:
    logits, target = torch.randn(3, 4), torch.tensor([0, -100, 2])
    factors = torch.tensor([1.0, float("nan"), 2.0])
    for reduction in REDUCTIONS:
        loss = xent.cross_entropy(logits, target, sample_weight=factors, reduction=reduction)
        clean = xent.cross_entropy(
            logits, target, sample_weight=factors.nan_to_num(), reduction=reduction
        )
        assert torch.equal(loss, clean)
