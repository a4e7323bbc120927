"""The tests can fail: each error planted in the source makes one of them do so."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import test_contract
import test_exactness
import test_seeds
import xent
from xent.backends.torch import limits, rows
from xent.contract import denominator, weights
from xent.statistics import masses

positions = sys.modules["xent.functional.positions"]
binary = sys.modules["xent.functional.binary_cross_entropy_with_logits"]

PLANTED = [
    # a wrong sign
    (rows, "* torch.expm1(-vectors.nll)", "* torch.expm1(vectors.nll)"),
    (rows, "grad = grad - _row(even) * v", "grad = grad + _row(even) * v"),
    (rows, "_row(1 + rest)) - mass", "_row(1 + rest)) + mass"),
    # a missing factor
    (rows, "total + even * v.sum()", "total + even"),
    (rows, "at_label = at_label - even * v.flatten()[target]", "pass"),
    (rows, "cost(d * _class_mass(rows, x)", "cost(d"),
    (rows, "at_weight = at_weight + cost(_row(coefficients.uniform), surprise)", "pass"),
    (positions, "labels: Mass = 1 - smoothing", "labels: Mass = 1.0"),
    (positions, "nll=cost(of_label, vectors.nll)", "nll=vectors.nll"),
    (masses, "return losses + _product(masses.uniform, vectors.uniform)", "return losses"),
    (binary, "cost(yes, -F.logsigmoid(x))", "yes"),
    # a wrong divisor
    (denominator, "factors:\n        if factor is not None", "():\n        if factor is not None"),
    (denominator, 'rule == "weight" or (rule is None', 'rule == "weight" or (False'),
    # ignored rows that are not inert
    (rows, "return rows if valid is None else rows.masked_fill(_row(~valid), 0)", "return rows"),
    (weights, "return vector if valid is None else vector.masked_fill(~valid, 0)", "return vector"),
    # lost digits
    (rows, "torch.log1p(rest)\n    nll", "torch.log(1 + rest)\n    nll"),
    (rows, "* torch.expm1(-vectors.nll)", "* (torch.exp(-vectors.nll) - 1)"),
    (rows, "grad.scatter(1, place, others - total * (not_p / _row(1 + rest)))", "grad"),
    (rows, "logits if logits.dtype == torch.float64 else logits.float()", "logits"),
    (limits, "mass * surprise.masked_fill(unneeded, 0)", "mass * surprise"),
]


@pytest.fixture(autouse=True)
def the_definition() -> Iterator[None]:
    """The errors above are in the definition and around it: it has to compute."""
    with xent.backend("torch"):
        yield


def run_the_tests() -> None:
    """A corner of the grid, large enough to see any of the errors above."""
    weighted = {"weighted": True, "label_smoothing": 0.1, "reduction": "mean"}
    sharp = {"weighted": True, "label_smoothing": 0.0, "reduction": "none"}
    for options in (weighted, sharp):
        for dtype in (torch.float32, torch.bfloat16):
            torch.manual_seed(20)
            test_contract.test_index_targets((4, 7, 3), dtype, -100, options)
            test_contract.test_probability_targets((4, 7, 3), dtype, options)
    for labels in ("index", "dense"):
        test_exactness.test_confident_predictions_keep_their_digits(20.0, torch.float32, labels)
    test_exactness.test_ignored_rows_are_inert(float("nan"), 0.2)
    test_exactness.test_sample_weight_zero_is_inert_with_probabilities_too()
    test_exactness.test_masked_classes_cost_nothing_where_no_label_is()
    test_seeds.test_the_binary_loss_is_its_formula()


def test_without_an_error_they_pass() -> None:
    run_the_tests()


@pytest.mark.parametrize(
    ("module", "right", "wrong"), PLANTED, ids=[f"{m.__name__}:{r}" for m, r, _ in PLANTED]
)
def test_a_planted_error_is_caught(module, right, wrong, monkeypatch) -> None:
    plant(module, right, wrong, monkeypatch)
    with pytest.raises(AssertionError):
        run_the_tests()


def plant(module: types.ModuleType, right: str, wrong: str, monkeypatch) -> None:
    """Puts the functions of the changed source wherever the library holds the right ones."""
    source = inspect.getsource(module)
    assert source.count(right) == 1, f"{right!r} stands {source.count(right)} times"
    changed = types.ModuleType(module.__name__)
    exec(compile(source.replace(right, wrong), module.__file__, "exec"), changed.__dict__)
    originals = {id(f): name for name, f in vars(module).items() if inspect.isfunction(f)}
    holders = [xent, *(m for name, m in sys.modules.items() if name.startswith("xent."))]
    for holder in holders:
        for name, value in list(vars(holder).items()):
            if id(value) in originals:
                monkeypatch.setattr(holder, name, getattr(changed, originals[id(value)]))


# Errors in the kernels: where, what, and the test that is to notice it. A kernel is compiled in a
# process of its own, from a copy of the package; a test needs few of them, and takes seconds.
TIES = "kernels", "ties_at_the_maximum_are_no_further_from_the_truth", '*FLOAT, "rows", INDEX'
NANS = (
    "kernels",
    "nan_and_infinity_anywhere_are_what_they_are_to_the_definition",
    '"index", (math.nan,), *FLOAT, "rows"',
)
MASKED = "kernels", "masked_classes_may_come_first", '*FLOAT, 2048, "rows"'
GAPS = (
    "kernels",
    "no_memory_layout_is_further_from_the_truth",
    '*FLOAT, "rows with gaps", INDEX',
)
HALF = (
    "kernels",
    "no_number_of_classes_is_further_from_the_truth",
    '100, torch.bfloat16, "rows", INDEX',
)
IGNORED_ROWS = "kernels", "ignored_rows_are_not_looked_at", 'INDEX, math.nan, "rows"'
IGNORED_POSITIONS = "kernels", "ignored_rows_are_not_looked_at", 'INDEX, math.nan, "positions"'
LABELS = (
    "kernels",
    "labels_may_lie_otherwise_in_memory_than_logits",
    '"rows", "rows with gaps"',
)
LABELS_OF_IMAGES = (*LABELS[:2], '"positions", "positions with gaps"')
TAIL = (
    "kernels",
    "confident_positions_keep_the_digits_of_their_tail",
    '"index", 20.0, "positions"',
)
BLOCKS = "kernels", "a_maximum_may_be_anywhere_in_a_long_row", '*FLOAT, "rows"'
NO_MASS = "kernels", "a_masked_class_without_mass_costs_nothing", 'False, "rows"'
CONFIDENT = "exactness", "confident_predictions_keep_their_digits", '20.0, *FLOAT, "index"'
WEIGHTS = (
    "contract",
    "index_targets",
    '(6, 5), *FLOAT, None, dict(weighted=True, label_smoothing=0.0, reduction="mean")',
)

PLANTED_IN_KERNELS = [
    ("row_sums", "+ (maxima - 1)", "", TIES),  # ties counted as none
    ("row_sums", "if holds_nan(x, start, end):", "if False:", NANS),
    # a block of −inf, without a maximum
    ("row_sums", "elif holds_nan(x, at, upto):", "elif True:", MASKED),
    ("row_sums", "(others + 1.0) * math.exp(m - top)", "others * math.exp(m - top)", BLOCKS),
    ("row_sums", "where(some == 0.0, 0.0, some * some_surprise)", "some * some_surprise", NO_MASS),
    ("row_gradients", "sharp * not_p", "sharp * total", CONFIDENT),  # −1 instead of p − 1
    ("rows", "valid.size and not valid[i]:\n            write_zeros(",
     "False:\n            write_zeros(", IGNORED_ROWS),
    ("rows", "cross[i] = costs(x, at, classes, m, others, q, labels, v)",
     "cross[i] = costs(x, at, classes, m, others, q, at, v)", LABELS),
    ("positions", "1.0) if q is None else part(q, labels + c * q_stride, n)",
     "1.0) if q is None else part(q, labels + c * stride, n)", LABELS_OF_IMAGES),
    ("positions", "where(of_label == m, others, total - e)", "total - e", TAIL),  # p − 1
    ("positions", "where(counts, at_label / total, 0.0)", "at_label / total", IGNORED_POSITIONS),
    # one lane too many at a row's end
    ("access", 'return builder.icmp_signed("<"', 'return builder.icmp_signed("<="', GAPS),
    ("access", "splat(builder, whole, 0x7FFF)", "splat(builder, whole, 0)", HALF),  # cut off
    ("functions", "builder.fadd(odd, lost)", "odd", CONFIDENT),  # log(1 + x)
    ("batches", "of_label = sharp * weight_of(v, y)", "of_label = sharp", WEIGHTS),
]  # fmt: skip
SCRIPT = """
import math, torch, xent, test_{0} as tests
FLOAT, INDEX = (torch.float32,), ("index", False, 0.0)
torch.set_num_threads(1)
torch.manual_seed(20)
with xent.backend("numba"):
    tests.test_{1}({2})
