"""Explanations at the limits: ignored, masked and certain rows, many classes, many positions."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

import xent
from explained import FLOATS, Asked, Truth, column, near
from test_explain import check_batch, check_row

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("ignored_by", ["label", "sample weight"])
def test_an_ignored_row_costs_nothing_whatever_it_holds(dtype, ignored_by) -> None:
    x, y = torch.randn(3, 4).to(dtype), torch.tensor([1, 2, 3])
    x[1], options = NAN, {}
    if ignored_by == "label":
        y[1] = -100
    else:
        options["sample_weight"] = torch.tensor([1.0, 0.0, 2.0], dtype=dtype)
    case = Asked("ignored", x, y, {**options, "row": 1, "label_smoothing": 0.1})
    told = case.explained()
    row = told.row
    assert row.ignored
    assert row.descent is None
    assert (row.loss, row.mass, row.gradient_sum) == (0, 0, 0)
    for name in ("label", "target", "term", "gradient_p", "gradient", "gradient_reduced"):
        assert column(row, name) == [0, 0, 0, 0]
    assert told.batch.value == case.returned().item()
    assert not math.isnan(told.batch.value)
    check_row(Asked("beside NaN", x, y, {**case.options, "row": 2}))
    check_batch(case)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_a_masked_class_costs_nothing_where_no_label_is(dense, weighted) -> None:
    x = torch.tensor([[0.5, -INF, 1.0, 2.0], [1.0, 0.0, 2.0, -INF]], dtype=torch.float64)
    y = torch.tensor([[0.25, 0, 0.75, 0], [0, 1, 0, 0.0]], dtype=torch.float64)
    options = {"weight": torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)} if weighted else {}
    case = Asked("masked", x, y if dense else y.argmax(1), options)
    told = case.explained(steps=3)
    masked = told.row.classes[1]
    assert (masked.logit, masked.log_p) == (-INF, -INF)
    assert (masked.exp, masked.p, masked.term, masked.gradient, masked.gradient_p) == (0,) * 5
    truth = Truth(case)
    assert told.row.loss == near(truth.losses[0].item())
    assert column(told.row, "gradient") == near(truth.gradient(truth.losses[0]).tolist())
    assert told.row.perplexity < INF
    assert [s.loss for s in told.row.descent.steps] == near([v for v, _ in truth.descent(3, 1.0)])
    assert told.batch.value == case.returned().item()


def test_a_masked_label_costs_infinity() -> None:
    row = xent.explain(torch.tensor([0.0, -INF, 1.0]), torch.tensor(1)).row
    assert (row.loss, row.perplexity, row.bits) == (INF, INF, INF)
    assert row.classes[1].gradient == -1


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_one_class_is_certain(epsilon) -> None:
    told = xent.explain([[3.0], [-1.0]], [0, 0], label_smoothing=epsilon)
    (only,) = told.row.classes
    assert (only.p, only.target, only.gradient, only.gradient_reduced) == (1, near(1), 0, 0)
    assert (told.row.loss, told.batch.value, told.row.uniform_guess, told.row.perplexity) == (
        0, 0, 0, 1,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["index", "dense", "weighted"])
def test_the_rest_completes_every_total(kind) -> None:
    random = torch.Generator().manual_seed(3)
    x = torch.randn((3, 500), generator=random, dtype=torch.float64)
    y = (
        torch.tensor([7, 8, 9])
        if kind == "index"
        else torch.rand(x.shape, generator=random).double()
    )
    y = y if kind == "index" else y / y.sum(1, keepdim=True)
    weight = torch.rand(500, generator=random).double() if kind == "weighted" else None
    options = {"weight": weight, "label_smoothing": 0.1, "row": 1, "top": 6}
    case = Asked(kind, x, y, options)
    row, whole = case.explained().row, case.explained(top=None).row
    assert whole.rest is None
    assert row.rest.classes == 500 - len(row.classes)
    for name in ("exp", "p", "label", "target", "term", "gradient", "gradient_reduced"):
        shown = math.fsum(column(row, name)) + getattr(row.rest, name)
        assert shown == near(math.fsum(column(whole, name))), name
    likeliest = x[1].topk(6).indices.tolist()
    assert set(likeliest) <= {c.index for c in row.classes}
    assert set(Truth(case).label[1].topk(6 if kind != "index" else 1).indices.tolist()) <= {
        c.index for c in row.classes
    }
    for step, (_, p) in zip(row.descent.steps, Truth(case).descent(5, 1.0), strict=True):
        assert math.fsum(step.p) + step.rest == near(1)
        assert step.p == near(tuple(p[[c.index for c in row.classes]].tolist()))
    same = {f.name for f in dataclasses.fields(row)} - {"classes", "rest", "descent"}
    assert all(getattr(row, name) == getattr(whole, name) for name in same)
    by_index = {c.index: c for c in whole.classes}
    assert all(c == by_index[c.index] for c in row.classes)


@pytest.mark.parametrize("y", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("x", [-INF, -40.0, 0.0, 1.5, 40.0, INF])
def test_a_logit_of_the_binary_loss_feels_p_minus_y(x, y) -> None:
    told = xent.explain_binary(
        torch.tensor([x], dtype=torch.float64), torch.tensor([y], dtype=torch.float64)
    )
    no, yes = told.row.classes
    p = torch.tensor(x, dtype=torch.float64).sigmoid().item()
    assert (no.p, yes.p) == near((1 - p, p))
    assert yes.gradient == near(p - y)
    assert (
        told.batch.value
        == told.row.loss
        == near(
            xent.binary_cross_entropy_with_logits(
                torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
            ).item()
        )
    )


def test_of_many_positions_the_costliest_and_the_explained_are_shown() -> None:
    x = torch.randn(200, 3)
    case = Asked("many", x, torch.randint(3, (200,)), {"row": 150})
    losses = Truth(case).losses
    shown = [at.position[0] for at in case.explained(steps=0).batch.positions]
    assert 150 in shown
    assert set(losses.topk(10).indices.tolist()) <= set(shown)
    assert len(shown) == len(set(shown)) <= 12
