"""The triton kernels against the definition in float64: sizes, dtypes, layouts and values.

Tiles are made small, so that a few logits have several of them, with ends in each direction;
``test_the_tiles_have_ends`` sees to it that they do.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import triton_rows as problems
import xent
from triton_rows import DEVICE, FLOATS, INF, LAYOUTS, NAN, assert_near, assert_right, problem
from xent.backends.torch import rows as definition
from xent.contract.rows import Coefficients, Rows, Vectors

OPTIONS: dict[str, tuple[str, bool, bool]] = {  # labels, class weights, uniform
    "nothing": ("nothing", False, False),
    "index": ("index", False, False),
    "index, uniform, weight": ("index", True, True),
    "nothing, uniform": ("nothing", False, True),
    "probabilities": ("probabilities", False, False),
    "probabilities, uniform, weight": ("probabilities", True, True),
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
spans = pytest.mark.parametrize("size", ["spans"], indirect=True)
in_small_tiles = pytest.mark.parametrize(
    ("size", "inner"), [("spans", 1), ("loops", 1), ("positions", 3)], indirect=["size"]
)


@pytest.fixture(autouse=True)
def no_notes() -> Iterator[None]:
    xent.check_errors()
    yield
    xent.check_errors()


@pytest.fixture
def size(request, monkeypatch) -> str:
    problems.use_tiles(monkeypatch, request.param)
    return request.param


def with_options(shape, options, **named) -> tuple[Rows, bool]:
    kind, weighted, uniform = options
    return problem(shape, kind, weighted=weighted, **named), uniform


# ---- the tiles ----


def test_the_tiles_have_ends(monkeypatch) -> None:
    """Small tiles: several spans, several tiles in one, blocks of rows; none of them whole."""
    problems.use_tiles(monkeypatch, "spans")
    _, tile, grid = problems.plan(problem((2, 67, 1)))
    assert (grid.spans, grid.span, tile.width, tile.rows) == (3, 32, 32, 1)
    assert (tile.fold, tile.neighbours) == (4, False)  # rows of 67 begin anywhere
    aligned = problems.plan(problem((2, 96, 1)))[1]
    assert (aligned.fold, aligned.neighbours) == (4, True)
    _, tile, grid = problems.plan(problem((2, 11, 5)))  # positions are neighbours
    assert (tile.beside, tile.lanes, tile.fold, tile.rows) == (True, 1, 4, 4)
    assert (grid.spans, grid.blocks) == (3, 2)

    problems.use_tiles(monkeypatch, "loops")
    _, tile, grid = problems.plan(problem((3, 67, 1)))
    assert (grid.spans, tile.width, tile.fold) == (1, 32, 2)
    _, tile, grid = problems.plan(problem((5, 7, 1)))
    assert (tile.rows, grid.blocks) == (4, 2)
    _, tile, grid = problems.plan(problem((2, 11, 5)))
    assert (tile.beside, grid.spans, grid.span // tile.width) == (True, 1, 3)

    problems.use_tiles(monkeypatch, "spans of loops")
    _, tile, grid = problems.plan(problem((2, 67, 1)))
    assert (grid.spans, grid.span, tile.width) == (2, 48, 16)

    problems.use_tiles(monkeypatch, "positions")
    _, tile, grid = problems.plan(problem((2, 37, 3)))
    assert (tile.beside, tile.fold, grid.spans) == (True, 16, 3)


@each_option
@pytest.mark.parametrize(("size", "shape"), [
    ("spans", (2, 67, 1)), ("spans", (2, 11, 5)), ("loops", (2, 67, 1)), ("loops", (5, 7, 1)),
    ("loops", (1, 11, 5)), ("spans of loops", (2, 67, 1)), ("as they are", (9, 257, 1)),
    ("as they are", (2, 7, 33)),
], indirect=["size"])  # fmt: skip
def test_statistics_and_gradient_are_the_definitions(size, shape, options) -> None:
    rows, uniform = with_options(shape, options, ignored=True)
    assert_right(rows, uniform, lse=True)


@pytest.mark.parametrize("classes", [1, 2, 31, 32, 33])
@spans
def test_every_number_of_classes(size, classes) -> None:
    assert_right(problem((2, classes, 1)))
    assert_right(problem((2, classes, 1), "probabilities"), uniform=True)
    assert_right(problem((1, min(classes, 12), 5)), uniform=True)


@each_option
@pytest.mark.parametrize("dtype", FLOATS[:2], ids=str)
@spans
def test_half_types(size, dtype, options) -> None:
    for shape in ((2, 33, 1), (2, 64, 1), (1, 3, 9)):
        rows, uniform = with_options(shape, options, dtype=dtype, ignored=True)
        assert_right(rows, uniform, lse=True)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("q_dtype", [*FLOATS, torch.float64], ids=str)
@spans
def test_probabilities_in_another_dtype(size, q_dtype, dtype) -> None:
    for shape in ((2, 40, 1), (1, 3, 9)):
        assert_right(problem(shape, "probabilities", dtype=dtype, q_dtype=q_dtype, weighted=True))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("size", "dtype"),
    [("spans", torch.float32), ("as they are", torch.bfloat16)],
    indirect=["size"], ids=["spans", "as they are"],
)  # fmt: skip
def test_every_layout(size, dtype, layout) -> None:
    rows = problem((2, 33, 1), dtype=dtype)
    assert_right(rows._replace(logits=LAYOUTS[layout](rows.logits)))
    for moved, shape in (("logits", (2, 3, 5)), ("probabilities", (2, 33, 1))):
        dense = problem(shape, "probabilities", dtype=dtype)
        assert_right(dense._replace(**{moved: LAYOUTS[layout](getattr(dense, moved))}))


@pytest.mark.parametrize("size", ["positions"], indirect=True)
def test_vectors_may_lie_anywhere(size) -> None:
    """Labels, flags, weights and coefficients with others in between, or one for all."""
    rows = problem((5, 9, 3), weighted=True, ignored=True)
    spread = rows._replace(
        target=torch.stack([rows.target, rows.target + 10**9], -1)[..., 0],
        valid=torch.stack([rows.valid, ~rows.valid], -1)[..., 0],
        weight=torch.stack([rows.weight, NAN * rows.weight], -1)[..., 0],
    )
    expected, vectors = problems.statistics(rows, True), problems.statistics(spread, True)
    for one, other in zip(vectors, expected, strict=True):
        assert one is other is None or torch.equal(one, other)
    given = problems.coefficients_of(vectors, lse=True)
    wide = Coefficients(*(c if c is None else torch.stack([c, NAN * c], -1)[..., 0] for c in given))
    slopes = problems.gradient(rows, vectors, given)
    assert torch.equal(problems.gradient(spread, vectors, wide), slopes)
    negated = Coefficients(*(c if c is None else torch._neg_view(-c) for c in given))
    assert torch.equal(problems.gradient(rows, vectors, negated), slopes)
    number = torch.tensor(0.75, device=DEVICE)
    one, many = number.expand(5, 3), number.repeat(5, 3)
    ones, vector = Coefficients(one, one, one, None), Coefficients(many, many, many, None)
    assert torch.equal(
        problems.gradient(rows, vectors, ones), problems.gradient(rows, vectors, vector)
    )
    halves = Coefficients(*(c if c is None else c.to(torch.float16) for c in given))
    assert torch.equal(problems.gradient(rows, vectors, halves), slopes)  # exact in every dtype


@pytest.mark.parametrize("alone", [0, 1, 2, 3])
@spans
def test_each_coefficient_alone(size, alone) -> None:
    rows = problem((4, 33, 1), "probabilities" if alone == 3 else "index", weighted=True)
    vectors = problems.statistics(rows, True)
    true_rows = problems.exact(rows)
    truth = definition.statistics(true_rows, True)

    def only(v: Vectors) -> Coefficients:
        return Coefficients(*(problems.ramp(v.rest) if i == alone else None for i in range(4)))

    slopes = problems.gradient(rows, vectors, only(vectors))
    true = definition.logit_gradient(true_rows, truth, only(truth))
    margin = problems.spread_of(true_rows)
    problems.assert_near_in(slopes, true, margin=margin, sharp=alone < 2)


# ---- values ----


@pytest.mark.parametrize("margin", [0.5, 17.0, 50.0, 80.0])
@in_small_tiles
def test_confident_rows_keep_the_digits_of_their_tail(size, inner, margin) -> None:
    for kind in ("index", "probabilities"):
        rows = problem((3, 40, inner), kind, scale=0.1)
        places = torch.tensor([0, 33, 39], device=DEVICE)[:, None].expand(3, inner)
        rows.logits.scatter_(1, places[:, None], margin)
        if kind == "index":
            rows = rows._replace(target=places.contiguous())
        else:
            certain = torch.zeros_like(rows.logits).scatter_(1, places[:, None], 1.0)
            rows = rows._replace(probabilities=certain)
        true_rows = problems.exact(rows)
        truth = definition.statistics(true_rows, False)
        ours = problems.statistics(rows)
        assert_near(ours.of_labels, truth.of_labels, margin=margin)
        slopes = problems.gradient(rows, ours, problems.coefficients_of(ours))
        true = definition.logit_gradient(true_rows, truth, problems.coefficients_of(truth))
        assert true.abs().min() > 1e-37
        problems.assert_near_in(slopes, true, margin=margin + 1, sharp=True)


@pytest.mark.parametrize("shift", [3000.0, -3000.0])
@spans
def test_logits_in_the_thousands(size, shift) -> None:
    for dtype in FLOATS:
        rows = problem((2, 33, 1), dtype=dtype)
        assert_right(rows._replace(logits=(rows.logits.float() + shift).to(dtype)))
        dense = problem((1, 3, 5), "probabilities", dtype=dtype)
        assert_right(dense._replace(logits=(dense.logits.float() + shift).to(dtype)), uniform=True)


TIES = {"neighbours": (0, 1), "lanes": (1, 5, 9), "spans": (0, 17, 33)}


@pytest.mark.parametrize("places", TIES.values(), ids=TIES)
@in_small_tiles
def test_ties_at_the_maximum(size, inner, places) -> None:
    for kind in ("index", "probabilities"):
        rows = problem((2, 37, inner), kind)
        rows.logits[:, list(places)] = 9.0
        if kind == "index":
            rows.target[0] = places[-1]
        assert_right(rows, uniform=True)
    assert_right(rows._replace(logits=torch.full_like(rows.logits, -7.0)), uniform=True)


@pytest.mark.parametrize("size", ["spans", "loops"], indirect=True)
def test_the_maximum_may_be_anywhere(size) -> None:
    places = [0, 1, 31, 32, 33, 63, 64, 66]
    rows = problem((len(places), 67, 1))
    rows.logits[torch.arange(len(places)), places] = 11.0
    assert_right(rows)
    rising = torch.linspace(-30, 30, 67, device=DEVICE).expand(2, 67).unsqueeze(2)
    for logits in (rising, rising.flip(1)):
        assert_right(problem((2, 67, 1))._replace(logits=logits.contiguous()))


FILLINGS = [(-INF,), (INF,), (NAN,), (-INF, NAN), (INF, -INF), (INF, INF)]


@pytest.mark.parametrize("filling", FILLINGS, ids=str)
@in_small_tiles
def test_nan_and_infinity_are_what_they_are_to_the_definition(size, inner, filling) -> None:
    for kind in ("index", "probabilities"):
        rows = problem((3, 37, inner), kind)
        for row, place in enumerate((0, 32, 36)):
            for step, value in enumerate(filling):
                rows.logits[row, (place + 31 * step) % 37, :2] = value
        if kind == "index":
            rows.target[:2] = torch.tensor([0, 32], device=DEVICE)[:, None]  # where it is
        assert_same_kind(rows, kind == "index")


def assert_same_kind(rows: Rows, uniform: bool) -> None:
    """NaN, ±inf and finite numbers where the definition has them."""
    true_rows = problems.exact(rows)
    ours, truth = problems.statistics(rows, uniform), definition.statistics(true_rows, uniform)
    mine = [ours.lse, *ours[2:5]]
    true = [truth.lse, *truth[2:5]]
    mine.append(problems.gradient(rows, ours, problems.coefficients_of(ours)))
    true.append(definition.logit_gradient(true_rows, truth, problems.coefficients_of(truth)))
    for one, other in zip(mine, true, strict=True):
        if one is not None:
            assert torch.equal(kind_of(one.cpu()), kind_of(other))


def kind_of(x: Tensor) -> Tensor:
    return torch.where(x.isfinite(), 0.0, x.double()).nan_to_num(nan=1.0, posinf=2, neginf=-2)


MASKED = {
    "whole rows": slice(None), "the first tile": slice(0, 32), "all but the first": slice(32, None),
    "all but the last class": slice(None, -1),
    "all but a lane": [c for c in range(37) if c % 8 != 5],
}  # fmt: skip


@pytest.mark.parametrize("masked", MASKED.values(), ids=MASKED)
@in_small_tiles
def test_masked_classes(size, inner, masked) -> None:
    rows = problem((2, 37, inner), "index")
    rows.logits[1:, masked] = -INF
    assert_same_kind(rows, uniform=False)
    free = [c for c in range(37) if c not in set(torch.arange(37)[masked].tolist())]
    if not free:
        return
    assert_right(rows._replace(target=torch.full_like(rows.target, free[-1])))
    dense = problem((2, 37, inner), "probabilities", weighted=True)
    dense.logits[1:, masked] = -INF
    dense.probabilities[1:, masked] = 0  # a class without mass costs nothing
    assert_right(dense)
    dense.weight[masked] = 0
    dense.logits[:, masked] = -INF
    assert_right(dense, uniform=True)


def test_one_class_is_certain() -> None:
    for inner in (1, 4):
        rows = problem((3, 1, inner))
        vectors = problems.statistics(rows, True)
        assert torch.equal(vectors.nll, torch.zeros_like(vectors.nll))
        assert torch.equal(vectors.lse, rows.logits[:, 0])
        slopes = problems.gradient(rows, vectors, problems.coefficients_of(vectors))
        assert torch.equal(slopes, torch.zeros_like(slopes))


def test_no_logits_go_to_torch() -> None:
    with xent.backend("triton"):
        for shape in ((0, 5), (3, 0)):
            empty = torch.empty(shape, device=DEVICE, requires_grad=True)
            found = xent.explain_dispatch(empty)
            assert found.backend == "torch"
            assert found.refusals["triton"] == "there are no logits"
            xent.row_statistics(empty).lse.sum().backward()
            assert empty.grad.shape == shape
