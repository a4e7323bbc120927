"""Ranks with rows of their own: averaged gradients are those of one process with all rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import xent
from ranks import Failure, Rank

ROWS = (0, 5, 6, 9, 12)
"""Where the rows of each rank begin: not the same number for all."""


def data() -> tuple[Tensor, Tensor]:
    """Rows and labels, with more padding on some ranks than on others."""
    torch.manual_seed(3)
    inputs, target = torch.randn(12, 6, dtype=torch.float64), torch.randint(0, 9, (12,))
    target[[1, 2, 3, 7]] = -100
    return inputs, target


def model() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 9)).double()


def rows_of(rank: Rank) -> tuple[Tensor, Tensor]:
    own = slice(ROWS[rank.rank], ROWS[rank.rank + 1] if rank.rank + 1 < rank.size else 12)
    return tuple(tensor[own] for tensor in data())  # type: ignore[return-value]  # two


def wrapped(rank: Rank, wrap: str) -> nn.Module:
    if wrap == "ddp":
        return DistributedDataParallel(model(), process_group=rank.group)
    found = model()
    fully_shard(found, mesh=init_device_mesh("cpu", (rank.size,)))
    return found


def gradients_of(module: nn.Module) -> list[Tensor]:
    found = [parameter.grad for parameter in module.parameters()]
    return [g.full_tensor() if hasattr(g, "full_tensor") else g for g in found]


def step(rank: Rank, wrap: str, options: dict[str, Any], micro_batches: int) -> Any:
    """The gradients after one step, and the average of the ranks' losses."""
    inputs, target = rows_of(rank)
    parallel = wrapped(rank, wrap)
    options = dict(options)
    if micro_batches > 1:
        options["denominator"] = xent.valid_denominator(
            target.split(micro_batches), dp_group=rank.group
        )
    else:
        options["dp_group"] = rank.group
    weights = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    total = torch.zeros((), dtype=torch.float64)
    # ranks with fewer rows take empty micro-batches: every rank goes through the model as often
    count = 3 if micro_batches > 1 else 1
    for x, y, s in zip(
        *(pieces(t, micro_batches, count) for t in (inputs, target, _own(weights, rank))),
        strict=True,
    ):
        factors = {"sample_weight": s} if options.get("weighted") else {}
        given = {k: v for k, v in options.items() if k != "weighted"}
        loss = xent.cross_entropy(parallel(x), y, **given, **factors)
        loss.backward()
        total += loss.detach()
    torch.distributed.all_reduce(total, group=rank.group)
    return gradients_of(parallel), total / rank.size


def _own(weights: Tensor, rank: Rank) -> Tensor:
    return weights[ROWS[rank.rank] : ROWS[rank.rank + 1] if rank.rank + 1 < rank.size else 12]


def pieces(tensor: Tensor, size: int, count: int) -> list[Tensor]:
    """So many pieces, the last ones empty; all in one for one."""
    if count == 1:
        return [tensor]
    found = list(tensor.split(size))
    return found + [tensor[:0]] * (count - len(found))


def alone(options: dict[str, Any]) -> tuple[list[Tensor], Tensor]:
    inputs, target = data()
    module = model()
    options = dict(options)
    if options.pop("weighted", False):
        generator = torch.Generator().manual_seed(1)
        options["sample_weight"] = torch.rand(12, dtype=torch.float64, generator=generator)
    loss = xent.cross_entropy(module(inputs), target, **options)
    loss.backward()
    return gradients_of(module), loss.detach()


OPTIONS: list[dict[str, Any]] = [
    {"denominator": "valid"},
    {},
    {"denominator": "weight", "weight": torch.arange(1.0, 10.0, dtype=torch.float64)},
    {"denominator": "batch"},
    {"weighted": True},
    {"label_smoothing": 0.1, "denominator": "valid"},
]


@pytest.mark.parametrize("wrap", ["ddp", "fsdp"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o)) or "usual")
def test_averaged_gradients_are_those_of_all_rows(ranks, wrap, options) -> None:
    gradients, loss = alone(options)
    for found, average in ranks.run(4, step, wrap, options, 1):
        torch.testing.assert_close(average, loss, rtol=1e-13, atol=0)
        torch.testing.assert_close(found, gradients, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("wrap", ["ddp", "fsdp"])
def test_micro_batches_add_up_over_ranks(ranks, wrap) -> None:
    gradients, loss = alone({"denominator": "valid"})
    for found, average in ranks.run(4, step, wrap, {}, 2):
        torch.testing.assert_close(average, loss, rtol=1e-13, atol=0)
        torch.testing.assert_close(found, gradients, rtol=1e-12, atol=1e-14)


def test_a_local_mean_is_another_function(ranks) -> None:
    """That the test above could fail."""
    gradients, _ = alone({"denominator": "valid"})
    found, _ = ranks.run(4, local_step)[0], None
    assert max((a - b).abs().max() for a, b in zip(found, gradients, strict=True)) > 1e-3


def local_step(rank: Rank) -> list[Tensor]:
    inputs, target = rows_of(rank)
    parallel = wrapped(rank, "ddp")
    xent.cross_entropy(parallel(inputs), target, denominator="valid").backward()
    return gradients_of(parallel)


def one_after_the_other(rank: Rank) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of hidden states, the same of logits, and that of classes spread over ranks."""
    inputs, target = rows_of(rank)
    linear = torch.linspace(-1, 1, 54, dtype=torch.float64).reshape(9, 6)
    options: dict[str, Any] = {"denominator": "valid", "dp_group": rank.group}
    hidden = xent.linear_cross_entropy(inputs, linear, target, **options)
    logits = xent.CrossEntropyLoss(**options)(inputs @ linear.t(), target)
    module = xent.LinearCrossEntropyLoss(6, 9, dtype=torch.float64, **options)
    module.linear.weight = nn.Parameter(linear)
    return hidden, logits.detach(), module(inputs, target).detach()


def test_hidden_states_and_modules_divide_alike(ranks) -> None:
    inputs, target = data()
    linear = torch.linspace(-1, 1, 54, dtype=torch.float64).reshape(9, 6)
    total = F.cross_entropy(inputs @ linear.t(), target, reduction="mean", ignore_index=-100)
    found = ranks.run(4, one_after_the_other)
    for losses in zip(*found, strict=True):
        torch.testing.assert_close(sum(losses) / 4, total)


def both(rank: Rank) -> tuple[Tensor, Tensor]:
    """Two ranks share the classes, two such pairs the rows."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    dp, tp = mesh["dp"].get_local_rank(), mesh["tp"].get_local_rank()
    torch.manual_seed(6)
    logits, target = torch.randn(6, 9, dtype=torch.float64), torch.randint(0, 9, (6,))
    target[0] = -100
    rows, classes = slice(0, 4) if dp == 0 else slice(4, 6), slice(0, 5) if tp == 0 else slice(5, 9)
    own = logits[rows, classes].clone().requires_grad_()
    loss = xent.cross_entropy(
        own, target[rows], group=mesh["tp"], dp_group=mesh["dp"], denominator="valid"
    )
    loss.backward()
    whole = logits.clone().requires_grad_()
    alone = xent.cross_entropy(whole, target, denominator="valid")
    alone.backward()
    total = loss.detach().clone()
    torch.distributed.all_reduce(total)
    torch.testing.assert_close(total / 4, alone.detach(), rtol=1e-13, atol=0)
    return own.grad / 2, whole.grad[rows, classes]  # the average over the two of dp


def test_classes_and_rows_may_both_be_spread(ranks) -> None:
    for gradient, expected in ranks.run(4, both):
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)


