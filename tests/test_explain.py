"""Every number of an explanation is plain torch's, in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import strategies
from explained import Asked, Truth, column, grid, named, near


def check_row(case: Asked) -> None:
    """Every field of the row."""
    told, truth, place = case.explained(step_size=0.5, steps=2), Truth(case), case.place
    row, p, log_p = told.row, truth.log_p.exp()[place], truth.log_p[place]
    x, target, mass = truth.rows[place], truth.target[place], truth.mass[place]
    assert row.ignored == (not truth.counts[place])
    assert row.class_count == len(x) == told.class_count
    assert [c.index for c in row.classes] == list(range(len(x)))
    assert row.rest is None
    assert row.predicted == x.argmax()
    assert row.position == tuple(
        int(i) for i in torch.unravel_index(torch.tensor(place), truth.shape)
    )
    assert column(row, "logit") == x.tolist()
    assert column(row, "shifted") == near((x - x.max()).tolist())
    assert column(row, "exp") == near((x - x.max()).exp().tolist())
    assert column(row, "p") == near(p.tolist())
    assert column(row, "log_p") == near(log_p.tolist())
    assert column(row, "label") == near(truth.label[place].tolist())
    assert column(row, "target") == near(target.tolist())
    assert column(row, "weight") == near(truth.weight[place].tolist())
    assert column(row, "term") == near(truth.terms[place].tolist())
    factor = float(truth.factor[place])
    assert row.sample_weight == factor
    assert column(row, "gradient_p") == near((-factor * mass / p).tolist())
    assert column(row, "gradient") == near(truth.gradient(truth.losses[place]).tolist())
    assert row.gradient_sum == near(0)
    divided = 1e-9 if case.input.dtype == torch.float64 else 1e-6
    assert column(row, "gradient_reduced") == near(truth.gradient(truth.value).tolist(), divided)
    assert (row.maximum, row.lse) == near((x.max().item(), x.logsumexp(0).item()))
    assert row.exp_sum == near((x - x.max()).exp().sum().item())
    assert row.mass == near(mass.sum().item())
    assert row.loss == near(truth.losses[place].item())
    assert row.loss == near(row.sample_weight * math.fsum(column(row, "term")))
    plain = -(target * log_p).sum().item()
    entropy = torch.special.entr(target).sum().item()
    assert row.cross_entropy == near(plain)
    assert (row.entropy, row.divergence) == near((entropy, plain - entropy), absolute=1e-11)
    assert (row.bits, row.perplexity) == near((plain / math.log(2), math.exp(plain)))
    assert row.uniform_guess == near(factor * mass.sum().item() * math.log(len(x)))
    assert row.descent.step_size == 0.5
    steps = truth.descent(2, 0.5)
    assert [s.number for s in row.descent.steps] == [0, 1, 2]
    assert [s.loss for s in row.descent.steps] == near([loss for loss, _ in steps])
    for step, (_, after) in zip(row.descent.steps, steps, strict=True):
        assert step.p == near(tuple(after.tolist()))
        assert step.rest == 0
    index = None if case.binary else truth.index
    assert case.binary or row.label_index == (None if index is None else index[place])


def check_batch(case: Asked) -> None:
    """How the losses became the value, and the options."""
    told, truth, options = case.explained(steps=0), Truth(case), case.options
    batch, returned = told.batch, case.returned()
    digits = 1e-12 if case.input.dtype == torch.float64 else 2e-6
    mode = options.get("reduction", "mean")
    assert (batch.reduction, batch.shape) == (mode, truth.shape)
    assert batch.count == len(truth.rows)
    assert batch.ignored == int((~truth.counts).sum())
    assert batch.value_dtype == str(returned.dtype).removeprefix("torch.")
    if mode != "none":
        assert batch.value == returned.item()  # to the bit
        rounded = max(digits, torch.finfo(returned.dtype).eps)
        assert batch.value == near(truth.value.item(), rounded)
        assert batch.bits == near(batch.value / math.log(2))
        assert batch.perplexity == near(math.exp(batch.value))
    elif batch.count > 1:
        assert (batch.value, batch.bits, batch.perplexity) == (None, None, None)
    assert batch.total == near(truth.losses.sum().item(), digits)
    assert bool(batch.denominator) == (mode == "mean")
    assert batch.divisor == (near(truth.divisor, digits) if mode == "mean" else None)
    if mode == "mean":
        assert batch.value == near(batch.total / batch.divisor, 4 * torch.finfo(returned.dtype).eps)
    assert batch.label_entropy == near(truth.label_entropy())
    places = {}
    for place in range(batch.count):
        where = torch.unravel_index(torch.tensor(place), truth.shape)
        places[tuple(int(i) for i in where)] = place
    complete = len(batch.positions) == batch.count
    assert complete == (batch.count <= 12)
    for at in batch.positions:
        place = places[at.position]
        assert at.loss == near(truth.losses[place].item(), digits)
        assert at.ignored == (not truth.counts[place])
        if mode == "mean" and truth.shares is not None:
            assert at.share == near(truth.shares[place].item(), digits)
        else:
            assert at.share is None
        if at.ignored:
            assert at.label == ""
        elif not case.binary:
            assert at.label == str(int(truth.label[place].argmax()))
    if complete and mode == "mean" and truth.shares is not None:
        assert math.fsum(at.share for at in batch.positions) == near(batch.divisor, digits)
    assert told.options.label_smoothing == options.get("label_smoothing", 0.0)
    weighted, factor = ("pos_weight", "weight") if case.binary else ("weight", "sample_weight")
    assert told.options.weighted == (weighted in options)
    assert told.options.sample_weighted == (factor in options)


@pytest.mark.parametrize("case", grid(torch.float64, torch.bfloat16), ids=named)
def test_a_row_is_what_autograd_makes_of_it(case) -> None:
    check_row(case)


@pytest.mark.parametrize("case", grid(torch.float16, torch.float64), ids=named)
def test_a_batch_is_what_the_loss_returned(case) -> None:
    check_batch(case)


def torch_has(case: Asked) -> bool:
    """Torch's own function takes these options."""
    options = case.options
    if case.binary:
        return not {"label_smoothing", "ignore_index"} & set(options)
    several = not isinstance(options.get("ignore_index", 0), int)
    return not several and not {"sample_weight", "denominator"} & set(options)


