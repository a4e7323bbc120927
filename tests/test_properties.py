"""Properties of the losses, for any shape, layout, dtype and option that Hypothesis thinks of."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import strategies as some
import xent
from exactness import grad_output_for
from strategies import IGNORED, Problem, problems

pytestmark = pytest.mark.usefixtures("backend")

# Derandomized: what CI sees is what a developer sees. No deadline: the first call is slow.
fixed = settings(deadline=None, max_examples=100, derandomize=True, database=None)

SINGLE = (torch.float32, torch.float64)
DOUBLE = (torch.float64,)
UNITS = 8  # a result ends a chain of about that many roundings of half a unit, sums included
EPS = torch.finfo(torch.float64).eps


def loss_and_gradient(problem: Problem, function: Any = None, **options: Any) -> list[Tensor]:
    """The loss and its gradient at the logits as they lie in memory, for grad_output ≠ 1."""
    leaf = problem.logits.detach().requires_grad_()
    loss = problem.but(logits=leaf).of(function or xent.cross_entropy, **options)
    (gradient,) = torch.autograd.grad(loss, leaf, grad_output_for(loss).to(loss.dtype))
    return [loss.detach(), gradient]


def assert_within(ours: Tensor, expected: Tensor, allowed: Tensor | float) -> None:
    """Asserts that finite values differ by no more than allowed, and that others are equal."""
    assert ours.shape == expected.shape
    finite = expected.isfinite()
    assert equal(ours.masked_fill(finite, 0).double(), expected.masked_fill(finite, 0).double())
    error = (ours.double() - expected.double()).masked_fill(~finite, 0).abs()
    assert bool((error <= allowed).all()), f"{error.max()} beyond {allowed}"


def assert_rounded(ours: Tensor, expected: Tensor, size: Tensor | float | None = None) -> None:
    """Asserts equality within rounding, relative to ``size``; by default that of the result."""
    size = expected.abs().masked_fill(~expected.isfinite(), 0) if size is None else size
    assert_within(ours, expected, UNITS * torch.finfo(ours.dtype).eps * size)


def equal(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, where NaN equals NaN."""
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(
        one.masked_fill(one.isnan(), 0), other.masked_fill(other.isnan(), 0)
    )


def label_weight(problem: Problem) -> Tensor:
    """v_y, or Σ_c v_c q_c, per position; 0 where ignored. In float64."""
    classes = problem.logits.shape[problem.axis]
    v = torch.ones(classes).double() if problem.weight is None else problem.weight.double()
    if problem.indices:
        return torch.where(problem.valid, v[problem.target.long() % classes], 0)
    return (problem.target.double().movedim(problem.axis, -1) * v).sum(-1)


def divisor(problem: Problem) -> Tensor:
    """What torch's mean divides by."""
    return label_weight(problem).sum() if problem.indices else problem.valid.sum().double()


def slope(problem: Problem) -> float:
    """The largest factor with which a row's p − q can enter a gradient."""
    heaviest = 1.0 if problem.weight is None else problem.weight.max().item()
    by = divisor(problem).item() if problem.options["reduction"] == "mean" else 1.0
    return 1.5 * heaviest / by if by else 0.0  # 1.5 is the largest grad_output


def spread(logits: Tensor) -> float:
    """How far apart logits lie: torch subtracts, and loses that many eps."""
    finite = logits[logits.isfinite()].abs()
    return 1.0 + 2 * finite.max().item() if finite.numel() else 1.0


def flattened(problem: Problem) -> Problem:
    """The same positions as rows of ``[P, C]``."""
    rows = problem.logits.movedim(problem.axis, -1)
    shape = (-1, rows.shape[-1]) if rows.numel() else (0, rows.shape[-1])
    if problem.indices:
        return problem.but(logits=rows.reshape(shape), target=problem.target.long().reshape(-1))
    target = problem.target.movedim(problem.axis, -1)
    return problem.but(logits=rows.reshape(shape), target=target.reshape(shape))


def sample_weights(problem: Problem, seed: int, low: int = 0) -> Tensor:
    """Small whole numbers in the dtype of the logits, one per position."""
    random = torch.Generator().manual_seed(seed)
    shape = problem.valid.shape
    return torch.randint(low, 4, shape, generator=random).to(problem.logits.dtype)


