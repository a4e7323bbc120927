"""Losses whose classes are spread over real processes, against one process in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import xent
from composition import Arguments, assert_true, example, truth
from composition import loss_and_gradients as composed
from exactness import UNITS, largest_error, unit
from ranks import Pool, Rank

CUTS = {1: (0, 11), 2: (0, 4, 11), 3: (0, 5, 5, 11), 4: (0, 1, 7, 7, 11)}
"""Where the classes of each rank begin: uneven, and with one rank that has none."""
BACKENDS = ("numba", "torch", "triton")


def own(value: Any, cuts: tuple[int, ...], rank: int, axis: int) -> Any:
    """A rank's part of what has classes on an axis."""
    return value.narrow(axis, cuts[rank], cuts[rank + 1] - cuts[rank])


def own_arguments(arguments: Arguments, cuts: tuple[int, ...], rank: int, whole: bool) -> Arguments:
    """What a rank is given: its classes of classifier and labels, and all or its class weights."""
    mine = dict(arguments)
    axis = arguments["input"].ndim - 1
    for name in ("linear_weight", "linear_bias"):
        if name in mine:
            mine[name] = own(mine[name], cuts, rank, 0)
    if mine["target"].is_floating_point():
        mine["target"] = own(mine["target"], cuts, rank, axis)
    if "weight" in mine and not whole:
        mine["weight"] = own(mine["weight"], cuts, rank, 0)
    return mine


def of_logits(input: Tensor, linear_weight: Tensor, target: Tensor, **options: Any) -> Tensor:
    """The loss of logits, called with those and a classifier that does nothing but choose."""
    chosen = linear_weight.argmax(1).tolist()  # rows of the identity
    logits = input[..., chosen[0] : chosen[-1] + 1] if chosen else input[..., :0]
    return xent.cross_entropy(logits, target, dim=-1, **options)


def on_a_rank(
    rank: Rank,
    loss: Callable[..., Tensor],
    cuts: tuple[int, ...],
    arguments: Arguments,
    names: tuple[str, ...],
    whole: bool,
    backend: str,
) -> tuple[Tensor, list[Tensor]]:
    mine = own_arguments(arguments, cuts, rank.rank, whole)
    with xent.backend(backend):
        return composed(lambda **given: loss(**given, group=rank.group), mine, names)


def joined(
    found: list[tuple[Tensor, list[Tensor]]],
    names: tuple[str, ...],
    arguments: Arguments,
    whole: bool,
    logits: bool,
) -> tuple[Tensor, list[Tensor]]:
    """One loss, the same to the bit on all ranks, and gradients put together."""
    losses = [loss for loss, _ in found]
    for loss in losses[1:]:
        assert torch.equal(loss, losses[0]) or loss.isnan().equal(losses[0].isnan())
    gradients = []
    for name, parts in zip(names, zip(*(g for _, g in found), strict=True), strict=True):
        axis = arguments["input"].ndim - 1
        if name == "input" and logits:  # each rank's is zero but for its classes
            gradients.append(sum(parts))
        elif name == "target":
            gradients.append(torch.cat(parts, axis))
        elif name in ("linear_weight", "linear_bias") or (name == "weight" and not whole):
            gradients.append(torch.cat(parts, 0))
        else:
            assert all(torch.equal(part, parts[0]) for part in parts)
            gradients.append(parts[0])
    return losses[0], gradients


def check(
    ranks: Pool, size: int, arguments: Arguments, *, logits: bool, whole: bool = False,
    backend: str = "numba", cuts: tuple[int, ...] | None = None,
) -> None:  # fmt: skip
    """Asserts that a loss over ranks, and all its gradients, are those of one process."""
    wanted = ("input", "linear_weight", "linear_bias", "weight", "sample_weight", "target")
    names = tuple(n for n in wanted if n in arguments and arguments[n].is_floating_point())
    if logits:
        arguments = arguments | {"linear_weight": torch.eye(arguments["input"].shape[-1])}
        arguments["linear_weight"] = arguments["linear_weight"].to(arguments["input"].dtype)
        names = tuple(n for n in names if not n.startswith("linear"))
    loss = of_logits if logits else xent.linear_cross_entropy
    cuts = cuts or CUTS[size]
    found = ranks.run(size, on_a_rank, loss, cuts, arguments, names, whole, backend)
    assert_of_one_process(joined(found, names, arguments, whole, logits), arguments, names)


