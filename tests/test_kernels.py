"""The kernels against the definition: each size, dtype, memory layout and value that may hurt.

What the whole losses do is in ``test_contract``, on both backends; here is what only kernels can
get wrong: blocks and their ends, strides, masks, and the memory around a tensor.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import reference
import xent
from exactness import assert_no_further, grad_output_for, loss_and_gradients
from xent.backends.numba import launch
from xent.backends.torch import rows as definition
from xent.contract.rows import Coefficients, Rows, Vectors

# Around the ends of lanes, of registers (16 and 64 with AVX-512) and of blocks (2048), and in
# between; 5000 has two whole blocks and a part of one.
CLASSES = [1, 2, 15, 16, 17, 63, 64, 65, 100, 2047, 2048, 2049, 5000]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
IGNORED = -100
POISON = 12345.0  # exact in every dtype but bfloat16, where it is 12352
INF, NAN = math.inf, math.nan

OPTIONS: dict[str, tuple[str, bool, float]] = {  # labels, class weights, smoothing
    "index": ("index", False, 0.0),
    "index, smoothing": ("index", False, 0.1),
    "index, weight, smoothing": ("index", True, 0.1),
    "probabilities": ("probabilities", False, 0.0),
    "probabilities, weight": ("probabilities", True, 0.0),
    "probabilities, smoothing": ("probabilities", False, 0.1),
    "probabilities, weight, smoothing": ("probabilities", True, 0.1),
}
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@pytest.fixture(autouse=True)
def numba() -> Iterator[None]:
    with xent.backend("numba"):
        yield


# ---- memory layouts of [N, C, P] ----


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def in_a_room(x: Tensor, axis: int) -> Tensor:
    """The same values as a slice of a larger tensor, along one axis; NaN all around."""
    shape = list(x.shape)
    shape[axis] += 5
    room = x.new_full(shape, NAN)
    return room.narrow(axis, 2, x.shape[axis]).copy_(x)


def apart(x: Tensor) -> Tensor:
    """Every other element of each axis of a larger tensor, NaN in between."""
    room = x.new_full([2 * size for size in x.shape], NAN)
    return room[(slice(None, None, 2),) * x.ndim].copy_(x)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "positions": torch.Tensor.contiguous,
    "rows": channels_last,
    "positions with gaps": lambda x: in_a_room(x, 2),
    "images with gaps": lambda x: in_a_room(x, 1),
    "rows with gaps": lambda x: in_a_room(x.movedim(1, -1), -1).movedim(-1, 1),
    "batch innermost": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "classes outermost": lambda x: x.movedim(1, 0).contiguous().movedim(0, 1),
    "apart": apart,
    "one image for all": lambda x: x[:1].contiguous().expand_as(x),
    "one position for all": lambda x: x[..., :1].contiguous().expand_as(x),
    "one class for all": lambda x: x[:, :1].contiguous().expand_as(x),
    "negative bit": lambda x: torch._neg_view(-x),
    "negative bit, rows": lambda x: torch._neg_view(-channels_last(x)),
}


# ---- the loss against the truth ----


def labels_of(kind: str, logits: Tensor) -> Tensor:
    if kind == "probabilities":
        return torch.randn(logits.shape).softmax(1).to(logits.dtype)
    target = torch.randint(logits.shape[1], (logits.shape[0], *logits.shape[2:]))
    target.view(-1)[1::4] = IGNORED
    return target


def without_ignored(logits: Tensor, target: Tensor) -> Tensor:
    """Zeros where positions are ignored: torch lets their NaN reach the gradient."""
    if target.is_floating_point():
        return logits
    return logits.masked_fill((target == IGNORED).unsqueeze(1), 0)


def with_garbage(logits: Tensor, target: Tensor) -> Tensor:
    """NaN where positions are ignored, written where the logits are, unless they share memory."""
    if not target.is_floating_point() and all(logits.stride()):
        logits.masked_fill_((target == IGNORED).unsqueeze(1), NAN)
    return logits


def assert_as_exact_as_torch(
    logits: Tensor, options: tuple[str, bool, float], relaid: Callable[[Tensor], Tensor]
) -> None:
    """The loss of each position and the gradients of a view of the logits, and of the labels."""
    kind, weighted, smoothing = options
    target = labels_of(kind, logits)
    weight = (torch.rand(logits.shape[1]) + 0.2).to(logits.dtype) if weighted else None
    named = {"weight": weight, "label_smoothing": smoothing, "reduction": "none"}
    view = with_garbage(relaid(logits.clone()), target)
    values = without_ignored(view, target).clone(memory_format=torch.contiguous_format)
    if target.is_floating_point():
        relabelled = relaid(target) if all(view.stride()) else apart(target)
        target = relabelled.clone(memory_format=torch.contiguous_format)
    else:
        relabelled = spread(target)
    ours = gradient_of(view, lambda x: xent.cross_entropy(x, relabelled, **named))
    theirs = gradient_of(values, lambda x: F.cross_entropy(x, target, **named))
    truth = reference.cross_entropy(
        values, target, *([] if weight is None else [weight]),
        label_smoothing=smoothing, reduction="none",
    )  # fmt: skip
    assert_no_further(ours[0], where_it_overflows(theirs[0], truth.loss), truth.loss)
    assert_no_further(ours[1], theirs[1], truth.logits_gradient)


def where_it_overflows(theirs: Tensor, truth: Tensor) -> Tensor:
    """torch sums float16 costs in float16; where that is infinite, the rounded truth is the bar."""
    return theirs.where(theirs.isfinite() | ~truth.isfinite(), truth.to(theirs.dtype))


def spread(target: Tensor) -> Tensor:
    """Labels that are no neighbours in memory, with none in between."""
    room = torch.full([2 * size for size in target.shape], 10**9)
    return room[(slice(None, None, 2),) * target.ndim].copy_(target)


def gradient_of(logits: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """A loss and its gradient; the leaf is the view itself, wherever it lies."""
    leaf = logits.detach().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf, grad_output_for(value).to(value.dtype))
    return value.detach(), gradient


@each_option
@pytest.mark.parametrize("layout", ["rows", "positions"])
@each_dtype
@pytest.mark.parametrize("classes", CLASSES)
def test_no_number_of_classes_is_further_from_the_truth(classes, dtype, layout, options) -> None:
    logits = (3 * torch.randn(3, classes, 3)).to(dtype)
    assert_as_exact_as_torch(logits, options, LAYOUTS[layout])


@each_option
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_no_memory_layout_is_further_from_the_truth(dtype, layout, options) -> None:
    logits = (3 * torch.randn(2, 70, 67)).to(dtype)
    assert_as_exact_as_torch(logits, options, LAYOUTS[layout])


@pytest.mark.parametrize(
    "labels", ["positions", "rows", "rows with gaps", "positions with gaps", "apart"]
)
@pytest.mark.parametrize("layout", ["positions", "rows", "rows with gaps"])
def test_labels_may_lie_otherwise_in_memory_than_logits(layout, labels) -> None:
    rows = problem_of(LAYOUTS[layout](torch.randn(3, 70, 19)), "probabilities")
    moved = rows._replace(probabilities=LAYOUTS[labels](rows.probabilities))
    expected, vectors = launch.statistics(rows, False), launch.statistics(moved, False)
    assert torch.equal(vectors.cross, expected.cross)
    coefficients = coefficients_for(vectors)
    gradient = launch.logit_gradient(moved, vectors, coefficients)
    assert torch.equal(gradient, launch.logit_gradient(rows, vectors, coefficients))
    truth = definition.statistics(in_float64(rows), False)
    torch.testing.assert_close(vectors.cross.double(), truth.cross, rtol=1e-6, atol=0)


@each_option
@pytest.mark.parametrize("positions", [1, 2, 15, 16, 17, 63, 64, 65, 130])
@each_dtype
def test_no_number_of_positions_is_further_from_the_truth(dtype, positions, options) -> None:
    logits = (3 * torch.randn(3, 5, positions)).to(dtype)
    assert_as_exact_as_torch(logits, options, LAYOUTS["positions"])


@each_option
@pytest.mark.parametrize("classes", [5, 130])
@each_dtype
def test_a_transposed_matrix_is_no_further_from_the_truth(dtype, classes, options) -> None:
    logits = (3 * torch.randn(67, classes)).to(dtype)
    assert_as_exact_as_torch(logits, options, lambda x: x.T.contiguous().T)


@each_option
@pytest.mark.parametrize("layout", ["rows", "positions"])
@each_dtype
def test_logits_in_the_thousands_are_no_further_from_the_truth(dtype, layout, options) -> None:
    logits = (3 * torch.randn(3, 100, 5) + 3000).to(dtype)
    assert_as_exact_as_torch(logits, options, LAYOUTS[layout])
    assert_as_exact_as_torch(-logits, options, LAYOUTS[layout])


@each_option
@pytest.mark.parametrize("layout", ["rows", "positions"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_ties_at_the_maximum_are_no_further_from_the_truth(dtype, layout, options) -> None:
    logits = (3 * torch.randn(3, 130, 5)).to(dtype)
    for count, number in enumerate((2, 3, 100)):
        logits[count, torch.randperm(130)[:number]] = 20
    assert_as_exact_as_torch(logits, options, LAYOUTS[layout])
    assert_as_exact_as_torch(torch.full_like(logits, 7), options, LAYOUTS[layout])


@pytest.mark.parametrize("layout", ["rows", "positions"])
@pytest.mark.parametrize("margin", [5.0, 17.0, 20.0, 60.0, 85.0])
@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_confident_positions_keep_the_digits_of_their_tail(kind, margin, layout) -> None:
    """1 − p has a relative precision of its own, at the label as at the other classes."""
    logits = torch.zeros(3, 70, 19)
    labels = torch.randint(70, (3, 1, 19))
    rows = problem_of(LAYOUTS[layout](logits.scatter(1, labels, margin)), kind)
    if kind == "index":
        rows = rows._replace(target=labels.squeeze(1))
    else:
        rows = rows._replace(probabilities=torch.zeros_like(logits).scatter(1, labels, 1))
    vectors, truth = launch.statistics(rows, False), definition.statistics(in_float64(rows), False)
    close = {"rtol": (8 + margin) * torch.finfo(torch.float32).eps, "atol": 0}  # test_exactness's
    torch.testing.assert_close(vectors.of_labels.double(), truth.of_labels, **close)
    gradient, true = gradients_of(rows, False)
    torch.testing.assert_close(gradient.double(), true, **close)


@pytest.mark.parametrize("layout", ["rows", "positions"])
@each_dtype
def test_a_maximum_may_be_anywhere_in_a_long_row(dtype, layout) -> None:
    """The sum of what came before is scaled to the new maximum, block by block."""
    places = [0, 1, 63, 64, 2046, 2047, 2048, 2049, 4095, 4096, 4999]
    logits = torch.randn(len(places), 5000, 2).to(dtype)
    for row, place in enumerate(places):
        logits[row, place] = 9
    assert_as_exact_as_torch(logits, OPTIONS["index"], LAYOUTS[layout])
    rising = torch.linspace(-30, 30, 5000).expand(2, 5000).unsqueeze(2).to(dtype).clone()
    assert_as_exact_as_torch(rising, OPTIONS["index"], LAYOUTS[layout])


# ---- statistics, one by one ----


def in_float64(rows: Rows) -> Rows:
    logits, target, q, v, valid = rows
    return Rows(logits.double(), target, *(t if t is None else t.double() for t in (q, v)), valid)


def assert_the_same_kind(ours: Tensor, truth: Tensor) -> None:
    """NaN where the truth is NaN, ±inf where it is ±inf, finite where it is finite."""
    torch.testing.assert_close(
        ours.double().nan_to_num(posinf=INF, neginf=-INF, nan=0.5).where(~ours.isfinite(), 0),
        truth.double().nan_to_num(posinf=INF, neginf=-INF, nan=0.5).where(~truth.isfinite(), 0),
        rtol=0, atol=0,
    )  # fmt: skip
    assert torch.equal(ours.isnan(), truth.isnan())


def problem_of(logits: Tensor, kind: str, weighted: bool = False) -> Rows:
    """Canonical rows [outer, C, inner], all of whose classes have some mass."""
    outer, classes, inner = logits.shape
    target = q = None
    if kind == "index":
        target = torch.randint(classes, (outer, inner))
    if kind == "probabilities":
        q = torch.randn(logits.shape).softmax(1).to(logits.dtype)
    v = (torch.rand(classes) + 0.5).to(logits.dtype) if weighted else None
    return Rows(logits, target, q, v, None)


def coefficients_for(vectors: Vectors) -> Coefficients:
    """All of them but that of lse; neither 1 nor constant."""
    return Coefficients(
        None,
        *(None if v is None else grad_output_for(v).to(v.dtype) for v in vectors.statistics[2:]),
    )


def gradients_of(rows: Rows, with_uniform: bool) -> tuple[Tensor, Tensor]:
    """The gradient by the kernels, and the definition's in float64."""
    exact = in_float64(rows)
    vectors, true = (
        launch.statistics(rows, with_uniform),
        definition.statistics(exact, with_uniform),
    )
    return (
        launch.logit_gradient(rows, vectors, coefficients_for(vectors)),
        definition.logit_gradient(exact, true, coefficients_for(true)),
    )


