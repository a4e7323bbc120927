"""What logits over ranks do at the limits, what they cost in words, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor.debug import CommDebugMode

import xent
from exactness import grad_output_for
from ranks import Failure, Pool, Rank

CUTS = (0, 4, 4, 9)
"""Of three ranks, the second of which has no class."""
INF, NAN = math.inf, math.nan


def part(tensor: Tensor, rank: int, dim: int = 1, cuts: tuple[int, ...] = CUTS) -> Tensor:
    return tensor.narrow(dim, cuts[rank], cuts[rank + 1] - cuts[rank])


def sharded(
    rank: Rank, logits: Tensor, target: Tensor, options: dict[str, Any], backend: str = "numba"
) -> tuple[Tensor, Tensor]:
    """The loss, and the gradient at a rank's logits."""
    axis = options.get("dim", 1 if logits.ndim > 1 else 0)
    own = part(logits, rank.rank, axis).detach().clone().requires_grad_()
    labels = part(target, rank.rank, axis) if target.is_floating_point() else target
    with xent.backend(backend):
        loss = xent.cross_entropy(own, labels, **options, group=rank.group)
        loss.backward(grad_output_for(loss).to(loss.dtype))
    return loss.detach(), own.grad


def alone(logits: Tensor, target: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The same in one process, by the definition in float64."""
    whole = logits.double().requires_grad_()
    with xent.backend("torch"):
        labels = target.double() if target.is_floating_point() else target
        loss = xent.cross_entropy(whole, labels, **options)
        loss.backward(grad_output_for(loss))
    return loss.detach(), whole.grad


def compare(
    ranks: Pool, logits: Tensor, target: Tensor, backend: str = "numba", **options: Any
) -> tuple[Tensor, Tensor]:
    """Asserts that three ranks agree with one; returns their loss and gradient."""
    found = ranks.run(3, sharded, logits, target, options, backend)
    axis = options.get("dim", 1 if logits.ndim > 1 else 0)
    loss, gradient = found[0][0], torch.cat([g for _, g in found], axis)
    for other, _ in found[1:]:
        bits = (value.flatten().view(torch.uint8) for value in (other, loss))
        assert torch.equal(*bits)  # NaN or not
    true, at_logits = alone(logits, target, options)
    near = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2, torch.float16: 1e-3}
    bars = {"rtol": near[logits.dtype], "atol": near[logits.dtype] / 10, "equal_nan": True}
    torch.testing.assert_close(loss.double(), true.double(), **bars)
    torch.testing.assert_close(gradient.double(), at_logits, **bars)
    return loss, gradient


BACKENDS = pytest.mark.parametrize("kernels", ["numba", "torch", "triton"])


class TestShapes:
    @pytest.mark.parametrize(
        ("shape", "dim"),
        [((9,), 0), ((5, 9), 1), ((2, 9, 3, 4), 1), ((2, 3, 9), -1), ((9, 6), 0), ((0, 9), 1)],
        ids=str,
    )
    @pytest.mark.parametrize("labels", ["index", "probabilities"])
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_every_layout(self, ranks, shape, dim, labels, reduction) -> None:
        logits = torch.randn(shape)
        positions = shape[: dim % len(shape)] + shape[dim % len(shape) + 1 :]
        target = torch.randint(0, 9, positions)
        if labels == "probabilities":
            target = torch.rand(shape).softmax(dim)
        compare(ranks, logits, target, dim=dim, reduction=reduction)

    def test_logits_that_are_not_in_one_piece(self, ranks) -> None:
        logits = torch.randn(9, 12).t()[::2]
        compare(ranks, logits, torch.randint(0, 9, (6,)), label_smoothing=0.1)

    @BACKENDS
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("labels", ["index", "probabilities"])
    def test_half_types(self, ranks, kernels, dtype, labels) -> None:
        logits = torch.randn(6, 9).to(dtype)
        target = torch.randint(0, 9, (6,))
        if labels == "probabilities":
            target = torch.rand(6, 9).softmax(1).to(dtype)
        loss, gradient = compare(ranks, logits, target, kernels, label_smoothing=0.1)
        assert (loss.dtype, gradient.dtype) == (dtype, dtype)

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_labels_of_any_integer_dtype_and_several_to_ignore(self, ranks, reduction) -> None:
        target = torch.tensor([8, 255, 0, 3, 7], dtype=torch.uint8)
        compare(ranks, torch.randn(5, 9), target, ignore_index=(255, 3), reduction=reduction)

    @pytest.mark.parametrize("denominator", ["valid", "weight", "batch", 3.5])
    @pytest.mark.parametrize("labels", ["index", "probabilities"])
    def test_every_denominator(self, ranks, denominator, labels) -> None:
        target = torch.tensor([8, -100, 0, 3, 7])
        if labels == "probabilities":
            target = torch.rand(5, 9)
        compare(ranks, torch.randn(5, 9), target, denominator=denominator)

    def test_nothing_counts(self, ranks) -> None:
        target = torch.full((4,), -100)
        logits = torch.full((4, 9), NAN)
        loss, gradient = compare(ranks, logits, target)
        assert loss.isnan()
        assert not gradient.any()
        loss, _ = compare(ranks, logits, target, on_empty="zero")
        assert loss == 0


def edge_rows() -> tuple[Tensor, Tensor]:
    """Rows with what is hard: labels on the first rank, on the last, where all is masked."""
    rows, labels = [], []

    def add(label: int, *changes: tuple[int | slice, float]) -> None:
        row = torch.linspace(-1, 1, 9)
        for at, value in changes:
            row[at] = value
        rows.append(row)
        labels.append(label)

    first, last, all_of_them = slice(0, 4), slice(4, 9), slice(0, 9)
    for label in (0, 3, 4, 8):
        add(label)
        add(label, (first, -INF))
        add(label, (last, -INF))
        add(label, (all_of_them, -INF))
        add(label, (0, -INF), (4, -INF))
        add(label, (label, 30.0))
        add(label, (2, 5.0), (6, 5.0))  # two ranks have the maximum
        add(label, (label, 1000.0))
        add(label, (all_of_them, -2000.0), (5, -1000.0))
    return torch.stack(rows), torch.tensor(labels)


class TestLimits:
    @BACKENDS
    @pytest.mark.parametrize("reduction", ["none", "sum"])
    def test_masked_tied_and_certain_rows(self, ranks, kernels, reduction) -> None:
        logits, target = edge_rows()
        if reduction == "sum":
            keep = ~alone(logits, target, {"reduction": "none"})[0].isnan()
            logits, target = logits[keep], target[keep]
        compare(ranks, logits, target, kernels, reduction=reduction)

    @BACKENDS
    def test_with_smoothing_or_probabilities(self, ranks, kernels) -> None:
        logits, target = edge_rows()
        compare(ranks, logits, target, kernels, reduction="none", label_smoothing=0.2)
        q = torch.nn.functional.one_hot(target, 9).float()
        compare(ranks, logits, q, kernels, reduction="none")
        compare(ranks, logits, 0.9 * q + 0.1 / 9, kernels, reduction="none")

    @BACKENDS
    def test_masked_classes_without_weight_cost_nothing(self, ranks, kernels) -> None:
        logits, target = edge_rows()
        logits, target = logits[1::9], torch.full_like(target[1::9], 8)  # the first rank is masked
        weight = torch.tensor([0.0] * 4 + [1.0] * 5)
        options = {"weight": weight, "label_smoothing": 0.2, "reduction": "none"}
        true, _ = alone(logits, target, options | {"weight": weight.double()})
        found = ranks.run(3, sharded, logits, target, options, kernels)
        assert true.isfinite().all()
        for loss, _ in found:
            torch.testing.assert_close(loss, true.float())

    @BACKENDS
    @pytest.mark.parametrize("value", [INF, NAN])
    @pytest.mark.parametrize("column", [1, 6])
    def test_what_has_no_softmax_has_none_on_any_rank(self, ranks, kernels, value, column) -> None:
        logits = torch.randn(3, 9)
        logits[1, column] = value
        loss, gradient = compare(ranks, logits, torch.tensor([0, 5, 8]), kernels, reduction="none")
        assert loss.isnan().tolist() == [False, True, False]
        assert not gradient[::2].isnan().any()

    @BACKENDS
    @pytest.mark.parametrize("labels", ["index", "probabilities"])
    def test_ignored_rows_are_inert(self, ranks, kernels, labels) -> None:
        logits, target = torch.randn(4, 9), torch.tensor([0, -100, 8, 5])
        options: dict[str, Any] = {"label_smoothing": 0.1}
        logits[1] = NAN
        if labels == "probabilities":
            target = torch.rand(4, 9)
            target[1] = NAN
            options["sample_weight"] = torch.tensor([1.0, 0.0, 2.0, 0.5])
        loss, gradient = compare(ranks, logits, target, kernels, **options)
        assert loss.isfinite()
        assert not gradient[1].any()

    @BACKENDS
    @pytest.mark.parametrize("margin", [5, 15, 30, 80])
    @pytest.mark.parametrize("column", [1, 8])
    @pytest.mark.parametrize("labels", ["index", "probabilities"])
    def test_the_tail_keeps_its_digits(self, ranks, kernels, margin, column, labels) -> None:
        logits = torch.randn(2, 9)
        logits[:, column] = logits.max(1).values + margin
        target = torch.full((2,), column)
        if labels == "probabilities":
            target = torch.nn.functional.one_hot(target, 9).float()
        found = ranks.run(3, sharded, logits, target, {"reduction": "sum"}, kernels)
        true, at_logits = alone(logits, target, {"reduction": "sum"})
        gradient = torch.cat([g for _, g in found], 1).double()
        # x − m_r and m_r − m are rounded in units of the margin, and are exponents then
        bar = 1e-6 + 2 * 2**-24 * (margin + 4)
        assert true > 0
        assert abs(found[0][0].double() / true - 1) < bar
        assert ((gradient / at_logits - 1).abs() < bar).all()

    @BACKENDS
    def test_a_little_mass_elsewhere_is_not_lost_beside_a_certain_class(
        self, ranks, kernels
    ) -> None:
        logits = torch.zeros(1, 9)
        logits[0, 1] = 25.0
        target = torch.zeros(1, 9)
        target[0, 1], target[0, 7] = 1.0, 1e-9
        found = ranks.run(3, sharded, logits, target, {"reduction": "sum"}, kernels)
        _, at_logits = alone(logits, target, {"reduction": "sum"})
        gradient = torch.cat([g for _, g in found], 1).double()
        assert abs(gradient[0, 1] / at_logits[0, 1] - 1) < 1e-5


def statistics(
    rank: Rank, logits: Tensor, target: Tensor | None, weight: Tensor | None
) -> tuple[list[Tensor | None], Tensor]:
    own = part(logits, rank.rank).clone().requires_grad_()
    if target is not None and target.is_floating_point():
        target = part(target, rank.rank)
    found = xent.row_statistics(own, target, weight=weight, uniform=True, group=rank.group)
    values = [found.lse, found.nll, found.uniform, found.cross]
    total = sum((v**2).sum() for v in values if v is not None)
    total.backward()
    return [None if v is None else v.detach() for v in values], own.grad


class TestStatistics:
    @pytest.mark.parametrize("labels", ["none", "index", "probabilities"])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_they_are_those_of_all_classes(self, ranks, labels, weighted) -> None:
        logits, weight = torch.randn(5, 9), torch.rand(9) if weighted else None
        target = None
        if labels == "index":
            target = torch.tensor([0, 8, 3, -100, 4])
        elif labels == "probabilities":
            target = torch.rand(5, 9)
        found = ranks.run(3, statistics, logits, target, weight)
        whole = logits.double().requires_grad_()
        q = target.double() if labels == "probabilities" else target
        v = None if weight is None else weight.double()
        true = xent.row_statistics(whole, q, weight=v, uniform=True)
        values = [true.lse, true.nll, true.uniform, true.cross]
        sum((v**2).sum() for v in values if v is not None).backward()
        for mine, correct in zip(found[1][0], values, strict=True):
            assert (mine is None) == (correct is None)
            if mine is not None:
                torch.testing.assert_close(mine.double(), correct, rtol=1e-6, atol=1e-6)
        gradient = torch.cat([g for _, g in found], 1)
        torch.testing.assert_close(gradient.double(), whole.grad, rtol=1e-5, atol=1e-5)

    def test_a_loss_of_one_s_own_is_sharded_as_it_is(self, ranks) -> None:
        logits, target = torch.randn(5, 9), torch.tensor([0, 8, 3, 5, 4])
        found = ranks.run(3, z_loss, logits, target, True)
        whole = logits.double().requires_grad_()
        z = z_loss_of(whole, target, None)
        z.backward()
        torch.testing.assert_close(found[2][0].double(), z.detach(), rtol=1e-6, atol=1e-6)
        gradient = torch.cat([g for _, g in found], 1).double()
        torch.testing.assert_close(gradient, whole.grad, rtol=1e-5, atol=1e-6)


def z_loss_of(logits: Tensor, target: Tensor, group: Any) -> Tensor:
    """Cross-entropy, focused, and 1e-2 of the squared log-partition."""
    found = xent.row_statistics(logits, target, group=group)
    return (torch.expm1(-found.nll) ** 2 * found.nll + 1e-2 * found.lse**2).mean()


def z_loss(rank: Rank, logits: Tensor, target: Tensor, _: bool) -> tuple[Tensor, Tensor]:
    own = part(logits, rank.rank).clone().requires_grad_()
    loss = z_loss_of(own, target, rank.group)
    loss.backward()
    return loss.detach(), own.grad


def words(rank: Rank, kind: str, target: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    """How often ranks spoke in forward and backward, and how much was added up."""
    shards = xent.class_shards(CUTS[rank.rank + 1] - CUTS[rank.rank], rank.group)
    if target.is_floating_point():
        target = part(target, rank.rank)
    hidden = torch.randn(6, 8).requires_grad_()
    classifier = torch.randn(9, 8)
    own = part(classifier, rank.rank, 0).clone().requires_grad_()
    logits = (hidden @ own.t()).detach().requires_grad_()
    lengths: list[int] = []
    reduce = dist.all_reduce

    def counted(tensor: Tensor, *arguments: Any, **named: Any) -> Any:
        lengths.append(tensor.numel())
        return reduce(tensor, *arguments, **named)

    dist.all_reduce = counted
    try:
        with CommDebugMode() as forward:
            if kind == "logits":
                loss = xent.cross_entropy(logits, target, group=shards, **options)
            else:
                loss = xent.linear_cross_entropy(hidden, own, target, group=shards, **options)
        of_forward = len(lengths)
        with CommDebugMode() as backward:
            loss.sum().backward()
    finally:
        dist.all_reduce = reduce
    return {
        "forward": {str(op): n for op, n in forward.get_comm_counts().items()},
        "backward": {str(op): n for op, n in backward.get_comm_counts().items()},
        "lengths": (lengths[:of_forward], lengths[of_forward:]),
    }


class TestWords:
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    @pytest.mark.parametrize("labels", ["index", "probabilities"])
    @pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "weight": torch.rand(9)}])
    @pytest.mark.parametrize("kind", ["logits", "hidden"])
    def test_two_all_reduces_forward_and_none_or_one_backward(
        self, ranks, reduction, labels, options, kind
    ) -> None:
        target = torch.randint(0, 9, (6,)) if labels == "index" else torch.rand(6, 9)
        for said in ranks.run(3, words, kind, target, options | {"reduction": reduction}):
            assert list(said["forward"].values()) == [2], said
            assert sum(said["backward"].values()) == (kind == "hidden"), said
            (first, second), backward = said["lengths"]
            assert first == 6  # one number for each row
            assert second <= 8 * 6 + 1
            assert backward == ([6 * 8] if kind == "hidden" else [])

    def test_class_indices_cost_four_numbers_a_row(self, ranks) -> None:
        (said, *_) = ranks.run(3, words, "logits", torch.randint(0, 9, (6,)), {})
        assert said["lengths"][0] == [6, 18]


def derived(rank: Rank, how: str) -> Any:
    own = torch.randn(3, 3).requires_grad_()
    target = torch.tensor([0, 4, 8])

    def loss(x: Tensor) -> Tensor:
        return xent.cross_entropy(x, target, group=rank.group)

    if how == "twice":
        (gradient,) = torch.autograd.grad(loss(own), own, create_graph=True)
        return gradient.sum()
    if how == "func":
        return torch.func.grad(loss)(own.detach())
    if how == "forward":
        return torch.func.jvp(loss, (own.detach(),), (own.detach(),))
    return torch.func.vmap(loss)(torch.randn(2, 3, 3))


def in_place(rank: Rank) -> tuple[Tensor, Tensor, bool]:
    torch.manual_seed(1)
    whole = torch.randn(4, 9)
    own = part(whole, rank.rank).clone().requires_grad_()
    logits = own * 1
    target = torch.tensor([0, 4, 8, 2])
    loss = xent.cross_entropy(logits, target, group=rank.group, inplace_backward=True)
    loss.backward()
    again = part(whole, rank.rank).clone().requires_grad_()
    xent.cross_entropy(again, target, group=rank.group).backward()
    overwritten = bool(torch.equal(logits.detach(), own.grad)) if own.numel() else True
    return own.grad, again.grad, overwritten


def compiled(rank: Rank, kind: str) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    own = part(torch.randn(4, 9), rank.rank).clone()
    target = torch.tensor([0, 4, 8, 2])
    shards = xent.class_shards(own.shape[1], rank.group)

    def step(x: Tensor) -> Tensor:
        if kind == "logits":
            return 2 * xent.cross_entropy(x * 3, target, group=shards)
        if kind == "statistics":
            return 2 * xent.row_statistics(x * 3, target, group=shards).nll.sum()
        hidden = torch.eye(4)
        return 2 * xent.linear_cross_entropy(hidden, (x * 3).t(), target, group=shards)

    gradients = []
    for run in (step, torch.compile(step, backend="aot_eager")):
        x = own.clone().requires_grad_()
        run(x).backward()
        gradients.append(x.grad)
    return gradients[0], gradients[1]


class TestUse:
    @pytest.mark.parametrize("how", ["twice", "func", "forward", "vmap"])
    def test_other_derivatives_are_refused(self, ranks, how) -> None:
        for outcome in ranks.outcomes(3, derived, how):
            assert isinstance(outcome, Failure)
            assert isinstance(outcome.error, NotImplementedError)
            assert str(outcome.error).startswith("group: expected a ")

    def test_the_gradient_may_overwrite_the_logits(self, ranks) -> None:
        for gradient, expected, overwritten in ranks.run(3, in_place):
            assert torch.equal(gradient, expected)
            assert overwritten

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # dynamo's own, in other processes
    @pytest.mark.parametrize("kind", ["logits", "hidden", "statistics"])
    def test_compiled_code_leaves_it_alone(self, ranks, kind) -> None:
        for eager, by_compiler in ranks.run(3, compiled, kind):
            assert torch.equal(eager, by_compiler)
