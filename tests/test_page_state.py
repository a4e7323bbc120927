"""What the page opens on, against the explanation it comes from and the tensors behind it."""

from __future__ import annotations

import json
import math

import pytest
import torch

import xent
from xent.explanation.page import state_of

C, N = 40, 5


def batch(positions: int = N, classes: int = C) -> tuple[torch.Tensor, torch.Tensor]:
    logits = 3 * torch.randn(positions, classes, dtype=torch.float64)
    return logits, torch.randint(classes, (positions,))


def number(value: float | str) -> float:
    return float(value)


@pytest.mark.parametrize("row", [0, 3])
def test_it_says_what_the_document_says(row: int) -> None:
    logits, target = batch(classes=6)
    weight = torch.rand(6, dtype=torch.float64) + 0.5
    told = xent.explain(
        logits, target, weight, label_smoothing=0.1, row=row, class_names=list("abcdef")
    )
    state, document = state_of(told), told.to_dict()
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    classes = document["row"]["classes"]
    explained = state["rows"][state["current"]]
    assert state["names"] == [c["name"] for c in classes]
    assert state["weight"] == [c["weight"] for c in classes]
    assert explained["logits"] == [c["logit"] for c in classes]
    assert explained["label"] == [c["label"] for c in classes]
    assert explained["index"] == document["row"]["label_index"]
    assert explained["position"] == str(row)
    assert [r["ignored"] for r in state["rows"]] == [
        p["ignored"] for p in document["batch"]["positions"]
    ]
    for key in ("kind", "class_count"):
        assert state[key] == document[key]
    assert state["label_smoothing"] == document["options"]["label_smoothing"]
    assert state["value"] == document["batch"]["value"]
    assert state["reduction"] == "mean"
    assert state["batch"] is True
    assert state["rest"] is None
    assert state["denominator"] is None


def test_of_many_classes_those_of_the_label_and_the_likeliest_are_shown() -> None:
    logits, target = batch()
    told = xent.explain(logits, target, row=2, class_names=[f"class {c}" for c in range(C)])
    state = state_of(told)
    assert len(state["names"]) == 8
    likeliest = [c for c in logits[2].argsort(descending=True).tolist() if c != target[2]]
    shown = [int(name.split()[1]) for name in state["names"]]
    assert set(shown) == {int(target[2]), *likeliest[:7]}
    in_trace = [c.index for c in told.row.classes]
    assert shown == [c for c in in_trace if c in shown]
    for row, x in zip(state["rows"], logits, strict=True):
        assert row["logits"] == x[shown].tolist()
        assert len(row["label"]) == 8


def test_twelve_classes_are_shown_whole_in_a_report_but_not_on_the_page() -> None:
    logits, target = batch(classes=12)
    told = xent.explain(logits, target)
    assert told.row.rest is None
    state = state_of(told)
    assert state["rest"]["classes"] == 4
    assert state["names"] == sorted(state["names"], key=int)
    assert str(target[0].item()) in state["names"]


@pytest.mark.parametrize("soft", [False, True])
def test_rest_is_enough_for_every_loss(soft: bool) -> None:
    """loss = Σ w·t·(lse − x), with the hidden classes from their sums alone."""
    logits, target = batch()
    logits[1, 7] = -math.inf
    weight, smoothing = torch.rand(C, dtype=torch.float64), 0.0
    if soft:
        target, smoothing = torch.randn(N, C, dtype=torch.float64).softmax(1), 0.1
        logits[1, 7] = 2.0
    told = xent.explain(logits, target, weight, label_smoothing=smoothing, reduction="none")
    state = state_of(told)
    expected = torch.nn.functional.cross_entropy(
        logits, target, weight, label_smoothing=smoothing, reduction="none"
    )
    for row, loss in zip(state["rows"], expected.tolist(), strict=True):
        assert loss_of(row, state) == pytest.approx(loss, rel=1e-12)


def loss_of(row: dict, state: dict) -> float:
    rest, hidden = row["rest"], row["rest"]["weighted"]
    x = torch.tensor([number(value) for value in row["logits"]], dtype=torch.float64)
    w, y = (torch.tensor(values, dtype=torch.float64) for values in (state["weight"], row["label"]))
    even = state["label_smoothing"] / state["class_count"]
    sharp = 1 - state["label_smoothing"]
    lse = float(
        torch.logaddexp(x.logsumexp(0), torch.tensor(number(rest["lse"]), dtype=torch.float64))
    )
    shown = w * (sharp * y + even)
    mass = float(shown.sum()) + sharp * hidden["label"] + even * hidden["weight"]
    held = torch.where(shown == 0, 0.0, shown * x).sum()
    spread = even * number(hidden["sum"]) if even else 0.0
    return mass * lse - float(held) - sharp * number(hidden["label_logit"]) - spread


def test_a_label_that_is_not_shown_has_no_index_but_its_share_of_the_rest() -> None:
    logits, target = torch.zeros(2, C), torch.tensor([0, 39])
    logits[0, :20], logits[1, :] = 5.0, 0.0
    row = state_of(xent.explain(logits, target))["rows"][1]
    assert row["index"] is None
    assert row["label"] == [0.0] * 8
    assert row["rest"]["label"] == 1.0
    assert row["ignored"] is False


