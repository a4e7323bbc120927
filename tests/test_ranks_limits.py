"""What logits over ranks do at the limits, what they cost in words, and what they refuse."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor.debug import CommDebugMode

import xent
from composition import poison
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


def of_hidden(
    rank: Rank, hidden: Tensor, classifier: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients at hidden states and at a rank's classes, in memory that holds NaN."""
    own = part(classifier, rank.rank, 0).clone().requires_grad_()
    hidden = hidden.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        poison(patch)
        xent.linear_cross_entropy(hidden, own, target, group=rank.group).backward()
    return hidden.grad, own.grad


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

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_hidden_states_in_half_types_and_a_rank_without_a_class(self, ranks, dtype) -> None:
        hidden, classifier = torch.randn(6, 5).to(dtype), torch.randn(9, 5).to(dtype)
        target = torch.randint(0, 9, (6,))
        found = ranks.run(3, of_hidden, hidden, classifier, target)
        whole = [t.double().requires_grad_() for t in (hidden, classifier)]
        xent.linear_cross_entropy(*whole, target).backward()
        unit = torch.finfo(dtype).eps
        for at_hidden, _ in found:  # a sum of three that were rounded
            error = (at_hidden.double() - whole[0].grad).abs().max()
            assert error <= 2 * unit * whole[0].grad.abs().max()
        at_classifier = torch.cat([own for _, own in found]).double()
        error = (at_classifier - whole[1].grad).abs().max()
        assert error <= unit * whole[1].grad.abs().max()

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


def masses(rank: Rank) -> None:
    """Gradients of Σ_c v_c q_c, at rows that count and at one that does not."""
    from xent.contract.rows import Rows
    from xent.contract.shards import Shard
    from xent.statistics.shards import canonical_statistics
    from xent.statistics.shards.parts import Part

    torch.manual_seed(2)
    logits, q, v = torch.randn(3, 9, 1), torch.rand(3, 9, 1), torch.rand(9)
    q[1] = NAN
    own_q, own_v = (part(t, rank.rank, d).clone().requires_grad_() for t, d in ((q, 1), (v, 0)))
    shard = Shard(CUTS[rank.rank], CUTS[rank.rank + 1], 9)
    valid = torch.tensor([[True], [False], [True]])
    rows = Rows(part(logits, rank.rank), None, own_q, own_v, valid)
    found = canonical_statistics(rows, Part(shard, rank.group))
    found.weight_of_label.sum().backward()
    expected = v[shard.start : shard.stop].expand(3, -1) * valid
    torch.testing.assert_close(own_q.grad.squeeze(2), expected)
    torch.testing.assert_close(own_v.grad, part(q[::2].squeeze(2), rank.rank).sum(0))


class TestStatistics:
    def test_the_masses_of_rows_that_do_not_count_have_no_gradient(self, ranks) -> None:
        ranks.run(3, masses)

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


def divided(rank: Rank, differentiated: bool) -> tuple[int, int]:
    """How often ranks speak with class weights and two kinds of groups, forward and backward."""
    logits = torch.randn(6, 3).requires_grad_()
    weight = torch.rand(9).requires_grad_(differentiated)
    shards = xent.class_shards(3, rank.group)
    target = torch.randint(0, 9, (6,))
    with CommDebugMode() as forward:
        loss = xent.cross_entropy(logits, target, weight, group=shards, dp_group=rank.group)
    with CommDebugMode() as backward:
        loss.backward()
    return forward.get_total_counts(), backward.get_total_counts()


class TestWords:
    def test_a_divisor_of_constants_says_nothing_in_the_backward(self, ranks) -> None:
        assert set(ranks.run(3, divided, False)) == {(3, 0)}
        assert set(ranks.run(3, divided, True)) == {(3, 2)}  # of the divisor, and of the weights

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
    gradient = own.grad.clone()
    overwritten = bool(torch.equal(logits.detach(), gradient)) if own.numel() else True
    if own.numel():
        later = own * 1
        squares = (later**2).sum()  # needs them as they were
        loss = xent.cross_entropy(later, target, group=rank.group, inplace_backward=True)
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            squares.backward()
    else:
        xent.cross_entropy(own * 1, target, group=rank.group)
    return gradient, again.grad, overwritten


def compiled(rank: Rank, kind: str, by: str) -> tuple[Tensor, Tensor, bool]:
    """Gradients eager and compiled, and whether one graph is refused."""
    torch.manual_seed(1)
    own = part(torch.randn(4, 9), rank.rank).clone()
    target = torch.tensor([0, 4, 8, 2])
    group = rank.group
    if by == "shards":
        group = xent.class_shards(own.shape[1], rank.group)

    def step(x: Tensor) -> Tensor:
        if kind == "logits":
            return 2 * xent.cross_entropy(x * 3, target, group=group)
        if kind == "statistics":
            return 2 * xent.row_statistics(x * 3, target, group=group).nll.sum()
        if kind == "rows":
            return 2 * xent.cross_entropy(torch.ones(4, 9) * x.sum(), target, dp_group=rank.group)
        hidden = torch.eye(4)
        return 2 * xent.linear_cross_entropy(hidden, (x * 3).t(), target, group=group)

    gradients = []
    for run in (step, torch.compile(step, backend="aot_eager")):
        x = own.clone().requires_grad_()
        run(x).backward()
        gradients.append(x.grad)
    try:
        torch.compile(step, backend="aot_eager", fullgraph=True)(own)
    except torch._dynamo.exc.Unsupported:
        return *gradients, True
    return *gradients, False