class TestAgainstTorch:
    @fixed
    @given(problems())
    def test_the_loss_is_torchs_in_float64_where_that_is_finite(self, problem) -> None:
        ours, theirs = problem.of(xent.cross_entropy), problem.as_double().of(F.cross_entropy)
        if problem.logits.isinf().any() and theirs.isnan().any():  # a masked class: 0 · inf
            ours, theirs = ours[~theirs.isnan()], theirs[~theirs.isnan()]
        expected = theirs.to(ours.dtype).double()  # float16 overflows
        exact = UNITS * torch.finfo(ours.dtype).eps * expected.nan_to_num(posinf=0).abs()
        tiny = torch.finfo(ours.dtype).smallest_normal
        lost = UNITS * EPS * spread(problem.logits) * slope(problem) * max(1, theirs.numel())
        positions = problem.valid.numel() if problem.options["reduction"] != "none" else 1
        assert_within(ours, expected, exact + lost * positions + tiny)

    @fixed
    @given(problems())
    def test_the_gradient_is_torchs_in_float64_where_that_is_finite(self, problem) -> None:
        (loss, ours), (_, theirs) = (
            loss_and_gradient(problem),
            loss_and_gradient(problem.as_double(), F.cross_entropy),
        )
        assert ours.dtype == problem.logits.dtype
        if loss.numel() == 1 and not loss.isfinite():
            return
        right = theirs.isfinite().all(problem.axis, keepdim=True)
        working = torch.finfo(torch.promote_types(ours.dtype, torch.float32)).eps
        expected = theirs.masked_fill(~right, 0)
        rounded = torch.finfo(ours.dtype).eps * expected.abs()
        tiny = torch.finfo(ours.dtype).smallest_normal
        lost = 2 * UNITS * max(working, EPS * spread(problem.logits)) * slope(problem)
        assert_within(ours.masked_fill(~right, 0), expected, rounded + lost + tiny)

    @fixed
    @given(some.shapes(), some.floats, some.kinds, some.layouts, some.reductions, some.seeds)
    def test_the_binary_loss_is_torchs_in_float64(
        self, shape, dtype, kind, layout, reduction, seed
    ) -> None:
        kind = "ordinary" if kind == "masked" else kind  # torch has NaN at −inf
        x = some.laid_out(some.logits_of(shape, kind, dtype, seed), layout)
        y = some.laid_out(x.sigmoid().roll(1), layout)
        weight = torch.linspace(0.25, 2, shape[-1]).to(dtype)
        factors = {"weight": weight, "pos_weight": weight.flip(0)}
        wide = {name: factor.double() for name, factor in factors.items()}
        ours = xent.binary_cross_entropy_with_logits(x, y, reduction=reduction, **factors)
        theirs = F.binary_cross_entropy_with_logits(
            x.double(), y.double(), reduction=reduction, **wide
        )
        expected = theirs.to(dtype).double()
        tiny = torch.finfo(dtype).smallest_normal
        lost = UNITS * EPS * spread(x) * 4 * max(1, x.numel())
        exact = UNITS * torch.finfo(dtype).eps * expected.nan_to_num(posinf=0)
        assert_within(ours, expected, exact + lost + tiny)