@pytest.mark.parametrize("case", [*filter(torch_has, grid(torch.float32))], ids=named)
def test_the_value_is_torchs_where_torch_has_the_options(case) -> None:
    options = {k: v for k, v in case.options.items() if k not in ("row", "dim")}
    theirs = F.binary_cross_entropy_with_logits if case.binary else F.cross_entropy
    x, y = case.input, case.target
    if case.options.get("dim") == -1:
        x, y = x.movedim(-1, 1), y.movedim(-1, 1) if y.shape == x.shape else y
    value, batch = theirs(x, y, **options), case.explained(steps=0).batch
    if batch.value is not None:
        assert batch.value == near(value.item(), 1e-6)
    else:
        assert batch.total == near(value.sum().item(), 1e-6)


@settings(deadline=None, max_examples=60)
@given(
    strategies.problems(
        shape=strategies.shapes(batched=True, empty=False), kinds=("ordinary", "huge")
    ),
    st.integers(0, 2**20),
)
def test_the_identities_hold_for_any_call(problem, number) -> None:
    """Σ term = loss, p − y scaled, entropy + divergence = cross-entropy, ∂/∂x sums to zero."""
    positions = math.prod(strategies.positions_of(tuple(problem.logits.shape)))
    options = {**problem.options, "weight": problem.weight, "row": number % positions}
    told = Asked("drawn", problem.logits, problem.target, options).explained(steps=1, top=None)
    row = told.row
    if row.ignored:
        assert (row.loss, row.mass, row.gradient_sum) == (0, 0, 0)
        return
    scale = max(1.0, abs(row.loss))
    assert row.loss == near(math.fsum(column(row, "term")), 1e-9, 1e-9 * scale)
    assert row.cross_entropy == near(row.entropy + row.divergence, 1e-9, 1e-9 * scale)
    assert math.fsum(column(row, "p")) == near(1)
    assert math.fsum(column(row, "gradient")) == near(0)
    for c in row.classes:
        assert c.gradient == near(row.mass * c.p - c.weight * c.target)
        assert c.log_p == near(c.logit - row.lse, 1e-9, 1e-9 * scale)
    if told.batch.reduction == "mean" and told.batch.divisor:
        reduced = [c.gradient / told.batch.divisor for c in row.classes]
        assert column(row, "gradient_reduced") == near(reduced, 1e-6)