def unseen(rank: Rank, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    """Labels that nobody looks at, as on a device, one of which is no class."""
    from xent.contract import targets
    from xent.statistics.shards import parts

    with pytest.MonkeyPatch.context() as patch, xent.backend(backend):
        for module in (targets, parts):
            patch.setattr(module, "values_at_hand", lambda tensor: False)
        own = part(torch.randn(4, 9), rank.rank).clone().requires_grad_()
        target = torch.tensor([0, 11, 8, -100])
        shards = xent.class_shards(own.shape[1], rank.group)
        loss = xent.cross_entropy(own, target, group=shards, reduction="none")
        loss.sum().backward()
        lse = xent.row_statistics(own, target, group=shards).lse
    return loss.detach(), own.grad, lse.detach()


def copied(rank: Rank) -> list[str]:
    """Modules with groups, and their copies."""
    shards = xent.class_shards(3, rank.group)
    target = torch.tensor([0, 4])
    shown = []
    for group in (rank.group, shards):
        module = xent.CrossEntropyLoss(group=group, dp_group=rank.group)
        twin = copy.deepcopy(module)
        assert twin.groups is module.groups
        assert torch.equal(twin(torch.zeros(2, 3), target), module(torch.zeros(2, 3), target))
        shown.append(repr(twin))
    linear = xent.LinearCrossEntropyLoss(4, 3, group=rank.group, weight=torch.ones(9))
    average = copy.deepcopy(linear)
    assert average.linear.weight is not linear.linear.weight
    hidden = torch.ones(2, 4)
    assert torch.equal(average(hidden, target), linear(hidden, target))
    with pytest.raises(TypeError, match="dp_group: expected a ProcessGroup"):
        xent.CrossEntropyLoss(dp_group=shards)
    return shown


def own_weights(rank: Rank, sizes: tuple[int, ...], whole: bool, told: bool) -> Any:
    """The gradient at class weights of which each rank has its own, or all of them."""
    own = sizes[rank.rank]
    group = xent.class_shards(own, rank.group) if told else rank.group
    start = sum(sizes[: rank.rank])
    weight = torch.arange(1.0, 1 + sum(sizes))
    weight = (weight if whole else weight[start : start + own]).clone().requires_grad_()
    logits = torch.linspace(-1, 1, 2 * sum(sizes)).reshape(2, -1)[:, start : start + own]
    try:
        xent.cross_entropy(logits, torch.tensor([0, 4]), weight, group=group).backward()
    except ValueError as error:
        return str(error)
    return weight.grad


class TestUse:
    @BACKENDS
    def test_a_label_that_nobody_saw_is_no_class(self, ranks, kernels) -> None:
        for loss, gradient, lse in ranks.run(3, unseen, kernels):
            assert loss.isnan().tolist() == [False, True, False, False]
            assert gradient.isnan().any(1).tolist() == [False, gradient.shape[1] > 0, False, False]
            assert not lse.isnan().any()

    def test_copies_of_modules_share_the_groups(self, ranks) -> None:
        for shown in ranks.run(3, copied):
            assert shown == ["CrossEntropyLoss(group=<3 ranks>, dp_group=<3 ranks>)"] * 2

    @pytest.mark.parametrize("sizes", [(5, 0), (3, 2), (0, 5)], ids=str)
    @pytest.mark.parametrize("whole", [False, True])
    def test_weights_are_whole_or_own_by_one_verdict(self, ranks, sizes, whole) -> None:
        alone = torch.arange(1.0, 6.0).requires_grad_()
        logits = torch.linspace(-1, 1, 10).reshape(2, 5)
        xent.cross_entropy(logits, torch.tensor([0, 4]), alone).backward()
        found = ranks.run(2, own_weights, sizes, whole, False)
        for gradient in found if whole else [torch.cat(found)]:
            torch.testing.assert_close(gradient, alone.grad)
        told = ranks.run(2, own_weights, sizes, whole, True)
        if 0 in sizes:
            assert all("weight: expected factors that are not diff" in words for words in told)
        else:
            torch.testing.assert_close(told, found)

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
    @pytest.mark.parametrize("kind", ["logits", "hidden", "statistics", "rows"])
    @pytest.mark.parametrize("by", ["group", "shards"])
    def test_compiled_code_leaves_it_alone(self, ranks, kind, by) -> None:
        for eager, by_compiler, refused in ranks.run(3, compiled, kind, by):
            assert torch.equal(eager, by_compiler)
            assert refused