def test_of_a_large_batch_the_explained_row_and_the_costliest() -> None:
    logits, target = batch(50)
    told = xent.explain(logits, target, row=17)
    state = state_of(told)
    losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    costliest = [i for i in losses.argsort(descending=True).tolist() if i != 17][:5]
    assert [row["position"] for row in state["rows"]] == [str(i) for i in sorted([17, *costliest])]
    assert state["rows"][state["current"]]["position"] == "17"
    assert state["batch"] is False


def test_positions_of_images_are_tuples_and_a_single_one_is_0() -> None:
    logits = torch.randn(2, 3, 1, 2)
    state = state_of(xent.explain(logits, torch.zeros(2, 1, 2, dtype=torch.long), row=(1, 0, 1)))
    assert [row["position"] for row in state["rows"]] == [
        "(0, 0, 0)", "(0, 0, 1)", "(1, 0, 0)", "(1, 0, 1)",
    ]  # fmt: skip
    assert state["current"] == 3
    assert state_of(xent.explain([1.0, 2.0], 0))["rows"][0]["position"] == "0"


def test_without_a_row_the_first_that_counts_is_explained() -> None:
    logits, _ = batch(4, 3)
    names = ["a", "b", "c"]
    told = xent.explain(logits, [-100, -100, 2, 1], row=None, class_names=names)
    state = state_of(told)
    assert state["current"] == 2
    assert state["names"] == names
    assert [row["ignored"] for row in state["rows"]] == [True, True, False, False]
    assert state["rows"][0]["label"] == [0.0, 0.0, 0.0]
    assert state["rows"][0]["index"] is None


@pytest.mark.parametrize(
    "told",
    [
        lambda: xent.explain(torch.zeros(3, 2), [-100] * 3, row=None),
        lambda: xent.explain(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), row=None),
        lambda: xent.explain([[5.0]], [0]),
        lambda: xent.explain([[-math.inf, -math.inf]], [0]),
        lambda: xent.explain([[math.nan, math.inf]], [0]),
        lambda: xent.explain_binary([math.inf], [1]),
        lambda: xent.explain_binary([math.nan], [1]),
        lambda: xent.explain_binary(
            torch.zeros(2), torch.full((2,), -1.0), ignore_index=-1, row=None
        ),
    ],
)
def test_there_is_nothing_to_play_with(told) -> None:
    assert state_of(told()) is None


def test_infinities_are_strings() -> None:
    state = state_of(xent.explain([[1.0, -math.inf, 0.0]], [1]))
    assert state["rows"][0]["logits"] == [1.0, "-Infinity", 0.0]
    assert state["value"] == "Infinity"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"denominator": "weight"}, None),
        ({"denominator": "valid"}, 4.0),
        ({"denominator": "batch"}, 5.0),
        ({"denominator": 7.0}, 7.0),
        ({"denominator": 7.0, "reduction": "sum"}, None),
        ({"denominator": "valid", "weight": None}, None),
    ],
)
def test_a_divisor_of_ones_own_is_told(options: dict, expected: float | None) -> None:
    logits, target = batch(classes=3)
    target[1] = -100
    given = {"weight": torch.rand(3, dtype=torch.float64), **options}
    if options.get("reduction") == "sum":
        given.pop("denominator")
    assert state_of(xent.explain(logits, target, **given))["denominator"] == expected


def test_probabilities_come_before_smoothing() -> None:
    labels = [[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]]
    told = xent.explain(torch.randn(2, 3), labels, label_smoothing=0.5, sample_weight=[2.0, 3.0])
    state = state_of(told)
    assert state["kind"] == "probabilities"
    for row, label, factor in zip(state["rows"], labels, (2.0, 3.0), strict=True):
        assert row["label"] == pytest.approx(label)
        assert row["index"] is None
        assert row["sample_weight"] == factor


def test_the_binary_loss_is_a_pair() -> None:
    told = xent.explain_binary([2.0, -1.0, 3.0], [1, 0.25, -1], [1.0, 2.0, 4.0], ignore_index=-1)
    state = state_of(told)
    assert (state["kind"], state["names"]) == ("binary", ["no", "yes"])
    assert [row["logits"] for row in state["rows"]] == [[0.0, 2.0], [0.0, -1.0], [0.0, 3.0]]
    assert [row["label"] for row in state["rows"]] == [[0.0, 1.0], [0.75, 0.25], [0.0, 0.0]]
    assert [row["index"] for row in state["rows"]] == [1, None, None]
    assert [row["sample_weight"] for row in state["rows"]] == [1.0, 2.0, 4.0]
    assert [row["ignored"] for row in state["rows"]] == [False, False, True]


def test_elements_of_other_names_or_weights_are_no_rows_of_the_same_page() -> None:
    logits = torch.zeros(3, 2)
    told = xent.explain_binary(
        logits, torch.ones(3, 2), pos_weight=torch.tensor([2.0, 3.0]), class_names=["a", "b"], row=3
    )
    state = state_of(told)
    assert state["names"] == ["not b", "b"]
    assert state["weight"] == [1.0, 3.0]
    assert [row["position"] for row in state["rows"]] == ["(0, 1)", "(1, 1)", "(2, 1)"]
    assert state["batch"] is False


def test_a_vocabulary_stays_where_it_is() -> None:
    logits = torch.randn(3, 50_000)
    told = xent.explain(logits, [1, 2, 3], class_names=[f"token{c}" for c in range(50_000)])
    text = json.dumps(state_of(told))
    assert len(text) < 5_000
