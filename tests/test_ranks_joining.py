"""The arithmetic of joining: a thousand ranks in one process, and errors that must be noticed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from xent.backends.torch import rows as definition
from xent.contract.rows import Beyond, Coefficients, Rows, Vectors
from xent.contract.shards import Shard
from xent.statistics.shards import joining, parts
from xent.statistics.shards.joining import Joined

Made = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
"""Logits, labels, probabilities, class weights."""


def joined_by(made: Made, cuts: Sequence[int], uniform: bool) -> tuple[list[Joined], list[Tensor]]:
    """What each of many ranks knows in the end, and the gradient at its logits, in one process."""
    logits, target, probabilities, weight = made
    shards = [Shard(a, b, cuts[-1]) for a, b in pairwise(cuts)]
    owns, rows_of, labels_of = [], [], []
    for shard in shards:
        own = slice(shard.start, shard.stop)
        q = None if probabilities is None else probabilities[:, own]
        rows = Rows(logits[:, own], target, q, None if weight is None else weight[own])
        labels = parts.labels_of(rows, shard)
        rows = rows._replace(target=None if labels is None else labels.place)
        vectors = definition.statistics(rows, uniform)
        owns.append(parts.own_of(rows, vectors, labels))
        rows_of.append(rows)
        labels_of.append(labels)
    maximum = torch.stack([own.maximum for own in owns]).amax(0)
    sums = [joining.addends(own, maximum) for own in owns]
    total = sums[0].filled(torch.stack([part.flat() for part in sums]).sum(0))
    found = [joining.joined(own, maximum, total, cuts[-1], None, None) for own in owns]
    gradients = []
    for rows, labels, mine in zip(rows_of, labels_of, found, strict=True):
        here = None if labels is None else labels.here
        coefficients = parts.own_coefficients(
            coefficients_of(rows, uniform), here, mine.spread_elsewhere, mine.mass_elsewhere
        )
        vectors = mine.vectors
        beyond = Beyond(vectors.maximum, vectors.rest, mine.nll, mine.at_top)
        seen = Vectors(beyond.maximum, beyond.rest, beyond.nll)
        gradients.append(definition.logit_gradient(rows, seen, coefficients))
    return found, gradients


def coefficients_of(rows: Rows, uniform: bool) -> Coefficients:
    """Not the same for all rows."""
    count = rows.logits.shape[0]
    each = (0.5 + torch.arange(count) % 5 / 4).to(rows.logits.dtype).unsqueeze(1)
    return Coefficients(
        each / 3,
        None if rows.target is None else each,
        each / 7 if uniform else None,
        None if rows.probabilities is None else each,
    )


def made(classes: int, labels: str, weighted: bool, dtype: torch.dtype = torch.float32) -> Made:
    rows = 6
    logits = (3 * torch.randn(rows, classes, 1)).to(dtype)
    logits[1, classes // 3] = 40.0  # certain
    logits[2, : classes // 2] = -math.inf
    logits[3, 5] = logits[3, classes - 5] = 20.0  # two ranks have the maximum
    target = torch.randint(0, classes, (rows, 1)) if labels == "index" else None
    if target is not None:
        target[1], target[2] = classes // 3, classes - 1
    q = None
    if labels == "probabilities":
        q = torch.rand(rows, classes, 1).softmax(1).to(dtype)
        q[2, : classes // 2] = 0
    return logits, target, q, torch.rand(classes).to(dtype) if weighted else None


def whole(made: Made, uniform: bool) -> tuple[Vectors, Tensor]:
    """The definition on all classes in float64."""
    wide = [t.double() if t is not None and t.is_floating_point() else t for t in made]
    rows = Rows(*wide)  # type: ignore[arg-type]  # logits are there
    vectors = definition.statistics(rows, uniform)
    gradient = definition.logit_gradient(rows, vectors, coefficients_of(rows, uniform))
    return vectors, gradient


def worst(made: Made, cuts: Sequence[int], uniform: bool) -> float:
    """The largest relative error of a statistic on any rank, or of the gradient of a row."""
    found, gradients = joined_by(made, cuts, uniform)
    true, at_logits = whole(made, uniform)
    errors = []
    for mine in (found[0], found[-1]):
        for ours, correct in zip(mine.vectors, true, strict=True):
            if ours is not None and correct is not None:
                errors.append(_relative(ours.double(), correct))
    gradient = torch.cat(gradients, 1).double()
    errors.append(_relative(gradient, at_logits))
    return max(errors)


def _relative(ours: Tensor, correct: Tensor) -> float:
    """The largest error over the largest number of its row."""
    if not torch.equal(ours.isfinite(), correct.isfinite()):
        return math.inf
    size = correct.where(correct.isfinite(), 0).abs().amax(1, keepdim=True).clamp(min=1e-300)
    return float(((ours - correct).where(correct.isfinite(), 0).abs() / size).max())


OPTIONS = [
    ("none", False, False),
    ("index", False, False),
    ("index", True, True),
    ("probabilities", False, False),
    ("probabilities", True, True),
]


@pytest.mark.parametrize(("labels", "weighted", "uniform"), OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_thousand_ranks_know_what_one_would(labels, weighted, uniform, dtype) -> None:
    cuts = [0, *sorted(torch.randint(0, 5001, (999,)).tolist()), 5000]  # some ranks have no class
    assert len(cuts) == 1001
    bar = 3e-6 if dtype == torch.float32 else 3e-14
    assert worst(made(5000, labels, weighted, dtype), cuts, uniform) < bar


def test_the_order_of_ranks_does_not_matter_to_the_bit_beside_the_sum() -> None:
    example = made(64, "index", False, torch.float64)
    (one, *_), _ = joined_by(example, (0, 64), False)
    (two, *_), _ = joined_by(example, (0, 1, 64), False)
    assert torch.equal(one.vectors.maximum, two.vectors.maximum)
    torch.testing.assert_close(one.vectors.nll, two.vectors.nll, rtol=1e-14, atol=0)


def test_the_largest_logit_is_the_maximum_however_its_digits_were_computed() -> None:
    remembered = torch.tensor([[2.0], [5.0]])
    beyond = Beyond(remembered, torch.ones(2, 1), None, torch.tensor([[True], [False]]))
    again = Vectors(torch.tensor([[2.0 + 1e-6], [1.0]]), torch.zeros(2, 1))
    assert torch.equal(beyond.seen_by(again).maximum, torch.tensor([[2.0 + 1e-6], [5.0]]))


def test_what_is_compared_between_ranks_is_never_nan() -> None:
    maximum = torch.tensor([[math.nan], [1.0], [math.inf]])
    own = joining.Own(Vectors(maximum, torch.zeros(3, 1)))
    assert own.maximum.flatten().tolist() == [-math.inf, 1.0, math.inf]


def changed(function: Callable[..., Any], change: Callable[..., Any]) -> Callable[..., Any]:
    """The function with something else done to what it returns."""
    return lambda *arguments: change(function(*arguments), *arguments)


PLANTED: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "the maximum counts once for each rank": (
        joining, "addends", lambda sums, own, maximum: sums._replace(rest=sums.rest + sums.tops)),
    "ties count once": (
        joining, "addends", lambda sums, own, maximum: sums._replace(
            tops=sums.tops / sums.tops.sum().clamp(min=1))),
    "labels are looked for among the own classes only": (
        joining, "addends", lambda sums, own, maximum: sums._replace(
            behind=None if sums.behind is None
            else sums.behind * (own.vectors.maximum == maximum))),
    "the smoothing is that of the own classes": (
        joining, "joined", lambda found, own, *_: found._replace(
            spread_elsewhere=None if own.spread is None else own.spread * 0)),
    "the mass elsewhere is forgotten": (
        joining, "joined", lambda found, own, *_: found._replace(
            mass_elsewhere=None if own.mass is None else own.mass * 0)),
    "the softmax is that of the own classes": (
        joining, "joined", lambda found, own, *_: found._replace(
            vectors=found.vectors._replace(rest=own.vectors.rest))),
    "a label elsewhere pulls at the first class": (
        parts, "own_coefficients", lambda own, given, here, *_: own._replace(nll=given.nll)),
    "a label elsewhere does not push": (
        parts, "own_coefficients", lambda own, given, *_: own._replace(lse=given.lse)),
    "the maximum of a rank is taken for that of all": (
        joining, "joined", lambda found, own, *_: found._replace(
            vectors=found.vectors._replace(maximum=own.vectors.maximum))),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_seen(name, monkeypatch) -> None:
    cuts = (0, 7, 7, 20, 41, 50)
    examples = [(made(50, *options[:2]), options[2]) for options in OPTIONS]
    assert max(worst(example, cuts, uniform) for example, uniform in examples) < 3e-6
    module, function, change = PLANTED[name]
    monkeypatch.setattr(module, function, changed(getattr(module, function), change))
    assert max(worst(example, cuts, uniform) for example, uniform in examples) > 1e-3
