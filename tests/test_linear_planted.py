"""The tests of losses on hidden states can fail: each planted error makes one of them do so."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator

import pytest
import torch

import test_linear
import test_linear_limits
import test_linear_statistics
import test_linear_transforms
import test_linear_use
import xent
from composition import needs_torchs, poison
from xent.contract import linear
from xent.statistics import masses, merging
from xent.statistics.linear import (
    chunks,
    definition,
    derivatives,
    products,
    rows,
    selections,
    tiles,
)

function = sys.modules["xent.functional.linear_cross_entropy"]
formula = sys.modules["xent.functional.positions"]
ranks = sys.modules["xent.functional.ranks"]

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning"),
    needs_torchs,  # one of the tests compares with it
]

PLANTED = [
    # sums that keep their last chunk only
    (chunks, "gradients.weight.add_(at_weight)", "gradients.weight.copy_(at_weight)"),
    (chunks, "gradients.bias.add_(", "gradients.bias.copy_("),
    (products, "total.addmm_(a, b)", "torch.mm(a, b, out=total)"),
    (products, "add_product(out, gradient[:, start:stop], weight)", "pass"),
    # the wrong part
    (products, "self._bias[start:stop]", "self._bias[: stop - start]"),
    (tiles, "_label_logit(chunk.logits, target - first, logit)",
     "_label_logit(chunk.logits, target, logit)"),
    (tiles, "argmax.where(argmax < 0, argmax + first)", "argmax"),
    (selections, "rows.valid.any(1).nonzero()", "rows.valid.all(1).nonzero()"),
    (selections, "self.kept is not None and rows.inner == 1", "self.kept is not None"),
    # memory that nobody has written
    (chunks, "held.zero_() if from_zero or with_gaps", "held.zero_() if from_zero"),
    (chunks, "held.zero_() if from_zero or with_gaps else held", "held"),
    # a missing factor or term
    (chunks, "at_logits += of_entropy", "pass"),
    (merging, "beside = (1 + of_low) *", "beside = of_low *"),
    (merging, "surprise = (prediction.entropy - log_share)", "surprise = (prediction.entropy + 0)"),
    (derivatives, "at_rest * (1 + rest)", "at_rest"),
    (derivatives, "at_mass(m, s) * grad if needed", "at_mass(m, s) if needed"),
    (definition, "at_logits = at_logits + definition.entropy_gradient(rows, vectors, entropy, "
     "at_entropy)", "pass"),
    (masses, "return losses + _product(masses.uniform", "return losses - _product(masses.uniform"),
    # limits
    (merging, ".masked_fill(low == -torch.inf, 0)", ""),
    (merging, "second[0].maximum > first[0].maximum", "second[0].maximum >= first[0].maximum"),
    (merging, "entropy.masked_fill(both.rest.isnan(), torch.nan)", "entropy.nan_to_num()"),
    (selections, "return hidden.masked_fill(~valid.any(1, keepdim=True), 0)", "return hidden"),
    # a derivative that is lost, or taken twice
    (rows, "        wanted.of_labels\n", "        False\n"),
    (derivatives, "s.mul_(grad) if in_place else s * grad", "s.data.mul_(grad)"),
    (derivatives, "if torch.is_grad_enabled():\n            numbers",
     "if False:\n            numbers"),
    # lost digits
    (linear, 'working if input.device.type == "cpu" else _product_dtype(hidden)', "input.dtype"),
    (tiles, "torch.log1p(rest) + (maximum - logit)", "(torch.log1p(rest) + maximum) - logit"),
    # memory and products
    (selections, "max(1, min(most, -(-count // (16 * chunks)) * 16))", "max(1, count)"),
    (rows, "        or not wanted.of_logits\n", "        or True\n"),
    # an option that is lost
    (function, "ranks).to(dtype or call.natural)", "ranks).to(call.natural)"),
    (formula, "masses._replace(labels=of_label * masses.labels)", "masses"),
    (ranks, "fraction(total, call, reduction.denominator)", "fraction(total, call, None)"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def the_definition() -> Iterator[None]:
    with xent.backend("torch"):
        yield


def corner() -> Iterator[Callable[[], None]]:
    """A corner of the grid, large enough to see any of the errors above."""
    single, half = torch.float32, torch.bfloat16
    smooth = {"weighted": True, "label_smoothing": 0.1, "reduction": "mean"}
    yield lambda: test_linear.test_index_targets(single, smooth)
    yield lambda: test_linear.test_index_targets(half, {**smooth, "reduction": "none"})
    yield lambda: test_linear.test_probability_targets(single, smooth)
    yield lambda: test_linear.test_class_weights_have_a_gradient_with_index_targets_too(
        0.1, single, "sum"
    )
    yield lambda: test_linear.test_what_a_mean_divides_by("batch", "index")
    yield lambda: test_linear.test_sample_weights("index", "sum")
    yield lambda: test_linear.test_half_types_keep_the_digits_that_torchs_chunks_lose(half)
    yield lambda: test_linear.test_dtype_is_that_of_the_loss(single)
    yield lambda: test_linear.test_a_classifier_is_widened_piece_by_piece("index")
    yield lambda: test_linear_limits.test_hidden_states_of_ignored_rows_are_inert(
        float("nan"), "index", "ignore_index", "mean"
    )
    yield test_linear_limits.test_a_hidden_state_counts_where_one_of_its_positions_does
    yield lambda: test_linear_limits.test_vocabularies_of_any_size_fill_tiles_and_lanes_as_they_may(
        tiles.WIDTH + 1, "index"
    )
    yield test_linear_limits.test_a_confident_prediction_in_a_far_tile_keeps_its_digits
    for garbage in (float("-inf"), float("nan")):
        yield (
            lambda g=garbage: (
                test_linear_statistics.test_a_tile_of_garbage_is_what_it_is_to_the_whole_row(
                    g, "first"
                )
            )
        )
    yield test_linear_statistics.test_the_first_of_equal_maxima_is_the_argmax_in_any_tile
    yield test_linear_statistics.test_an_even_softmax_has_the_entropy_log_c
    for names in (("lse",), ("entropy",)):
        yield lambda n=names: test_linear_statistics.test_gradients_are_those_of_the_formulas(
            n, "index"
        )
    for products_of in ("mean", "a loss per row"):
        yield lambda p=products_of: test_linear_use.test_no_product_is_made_that_nobody_asked_for(
            *test_linear_use.CASES[p], "index"
        )
    yield lambda: test_linear_use.test_the_logits_of_all_rows_are_never_there("mean", "index")
    yield lambda: test_linear_use.test_a_second_backward_gives_the_same_gradients("mean")
    yield test_linear_use.test_retained_hooks_see_one_gradient
    derivatives_ = test_linear_transforms.TestDerivatives()
    yield derivatives_.test_a_gradient_penalty_is_that_of_the_composition
    yield lambda: derivatives_.test_hidden_states_left_out_are_inert_in_every_mode("ignore_index")
    entropy = next(c for c in test_linear_transforms.DIFFERENTIATED if c[0] == "entropy")
    yield lambda: derivatives_.test_second_derivatives_agree_between_modes(*entropy[1:])


def run_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)
    for test in corner():
        torch.manual_seed(20)
        test()


def test_without_an_error_they_pass(monkeypatch) -> None:
    run_the_tests(monkeypatch)


@pytest.mark.parametrize(
    ("module", "right", "wrong"), PLANTED, ids=[f"{m.__name__}:{r}" for m, r, _ in PLANTED]
)
def test_a_planted_error_is_caught(module, right, wrong, monkeypatch) -> None:
    plant(module, right, wrong, monkeypatch)
    with pytest.raises(AssertionError):
        run_the_tests(monkeypatch)


def plant(module: types.ModuleType, right: str, wrong: str, monkeypatch) -> None:
    """Puts functions and classes of the changed source wherever the library holds the right ones.

    But for the classes that others are compared with: a ``NamedTuple`` is its fields.
    """
    source = inspect.getsource(module)
    assert source.count(right) == 1, f"{right!r} stands {source.count(right)} times"
    changed = types.ModuleType(module.__name__)
    exec(compile(source.replace(right, wrong), module.__file__, "exec"), changed.__dict__)
    originals = {
        id(value): name
        for name, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    }
    holders = [xent, *(m for name, m in sys.modules.items() if name.startswith("xent."))]
    for holder in holders:
        for name, value in list(vars(holder).items()):
            if id(value) in originals:
                monkeypatch.setattr(holder, name, getattr(changed, originals[id(value)]))