def assert_of_one_process(
    ours: tuple[Tensor, list[Tensor]], arguments: Arguments, names: tuple[str, ...]
) -> None:
    """Asserts that it is the truth.

    In a mean the gradients at factors are losses less their mean, whose digits are those of losses.
    """
    differences = [n for n in names if n in ("weight", "sample_weight")]
    if arguments.get("reduction", "mean") != "mean" or not differences:
        assert_true(ours, arguments, names)
        return
    loss, gradients = ours
    others = tuple(n for n in names if n not in differences)
    kept = [g for n, g in zip(names, gradients, strict=True) if n in others]
    assert_true((loss, kept), arguments, others)
    _, true = composed(truth, arguments, names, wide=True)
    units = 16.0 if loss.dtype == torch.float64 else UNITS[loss.dtype]
    for name, mine, correct in zip(names, gradients, true, strict=True):
        if name in differences:
            size = max(float(correct.abs().max()), float(loss))
            assert largest_error(mine, correct) <= units * unit(torch.tensor(size), loss.dtype)


def logits_example(shape: tuple[int, ...] = (7, 11), **options: Any) -> Arguments:
    made = example(shape, outputs=(shape[-1],), bias=False, **options)
    del made["linear_weight"]
    return made


GRID = list(
    itertools.product(
        ("index", "probabilities"), ("none", "sharded", "whole"), (0.0, 0.1),
        ("mean", "sum", "none"), (False, True),
    )
)  # fmt: skip


def with_options(
    arguments: Arguments, weight: str, smoothing: float, reduction: str, factors: bool
) -> Arguments:
    classes = 11
    arguments |= {"reduction": reduction, "label_smoothing": smoothing}
    positions = arguments["input"].shape[:-1]
    dtype = arguments["input"].dtype
    if weight != "none":
        arguments["weight"] = torch.rand(classes).to(dtype) + 0.1
    if factors:
        arguments["sample_weight"] = torch.rand(positions).to(dtype) + 0.1
    if not arguments["target"].is_floating_point():
        arguments["target"].flatten()[2] = -100
    return arguments


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize(("labels", "weight", "smoothing", "reduction", "factors"), GRID)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_over_ranks_give_the_loss_of_one(
    ranks, size, labels, weight, smoothing, reduction, factors, dtype
) -> None:
    arguments = with_options(
        logits_example(labels=labels, dtype=dtype), weight, smoothing, reduction, factors
    )
    check(ranks, size, arguments, logits=True, whole=weight == "whole")


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize(("labels", "weight", "smoothing", "reduction", "factors"), GRID)
def test_hidden_states_and_a_spread_classifier_give_the_loss_of_one(
    ranks, size, labels, weight, smoothing, reduction, factors
) -> None:
    arguments = with_options(example(labels=labels), weight, smoothing, reduction, factors)
    check(ranks, size, arguments, logits=False, whole=weight == "whole")


@pytest.mark.parametrize("kernels", BACKENDS[1:])
@pytest.mark.parametrize("labels", ["index", "probabilities"])
@pytest.mark.parametrize("weight", ["none", "sharded"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("logits", [True, False])
def test_every_backend_does_a_rank_s_part(
    ranks, kernels, labels, weight, smoothing, logits
) -> None:
    made = logits_example(labels=labels) if logits else example(labels=labels)
    arguments = with_options(made, weight, smoothing, "mean", False)
    check(ranks, 3, arguments, logits=logits, backend=kernels)


@pytest.mark.parametrize("labels", ["index", "probabilities"])
@pytest.mark.parametrize("shape", [(7, 6), (2, 3, 6)], ids=str)
@pytest.mark.parametrize("chunk_bytes", [None, 64])
def test_several_positions_a_hidden_state_and_small_chunks(
    ranks, labels, shape, chunk_bytes
) -> None:
    made = example(shape, outputs=(11, 3), labels=labels, weighted=True)
    options = {"label_smoothing": 0.1, "chunk_bytes": chunk_bytes}
    check(ranks, 3, made | options, logits=False)