"""


def outcome_with(
    room: str, right: str, wrong: str, test: tuple[str, str, str], folder: Path
) -> str:
    """How a test ends with a changed copy of the package: the kind of error, or "passed"."""
    source = Path(xent.__file__).parent
    shutil.copytree(source, folder / "xent", ignore=shutil.ignore_patterns("__pycache__"))
    changed = folder / f"xent/backends/numba/{room}.py"
    text = changed.read_text()
    assert text.count(right) == 1, f"{right!r} stands {text.count(right)} times"
    changed.write_text(text.replace(right, wrong))
    paths = [str(folder), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(*test)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "NUMBA_CACHE_DIR": str(folder)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return "passed"
    if done.returncode < 0:  # memory was written that belongs to others
        return "killed"
    return "AssertionError" if "\nAssertionError" in done.stderr else done.stderr


def test_without_an_error_the_kernels_pass(tmp_path) -> None:
    assert outcome_with("rows", "def gradient(", "def gradient(", CONFIDENT, tmp_path) == "passed"


@pytest.mark.parametrize(
    ("room", "right", "wrong", "test"),
    PLANTED_IN_KERNELS,
    ids=[f"{room}:{right}" for room, right, *_ in PLANTED_IN_KERNELS],
)
def test_an_error_planted_in_a_kernel_is_caught(room, right, wrong, test, tmp_path) -> None:
    assert outcome_with(room, right, wrong, test, tmp_path) in ("AssertionError", "killed")
