"""The tests can fail: each error planted in the source makes one of them do so."""

from __future__ import annotations

import inspect
import sys
import types

import pytest
import torch

import test_contract
import test_exactness
import test_seeds
import xent
from xent.backends.torch import limits, rows
from xent.contract import denominator, weights

cross_entropy = sys.modules["xent.functional.cross_entropy"]
binary = sys.modules["xent.functional.binary_cross_entropy_with_logits"]

PLANTED = [
    # a wrong sign
    (rows, "* torch.expm1(-vectors.nll)", "* torch.expm1(vectors.nll)"),
    (rows, "grad = grad - _row(even) * v", "grad = grad + _row(even) * v"),
    (rows, "_row(1 + rest)) - mass", "_row(1 + rest)) + mass"),
    # a missing factor
    (rows, "total + even * v.sum()", "total + even"),
    (rows, "at_label = at_label - even * v.flatten()[rows.target]", "pass"),
    (rows, "cost(d * _class_mass(rows, x)", "cost(d"),
    (rows, "at_weight = at_weight + cost(_row(coefficients.uniform), surprise)", "pass"),
    (cross_entropy, "cost(sharp, losses)", "losses"),
    (cross_entropy, "losses = cost(of_label, losses)", "pass"),
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
