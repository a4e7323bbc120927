"""A classifier and its loss as a composition: the formulas for truth, torch's own as the bar.

``truth`` in float64 is what a loss on hidden states has to come to, and autograd differentiates it;
``torchs`` is F.linear and F.cross_entropy in the dtype of the tensors, whose error is the bar.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import xent.backends.numba.memory
from exactness import UNITS, assert_no_further, grad_output_for, largest_error, unit

Arguments = dict[str, Any]
needs_torchs = pytest.mark.skipif(
    not hasattr(F, "linear_cross_entropy"), reason="torch has linear_cross_entropy since 2.13"
)
DIFFERENTIATED = ("input", "linear_weight", "linear_bias", "weight", "sample_weight", "target")


def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for gradients and logits holds NaN until it is written."""
    memory = xent.backends.numba.memory.gradient_like

    def filled(logits: Tensor) -> Tensor:
        return memory(logits).fill_(math.nan)

    monkeypatch.setattr(xent.backends.numba.memory, "gradient_like", filled)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the modules that import it."""
    poison(monkeypatch)


def truth(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | Sequence[int] | None = -100,
    label_smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
    denominator: str | float | Tensor | None = None,
    on_empty: str = "nan",
    chunk_bytes: int | None = None,
) -> Tensor:
    """The formulas of the docstrings, position by position."""
    x = logits_of(input, linear_weight, linear_bias)  # [*positions, C]
    classes = x.shape[-1]
    indices = not target.is_floating_point()
    valid = torch.ones(x.shape[:-1], dtype=torch.bool)
    if indices:
        valid = counting(target, ignore_index)
        q = F.one_hot(target.long().where(valid, 0), classes).to(x.dtype)
    else:
        q = target.movedim(input.ndim - 1, -1)
    s = torch.ones(valid.shape, dtype=x.dtype) if sample_weight is None else sample_weight
    if not s.requires_grad:
        valid = valid & (s != 0)
    v = torch.ones(classes, dtype=x.dtype) if weight is None else weight
    smoothed = (1 - label_smoothing) * q + label_smoothing / classes
    s = s * valid
    losses = s * (v * smoothed * -x.log_softmax(-1)).sum(-1)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    of_label = (v * q).sum(-1)
    by = {
        None: (s * of_label if indices else s).sum(),
        "valid": valid.sum(),
        "weight": (s * of_label).sum(),
        "batch": valid.shape[0] if valid.ndim else 1,
    }.get(denominator if isinstance(denominator, str | None) else "a number", denominator)
    if by == 0:
        return losses.sum() * 0 + (0.0 if on_empty == "zero" else math.nan)
    return losses.sum() / by


def torchs(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    sample_weight: Tensor | None = None,
    denominator: str | float | Tensor | None = None,
    on_empty: str = "nan",
    chunk_bytes: int | None = None,
    **options: Any,
) -> Tensor:
    """What a user of torch would write, for the options that torch has."""
    assert sample_weight is None
    assert denominator is None
    x = logits_of(input, linear_weight, linear_bias)
    positions, classes = x.shape[:-1], x.shape[-1]
    if target.is_floating_point():
        rows = target.movedim(input.ndim - 1, -1).reshape(-1, classes)
    else:
        rows = target.flatten()
    loss = F.cross_entropy(x.reshape(-1, classes), rows, **options)
    return loss.reshape(positions) if options.get("reduction") == "none" else loss


def assert_near(ours: Tensor, theirs: Tensor, truth: Tensor) -> None:
    """Asserts that ours is as near to the truth as torch's, but for the order of the sums.

    Half types get no such leave: they are summed in float32. The truth of a float64 result is a
    float64 itself, and torch's may be the same to the bit.
    """
    if ours.dtype in (torch.float16, torch.bfloat16) or not truth.isfinite().any():
        return assert_no_further(ours, theirs, truth)
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    units = 16.0 if ours.dtype == torch.float64 else UNITS[ours.dtype]
    size = truth[truth.isfinite()].abs().max()
    allowed = largest_error(theirs, truth) + units * unit(size, ours.dtype)
    assert largest_error(ours, truth) <= allowed
    return None


def assert_true(
    ours: tuple[Tensor, list[Tensor]], arguments: Arguments, names: Sequence[str]
) -> None:
    """Asserts that a loss and its gradients are true, with torch's error as the bar."""
    true = loss_and_gradients(truth, arguments, names, wide=True)
    options = {"sample_weight", "denominator", "on_empty"} & arguments.keys()
    at_weight = "weight" in names and not arguments["target"].is_floating_point()
    if options or at_weight or not isinstance(arguments.get("ignore_index", -100), int):
        # Torch has no such option: its operations, put together by hand, are the bar.
        theirs = loss_and_gradients(truth, arguments, names)
    else:
        theirs = loss_and_gradients(torchs, arguments, names)
    for mine, other, correct in zip(
        (ours[0], *ours[1]), (theirs[0], *theirs[1]), (true[0], *true[1]), strict=True
    ):
        assert mine is not None
        assert_near(mine, other, correct)


def logits_of(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> Tensor:
    """The logits of all positions, classes last."""
    classes, *inner, features = linear_weight.shape
    bias = None if linear_bias is None else linear_bias.reshape(-1)
    flat = F.linear(input, linear_weight.reshape(math.prod((classes, *inner)), features), bias)
    return flat.reshape(*input.shape[:-1], classes, *inner).movedim(input.ndim - 1, -1)


def counting(target: Tensor, ignore_index: int | Sequence[int] | None) -> Tensor:
    """Positions whose label is not to be ignored."""
    if ignore_index is None:
        ignore_index = -100
    several = [ignore_index] if isinstance(ignore_index, int) else list(ignore_index)
    return torch.stack([target != label for label in several]).all(0)


def loss_and_gradients(
    function: Callable[..., Tensor], arguments: Arguments, names: Sequence[str], wide: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """A loss and its gradients at fresh leaves of these names; in float64 if ``wide``."""
    given = dict(arguments)
    for name, value in given.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            given[name] = (value.double() if wide else value).detach().clone()
    leaves = [given[name].requires_grad_() for name in names]
    loss = function(**given)
    loss.backward(grad_output_for(loss).to(loss.dtype))
    return loss.detach(), [leaf.grad for leaf in leaves]


def example(
    shape: tuple[int, ...] = (7, 6),
    outputs: tuple[int, ...] = (11,),
    dtype: torch.dtype = torch.float32,
    labels: str = "index",
    bias: bool = True,
    weighted: bool = False,
) -> Arguments:
    """Hidden states of a shape, a classifier of so many outputs, and labels."""
    *lead, features = shape
    classes, *inner = outputs
    made: Arguments = {
        "input": torch.randn(shape).to(dtype),
        "linear_weight": torch.randn(*outputs, features).to(dtype),
    }
    if labels == "index":
        made["target"] = torch.randint(0, classes, (*lead, *inner))
    else:
        made["target"] = torch.randn(*lead, *outputs).softmax(len(lead)).to(dtype)
    if bias:
        made["linear_bias"] = torch.randn(outputs).to(dtype)
    if weighted:
        made["weight"] = torch.rand(classes).add(0.2).to(dtype)
    return made


def differentiable(arguments: Arguments) -> list[str]:
    """The names of what a gradient can be asked of."""
    return [
        name
        for name in DIFFERENTIATED
        if isinstance(arguments.get(name), Tensor) and arguments[name].is_floating_point()
    ]
