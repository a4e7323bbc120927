"""What a launch promises besides numbers: roundings, memory, determinism, ignored rows, notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import triton_rows as problems
import xent
from triton_rows import DEVICE, IGNORED, INF, LAYOUTS, NAN, assert_near, assert_right, problem
from xent.backends.torch import rows as definition
from xent.backends.triton import launch, tiles
from xent.contract import notes
from xent.contract.rows import Coefficients, Rows, Vectors

spans = pytest.mark.parametrize("size", ["spans"], indirect=True)
each_kind = pytest.mark.parametrize("kind", ["index", "probabilities"])
halves = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


@pytest.fixture
def size(request, monkeypatch) -> str:
    problems.use_tiles(monkeypatch, request.param)
    return request.param


@pytest.fixture(autouse=True)
def no_notes() -> Iterator[None]:
    xent.check_errors()
    yield
    xent.check_errors()


def both(rows: Rows, uniform: bool = False) -> tuple[Tensor, ...]:
    """Statistics and gradient."""
    vectors = problems.statistics(rows, uniform)
    slopes = problems.gradient(rows, vectors, problems.coefficients_of(vectors))
    return *(v for v in vectors if v is not None), slopes


# ---- roundings ----


@halves
@pytest.mark.parametrize("shape", [(3, 40, 1), (2, 3, 9)], ids=str)
@each_kind
def test_a_gradient_is_rounded_once_to_the_nearest_even(kind, shape, dtype) -> None:
    half = problem(shape, kind, dtype=dtype)
    wide = Rows(*(t.float() if t is not None and t.is_floating_point() else t for t in half))
    vectors = problems.statistics(wide)
    for factor in (1.0, 1e-7, 1e-3, 7e4):  # down to zero and up to infinity in float16
        given = Coefficients(
            *(None if c is None else factor * c for c in problems.coefficients_of(vectors))
        )
        slopes = problems.gradient(half, vectors, given)
        assert torch.equal(slopes, problems.gradient(wide, vectors, given).to(dtype))


@spans
@halves
def test_halves_are_widened_exactly(size, dtype) -> None:
    half = problem((2, 33, 1), dtype=dtype)
    ours = problems.statistics(half)
    wide = problems.statistics(half._replace(logits=half.logits.float()))
    assert torch.equal(ours.maximum, wide.maximum)
    assert_near(ours.nll, wide.nll.cpu())


@each_kind
def test_equal_calls_have_equal_results(kind, monkeypatch) -> None:
    problems.use_tiles(monkeypatch, "spans")
    rows = problem((2, 67, 1), kind, weighted=True)
    for one, other in zip(both(rows, True), both(rows, True), strict=True):
        assert torch.equal(one, other)


@each_kind
def test_spans_change_no_more_than_roundings(kind, monkeypatch) -> None:
    rows = problem((2, 67, 1), kind, weighted=True)
    whole = both(rows, True)
    problems.use_tiles(monkeypatch, "spans")
    assert problems.plan(rows)[2].spans == 3
    for one, other in zip(both(rows, True), whole, strict=True):
        assert_near(one, other.cpu(), of=float(other.abs().max()))


@pytest.mark.parametrize("size", ["spans", "as they are"], indirect=True)
def test_offsets_of_64_bits_find_the_same_numbers(size, monkeypatch) -> None:
    several = [problem((2, 33, 1)), problem((1, 11, 5), "probabilities", weighted=True)]
    short = [both(rows, True) for rows in several]
    predicted = [launch.prediction(rows, problems.statistics(rows)) for rows in several]
    narrow = tiles.tile_of

    def wide(*given, **named) -> tiles.Tile:
        return narrow(*given, **named)._replace(long=True)

    monkeypatch.setattr(launch, "tile_of", wide)
    for rows, expected, most in zip(several, short, predicted, strict=True):
        assert problems.plan(rows)[1].long
        for one, other in zip(both(rows, True), expected, strict=True):
            assert torch.equal(one, other)
        found = launch.prediction(rows, problems.statistics(rows))
        assert torch.equal(found.argmax, most.argmax)
        assert torch.equal(found.entropy, most.entropy)


def test_offsets_are_as_wide_as_they_have_to_be() -> None:
    for step, is_long in ((1 << 20, False), (1 << 26, True)):
        logits = torch.empty(1, device="meta").as_strided((1, 33, 4), (0, step, 1))
        assert problems.plan(Rows(logits))[1].long == is_long
        row = torch.empty((4, 33, 1), device="meta")
        beside = torch.empty(1, device="meta").as_strided((4, 33, 1), (33, step, 1))
        tile = launch._plan(row, beside, heavy=True)[1]
        assert tile.long == is_long


# ---- memory ----


@pytest.mark.parametrize("layout", ["contiguous", "room for classes", "room for positions",
                                    "channels last with room", "apart"])  # fmt: skip
@spans
def test_a_gradient_in_place_leaves_the_gaps_alone(size, layout) -> None:
    for kind, dtype in (("index", torch.bfloat16), ("probabilities", torch.float32)):
        rows = problem((2, 11, 3), kind, dtype=dtype, ignored=True)
        rows = rows._replace(logits=LAYOUTS[layout](rows.logits))
        room = rows.logits if rows.logits._base is None else rows.logits._base
        vectors = problems.statistics(rows, True)
        given = problems.coefficients_of(vectors)
        expected = problems.gradient(rows, vectors, given)
        slopes = problems.gradient(rows, vectors, given, inplace=True)
        assert slopes.data_ptr() == rows.logits.data_ptr()
        assert torch.equal(rows.logits, expected)
        assert room.isnan().sum() == room.numel() - rows.logits.numel()


def test_in_place_works_through_a_negative_bit() -> None:
    rows = problem((2, 7, 1))
    negated = rows._replace(logits=torch._neg_view(-rows.logits))
    vectors = problems.statistics(rows)
    given = problems.coefficients_of(vectors)
    expected = problems.gradient(rows, vectors, given)
    problems.gradient(negated, vectors, given, inplace=True)
    assert torch.equal(negated.logits.resolve_neg(), expected)


def test_what_is_read_is_left_as_it_was() -> None:
    rows = problem((3, 33, 1), "probabilities", weighted=True, ignored=True)
    before = [None if t is None else t.clone() for t in rows]
    both(rows, True)
    assert all(t is None or torch.equal(t, b) for t, b in zip(rows, before, strict=True))


def test_another_backends_statistics_will_do() -> None:
    """Numba's and torch's leave no mass of the labels: it is found again."""
    rows = problem((3, 33, 1), "probabilities", weighted=True)
    vectors = definition.statistics(rows, False)
    assert vectors.mass is None
    slopes = problems.gradient(rows, vectors, problems.coefficients_of(vectors))
    ours = problems.statistics(rows)
    expected = problems.gradient(rows, ours, problems.coefficients_of(ours))
    assert_near(slopes, expected.cpu(), of=float(expected.abs().max()))


def test_mass_is_the_definitions() -> None:
    rows = problem((3, 33, 2), "probabilities", weighted=True, ignored=True)
    rows.logits[:, 5:7] = 9.0
    true = problems.exact(rows)
    ours = problems.statistics(rows)
    truth = definition.mass(true, definition.statistics(true, False))
    counts = rows.valid.cpu()
    assert_near(ours.mass.cpu()[:, counts], truth[:, counts])


# ---- ignored rows ----


@pytest.mark.parametrize("garbage", [NAN, INF])
@pytest.mark.parametrize("shape", [(4, 35, 1), (1, 5, 6)], ids=str)
@each_kind
def test_ignored_rows_are_inert(kind, shape, garbage, monkeypatch) -> None:
    problems.use_tiles(monkeypatch, "loops")
    rows = problem(shape, kind, weighted=True, ignored=True)
    clean = both(rows, True)
    vectors = problems.statistics(rows, True)
    out = ~rows.valid
    for tensor in (rows.logits, rows.probabilities):
        if tensor is not None:
            tensor.masked_fill_(out[:, None], garbage)
    if rows.target is not None:
        rows.target.masked_fill_(out, IGNORED)
    again = problems.statistics(rows, True)
    given = Coefficients(
        *(None if c is None else c.masked_fill(out, garbage)
          for c in problems.coefficients_of(vectors))
    )  # fmt: skip
    slopes = problems.gradient(rows, again, given)
    assert torch.equal(slopes, clean[-1])
    assert not slopes.movedim(1, -1)[out].any()
    for name in ("maximum", "rest", "nll", "uniform", "cross"):
        mine, theirs = getattr(again, name), getattr(vectors, name)
        assert mine is theirs is None or (torch.equal(mine, theirs) and not mine[out].any())


def test_ignored_rows_are_not_read(monkeypatch) -> None:
    problems.use_tiles(monkeypatch, "spans")
    rows = problem((4, 35, 1), ignored=True)
    out = (~rows.valid).nonzero()[0, 0].item()
    size = rows.logits.element_size()
    begin = rows.logits[out].data_ptr()
    if DEVICE.type != "cpu":
        pytest.skip("loads can be watched in the interpreter only")
    from triton.runtime.interpreter import interpreter_builder

    touched: list[bool] = []
    watched = watched_by(touched, begin, 35 * size)
    monkeypatch.setattr(interpreter_builder, "create_masked_load", watched)
    both(rows, True)
    assert touched
    assert not any(touched)


def watched_by(touched: list[bool], begin: int, size: int) -> Callable[..., Any]:
    """A load that says whether it read some of these bytes."""
    from triton.runtime.interpreter import interpreter_builder

    masked = interpreter_builder.create_masked_load

    def load(ptrs, mask, *others):
        address = ptrs.data[mask.data.astype(bool)]
        touched.append(bool(((address >= begin) & (address < begin + size)).any()))
        return masked(ptrs, mask, *others)

    return load


@pytest.mark.parametrize("size", ["spans", "loops"], indirect=True)
def test_no_row_counts(size) -> None:
    rows = problem((3, 35, 1))
    rows.logits.fill_(NAN)
    rows = rows._replace(valid=torch.zeros_like(rows.target, dtype=torch.bool))
    assert not any(t.any() for t in both(rows, True))


# ---- predictions ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(4, 67, 1), (2, 11, 5)], ids=str)
@pytest.mark.parametrize("size", ["loops", "as they are"], indirect=True)
def test_entropy_and_the_most_probable_class(size, shape, dtype) -> None:
    rows = problem(shape, "nothing", dtype=dtype, ignored=True)
    rows.logits[0, [2, 5, 9]] = 8.0  # the first of equals
    rows.logits[-1, 3:7] = -INF
    true_rows = problems.exact(rows)
    truth = definition.prediction(true_rows, definition.statistics(true_rows, False))
    vectors = problems.statistics(rows)
    with problems.poisoned():
        found = launch.prediction(rows, vectors)
    assert_near(found.entropy, truth.entropy, margin=problems.spread_of(true_rows))
    assert torch.equal(found.argmax.cpu(), truth.argmax)
    assert bool((found.argmax[~rows.valid] == -1).all())


def test_vectors_of_another_backend_may_lie_anyhow() -> None:
    rows = problem((4, 7, 3))
    vectors = problems.statistics(rows)
    turned = Vectors(*(None if v is None else v.mT.contiguous().mT for v in vectors))
    assert not turned.nll.is_contiguous()
    slopes = [problems.gradient(rows, v, problems.coefficients_of(v)) for v in (vectors, turned)]
    assert torch.equal(*slopes)
    assert torch.equal(launch.prediction(rows, vectors)[0], launch.prediction(rows, turned)[0])


# ---- labels that are no class ----


@pytest.mark.parametrize("label", [67, -1, -(1 << 31) - 5, (1 << 40)])
@pytest.mark.parametrize("size", ["spans", "as they are"], indirect=True)
def test_a_bad_label_makes_its_row_nan_and_is_noted_once(size, label) -> None:
    rows = problem((3, 67, 1))
    clean = both(rows, True)
    rows.target[1] = label
    found = both(rows, True)
    for one, other in zip(found, clean, strict=True):
        assert torch.equal(one[[0, 2]], other[[0, 2]])
    assert problems.statistics(rows).nll[1].isnan().all()
    assert found[-1][1].isnan().all()
    said = label if abs(label) < 1 << 31 else r"-?\d+"  # as far as 32 bits go
    with pytest.raises(IndexError, match=f"target is {said} at position 1 of .*expected 0..66 or"):
        xent.check_errors()
    xent.check_errors()


def test_a_bad_label_among_positions_is_found_by_its_number() -> None:
    rows = problem((2, 7, 9), ignored=True)
    assert bool(rows.valid[1, 5])
    rows.target[1, 5] = 7
    rows.target.masked_fill_(~rows.valid, -5)  # these do not count
    slopes = both(rows)[-1]
    bad = slopes.isnan().any(1)
    assert bad.sum() == 1
    assert bool(bad[1, 5])
    with pytest.raises(IndexError, match="target is 7 at position 14 "):
        xent.check_errors()


def test_of_several_bad_labels_one_is_told_of() -> None:
    rows = problem((5, 7, 1))
    rows.target[1:4] = 9
    both(rows)
    with pytest.raises(IndexError, match=r"target is 9 at position [123] "):
        xent.check_errors()


@pytest.mark.parametrize("label", [5, -1, -(1 << 31) + 1, (1 << 31) - 1])
def test_labels_may_be_noted_without_a_kernel(label) -> None:
    target = torch.tensor([[0, 4], [label, 2]], device=DEVICE)
    notes.note_labels(target, None, 5)
    with pytest.raises(IndexError, match=f"target is {label} at position 2 .*expected 0..4 or"):
        xent.check_errors()
    notes.note_labels(target, torch.tensor([[True, True], [False, True]], device=DEVICE), 5)
    notes.note_labels(target.clamp(0, 4), None, 5)


def test_a_later_good_batch_does_not_wipe_a_note_away() -> None:
    notes.note_labels(torch.tensor([[9]], device=DEVICE), None, 5)
    notes.note_labels(torch.tensor([[0]], device=DEVICE), None, 5)
    both(problem((2, 5, 1)))
    with pytest.raises(IndexError, match="target is 9 at position 0 "):
        xent.check_errors()


def test_the_last_note_says_of_how_many_classes_it_is() -> None:
    for classes in (5, 6):
        notes.note_labels(torch.tensor([[9]], device=DEVICE), None, classes)
    with pytest.raises(IndexError, match=r"expected 0\.\.5 or"):
        xent.check_errors()
    xent.check_errors()


def test_a_note_made_in_inference_mode_serves_later(monkeypatch) -> None:
    monkeypatch.setattr(notes, "_notes", {})
    with torch.inference_mode():
        both(problem((2, 5, 1)))
    notes.note_labels(torch.tensor([[9]], device=DEVICE), None, 5)
    with pytest.raises(IndexError, match="target is 9"):
        notes.raise_noted()


def test_no_labels_are_noted_without_complaint() -> None:
    notes.note_labels(torch.empty((0, 1), dtype=torch.int64, device=DEVICE), None, 5)


def test_a_storage_may_begin_anywhere() -> None:
    """At no multiple of 16 bytes, with strides that are multiples."""
    for kind in ("index", "probabilities"):
        rows = problem((2, 64, 1), kind, dtype=torch.bfloat16)
        for name in ("logits", "probabilities"):
            tensor = getattr(rows, name)
            if tensor is not None:
                room = tensor.new_full((tensor.numel() + 3,), NAN)
                rows = rows._replace(**{name: room[3:].view(tensor.shape).copy_(tensor)})
        assert rows.logits.data_ptr() % 16
        assert_right(rows, uniform=True)
