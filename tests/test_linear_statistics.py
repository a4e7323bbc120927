"""``linear_row_statistics``: each statistic against float64, tiles merged, derivatives, limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import xent
from composition import Arguments, example, logits_of
from composition import poisoned as poisoned
from xent.contract.rows import Prediction, Vectors
from xent.statistics.linear import tiles
from xent.statistics.merging import merged, merged_predictions

pytestmark = pytest.mark.usefixtures("backend")

INF = math.inf
NAN = math.nan
STATISTICS = ("lse", "nll", "uniform", "cross", "entropy")
BEYOND = tiles.WIDTH + 300


def truth_of(arguments: Arguments) -> dict[str, Tensor]:
    """The formulas of the docstring in float64, at every position."""
    given = {k: v.double() if v.is_floating_point() else v for k, v in arguments.items()}
    x = logits_of(given["input"], given["linear_weight"], given.get("linear_bias"))
    surprise = -x.log_softmax(-1)
    v = given.get("weight", torch.ones(x.shape[-1], dtype=x.dtype))
    true = {
        "lse": x.logsumexp(-1),
        "uniform": (v * surprise).sum(-1),
        "entropy": (surprise.exp().reciprocal() * surprise).sum(-1),
        "argmax": x.argmax(-1),
    }
    target = given.get("target")
    if target is not None and target.is_floating_point():
        q = target.movedim(given["input"].ndim - 1, -1)
        true["cross"] = (v * q * surprise).sum(-1)
    elif target is not None:
        true["nll"] = surprise.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return true


def check(arguments: Arguments, **options: object) -> None:
    for uniform in (True, False):  # which takes another way through the rows
        of = xent.linear_row_statistics(**arguments, predictions=True, uniform=uniform, **options)
        true = truth_of(arguments)
        if not uniform:
            del true["uniform"]
        assert torch.equal(of.argmax, true.pop("argmax"))
        kind = torch.float64 if of.lse.dtype == torch.float64 else torch.float32
        for name in STATISTICS:
            value, expected = getattr(of, name), true.get(name)
            assert (value is None) == (expected is None)
            if expected is not None and value is not None:
                assert value.dtype == kind
                # as many digits as the logits have: their sums are of a few products
                eps = 16 * torch.finfo(kind).eps
                close = {"rtol": eps, "atol": eps * max(1, expected.abs().max())}
                torch.testing.assert_close(value.double(), expected, **close)


@pytest.mark.parametrize("labels", ["none", "index", "probabilities"])
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
@pytest.mark.parametrize(
    ("shape", "outputs"),
    [((6,), (5,)), ((7, 6), (130,)), ((2, 3, 4), (3, 2, 2)), ((5, 3), (BEYOND,))],
    ids=str,
)
def test_every_statistic_is_its_formula(shape, outputs, dtype, labels) -> None:
    kind = "probabilities" if labels == "probabilities" else "index"
    arguments = example(shape, outputs, dtype, kind, weighted=dtype != torch.float16)
    if labels == "none":
        del arguments["target"]
    check(arguments)
    check(arguments, chunk_bytes=2 * 4 * outputs[0])


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("labels", ["index", "probabilities"])
def test_positions_that_do_not_count_are_zero_and_minus_one(labels, grad) -> None:
    arguments = example((7, 6), (130,), labels=labels)
    clean = xent.linear_row_statistics(**arguments, predictions=True, uniform=True)
    if labels == "index":
        arguments["target"][2] = -100
    arguments["input"][[2, 5]] = NAN
    arguments["input"].requires_grad_(grad)
    valid = torch.ones(7, dtype=torch.bool)
    valid[[2, 5]] = False
    for uniform in (True, False):
        for chunk_bytes in (None, 3 * 130 * 4):
            of = xent.linear_row_statistics(
                **arguments, valid=valid, predictions=True, uniform=uniform, chunk_bytes=chunk_bytes
            )
            assert of.argmax.tolist() == [
                i if v else -1 for i, v in zip(clean.argmax.tolist(), valid, strict=True)
            ]
            for name in STATISTICS:
                value, expected = getattr(of, name), getattr(clean, name)
                if value is not None:
                    torch.testing.assert_close(value, expected * valid, rtol=1e-5, atol=1e-6)
                    assert value[~valid].count_nonzero() == 0
            if grad:
                (at_input,) = torch.autograd.grad(
                    of.lse.sum() + of.entropy.sum(), arguments["input"]
                )
                assert at_input.isfinite().all()
                assert at_input[~valid].count_nonzero() == 0


@pytest.mark.parametrize("labels", ["none", "index", "probabilities"])
@pytest.mark.parametrize("names", [("lse",), ("entropy",), ("uniform",), STATISTICS], ids=str)
def test_gradients_are_those_of_the_formulas(names, labels) -> None:
    """Of each statistic alone, too: what it does not depend on has a gradient of zero, or none."""
    arguments = example((7, 5), (40,), dtype=torch.float64, labels="index", weighted=True)
    if labels == "probabilities":
        arguments["target"] = torch.rand(7, 40, dtype=torch.float64).softmax(1)
    if labels == "none":
        del arguments["target"]
    leaves = {k: v.requires_grad_() for k, v in arguments.items() if v.is_floating_point()}
    of = xent.linear_row_statistics(
        **arguments, uniform=True, predictions=True, chunk_bytes=3 * 40 * 8
    )
    assert of.argmax.requires_grad is False
    true = truth_of(arguments)
    factors = torch.rand(7, dtype=torch.float64) + 0.5
    present = [n for n in names if n in true]
    ours = sum((i + 1) * factors * getattr(of, n) for i, n in enumerate(present)).sum()
    expected = sum((i + 1) * factors * true[n] for i, n in enumerate(present)).sum()
    given = torch.autograd.grad(ours, list(leaves.values()), allow_unused=True)
    correct = torch.autograd.grad(expected, list(leaves.values()), allow_unused=True)
    for name, mine, value in zip(leaves, given, correct, strict=True):
        mine = torch.zeros_like(leaves[name]) if mine is None else mine
        value = torch.zeros_like(leaves[name]) if value is None else value
        torch.testing.assert_close(mine, value, rtol=1e-12, atol=1e-13, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("masked", [-INF, NAN, INF])
def test_a_tile_of_garbage_is_what_it_is_to_the_whole_row(masked, place) -> None:
    width = tiles.WIDTH
    classes = 2 * width + 17
    start = {"first": 0, "middle": width, "last": 2 * width}[place]
    bias = torch.zeros(classes)
    bias[start : start + width] = masked
    if masked == INF:
        bias[start + 1 : start + width] = 0  # one such class in the tile
    hidden, classifier = torch.randn(4, 3), torch.randn(classes, 3)
    target = torch.tensor([0, width, classes - 1, 5])
    with torch.no_grad():
        of = xent.linear_row_statistics(
            hidden, classifier, target, linear_bias=bias, predictions=True
        )
    whole = xent.row_statistics(hidden @ classifier.T + bias, target)
    torch.testing.assert_close(of.lse, whole.lse, rtol=1e-6, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(of.nll, whole.nll, rtol=1e-5, atol=1e-5, equal_nan=True)
    if masked == -INF:
        x = (hidden @ classifier.T + bias).double()
        assert torch.equal(of.argmax, x.argmax(1))
        p = x.softmax(1)
        entropy = -torch.special.xlogy(p, p).sum(1)
        torch.testing.assert_close(of.entropy.double(), entropy, rtol=1e-5, atol=1e-5)
    else:
        assert of.nll.isnan().all()
        assert of.entropy.isnan().all()


def test_a_row_without_any_class_left() -> None:
    for classes in (7, BEYOND):
        hidden, classifier = torch.ones(2, 1), torch.zeros(classes, 1)
        bias = torch.full((classes,), -INF)
        of = xent.linear_row_statistics(
            hidden, classifier, torch.tensor([0, 3]), linear_bias=bias, predictions=True
        )
        assert of.lse.tolist() == [-INF, -INF]
        assert of.nll.isnan().all()


def test_the_first_of_equal_maxima_is_the_argmax_in_any_tile() -> None:
    classifier = torch.zeros(3 * tiles.WIDTH, 1)
    hidden = torch.ones(2, 1)
    assert xent.linear_row_statistics(hidden, classifier, predictions=True).argmax.tolist() == [
        0,
        0,
    ]
    for first in (tiles.WIDTH - 1, tiles.WIDTH, 2 * tiles.WIDTH + 5):
        classifier.zero_()
        classifier[[first, 3 * tiles.WIDTH - 1]] = 2.0
        of = xent.linear_row_statistics(hidden, classifier, predictions=True)
        assert of.argmax.tolist() == [first, first]


@pytest.mark.parametrize("classes", [5, BEYOND])
def test_entropies_near_zero_keep_their_digits(classes) -> None:
    """p = e⁻³⁰ for the others: their part is (C − 1) e⁻³⁰ (30 + 1), less what is beyond float64."""
    for place in (0, classes - 1):
        classifier = torch.zeros(classes, 1, dtype=torch.float64)
        classifier[place] = 30.0
        for kind, digits in ((torch.float32, 2e-6), (torch.float64, 1e-14)):
            of = xent.linear_row_statistics(
                torch.ones(1, 1, dtype=kind), classifier.to(kind), predictions=True
            )
            rest = (classes - 1) * math.exp(-30)
            expected = math.log1p(rest) + 30 * rest / (1 + rest)
            assert of.entropy.item() == pytest.approx(expected, rel=digits)


def test_an_even_softmax_has_the_entropy_log_c() -> None:
    for classes in (1, 2, 1000, BEYOND):
        of = xent.linear_row_statistics(torch.ones(3, 2), torch.zeros(classes, 2), predictions=True)
        expected = torch.full((3,), math.log(classes))
        torch.testing.assert_close(of.entropy, expected, rtol=2e-6, atol=0)


def test_merged_parts_are_the_whole() -> None:
    """In any order, and whatever is masked: maxima apart, equal, or not there."""
    x = torch.tensor([
        [1.0, 2.0, 3.0, 0.5], [3.0, 2.0, 1.0, 3.0], [-INF, -INF, 1.0, 2.0], [1.0, 2.0, -INF, -INF],
        [-INF] * 4, [50.0, 0.0, -50.0, 0.0], [NAN, 0.0, 1.0, 2.0], [0.0, 1.0, NAN, 2.0],
        [INF, 0.0, 1.0, 2.0], [0.0, 1.0, INF, 2.0],
    ])[:, :, None]  # fmt: skip
    from xent.backends.torch import rows
    from xent.contract.rows import Rows

    def of(part: Tensor, first: int) -> tuple[Vectors, Prediction]:
        vectors = rows.statistics(Rows(part), with_uniform=False)
        entropy, argmax = rows.prediction(Rows(part), vectors)
        return vectors, Prediction(entropy, argmax + first)

    whole, prediction = of(x, 0)
    for at in (1, 2, 3):
        parts = of(x[:, :at], 0), of(x[:, at:], at)
        vectors = merged(parts[0][0], parts[1][0])
        torch.testing.assert_close(vectors.lse, whole.lse, equal_nan=True)
        torch.testing.assert_close(vectors.rest, whole.rest, equal_nan=True)
        found = merged_predictions(*parts, vectors)
        torch.testing.assert_close(found.entropy, prediction.entropy, equal_nan=True)
        there = x.squeeze(2).isfinite().any(1) & ~x.squeeze(2).isnan().any(1)
        assert torch.equal(found.argmax[there], prediction.argmax[there])


def test_perplexity_in_bounded_memory_is_that_of_all_logits() -> None:
    hidden, embedding = torch.randn(50, 8), torch.randn(300, 8)
    text = torch.randint(0, 300, (50,))
    with torch.no_grad():
        of = xent.linear_row_statistics(hidden, embedding, text, chunk_bytes=4 * 300 * 7)
    whole = xent.cross_entropy(hidden @ embedding.T, text)
    torch.testing.assert_close(of.nll.mean(), whole)


def test_wrong_arguments_are_named() -> None:
    hidden, classifier = torch.zeros(3, 2), torch.zeros(4, 2)
    for valid in (torch.ones(4, dtype=torch.bool), torch.ones(3)):
        with pytest.raises(ValueError, match=r"valid: expected a bool tensor.*shape \(3,\)"):
            xent.linear_row_statistics(hidden, classifier, valid=valid)
    with pytest.raises(RuntimeError, match="weight"):
        xent.linear_row_statistics(hidden, classifier, weight=torch.ones(3))
    with pytest.raises(IndexError, match="target"):
        xent.linear_row_statistics(hidden, classifier, torch.tensor([0, 4, 1]))
    with pytest.raises(ValueError, match="chunk_bytes"):
        xent.linear_row_statistics(hidden, classifier, chunk_bytes=0)