@pytest.mark.parametrize("layout", ["rows", "positions"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("filling", [(-INF,), (INF,), (NAN,), (-INF, NAN), (INF, NAN), (INF, -INF)])
@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_nan_and_infinity_anywhere_are_what_they_are_to_the_definition(
    kind, filling, dtype, layout
) -> None:
    places = [0, 1, 15, 16, 63, 64, 65, 127, 128, 129]
    logits = torch.randn(len(places), 130, 3).to(dtype)
    for row, place in enumerate(places):
        for step, value in enumerate(filling):
            logits[row, (place + 31 * step) % 130, :2] = value
    rows = problem_of(LAYOUTS[layout](logits), kind)
    ours, truth = launch.statistics(rows, True), definition.statistics(in_float64(rows), True)
    for mine, true in zip(ours, truth, strict=True):
        if true is not None:
            assert_the_same_kind(mine, true)
    assert_the_same_kind(ours.lse, truth.lse)
    assert_the_same_kind(*gradients_of(rows, True))


@pytest.mark.parametrize("layout", ["rows", "positions"])
@each_dtype
def test_rows_of_one_value_have_its_kind(dtype, layout) -> None:
    values = torch.tensor([0.0, INF, -INF, NAN]).to(dtype)
    for classes in (1, 3, 64, 130, 2100):
        logits = LAYOUTS[layout](values[:, None, None].expand(4, classes, 2).clone())
        rows = problem_of(logits, "index")
        ours = launch.statistics(rows, False)
        truth = definition.statistics(in_float64(rows), False)
        assert_the_same_kind(ours.lse, truth.lse)
        assert_the_same_kind(ours.nll, truth.nll)
        assert_the_same_kind(*gradients_of(rows, False))


@pytest.mark.parametrize("layout", ["rows", "positions"])
@pytest.mark.parametrize("before", [1, 16, 64, 2047, 2048, 2049, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_masked_classes_may_come_first(dtype, before, layout) -> None:
    """A whole block of −inf has no maximum to subtract."""
    logits = torch.randn(2, before + 70, 3).to(dtype)
    logits[:, :before] = -INF
    rows = problem_of(LAYOUTS[layout](logits), "index")
    rows = rows._replace(target=rows.target.clamp(min=before))
    vectors, truth = launch.statistics(rows, False), definition.statistics(in_float64(rows), False)
    bar = definition.statistics(rows, False)
    assert_no_further(vectors.nll, bar.nll, truth.nll)
    gradient, true = gradients_of(rows, False)
    theirs = definition.logit_gradient(rows, bar, coefficients_for(bar))
    assert_no_further(gradient, theirs, true)
    assert not gradient[:, :before].any()


@pytest.mark.parametrize("layout", ["rows", "positions"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_masked_class_without_mass_costs_nothing(weighted, layout) -> None:
    logits = torch.randn(2, 130, 3)
    rows = problem_of(LAYOUTS[layout](logits), "probabilities", weighted)
    for place in (0, 63, 64, 129):
        rows.logits[0, place] = -INF
        rows.probabilities[0, place] = 0
    vectors, truth = launch.statistics(rows, False), definition.statistics(in_float64(rows), False)
    assert truth.cross.isfinite().all()
    torch.testing.assert_close(vectors.cross.double(), truth.cross, rtol=1e-6, atol=0)
    gradient, true = gradients_of(rows, False)
    assert true.isfinite().all()
    torch.testing.assert_close(gradient.double(), true, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", ["rows", "positions"])
def test_class_weight_zero_on_a_masked_class_costs_nothing(layout) -> None:
    rows = problem_of(LAYOUTS[layout](torch.randn(2, 130, 3)), "index", weighted=True)
    rows.logits[:, 64] = -INF
    rows.weight[64] = 0
    rows = rows._replace(target=rows.target.clamp(max=63))
    vectors, truth = launch.statistics(rows, True), definition.statistics(in_float64(rows), True)
    torch.testing.assert_close(vectors.uniform.double(), truth.uniform, rtol=1e-6, atol=0)


@pytest.mark.parametrize("layout", ["rows", "positions"])
@pytest.mark.parametrize("garbage", [NAN, INF, -INF])
@each_option
def test_ignored_rows_are_not_looked_at(options, garbage, layout) -> None:
    kind, weighted, smoothing = options
    rows = problem_of(LAYOUTS[layout](torch.randn(3, 70, 19)), kind, weighted)
    rows = rows._replace(valid=spread_flags(torch.rand(3, 19) < 0.6))
    expected = launch.statistics(rows, smoothing > 0)
    slopes = launch.logit_gradient(rows, expected, coefficients_for(expected))
    out = ~rows.valid
    for tensor in (rows.logits, rows.probabilities):
        if tensor is not None:
            tensor.masked_fill_(out.unsqueeze(1), garbage)
    ours = launch.statistics(rows, smoothing > 0)
    coefficients = coefficients_for(ours)
    for vector in coefficients:
        if vector is not None:
            vector.masked_fill_(out, NAN)
    gradient = launch.logit_gradient(rows, ours, coefficients)
    for mine, clean in zip(ours, expected, strict=True):
        assert mine is None or (torch.equal(mine, clean) and not mine[out].any())
    assert torch.equal(gradient, slopes)
    assert not gradient.movedim(1, -1)[out].any()
    _, truth = gradients_of(rows, smoothing > 0)
    size = truth.abs().max().item()  # `uniform` is a sum over classes
    torch.testing.assert_close(gradient.double(), truth, rtol=0, atol=1e-6 * max(1, size))


def spread_flags(valid: Tensor) -> Tensor:
    """The same flags with their opposites in between."""
    room = torch.stack([valid, ~valid], -1)
    return room[..., 0]


@pytest.mark.parametrize("layout", ["rows", "positions"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@each_option
def test_half_types_are_float32_rounded_once_to_even(options, dtype, layout) -> None:
    kind, weighted, smoothing = options
    half = problem_of(LAYOUTS[layout]((3 * torch.randn(4, 100, 65)).to(dtype)), kind, weighted)
    single = Rows(*(t.float() if t is not None and t.is_floating_point() else t for t in half))
    mine, wide = launch.statistics(half, smoothing > 0), launch.statistics(single, smoothing > 0)
    for one, other in zip(mine, wide, strict=True):
        assert one is other is None or torch.equal(one, other)
    gradient = launch.logit_gradient(half, mine, coefficients_for(mine))
    exact = launch.logit_gradient(single, wide, coefficients_for(wide))
    assert gradient.dtype == dtype
    assert torch.equal(gradient, exact.to(dtype))


@pytest.mark.parametrize("layout", ["rows", "positions"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradients_that_half_types_can_hardly_hold_are_rounded_as_by_torch(dtype, layout) -> None:
    """To subnormal numbers, to zero, and to infinity."""
    half = problem_of(LAYOUTS[layout]((12 * torch.randn(4, 100, 65)).to(dtype)), "index")
    single = half._replace(logits=half.logits.float())
    vectors = launch.statistics(half, False)
    for factor in (1e-38, 1e-7, 1e-3, 7e4, 3.4e38):
        coefficients = Coefficients(None, torch.full_like(vectors.nll, factor), None, None)
        gradient = launch.logit_gradient(half, vectors, coefficients)
        exact = launch.logit_gradient(single, vectors, coefficients)
        assert torch.equal(gradient, exact.to(dtype))


@pytest.mark.parametrize("layout", ["rows", "positions"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_gradient_at_lse_is_softmax(dtype, layout) -> None:
    rows = problem_of(LAYOUTS[layout](torch.randn(3, 130, 19, dtype=dtype)), "nothing")
    vectors = launch.statistics(rows, False)
    ones = torch.ones_like(vectors.rest)
    gradient = launch.logit_gradient(rows, vectors, Coefficients(ones, None, None, None))
    assert_no_further(gradient, rows.logits.softmax(1), rows.logits.double().softmax(1))


@pytest.mark.parametrize("layout", ["rows", "positions"])
def test_one_number_serves_all_positions_as_a_vector_of_it_does(layout) -> None:
    """A sum's backward expands a number: its stride is 0."""
    rows = problem_of(LAYOUTS[layout](torch.randn(3, 70, 19)), "index", weighted=True)
    vectors = launch.statistics(rows, True)
    one = torch.tensor(0.75).expand(3, 19)
    expanded = Coefficients(one, one, one, None)
    filled = Coefficients(*(c if c is None else c.contiguous() for c in expanded))
    assert torch.equal(
        launch.logit_gradient(rows, vectors, expanded), launch.logit_gradient(rows, vectors, filled)
    )


# ---- the memory around ----


def surrounded(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A contiguous tensor in the middle of a larger one that is full of poison, and the larger."""
    around = torch.full((4096 + math.prod(shape),), POISON, dtype=dtype)
    return around[2048:-2048].view(shape), around


def assert_poison_survives(around: Tensor) -> None:
    edge = torch.full((2048,), POISON, dtype=around.dtype)
    assert torch.equal(around[:2048], edge)
    assert torch.equal(around[-2048:], edge)


SURROUNDED = [
    pytest.param(shape, layout, id=f"{layout}-{'x'.join(map(str, shape))}")
    for layout in ("rows", "positions")
    for shape in [(1, 1, 1), (3, 5, 1), (2, 64, 64), (3, 65, 63), (2, 100, 67), (1, 2049, 17)]
]


@each_option
@each_dtype
@pytest.mark.parametrize(("shape", "layout"), SURROUNDED)
def test_nothing_is_written_beside_a_result(shape, layout, dtype, options, monkeypatch) -> None:
    kind, weighted, smoothing = options
    rooms = []

    def empty(size, *, dtype, **_):
        tensor, room = surrounded(tuple(size), dtype)
        rooms.append(room)
        return tensor

    def gradient_like(logits):
        tensor, room = surrounded(tuple(logits.shape), logits.dtype)
        rooms.append(room)
        return tensor

    rows = problem_of(LAYOUTS[layout](torch.randn(shape).to(dtype)), kind, weighted)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty", empty)
        vectors = launch.statistics(rows, smoothing > 0)
    monkeypatch.setattr(launch, "gradient_like", gradient_like)
    coefficients = coefficients_for(vectors)
    gradient = launch.logit_gradient(rows, vectors, coefficients)
    assert len(rooms) >= 4  # maximum, rest, a cost, the gradient
    for room in rooms:
        assert_poison_survives(room)
    overwritten, room = surrounded(shape, dtype)
    if layout == "positions":
        overwritten.copy_(rows.logits)
        launch.logit_gradient(
            rows._replace(logits=overwritten), vectors, coefficients, inplace=True
        )
        assert torch.equal(overwritten, gradient)
        assert_poison_survives(room)


@each_option
@pytest.mark.parametrize("layout", ["positions with gaps", "images with gaps", "rows with gaps"])
@each_dtype
def test_a_gradient_in_place_leaves_the_gaps_alone(dtype, layout, options) -> None:
    kind, weighted, smoothing = options
    view = LAYOUTS[layout](torch.randn(3, 70, 19).to(dtype))
    room = view._base
    rows = problem_of(view, kind, weighted)
    vectors = launch.statistics(rows, smoothing > 0)
    expected = launch.logit_gradient(rows, vectors, coefficients_for(vectors))
    launch.logit_gradient(rows, vectors, coefficients_for(vectors), inplace=True)
    assert torch.equal(view, expected)
    assert room.isnan().sum() == room.numel() - view.numel()


def at_the_end_of_memory(tensor: Tensor) -> Tensor:
    """A contiguous copy that ends where a page begins that must not be touched."""
    page = mmap.PAGESIZE
    size = tensor.numel() * tensor.element_size()
    pages = -(-size // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + pages * page), page, 0) == 0
    whole = torch.frombuffer(memory, dtype=torch.uint8, count=pages * page)
    place = whole[pages * page - size :].view(tensor.dtype).view(tensor.shape)
    return place.copy_(tensor)


def compute_at_the_end_of_memory() -> None:
    """Run in a process of its own: a look beyond the end would kill it."""
    for kind, weighted, smoothing in list(OPTIONS.values())[::3]:
        for dtype in (torch.bfloat16, torch.float32):
            for shape in [(3, 1, 70), (1, 3, 65), (2, 17, 63), (1, 64, 64), (2, 2049, 1)]:
                rows = problem_of(torch.randn(shape).to(dtype), kind, weighted)
                rows = rows._replace(valid=torch.rand(shape[0], shape[2]) < 0.8)
                rows = Rows(*(None if t is None else at_the_end_of_memory(t) for t in rows))
                vectors = launch.statistics(rows, smoothing > 0)
                vectors = Vectors(
                    *(None if t is None else at_the_end_of_memory(t) for t in vectors)
                )
                launch.logit_gradient(rows, vectors, coefficients_for(vectors), inplace=True)
    print("nothing beyond the end was touched")


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect by ctypes")
def test_nothing_is_read_or_written_beyond_the_end_of_memory() -> None:
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", "import test_kernels as t; t.compute_at_the_end_of_memory()"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "nothing beyond" in done.stdout


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_are_left_as_they_were(layout) -> None:
    view = LAYOUTS[layout](torch.randn(3, 70, 19))
    before = view.clone()
    loss_and_gradients(lambda x: xent.cross_entropy(x, torch.zeros(3, 19).long()), [view])
    gradient_of(view, lambda x: xent.cross_entropy(x, torch.zeros(3, 19).long(), reduction="none"))
    assert torch.equal(view, before)