class TestGeometryOfSoftmax:
    @fixed
    @given(problems(dtypes=DOUBLE), st.integers(-(2**20), 2**20))
    def test_a_constant_added_to_a_row_changes_nothing(self, problem, constant) -> None:
        shifted = problem.but(logits=some.laid_out(problem.logits + constant, "contiguous"))
        problem = problem.but(logits=problem.logits.contiguous())
        for one, other in zip(loss_and_gradient(problem), loss_and_gradient(shifted), strict=True):
            assert equal(one, other)

    @fixed
    @given(problems(dtypes=DOUBLE, index=True, smoothing=st.just(0.0)))
    def test_the_gradient_of_a_row_sums_to_zero(self, problem) -> None:
        _, gradient = loss_and_gradient(problem, reduction="sum")
        size = gradient.abs().sum(problem.axis)
        assert_rounded(gradient.sum(problem.axis), torch.zeros_like(size), size)

    @fixed
    @given(problems(dtypes=DOUBLE, index=True, smoothing=st.just(0.0)), some.seeds)
    def test_the_gradient_of_a_row_is_s_w_times_p_minus_y(self, problem, seed) -> None:
        s = sample_weights(problem, seed)
        _, gradient = loss_and_gradient(problem, reduction="none", sample_weight=s)
        p = problem.logits.softmax(problem.axis).movedim(problem.axis, -1)
        label = torch.where(problem.valid, problem.target.long(), 0)
        factor = grad_output_for(s) * s * label_weight(problem)
        expected = factor[..., None] * (p - F.one_hot(label, p.shape[-1]))
        assert_rounded(gradient.movedim(problem.axis, -1), expected, factor[..., None])

    @fixed
    @given(problems(ignored=False), some.seeds)
    def test_classes_have_no_order(self, problem, seed) -> None:
        axis, classes = problem.axis, problem.logits.shape[problem.axis]
        order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
        weight = None if problem.weight is None else problem.weight[order]
        target = problem.target.index_select(axis, order) if not problem.indices else None
        if target is None:
            target = order.argsort()[problem.target.long()]
        other = problem.but(
            logits=problem.logits.index_select(axis, order), target=target, weight=weight
        )
        assert_rounded(other.of(xent.cross_entropy), problem.of(xent.cross_entropy))

    @fixed
    @given(problems(dtypes=SINGLE, shape=some.shapes(classes=(2, 2)), ignored=False))
    def test_two_classes_are_a_sigmoid_of_the_difference(self, problem) -> None:
        no, yes = problem.logits.unbind(problem.axis)
        y = problem.target if problem.indices else problem.target.select(problem.axis, 1)
        if not problem.indices:  # half of a pair is not exactly one minus the other
            pair = torch.stack([1 - y, y], problem.axis)
            problem = problem.but(target=pair)
        problem.options["reduction"] = "none"
        factors = {}
        if problem.weight is not None:
            factors = {
                "weight": problem.weight[0],
                "pos_weight": problem.weight[1] / problem.weight[0],
            }
        binary = xent.binary_cross_entropy_with_logits(
            torch.where(yes == no, 0, yes - no),  # −inf less −inf is not drawn: one class is open
            y,
            reduction="none",
            label_smoothing=problem.options["label_smoothing"],
            **factors,
        )
        expected, size = problem.of(xent.cross_entropy), None
        if problem.options["label_smoothing"]:  # smoothed y and 1 − y are rounded one by one
            size = (yes - no).abs().maximum(expected.abs()).nan_to_num(0, posinf=0)
        assert_rounded(binary.to(problem.logits.dtype), expected, size)


class TestLabels:
    @fixed
    @given(problems(index=True, ignored=False))
    def test_one_hot_labels_are_indices_to_the_bit(self, problem) -> None:
        classes = problem.logits.shape[problem.axis]
        one_hot = F.one_hot(problem.target.long(), classes).movedim(-1, problem.axis)
        dense = problem.but(target=one_hot.to(problem.logits.dtype))
        of_index = problem.of(xent.cross_entropy, reduction="none")
        of_dense = dense.of(xent.cross_entropy, reduction="none", ignore_index=-100)
        assert equal(of_index, of_dense)

    @fixed
    @given(problems(index=True), some.integers)
    def test_integer_dtypes_agree(self, problem, dtype) -> None:
        other = problem.but(target=problem.target.to(dtype))
        for one, two in zip(loss_and_gradient(problem), loss_and_gradient(other), strict=True):
            assert equal(one, two)

    @fixed
    @given(problems(index=True), some.seeds)
    def test_ignoring_several_labels_is_mapping_them_to_one(self, problem, seed) -> None:
        several = (-100, IGNORED, 7, -1)
        random = torch.Generator().manual_seed(seed)
        drawn = torch.randint(len(several), problem.target.shape, generator=random)
        target = torch.where(problem.valid, problem.target.long(), torch.tensor(several)[drawn])
        mixed = problem.but(target=target, options={**problem.options, "ignore_index": several})
        for one, other in zip(loss_and_gradient(problem), loss_and_gradient(mixed), strict=True):
            assert equal(one, other)

    @fixed
    @given(problems(index=True))
    def test_a_sample_weight_of_zero_ignores_even_nan(self, problem) -> None:
        counts = problem.valid.unsqueeze(problem.axis)
        spoiled = problem.but(
            logits=problem.logits.masked_fill(~counts, math.nan),
            target=problem.target.long().masked_fill(~problem.valid, 0),
        )
        s = problem.valid.to(problem.logits.dtype)
        expected = loss_and_gradient(problem.but(logits=problem.logits.contiguous()))
        for one, other in zip(loss_and_gradient(spoiled, sample_weight=s), expected, strict=True):
            assert equal(one, other)

    @fixed
    @given(problems(dtypes=SINGLE), some.seeds, some.integers)
    def test_a_sample_weight_of_k_is_the_position_k_times(self, problem, seed, dtype) -> None:
        problem = flattened(problem)
        times = sample_weights(problem, seed).long()
        repeated = problem.but(
            logits=problem.logits.repeat_interleave(times, 0),
            target=problem.target.repeat_interleave(times, 0),
        )
        weighted = problem.of(xent.cross_entropy, sample_weight=times.to(dtype))
        if problem.options["reduction"] == "none":
            once = problem.of(xent.cross_entropy)
            expected = (times * once).masked_fill(times == 0, 0)
        else:
            expected = repeated.of(xent.cross_entropy)
        assert_rounded(weighted, expected)

    @fixed
    @given(problems(dtypes=SINGLE, kinds=("ordinary", "huge", "confident")), some.seeds)
    def test_the_gradient_of_sample_weight_k_is_that_of_k_positions(self, problem, seed) -> None:
        problem = flattened(problem)
        options = {"reduction": "sum"} if problem.options["reduction"] == "none" else {}
        times = sample_weights(problem, seed).long()
        repeated = problem.but(
            logits=problem.logits.repeat_interleave(times, 0),
            target=problem.target.repeat_interleave(times, 0),
        )
        _, ours = loss_and_gradient(problem, sample_weight=times, **options)
        _, parts = loss_and_gradient(repeated, **options)
        rows = torch.arange(len(times)).repeat_interleave(times)
        expected = torch.zeros_like(ours).index_add(0, rows, parts)
        mean = not options and problem.options["reduction"] == "mean"
        by = named_divisor(problem, None, times) if mean else 1.0
        heaviest = 1.0 if problem.weight is None else problem.weight.max().item()
        assert_rounded(ours, expected, 1.5 * 3 * heaviest / by if by else 0.0)


