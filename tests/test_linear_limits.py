"""Where a loss on hidden states ends: ignored rows, no rows, one class, masked classes, tiles."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import xent
from composition import (
    Arguments,
    assert_near,
    assert_true,
    differentiable,
    example,
    loss_and_gradients,
    truth,
)
from composition import poisoned as poisoned
from exactness import exact_nll
from xent.statistics.linear import tiles

pytestmark = pytest.mark.usefixtures("backend")

INF = math.inf
NAN = math.nan
REDUCTIONS = ["none", "mean", "sum"]
AT = ["input", "linear_weight", "linear_bias"]


def loss_of(arguments: Arguments, names: list[str] = AT) -> tuple[Tensor, list[Tensor]]:
    return loss_and_gradients(xent.linear_cross_entropy, arguments, names)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("labels", "left_out"),
    [("index", "ignore_index"), ("index", "sample_weight"), ("probabilities", "sample_weight")],
)
@pytest.mark.parametrize("garbage", [NAN, INF, -INF])
def test_hidden_states_of_ignored_rows_are_inert(garbage, labels, left_out, reduction) -> None:
    for outputs, chunk_bytes in (((9,), 80), ((3, 2), None)):
        arguments = example((7, 6), outputs, labels=labels, weighted=True)
        arguments |= {"reduction": reduction, "label_smoothing": 0.1, "chunk_bytes": chunk_bytes}
        if left_out == "ignore_index":
            arguments["target"][[1, 4, 5]] = -100
        else:
            positions = (7, *outputs[1:])
            arguments["sample_weight"] = torch.rand(positions) + 0.5
            arguments["sample_weight"][[1, 4, 5]] = 0
        spoiled = {**arguments, "input": arguments["input"].clone()}
        spoiled["input"][[1, 5]] = garbage
        spoiled["input"][4, 2] = garbage
        for names in (AT, [*AT, "weight"]):
            loss, gradients = loss_of(spoiled, names)
            clean, expected = loss_of(arguments, names)
            assert torch.equal(loss, clean)
            assert all(map(torch.equal, gradients, expected))
            assert gradients[0][[1, 4, 5]].count_nonzero() == 0
            assert all(g.isfinite().all() for g in gradients)
            assert gradients[1].count_nonzero() > 0


def test_a_hidden_state_counts_where_one_of_its_positions_does() -> None:
    for weighted in (False, True):
        arguments = example((5, 4), (3, 2), weighted=weighted)
        arguments["target"][1, 0] = arguments["target"][3] = -100
        for reduction in REDUCTIONS:
            options = {**arguments, "reduction": reduction, "chunk_bytes": 50}
            assert_true(loss_of(options), options, AT)
        of = xent.linear_row_statistics(**arguments, uniform=True, predictions=True)
        ignored = arguments["target"] == -100
        for statistic in (of.lse, of.nll, of.uniform, of.entropy, of.argmax + 1):
            assert torch.equal(statistic == 0, ignored)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("on_empty", ["nan", "zero"])
def test_nothing_counts(on_empty, reduction) -> None:
    ignored = example(weighted=True)
    ignored["target"][:] = -100
    no_rows = example((0, 6), weighted=True)
    no_batch = example((3, 0, 6), weighted=True)
    for arguments in (ignored, no_rows, no_batch, {**ignored, "label_smoothing": 0.1}):
        names = [*AT, "weight"] if "label_smoothing" not in arguments else AT
        loss, gradients = loss_of(
            {**arguments, "on_empty": on_empty, "reduction": reduction}, names
        )
        if reduction == "none":
            assert loss.shape == arguments["target"].shape
            assert loss.count_nonzero() == 0
        elif reduction == "mean" and on_empty == "nan":
            assert loss.isnan()
        else:
            assert loss.item() == 0
        assert all(g.shape == arguments[n].shape for g, n in zip(gradients, names, strict=True))
        assert all(g.count_nonzero() == 0 for g in gradients)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_one_class_costs_nothing_and_has_no_gradient(reduction) -> None:
    loss, gradients = loss_of({**example((4, 3), (1,)), "reduction": reduction})
    assert loss.count_nonzero() == 0
    assert all(g.count_nonzero() == 0 for g in gradients)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_without_features_the_bias_is_all_there_is(reduction) -> None:
    arguments = {**example((4, 0), (5,)), "reduction": reduction}
    loss, gradients = loss_of(arguments)
    assert_true((loss, gradients), arguments, AT)
    assert [g.shape for g in gradients] == [(4, 0), (5, 0), (5,)]


@pytest.mark.parametrize("labels", ["index", "probabilities"])
@pytest.mark.parametrize("classes", [tiles.WIDTH - 1, tiles.WIDTH, tiles.WIDTH + 1, 7001])
def test_vocabularies_of_any_size_fill_tiles_and_lanes_as_they_may(classes, labels) -> None:
    arguments = {**example((5, 3), (classes,), labels=labels), "reduction": "none"}
    target = arguments["target"]
    target[0], target[1] = (classes - 1, 0) if labels == "index" else (target[1], target[0])
    classifier, terms = gradient_terms(arguments)
    terms *= 1.5  # the largest grad_output
    sizes = terms @ classifier.abs(), terms.T @ arguments["input"].double().abs(), terms.sum(0)
    for reduction in ("none", "sum"):
        options = {**arguments, "reduction": reduction, "chunk_bytes": 2 * classes * 4}
        loss, gradients = loss_of(options)
        with torch.no_grad():
            evaluated = xent.linear_cross_entropy(**options)
        true, correct = loss_and_gradients(truth, options, AT, wide=True)
        for value in (loss, evaluated):
            assert_near(value, true.float(), true)
        for mine, expected, size in zip(gradients, correct, sizes, strict=True):
            # A product of few rows may be summed serially: the roundings are a random walk.
            allowed = torch.finfo(torch.float32).eps / 2 * math.sqrt(classes) * size
            assert ((mine - expected).abs() <= allowed).all()


def gradient_terms(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """The classifier in float64, and p + q, the size of what p − q is made of."""
    classifier = arguments["linear_weight"].double()
    logits = arguments["input"].double() @ classifier.T + arguments["linear_bias"].double()
    target = arguments["target"]
    q = target if target.is_floating_point() else F.one_hot(target, logits.shape[1])
    return classifier, logits.softmax(1) + q


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_classes_masked_by_the_bias_cost_nothing_where_no_label_is(reduction) -> None:
    arguments = {**example((6, 4), (9,)), "reduction": reduction, "chunk_bytes": 100}
    arguments["target"] = torch.tensor([0, 1, 2, 3, 4, 5])
    arguments["linear_bias"][6:] = -INF
    loss, gradients = loss_of(arguments)
    without = {**arguments, "linear_weight": arguments["linear_weight"][:6],
               "linear_bias": arguments["linear_bias"][:6]}  # fmt: skip
    true, correct = loss_and_gradients(truth, without, AT, wide=True)
    assert_near(loss, true.float(), true)
    assert_near(gradients[0], correct[0].float(), correct[0])
    for mine, expected in zip(gradients[1:], correct[1:], strict=True):
        assert_near(mine[:6], expected.float(), expected)
        assert mine[6:].count_nonzero() == 0
    one_hot = {**arguments, "target": F.one_hot(arguments["target"], 9).float()}
    torch.testing.assert_close(loss_of(one_hot), (loss, gradients), rtol=1e-5, atol=1e-7)
    if reduction != "none":
        arguments["target"] = torch.full((6,), 7)
        assert loss_of(arguments)[0].item() == INF


@pytest.mark.parametrize("garbage", [-INF, INF, NAN])
@pytest.mark.parametrize("classes", [9, 2 * tiles.WIDTH + 100])
def test_a_row_without_a_softmax_is_nan_as_in_torch(classes, garbage) -> None:
    arguments = example((3, 3), (classes,))
    arguments["linear_weight"] = torch.ones(classes, 3)
    arguments["input"][1] = garbage
    arguments["reduction"] = "none"
    loss, (at_input, *_) = loss_of(arguments)
    with torch.no_grad():
        evaluated = xent.linear_cross_entropy(**arguments)
    logits = arguments["input"] @ arguments["linear_weight"].T + arguments["linear_bias"]
    theirs = F.cross_entropy(logits, arguments["target"], reduction="none")
    assert theirs.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(loss, theirs, equal_nan=True, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(evaluated, theirs, equal_nan=True, rtol=1e-6, atol=1e-6)
    assert at_input.isnan().all(1).tolist() == [False, True, False]
    assert at_input[[0, 2]].isfinite().all()


@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_huge_logits_do_not_overflow(scale) -> None:
    arguments = example((5, 4), (9,), bias=False)
    arguments["input"] *= scale
    for reduction in ("none", "mean"):
        options = {**arguments, "reduction": reduction}
        names = ["input", "linear_weight"]
        loss, gradients = loss_of(options, names)
        true, _ = loss_and_gradients(truth, options, names, wide=True)
        torch.testing.assert_close(loss.double(), true, rtol=1e-5, atol=0)
        assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("margin", [10.0, 17.0, 20.0, 60.0])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("labels", ["index", "one-hot"])
def test_confident_predictions_keep_their_digits(labels, reduction, margin, dtype) -> None:
    """Of the loss, 1 − p, and of the gradient: the logits are the classifier itself."""
    row = [0.25, margin, -0.5, 0.0]
    target = torch.tensor([1])
    arguments: Arguments = {
        "input": torch.ones(1, 1, dtype=dtype),
        "linear_weight": torch.tensor(row, dtype=dtype).unsqueeze(1),
        "linear_bias": torch.zeros(4, dtype=dtype),
        "target": target if labels == "index" else F.one_hot(target, 4).to(dtype),
        "reduction": reduction,
    }
    true_loss, true_gradient = exact_nll(row, 1)
    loss, (_, at_classifier, at_bias) = loss_of(arguments)
    eps = torch.finfo(dtype).eps
    assert loss.item() == pytest.approx(true_loss, rel=4 * eps)
    expected = [0.75 * g for g in true_gradient]  # grad_output is 0.75
    assert at_classifier.flatten().tolist() == pytest.approx(expected, rel=(8 + margin) * eps)
    assert at_bias.tolist() == pytest.approx(expected, rel=(8 + margin) * eps)
    with torch.no_grad():
        assert xent.linear_cross_entropy(**arguments).item() == pytest.approx(
            true_loss, rel=4 * eps
        )


def test_a_confident_prediction_in_a_far_tile_keeps_its_digits() -> None:
    classes = 3 * tiles.WIDTH
    for place in (5, tiles.WIDTH + 3, classes - 1):
        classifier = torch.zeros(classes, 1)
        classifier[place] = 30.0
        target = torch.tensor([place])
        with torch.no_grad():
            loss = xent.linear_cross_entropy(torch.ones(1, 1), classifier, target)
        assert loss.item() == pytest.approx(math.log1p((classes - 1) * math.exp(-30)), rel=1e-6)


def test_results_depend_on_the_chunks_by_rounding_only() -> None:
    arguments = {**example((23, 6), (130,), weighted=True), "label_smoothing": 0.1}
    arguments["target"][[3, 4, 11]] = -100
    for reduction in REDUCTIONS:
        options = {**arguments, "reduction": reduction}
        whole = loss_of(options)
        for rows in (1, 2, 7, 22, 23, 100):
            chunked = loss_of({**options, "chunk_bytes": rows * 130 * 4})
            torch.testing.assert_close(chunked, whole, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_memory_layout_changes_the_result(reduction) -> None:
    arguments = {**example((4, 7, 6), (130,), bias=True), "reduction": reduction}
    expected = loss_of(arguments)
    hidden, classifier = arguments["input"], arguments["linear_weight"]
    layouts = {
        "input": [hidden.transpose(0, 1).contiguous().transpose(0, 1),
                  torch.stack([hidden, hidden], -1)[..., 0],
                  hidden.mT.contiguous().mT],
        "linear_weight": [classifier.T.contiguous().T, torch.stack([classifier] * 2, -1)[..., 0],
                          torch.cat([classifier, classifier], 1)[:, :6]],
        "linear_bias": [torch.stack([arguments["linear_bias"]] * 2, -1)[:, 0]],
        "target": [arguments["target"].T.contiguous().T],
    }  # fmt: skip
    for name, ways in layouts.items():
        for way in ways:
            assert not way.is_contiguous()
            assert torch.equal(way, arguments[name])
            leaves = {**arguments, name: way}
            for n in AT:  # clones would be contiguous
                leaves[n] = leaves[n].detach().requires_grad_()
            loss = xent.linear_cross_entropy(**leaves)
            gradients = torch.autograd.grad(
                loss, [leaves[n] for n in AT],
                0.75 + torch.arange(loss.numel()).view(loss.shape) % 7 / 8,
            )  # fmt: skip
            torch.testing.assert_close(loss, expected[0], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(list(gradients), expected[1], rtol=1e-5, atol=1e-5)


def test_expanded_hidden_states_and_negative_views() -> None:
    arguments = example((1, 6), (9,))
    arguments["target"] = torch.tensor([0, 3, 8])
    for reduction in REDUCTIONS:
        names = ["linear_weight"]
        wide = {**arguments, "input": arguments["input"].expand(3, 6), "reduction": reduction}
        copied = {**wide, "input": wide["input"].contiguous()}
        ours = loss_of({**wide}, names)
        assert_true(ours, copied, names)
    negated = torch.randn(3, 9, dtype=torch.complex64).conj().imag
    assert negated.is_neg()
    loss = xent.linear_cross_entropy(negated, torch.eye(9), arguments["target"])
    torch.testing.assert_close(loss, F.cross_entropy(negated, arguments["target"]))


def test_differentiable_names_are_all_floats() -> None:
    assert differentiable(example(weighted=True)) == [*AT, "weight"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("grad", [True, False])
def test_an_axis_of_no_classifiers_has_no_positions(grad, reduction) -> None:
    arguments = {**example((3, 5), (7, 0)), "reduction": reduction, "on_empty": "zero"}
    if not grad:
        assert xent.linear_cross_entropy(**arguments).count_nonzero() == 0
        return
    loss, gradients = loss_of(arguments)
    assert loss.count_nonzero() == 0
    assert [g.shape for g in gradients] == [arguments[n].shape for n in AT]
    assert gradients[0].count_nonzero() == 0


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_classes_cost_nothing(reduction) -> None:
    """As with ``cross_entropy``: a sum over nothing."""
    arguments = {**example((3, 5), (0,), labels="probabilities"), "reduction": reduction}
    assert xent.linear_cross_entropy(**arguments).count_nonzero() == 0
    loss, gradients = loss_of(arguments)
    assert loss.count_nonzero() == 0
    assert gradients[0].count_nonzero() == 0
    del arguments["target"], arguments["reduction"]
    assert xent.linear_row_statistics(**arguments).lse.tolist() == [-INF] * 3
    assert xent.linear_row_statistics(**arguments, uniform=True).uniform.tolist() == [0.0] * 3
