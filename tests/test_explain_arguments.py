"""What an explanation may be asked for, and how it answers mistakes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import xent

X = [[1.0, 2.0, -0.5], [0.0, -1.0, 3.0], [0.5, 0.25, 0.0]]
Y = [2, 0, 1]
WEIGHT = torch.tensor([1.0, 2.0, 0.5])
DENSE = torch.tensor([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0], [0.5, 0.25, 0.25]])


def logits() -> torch.Tensor:
    return torch.tensor(X)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(WEIGHT, ignore_index=1, label_smoothing=0.2, reduction="sum"),
        xent.CrossEntropyLoss(WEIGHT, dim=-1, denominator="batch", ignore_index=[0, 1]),
        xent.CrossEntropyLoss(WEIGHT, denominator=5.0, dtype=torch.float64),
        xent.CrossEntropyLoss(ignore_index=[0, 1, 2], on_empty="zero"),
    ],
    ids=repr,
)
def test_a_configured_loss_brings_its_options(loss) -> None:
    told = xent.explain(logits(), torch.tensor(Y), loss=loss)
    assert told.batch.value == pytest.approx(loss(logits(), torch.tensor(Y)).item(), rel=1e-6)
    assert told.options.label_smoothing == loss.label_smoothing
    assert told.options.weighted == (loss.weight is not None)
    assert told.batch.reduction == loss.reduction


@pytest.mark.parametrize(
    "labels", [DENSE, DENSE.double(), DENSE > 0.3, (DENSE > 0.5).long()], ids=str
)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_dense_loss_brings_its_axis(labels, reduction) -> None:
    loss = xent.DenseCrossEntropy(WEIGHT, reduction=reduction, label_smoothing=0.1)
    spatial = torch.stack([logits(), logits() + 1])
    labels = torch.stack([labels, labels])
    told = xent.explain(spatial, labels, loss=loss, row=(1, 2))
    assert told.batch.value == loss(spatial, labels).item()
    assert told.batch.shape == (2, 3)
    assert [c.label for c in told.row.classes] == labels[1, 2].tolist()


def test_a_dense_loss_refuses_class_indices_as_it_does_itself() -> None:
    with pytest.raises(ValueError, match="labels: expected one probability per class"):
        xent.explain(logits(), torch.tensor(Y), loss=xent.DenseCrossEntropy())


@pytest.mark.parametrize("explain", [xent.explain, xent.explain_binary])
@pytest.mark.parametrize(
    "loss",
    [
        nn.BCEWithLogitsLoss(WEIGHT, pos_weight=torch.tensor([1.0, 3.0, 0.5])),
        nn.BCEWithLogitsLoss(reduction="sum"),
        xent.BCEWithLogitsLoss(ignore_index=0, label_smoothing=0.1),
    ],
    ids=repr,
)
def test_a_binary_loss_is_explained_as_one(explain, loss) -> None:
    labels = (DENSE > 0.3).float()
    told = explain(logits(), labels, loss=loss, row=3)
    assert told.kind == "binary"
    assert told.batch.value == pytest.approx(loss(logits(), labels).item(), rel=1e-6)


@pytest.mark.parametrize(
    "option",
    [
        {"weight": WEIGHT}, {"weight": [1.0, 1.0, 1.0]}, {"weight": np.ones(3)},
        {"ignore_index": 0}, {"ignore_index": [1, 2]}, {"reduction": "sum"},
        {"label_smoothing": 0.1}, {"dim": 1}, {"denominator": "batch"},
        {"denominator": torch.tensor(3.0)}, {"on_empty": "zero"}, {"dtype": torch.float64},
        {"size_average": False}, {"reduce": False},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss()], ids=repr)
def test_an_option_beside_a_loss_is_refused_by_name(loss, option) -> None:
    target = torch.tensor(Y) if isinstance(loss, nn.CrossEntropyLoss) else DENSE
    (name,) = option
    with pytest.raises(ValueError, match=rf"^{name}: .* loss={type(loss).__name__}"):
        xent.explain(logits(), target, loss=loss, **option)


@pytest.mark.parametrize(
    "option",
    [
        {"weight": WEIGHT}, {"pos_weight": WEIGHT}, {"reduction": "sum"}, {"ignore_index": 0},
        {"label_smoothing": 0.1}, {"size_average": False}, {"reduce": False},
    ],
    ids=str,
)  # fmt: skip
def test_an_option_beside_a_binary_loss_is_refused_by_name(option) -> None:
    (name,) = option
    with pytest.raises(ValueError, match=f"^{name}: "):
        xent.explain_binary(logits(), DENSE, loss=nn.BCEWithLogitsLoss(), **option)


def test_sample_weights_are_not_lost_beside_a_binary_loss() -> None:
    with pytest.raises(ValueError, match=r"^sample_weight: "):
        xent.explain(
            logits(), DENSE, loss=nn.BCEWithLogitsLoss(), sample_weight=torch.full((3, 3), 2.0)
        )


@pytest.mark.parametrize(
    ("loss", "remedy"),
    [
        (nn.NLLLoss(), "before log_softmax"),
        (nn.BCELoss(), "before the sigmoid"),
        (nn.CrossEntropyLoss, "construct it first"),
        (xent.BCEWithLogitsLoss, "construct it first"),
        (nn.MSELoss(), "options by name"),
        (nn.functional.cross_entropy, "options by name"),
        ("mean", "options by name"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_another_loss_is_refused_with_a_remedy(loss, remedy) -> None:
    with pytest.raises(TypeError, match=f"^loss: .*{remedy}"):
        xent.explain(logits(), torch.tensor(Y), loss=loss)
    with pytest.raises(TypeError, match=f"^loss: .*{remedy}"):
        xent.explain_binary(logits(), DENSE, loss=loss)


def test_a_loss_over_classes_is_not_binary() -> None:
    with pytest.raises(TypeError, match=r"^loss: expected a BCEWithLogitsLoss"):
        xent.explain_binary(logits(), DENSE, loss=nn.CrossEntropyLoss())


@pytest.mark.parametrize(
    ("row", "place"),
    [(0, 0), (5, 5), (-1, 5), ((0, 1), 1), ((1, -1), 5), ([1, 0], 3), (np.int64(4), 4),
     (torch.tensor(2), 2)],
    ids=str,
)  # fmt: skip
def test_a_row_is_a_number_or_an_index(row, place) -> None:
    x, y = torch.randn(2, 4, 3), torch.randint(4, (2, 3))
    told = xent.explain(x, y, row=row)
    assert told.row.position == divmod(place, 3)
    assert [c.logit for c in told.row.classes] == x[place // 3, :, place % 3].tolist()
    assert told.row.label_index == y[divmod(place, 3)]


def test_without_a_row_there_is_the_batch_alone() -> None:
    told = xent.explain(logits(), torch.tensor(Y), row=None)
    assert (told.row, told.source) == (None, None)
    assert told.batch == xent.explain(logits(), torch.tensor(Y)).batch
    assert "loss" in told.to_text()


@pytest.mark.parametrize(
    ("options", "kind", "argument"),
    [
        ({"row": 3}, IndexError, "row"),
        ({"row": -4}, IndexError, "row"),
        ({"row": (0, 0)}, IndexError, "row"),
        ({"row": (3,)}, IndexError, "row"),
        ({"row": 1.5}, TypeError, "row"),
        ({"row": "first"}, TypeError, "row"),
        ({"class_names": ["cat", "dog"]}, ValueError, "class_names"),
        ({"class_names": list("abcd")}, ValueError, "class_names"),
        ({"class_names": "cat"}, TypeError, "class_names"),
        ({"class_names": 3}, TypeError, "class_names"),
        ({"top": 0}, ValueError, "top"),
        ({"top": -3}, ValueError, "top"),
        ({"top": 2.0}, TypeError, "top"),
        ({"steps": -1}, ValueError, "steps"),
        ({"steps": None}, TypeError, "steps"),
        ({"steps": 1.5}, TypeError, "steps"),
        ({"step_size": math.nan}, ValueError, "step_size"),
        ({"step_size": -math.inf}, ValueError, "step_size"),
        ({"step_size": "1"}, TypeError, "step_size"),
        ({"reduction": "average"}, ValueError, "reduction"),
        ({"label_smoothing": 2}, RuntimeError, "label_smoothing"),
        ({"weight": [1.0, 2.0]}, RuntimeError, "weight"),
        ({"sample_weight": [1.0, 2.0]}, ValueError, "sample_weight"),
        ({"denominator": "all"}, ValueError, "denominator"),
        ({"on_empty": "one"}, ValueError, "on_empty"),
        ({"dim": 2}, IndexError, "dim"),
    ],
    ids=str,
)
def test_a_mistake_is_named(options, kind, argument) -> None:
    with pytest.raises(kind, match=rf"^{argument}\b.*expected"):
        xent.explain(torch.tensor(X, dtype=torch.float64), torch.tensor(Y), **options)


@pytest.mark.parametrize("function", [list, np.array, torch.tensor], ids=["list", "numpy", "torch"])
def test_numbers_come_as_lists_and_arrays(function) -> None:
    x, y = function(X), function(Y)
    told = xent.explain(x, y, weight=function([1.0, 2.0, 0.5]), sample_weight=function([1.0, 2, 3]))
    loss = torch.nn.functional.cross_entropy(
        torch.tensor(X).double(), torch.tensor(Y), WEIGHT.double(), reduction="none"
    )
    factor, weight = torch.tensor([1.0, 2, 3]), WEIGHT[torch.tensor(Y)]
    expected = (factor * loss).sum() / (factor * weight).sum()
    assert told.batch.value == pytest.approx(expected.item(), rel=1e-6)
    dense = function(DENSE.tolist())
    assert xent.explain(x, dense).kind == "probabilities"
    assert xent.explain_binary(x, dense, row=2).row.position == (0, 2)


def test_numbers_typed_in_keep_their_digits() -> None:
    told = xent.explain([[0.1, 0.3]], [[0.7, 0.3]], weight=[0.1, 1.3], sample_weight=[0.1])
    first = told.row.classes[0]
    assert (first.logit, first.label, first.weight, told.row.sample_weight) == (0.1, 0.7, 0.1, 0.1)
    yes = xent.explain_binary(0.1, 0.7).row.classes[1]
    assert (yes.logit, yes.label) == (0.1, 0.7)
    told = xent.explain_binary(2.0, 1)
    assert told.row.position == ()
    assert told.batch.value == pytest.approx(math.log1p(math.exp(-2)))


@pytest.mark.parametrize("on_empty", ["nan", "zero"])
def test_an_empty_batch_has_no_row(on_empty) -> None:
    x, y = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    with pytest.raises(IndexError, match=r"^row: .*no position"):
        xent.explain(x, y)
    batch = xent.explain(x, y, row=None, on_empty=on_empty).batch
    assert (batch.count, batch.positions, batch.total, batch.divisor) == (0, (), 0, 0)
    assert math.isnan(batch.value) if on_empty == "nan" else batch.value == 0
    assert batch.label_entropy is None


@pytest.mark.parametrize("target", [torch.zeros(2, 0), torch.full((2,), -100)], ids=str)
def test_no_classes_are_nothing_to_explain(target) -> None:
    with pytest.raises(ValueError, match=r"^input: expected at least one class"):
        xent.explain(torch.zeros(2, 0), target)


@pytest.mark.parametrize(
    ("old", "reduction"),
    [
        ({"reduce": False}, "none"),
        ({"size_average": False}, "sum"),
        ({"size_average": True}, "mean"),
    ],
    ids=str,
)
def test_the_deprecated_arguments_say_what_they_say_to_torch(old, reduction) -> None:
    with pytest.warns(UserWarning, match="please use reduction") as caught:
        told = xent.explain(logits(), torch.tensor(Y), **old)
    assert told.batch.reduction == reduction
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="please use reduction"):
        assert xent.explain_binary(logits(), DENSE, **old).batch.reduction == reduction


@pytest.mark.parametrize("binary", [False, True])
def test_inputs_are_read_and_nothing_more(binary) -> None:
    x, labels = logits().requires_grad_(), DENSE.clone().requires_grad_()
    weight = WEIGHT.clone().requires_grad_()
    before = [t.detach().clone() for t in (x, labels, weight)]
    if binary:
        told = xent.explain_binary(x, labels, pos_weight=weight)
    else:
        told = xent.explain(x, labels, weight=weight)
    told.to_html(), told.to_text(), told.to_markdown(), told.to_json(), told.to_python()
    told.why("weights")
    for now, then in zip((x, labels, weight), before, strict=True):
        assert torch.equal(now, then)
        assert now.grad is None
        assert now.requires_grad
    kept = [*vars(told.source).values(), told.inputs.logits, told.inputs.target]
    assert not any(isinstance(t, torch.Tensor) and t.requires_grad for t in kept)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_found_where_autograd_is_off(mode) -> None:
    with mode():
        told = xent.explain(logits(), torch.tensor(Y), steps=2)
    assert told.row == xent.explain(logits(), torch.tensor(Y), steps=2).row


def test_names_are_those_of_the_classes_and_of_the_labels() -> None:
    names = ["cat", "dog", "bird"]
    told = xent.explain(logits(), torch.tensor(Y), class_names=names)
    assert [c.name for c in told.row.classes] == names
    assert [p.label for p in told.batch.positions] == ["bird", "cat", "dog"]
    answers = xent.explain_binary(logits()[:, 0], [0, 1, 1], class_names=["ham", "spam"])
    assert [c.name for c in answers.row.classes] == ["ham", "spam"]
    assert [p.label for p in answers.batch.positions] == ["ham", "spam", "spam"]
    each = xent.explain_binary(logits(), DENSE, class_names=names, row=4)
    assert [c.name for c in each.row.classes] == ["not dog", "dog"]