class TestReductions:
    @fixed
    @given(problems())
    def test_the_sum_is_that_of_the_losses(self, problem) -> None:
        wide = torch.promote_types(problem.logits.dtype, torch.float32)
        losses = problem.of(xent.cross_entropy, reduction="none", dtype=wide)
        assert_rounded(problem.of(xent.cross_entropy, reduction="sum", dtype=wide), losses.sum())

    @settings(fixed, max_examples=400)  # seven rules, with and without factors
    @given(
        problems(),
        some.seeds,
        st.sampled_from([None, "valid", "weight", "batch", 3, 2.5, torch.tensor(7.0)]),
        st.sampled_from(["none", "constant", "differentiated"]),
    )
    def test_the_mean_times_its_divisor_is_the_sum(self, problem, seed, rule, factors) -> None:
        wide = torch.promote_types(problem.logits.dtype, torch.float32)
        s = None if factors == "none" else sample_weights(problem, seed)
        by = named_divisor(problem, rule, s)
        if factors == "differentiated":
            s.requires_grad_()
        options = {"dtype": wide, "sample_weight": s}
        total = problem.of(xent.cross_entropy, reduction="sum", **options)
        mean = problem.of(xent.cross_entropy, reduction="mean", denominator=rule, **options)
        if by == 0:
            assert mean.isnan()
        else:
            assert_rounded(mean * by, total)

    @fixed
    @given(
        problems(kinds=("ordinary", "huge", "confident")),
        st.sampled_from(["nan", "zero"]),
        st.sampled_from(["labels", "sample weights", "class weights"]),
    )
    def test_the_mean_of_nothing_is_what_was_asked_for(self, problem, on_empty, cause) -> None:
        options: dict[str, Any] = {"reduction": "mean", "on_empty": on_empty}
        if cause == "class weights":
            none = torch.zeros(problem.logits.shape[problem.axis], dtype=problem.logits.dtype)
            problem = problem.but(weight=none)
            options["denominator"] = "weight"
        elif cause == "labels" and problem.indices:
            problem = problem.but(target=problem.target.long().fill_(IGNORED))
        else:
            options["sample_weight"] = torch.zeros(problem.valid.shape)
        loss, gradient = loss_and_gradient(problem, **options)
        assert loss.isnan() if on_empty == "nan" else loss == 0
        if on_empty == "zero" or cause != "class weights":
            assert torch.equal(gradient, torch.zeros_like(gradient))


