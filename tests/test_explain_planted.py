"""The tests of explanations can fail: each error planted in the source makes one of them do so."""

from __future__ import annotations

import sys

import pytest
import torch

import test_explain
import test_explain_limits
import test_explain_written
import test_why
from explained import asked
from test_planted_errors import plant
from xent.explanation import batch, code, document, pair, row, source, tracing, units
from xent.explanation.answers import gradient, labels, options, softmax
from xent.explanation.why import ANSWERS

PLANTED = [
    # a wrong sign
    (row, "-source.mass * columns.surprise.exp()", "source.mass * columns.surprise.exp()"),
    (row, "x = x - extent.step_size", "x = x + extent.step_size"),
    (row, "log_p=-float(columns.surprise[c])", "log_p=float(columns.surprise[c])"),
    (row, "divergence=columns.cross_entropy - entropy", "divergence=entropy"),
    # a missing factor
    (row, "loss=source.sample_weight * columns.loss", "loss=columns.loss"),
    (row, "gradient=source.sample_weight * float(", "gradient=float("),
    (row, "gradient_p=source.sample_weight * float(", "gradient_p=float("),
    (row, "reduced = source.sample_weight * factor", "reduced = source.sample_weight"),
    (row, "gradient_reduced=gradient * factor", "gradient_reduced=gradient"),
    (row, "extent.step_size * source.sample_weight * moving", "extent.step_size * moving"),
    (row, "number, source.sample_weight * columns.loss", "number, columns.loss"),
    (units, "nats / math.log(2)", "nats"),
    (row, "* math.log(len(source.logits))", "* 1.0"),
    (row, "exp_sum=1 + plain.rest.item()", "exp_sum=plain.rest.item()"),
    (row, "columns.gradient * source.free", "columns.gradient"),
    (source, "label_smoothing=call.label_smoothing", "label_smoothing=0.0"),
    (source, "weight=None if rows.weight is None else _exact(rows.weight)", "weight=None"),
    (pair, 'label_smoothing=float(options["label_smoothing"])', "label_smoothing=0.0"),
    (pair, 'sample_weight=at_place(options["weight"])', "sample_weight=1.0"),
    # another row, class or position
    (source, "rows.logits[outer, :, inner]", "rows.logits[outer, :, 0]"),
    (source, "label[index] = 1", "label[0] = 1"),
    (row, "if source.label[c]]", "if not c]"),
    (row, ".topk(top)", ".topk(1)"),
    (batch, ".topk(SHOWN - 2)", ".neg().topk(SHOWN - 2)"),
    # a forgotten rest
    (row, "others[shown] = False", "others[shown[1:]] = False"),
    (row, "rest = float(columns.p.sum()) - math.fsum(p) if", "rest = 0.0 if"),
    # a wrong divisor
    (tracing, "return 1 / divisor if divisor else 0.0", "return 1.0"),
    (tracing, "float(call.divisor(reduction.denominator))", "float(call.layout.count)"),
    (tracing, "x.numel() - int(ignored.sum())", "x.numel()"),
    (tracing, "else call.rows.target[valid]", "else call.rows.target"),
    # ignored rows, and classes without mass, that are not inert
    (row, "if source.ignored:", "if False:"),
    (row, "if not extent.steps or source.ignored", "if not extent.steps"),
    (code, "masked_fill(mass == 0, 0)", "masked_fill(mass == 1, 0)"),
    (code, "mass.sum() * p - mass", "p - mass"),
    (code, "options.append(\"weight=w\")", "pass"),
    (code, "losses = losses * counts", "losses = losses"),
    # lost digits
    (batch, "frequencies.double()", "frequencies.half()"),
    (code, "exact.float().double().nan_to_num(), exact", "exact, exact"),
    (document, "if isinstance(value, float) and not math.isfinite(value)", "if False"),
    # words that say something else
    (gradient, "logits[rival.index] += NUDGE", "logits[rival.index] -= NUDGE"),
    (gradient, "label_smoothing=0.0, sample_weight=1.0", "sample_weight=1.0"),
    (labels, "return label * surprise if label else 0.0", "return surprise"),
    (labels, "trace_row(replace(case.source, label_smoothing=0.0)", "trace_row((case.source)"),
    (options, "share = epsilon / told.class_count", "share = epsilon"),
    (options, "(batch.divisor - here.share)", "batch.divisor"),
    (options, "gradient / divisor", "gradient"),
    (softmax, "others.logsumexp(0)", "logits.logsumexp(0)"),
]  # fmt: skip


def run_the_tests() -> None:
    """A corner of the grid, large enough to see any of the errors above."""
    torch.manual_seed(20)
    kinds = ("index of positions", "dense last axis", "binary", "binary flat")
    cases = [asked(kind, "everything", torch.float64) for kind in kinds]
    for case in [*cases, asked("index", "two ignored", torch.float64)]:
        test_explain.check_row(case)
        test_explain.check_batch(case)
        test_explain_written.check_python(case)
    test_explain_written.check_python(asked("index", "weight", torch.float64))
    for name in ("masked without weight", "masked label"):
        test_explain_written.check_python(test_explain_written.limit(name))
        test_explain_written.check_json(test_explain_written.limit(name))
    for kind in ("index", "weighted"):
        test_explain_limits.test_the_rest_completes_every_total(kind)
    test_explain_limits.test_an_ignored_row_costs_nothing_whatever_it_holds(torch.float64, "label")
    test_explain_limits.test_of_many_positions_the_costliest_and_the_explained_are_shown()
    for name in ("everything", "batch"):
        told = test_why.CASES[name]
        for question in ("negatives", "dense", "multiply", "smoothing", "ignore", "mean",
                         "sigmoid-vs-softmax"):  # fmt: skip
            test_why.test_every_number_in_words_is_one_of_its_numbers(told, question)
            test_why.test_its_numbers_are_those_of_plain_torch(told, question)
            test_why.test_its_python_runs_to_the_same_result(told, question)


def test_without_an_error_they_pass() -> None:
    run_the_tests()


@pytest.mark.parametrize(
    ("module", "right", "wrong"), PLANTED, ids=[f"{m.__name__}:{r}" for m, r, _ in PLANTED]
)
def test_a_planted_error_is_caught(module, right, wrong, monkeypatch) -> None:
    plant(module, right, wrong, monkeypatch)
    for question, (title, speak) in ANSWERS.items():
        planted = getattr(sys.modules[speak.__module__], speak.__name__)
        monkeypatch.setitem(ANSWERS, question, (title, planted))
    with pytest.raises((AssertionError, ValueError)):  # JSON refuses NaN with a ValueError
        run_the_tests()
