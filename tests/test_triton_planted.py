"""Tests of the kernels can fail: each error planted in a copy of the backend makes one do so."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import triton_rows as problems
import xent
from triton_rows import INF, INTERPRETED, LAYOUTS, NAN, assert_near, assert_right, problem
from xent.backends.torch import rows as definition
from xent.contract import notes as contract_notes

SOURCE = Path(xent.__file__).parent / "backends/triton"

# ---- checks, each a corner of what the other files test ----


def index() -> None:
    assert_right(problem((2, 67, 1), weighted=True), uniform=True, lse=True)


def dense() -> None:
    assert_right(problem((2, 67, 1), "probabilities", weighted=True), uniform=True)


def looped() -> None:
    """Several tiles for one program."""
    with pytest.MonkeyPatch.context() as patch:
        problems.use_tiles(patch, "loops")
        index()
        dense()


def costs() -> None:
    assert_right(problem((4, 9, 1), scale=0.1))  # about log 9: where exp(−z) − 1 is a difference


def labels_apart() -> None:
    rows = problem((2, 64, 1), "probabilities")
    assert_right(rows._replace(probabilities=LAYOUTS["room for classes"](rows.probabilities)))


def ties() -> None:
    rows = problem((2, 67, 1))
    rows.logits[:, [0, 1, 40]] = 9.0
    assert_right(rows)


def margins() -> None:
    rows = problem((2, 67, 1), scale=0.1)
    rows.logits[:, 33] = 40.0
    rows.target.fill_(33)
    assert_right(rows)


def certain() -> None:
    rows = problem((2, 67, 1), "probabilities", scale=0.1)
    rows.logits[:, 33] = 40.0
    rows = rows._replace(probabilities=(rows.logits == 40.0).float())
    ours, truth = problems.statistics(rows), definition.statistics(problems.exact(rows), False)
    given, true = problems.coefficients_of(ours), problems.coefficients_of(truth)
    slopes = problems.gradient(rows, ours, given)
    expected = definition.logit_gradient(problems.exact(rows), truth, true)
    problems.assert_near_in(slopes, expected, margin=41, sharp=True)


def masked() -> None:
    rows = problem((3, 67, 1), "probabilities")
    rows.logits[:, :40] = -INF
    rows.probabilities[:, :40] = 0.0
    assert_right(rows)
    rows.logits[1] = -INF
    rows.logits[2, 50] = NAN
    vectors = problems.statistics(rows)
    assert vectors.rest[1:].isnan().all()
    assert vectors.lse[1].eq(-INF).all()
    assert vectors.lse[2].isnan().all()
    assert vectors.maximum[2].isnan().all()


def rooms() -> None:
    rows = problem((2, 67, 1))
    assert_right(rows._replace(logits=LAYOUTS["room for classes"](rows.logits)))


def halves() -> None:
    rows = problem((2, 67, 1), dtype=torch.bfloat16)
    vectors = problems.statistics(rows)
    given = problems.coefficients_of(vectors)
    wide = problems.gradient(rows._replace(logits=rows.logits.float()), vectors, given)
    assert torch.equal(problems.gradient(rows, vectors, given), wide.to(torch.bfloat16))


def ignored() -> None:
    rows = problem((2, 5, 6), ignored=True)
    rows.logits.masked_fill_(~rows.valid[:, None], NAN)
    assert_right(rows)


def notes() -> None:
    rows = problem((3, 67, 1))
    rows.target[1] = -1
    vectors = problems.statistics(rows)
    assert vectors.nll.isnan().flatten().tolist() == [False, True, False]
    slopes = problems.gradient(rows, vectors, problems.coefficients_of(vectors))
    assert slopes.isnan().flatten(1).all(1).tolist() == [False, True, False]
    contract_notes.note_labels(rows.target.clamp(min=0), None, 67)
    with pytest.raises(IndexError, match="target is -1 at position 1 "):
        contract_notes.raise_noted()
    try:
        contract_notes.raise_noted()
    except IndexError as error:
        raise AssertionError from error


def predictions() -> None:
    rows = problem((4, 67, 1), "nothing", ignored=True)
    rows.logits[0, [2, 5, 40]] = 8.0
    rows.logits[2, 3:7] = -INF
    true = problems.exact(rows)
    truth = definition.prediction(true, definition.statistics(true, False))
    found = problems.launch.prediction(rows, problems.statistics(rows))
    assert_near(found.entropy, truth.entropy, margin=problems.spread_of(true))
    assert torch.equal(found.argmax.cpu(), truth.argmax)


PLANTED: list[tuple[str, str, str, Callable[[], None]]] = [
    # states put together
    ("states", "tl.sum(parts, axis) + (leaders - 1.0)", "tl.sum(parts, axis)", ties),
    ("states", "(1.0 + of_low) * exp(", "of_low * exp(", looped),
    ("states", "return tl.where(x == top, 0.0, x - top)", "return x - top", masked),
    ("states", "tl.where(mass == 0.0, 0.0, -mass * _behind(m, top))", "-mass * _behind(m, top)",
     masked),
    ("states", "return tl.where(m == top, beside, mass)", "return mass", certain),
    # what is summed, and written
    ("sums", "moved(du, vu, m, top) + moved(far, even, their_m, top)", "du + far", looped),
    ("sums", "dq = moved(dq, vq, m, top) + moved(", "dq = dq + moved(", looped),
    ("sums", "r = tl.where(tl.abs(m) < float(\"inf\"), r, float(\"nan\"))", "r = r + 0.0", masked),
    ("sums", "m = tl.where(r == r, m, r)", "m = m + 0.0", masked),
    ("sums", "known = (y >= 0) & (y < classes)", "known = y < classes", notes),
    ("sums", "parts + tl.program_id(1).to(tl.int64) * units + unit", "parts + unit", index),
    ("sums", "mask = mask & (c < last)", "mask = mask & (c < last + 1)", rooms),
    ("sums", "if whole < last:", "if whole < first:", index),  # no tail
    # gradients
    ("gradients", "sharp * expm1_of_minus(cost)", "sharp * (tl.exp(-cost) - 1.0)", margins),
    ("gradients", "live & (r < 1.0)", "live & (r < 0.0)", certain),
    ("gradients", "g = tl.where(live[:, None], g, 0.0)", "g = g + 0.0", ignored),
    ("gradients", "tl.where(live & ~known, float(\"nan\"), total)", "total", notes),
    ("gradients", "total += even * tl.load(v_sum).to(kind)", "total += even", index),
    ("gradients", "g -= even[:, None] * tl.load(", "g += even[:, None] * tl.load(", index),
    # numbers
    ("functions", "2.0 * s * series)", "tl.log(1.0 + r))", margins),
    ("functions", "bits = bits + 0x7FFF + ((bits >> 16) & 1)", "bits = bits + 0", halves),
    ("functions", "tl.where(z < 0.5, -z * series,", "tl.where(z < 2.5, -z * series,", costs),
    # predictions
    ("predictions", "tl.where(e == 0.0, 0.0, e * behind)", "e * behind", predictions),
    ("predictions", "tl.where(live, found, -1)", "found", predictions),
    ("predictions", "tl.minimum(place,", "tl.where(c < 0, place,", predictions),
    # tiles, launches, notes
    ("tiles", "even = gcd(ACCESS_BYTES, walk.classes)", "even = ACCESS_BYTES", index),
    ("tiles", "for of_one in strides for", "for of_one in strides[:1] for", labels_apart),
    ("launch", "(coefficient, 0) if not any(coefficient.stride())", "(coefficient, 0) if True",
     index),
]  # fmt: skip


def planted(folder: Path, room: str, right: str, wrong: str) -> tuple[str, Any]:
    """A copy of the backend with one line changed, imported under another name, and its launch."""
    name = f"planted_{folder.name}".replace("-", "_")
    copy = folder / name
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    changed = copy / f"{room}.py"
    text = changed.read_text()
    assert text.count(right) == 1, f"{right!r} stands {text.count(right)} times"
    changed.write_text(text.replace(right, wrong))
    for file in copy.glob("*.py"):
        file.write_text(file.read_text().replace("xent.backends.triton", name))
    launch = importlib.import_module(f"{name}.launch")
    return name, launch


def outcome(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    change: tuple[str, str, str],
    *checks: Callable[[], None],
) -> None:
    monkeypatch.syspath_prepend(folder)
    name, launch = planted(folder, *change)
    tiles: ModuleType = sys.modules[f"{name}.tiles"]
    try:
        monkeypatch.setattr(problems, "launch", launch)
        monkeypatch.setattr(problems, "tiles", tiles)
        problems.use_tiles(monkeypatch, "spans")
        for check in checks:
            check()
    finally:
        for module in [m for m in sys.modules if m.partition(".")[0] == name]:
            del sys.modules[module]


CHECKS = [
    index,
    dense,
    looped,
    costs,
    labels_apart,
    ties,
    margins,
    certain,
    masked,
    rooms,
    halves,
    ignored,
    notes,
    predictions,
]


def test_without_an_error_the_checks_pass(monkeypatch, tmp_path) -> None:
    outcome(monkeypatch, tmp_path, ("launch", "JOINED = 1 << 10", "JOINED = 1 << 10"), *CHECKS)


@pytest.mark.parametrize(
    ("room", "right", "wrong", "check"), PLANTED, ids=[f"{m}:{r}" for m, r, *_ in PLANTED]
)
def test_an_error_planted_in_a_kernel_is_caught(
    room, right, wrong, check, monkeypatch, tmp_path
) -> None:
    if check is halves and not INTERPRETED:
        pytest.skip("the interpreter's rounding; a device has its own")
    with pytest.raises(AssertionError):
        outcome(monkeypatch, tmp_path, (room, right, wrong), check)