def named_divisor(problem: Problem, rule: Any, sample_weight: Tensor | None) -> float:
    s = torch.ones(problem.valid.shape) if sample_weight is None else sample_weight
    s = s.double() * problem.valid
    if rule == "batch":
        return problem.logits.shape[0] if problem.logits.ndim > 1 else 1
    if rule == "valid":
        return float((s != 0).sum())
    if rule == "weight" or (rule is None and problem.indices):
        return float((s * label_weight(problem)).sum())
    return float(s.sum()) if rule is None else float(rule)


class TestMemory:
    @fixed
    @given(problems(), some.layouts, st.data())
    def test_the_layout_of_logits_and_labels_changes_nothing(self, problem, layout, data) -> None:
        plain = problem.but(logits=problem.logits.contiguous(), target=problem.target.contiguous())
        other = problem.but(
            logits=some.laid_out(problem.logits, layout),
            target=some.laid_out(problem.target, data.draw(some.layouts)),
        )
        (loss, gradient), (expected, slopes) = loss_and_gradient(other), loss_and_gradient(plain)
        assert_rounded(loss, expected)
        assert_rounded(gradient, slopes, slope(problem))

    @fixed
    @given(problems(shape=some.shapes(batched=True)), st.integers(0, 4))
    def test_dim_names_the_class_axis(self, problem, place) -> None:
        dim = place % problem.logits.ndim
        target = problem.target if problem.indices else problem.target.movedim(1, dim)
        moved = problem.but(logits=problem.logits.movedim(1, dim), target=target)
        (loss, gradient), (expected, slopes) = (
            loss_and_gradient(moved, dim=dim),
            loss_and_gradient(problem),
        )
        assert_rounded(loss, expected)
        assert_rounded(gradient.movedim(dim, 1), slopes, slope(problem))
        negative = moved.of(xent.cross_entropy, dim=dim - problem.logits.ndim)
        assert equal(negative, loss)


class TestBinary:
    @fixed
    @given(some.shapes(), some.kinds, some.layouts, some.reductions, some.smoothings, some.seeds)
    def test_label_smoothing_is_smoothing_by_hand(
        self, shape, kind, layout, reduction, smoothing, seed
    ) -> None:
        x = some.laid_out(some.logits_of(shape, kind, torch.float64, seed), layout)
        y = some.laid_out((x.nan_to_num() > 0.5).double().roll(1), layout)
        by_hand = y * (1 - smoothing) + smoothing / 2
        loss = xent.binary_cross_entropy_with_logits
        expected = loss(x, by_hand, reduction=reduction)
        assert_rounded(loss(x, y, reduction=reduction, label_smoothing=smoothing), expected)

    @fixed
    @given(some.shapes(), some.floats, some.layouts, some.reductions, some.integers, some.seeds)
    def test_ignored_elements_are_as_if_they_were_not_there(
        self, shape, dtype, layout, reduction, labels, seed
    ) -> None:
        x = some.logits_of(shape, "ordinary", dtype, seed)
        random = torch.Generator().manual_seed(seed + 1)
        target = torch.tensor([0, 1, IGNORED])[torch.randint(3, shape, generator=random)]
        there = target != IGNORED
        spoiled = some.laid_out(x.masked_fill(~there, math.nan), layout).requires_grad_()
        loss = xent.binary_cross_entropy_with_logits(
            spoiled,
            some.laid_out(target.to(labels), layout),
            reduction=reduction,
            ignore_index=IGNORED,
        )
        (gradient,) = torch.autograd.grad(loss.sum(), spoiled)
        kept = x[there].requires_grad_()
        expected = xent.binary_cross_entropy_with_logits(kept, target[there], reduction=reduction)
        (slopes,) = torch.autograd.grad(expected.sum(), kept)
        assert_rounded(loss[there] if reduction == "none" else loss, expected)
        assert equal(gradient[~there], torch.zeros(int((~there).sum()), dtype=dtype))
        assert_rounded(gradient[there], slopes)


@pytest.mark.parametrize("labels", ["indices", "probabilities"])
def test_no_classes_at_all_is_no_loss(labels) -> None:
    logits = torch.empty(3, 0, requires_grad=True)
    target = torch.full((3,), -100) if labels == "indices" else torch.empty(3, 0)
    loss = xent.cross_entropy(logits, target, reduction="sum")
    loss.backward()
    assert loss == 0
    assert logits.grad.shape == (3, 0)