def differentiated_factors(rank: Rank) -> Tensor:
    """The gradient at sample weights, of the sum of the ranks' losses."""
    inputs, target = rows_of(rank)
    generator = torch.Generator().manual_seed(1)
    factors = _own(torch.rand(12, dtype=torch.float64, generator=generator), rank)
    factors = factors.clone().requires_grad_()
    xent.cross_entropy(
        model()(inputs).detach()[:, :9], target, sample_weight=factors, dp_group=rank.group
    ).backward()
    return factors.grad


def test_factors_of_all_ranks_are_in_the_divisor_and_so_in_its_gradient(ranks) -> None:
    inputs, target = data()
    generator = torch.Generator().manual_seed(1)
    factors = torch.rand(12, dtype=torch.float64, generator=generator).requires_grad_()
    (4 * xent.cross_entropy(model()(inputs).detach(), target, sample_weight=factors)).backward()
    found = torch.cat(ranks.run(4, differentiated_factors))
    torch.testing.assert_close(found, factors.grad, rtol=1e-12, atol=1e-15)


def empty(rank: Rank, on_empty: str) -> Tensor:
    target = torch.full((2,), -100)
    if rank.rank == 0 and on_empty == "one":
        target[0] = 1
    return xent.cross_entropy(
        torch.zeros(2, 3), target, dp_group=rank.group, denominator="valid",
        on_empty="nan" if on_empty == "one" else on_empty,
    )  # fmt: skip


def test_a_rank_without_labels_has_no_loss_but_divides(ranks) -> None:
    first, *others = ranks.run(4, empty, "one")
    torch.testing.assert_close(first, 4 * torch.log(torch.tensor(3.0)))
    assert [other.item() for other in others] == [0, 0, 0]
    assert all(loss.isnan() for loss in ranks.run(4, empty, "nan"))
    assert [loss.item() for loss in ranks.run(4, empty, "zero")] == [0] * 4


def wrong(rank: Rank, what: str) -> None:
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    if what == "reduction":
        xent.cross_entropy(logits, target, reduction="sum", dp_group=rank.group)
    elif what == "number":
        xent.cross_entropy(logits, target, denominator=4, dp_group=rank.group)
    elif what == "group":
        xent.cross_entropy(logits, target, dp_group="dp")
    else:
        xent.valid_denominator(torch.zeros(3), dp_group=rank.group)


@pytest.mark.parametrize(
    ("what", "kind", "text"),
    [
        ("reduction", ValueError, "dp_group: expected None, since reduction='sum'"),
        ("number", ValueError, "dp_group: expected None, since denominator is a number"),
        ("group", TypeError, "dp_group: expected a ProcessGroup or DeviceMesh"),
        ("floats", RuntimeError, "target: expected class indices of an integer dtype"),
    ],
)
def test_what_cannot_be_meant_is_refused(ranks, what, kind, text) -> None:
    for outcome in ranks.outcomes(2, wrong, what):
        assert isinstance(outcome, Failure)
        assert isinstance(outcome.error, kind), outcome.trace
        assert text in str(outcome.error)


class TestValidDenominator:
    def test_it_counts_what_is_not_ignored(self) -> None:
        labels = [torch.tensor([[1, -100]]), torch.tensor([2, 7, 255], dtype=torch.uint8)]
        assert xent.valid_denominator(labels).item() == 4
        assert xent.valid_denominator(labels, ignore_index=(255, 7)).item() == 3
        assert xent.valid_denominator(labels[0]).item() == 1

    @pytest.mark.parametrize(
        ("labels", "kind"),
        [([], ValueError), (torch.rand(3), RuntimeError), ([1, 2], TypeError)],
        ids=["nothing", "floats", "ints"],
    )
    def test_what_is_no_labels_is_refused(self, labels, kind) -> None:
        with pytest.raises(kind, match="target: expected"):
            xent.valid_denominator(labels)
