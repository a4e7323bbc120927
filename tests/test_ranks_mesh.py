"""Logits in a DTensor, on any mesh: the loss and the gradients of one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import loss_parallel

import xent
from composition import example, truth
from composition import loss_and_gradients as composed
from exactness import grad_output_for
from ranks import Failure, Rank

MESHES: dict[str, tuple[tuple[int, ...], tuple[Any, ...]]] = {
    "classes": ((4,), (Shard(-1),)),
    "batch": ((4,), (Shard(0),)),
    "replicated": ((4,), (Replicate(),)),
    "batch, classes": ((2, 2), (Shard(0), Shard(-1))),
    "classes, batch": ((2, 2), (Shard(-1), Shard(0))),
    "replicated, classes": ((2, 2), (Replicate(), Shard(-1))),
    "batch, batch": ((2, 2), (Shard(0), Shard(0))),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"label_smoothing": 0.1},
    {"weighted": True, "label_smoothing": 0.2},
    {"weighted": True, "denominator": "weight"},
    {"reduction": "none"},
    {"reduction": "sum"},
    {"denominator": "batch"},
    {"denominator": "valid", "factors": True},
]


def on_a_mesh(
    rank: Rank, mesh: str, arguments: dict[str, Any], names: list[str], plain: bool
) -> dict[str, Any]:
    """Loss and gradients, whole, of arguments that are distributed, or plain on every rank."""
    shape, placements = MESHES[mesh]
    on = init_device_mesh("cpu", shape)
    everywhere = [Replicate()] * len(shape)
    given = dict(arguments)
    given["input"] = distribute_tensor(given["input"], on, placements)
    if not plain:
        for name in ("target", "weight", "sample_weight"):
            if name in given:
                given[name] = distribute_tensor(given[name], on, everywhere)
    leaves = {n: given[n].detach().clone().requires_grad_() for n in names}
    with CommDebugMode() as words:
        loss = xent.cross_entropy(**(given | leaves), dim=-1)
    assert isinstance(loss, DTensor)
    placed = loss.placements
    upstream = distribute_tensor(grad_output_for(loss.full_tensor()), on, everywhere)
    loss.backward(upstream.to(loss.dtype).redistribute(on, placed))
    gradients = {}
    for name, leaf in leaves.items():
        gradient = leaf.grad
        gradients[name] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    return {
        "loss": loss.detach().full_tensor(),
        "local": loss.detach().to_local(),
        "placements": placed,
        "at_logits": leaves["input"].grad.placements,
        "gradients": gradients,
        "words": words.get_total_counts(),
    }


def arguments_for(labels: str, options: dict[str, Any], shape: tuple[int, ...] = (6, 11)) -> Any:
    made = example(shape, outputs=(shape[-1],), bias=False, labels=labels, dtype=torch.float64)
    del made["linear_weight"]
    made |= {name: value for name, value in options.items() if name not in ("weighted", "factors")}
    if options.get("weighted"):
        made["weight"] = torch.rand(shape[-1]).double() + 0.1
    if options.get("factors"):
        made["sample_weight"] = torch.rand(shape[:-1]).double() + 0.1
    if labels == "index" and len(shape) > 1:
        made["target"].flatten()[1] = -100
    return made


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("labels", ["index", "probabilities"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o)) or "usual")
@pytest.mark.parametrize("plain", [False, True], ids=["distributed", "plain"])
def test_the_loss_and_gradients_are_those_of_one_process(
    ranks, mesh, labels, options, plain
) -> None:
    arguments = arguments_for(labels, options)
    wanted = ("input", "target", "weight", "sample_weight")
    names = [n for n in wanted if n in arguments and arguments[n].is_floating_point()]
    eye = {"linear_weight": torch.eye(11, dtype=torch.float64)}
    loss, gradients = composed(truth, arguments | eye, names, wide=True)
    found = ranks.run(4, on_a_mesh, mesh, arguments, names, plain)
    for rank in found:
        torch.testing.assert_close(rank["loss"], loss, rtol=1e-13, atol=1e-14)
        for name, correct in zip(names, gradients, strict=True):
            torch.testing.assert_close(rank["gradients"][name], correct, rtol=1e-12, atol=1e-14)
        expected = tuple(Shard(1) if p == Shard(-1) else p for p in MESHES[mesh][1])
        # before, torch's to_local gives the whole gradient of uneven shards to every rank
        if torch.__version__ >= (2, 13):
            assert rank["at_logits"] == expected
        if loss.ndim == 0:
            assert torch.equal(rank["local"], found[0]["local"])
            assert all(p.is_replicate() for p in rank["placements"])
        along_rows = sum(p == Shard(0) for p in MESHES[mesh][1]) * (loss.ndim == 0)
        assert rank["words"] == 2 * (Shard(-1) in MESHES[mesh][1]) + along_rows


SHAPES = [
    *((mesh, s) for mesh in ("classes", "batch, classes") for s in ((3, 2, 11), (1, 3, 5), (6, 2))),
    ("classes", (11,)),
]


@pytest.mark.parametrize(("mesh", "shape"), SHAPES, ids=str)
def test_other_shapes_and_ranks_without_a_class(ranks, mesh, shape) -> None:
    arguments = arguments_for("index", {"reduction": "sum"}, shape)
    eye = {"linear_weight": torch.eye(shape[-1], dtype=torch.float64)}
    loss, (gradient,) = composed(truth, arguments | eye, ["input"], wide=True)
    for rank in ranks.run(4, on_a_mesh, mesh, arguments, ["input"], True):
        torch.testing.assert_close(rank["loss"], loss, rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(rank["gradients"]["input"], gradient, rtol=1e-12, atol=1e-14)


def beside_torch(rank: Rank) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Torch's loss_parallel and ours, without and within it."""
    mesh = init_device_mesh("cpu", (4,))
    logits, target = torch.randn(6, 11), torch.randint(0, 11, (6,))
    theirs = distribute_tensor(logits, mesh, [Shard(1)]).requires_grad_()
    with loss_parallel():
        expected = F.cross_entropy(theirs, target)
        expected.backward()
        within = xent.cross_entropy(distribute_tensor(logits, mesh, [Shard(1)]), target)
    ours = distribute_tensor(logits, mesh, [Shard(1)]).requires_grad_()
    loss = xent.CrossEntropyLoss()(ours, target)
    loss.backward()
    torch.testing.assert_close(loss.full_tensor(), expected.full_tensor())
    torch.testing.assert_close(within.full_tensor(), expected.full_tensor())
    torch.testing.assert_close(ours.grad.full_tensor(), theirs.grad.full_tensor())
    return loss.full_tensor().detach()


def test_it_is_torchs_loss_parallel_with_nothing_patched(ranks) -> None:
    first, *others = ranks.run(4, beside_torch)
    assert all(torch.equal(first, other) for other in others)


def refused(rank: Rank, what: str) -> None:
    mesh, square = init_device_mesh("cpu", (4,)), init_device_mesh("cpu", (2, 2))
    logits, target = torch.randn(6, 11), torch.randint(0, 11, (6,))
    options: dict[str, Any] = {}
    placed = distribute_tensor(logits, mesh, [Shard(1)])
    if what == "partial":
        placed = DTensor.from_local(logits, mesh, [Partial()], run_check=False)
    elif what == "twice":
        placed = distribute_tensor(logits, square, [Shard(1), Shard(1)])
    elif what == "group":
        options["group"] = rank.group
    elif what == "a part":
        placed = distribute_tensor(logits, square, [Shard(0), Shard(1)])
        target = target[:3]
    elif what == "another mesh":
        target = distribute_tensor(target, square, [Replicate(), Replicate()])
    elif what == "labels":
        target = target + 11
    elif what == "shape":
        target = target[:5]
    elif what == "uneven":
        own = logits[:, : 2 + 3 * (rank.rank == 3)]
        placed = DTensor.from_local(own, mesh, [Shard(1)], shape=logits.shape, stride=(11, 1))
    elif what == "statistics":
        xent.row_statistics(placed, target)
    xent.cross_entropy(placed, target, **options)


def counted(rank: Rank) -> None:
    """Denominators in DTensors, and beside a group of other rows."""
    mesh = init_device_mesh("cpu", (2, 2))
    logits, target = torch.randn(6, 11), torch.randint(0, 11, (6,))
    target[0] = -100
    placed = distribute_tensor(logits, mesh, [Shard(0), Shard(1)])
    labels = distribute_tensor(target, mesh, [Shard(0), Replicate()])
    n = xent.valid_denominator(labels)
    assert n.item() == 5
    expected = xent.cross_entropy(logits, target)
    held = distribute_tensor(n, mesh, [Replicate(), Replicate()])
    for denominator in (n, held, "valid"):
        loss = xent.cross_entropy(placed, labels, denominator=denominator)
        torch.testing.assert_close(loss.full_tensor(), expected)
    for dp_group in (None, rank.group):  # of ranks with the same rows here: the average is theirs
        loss = xent.cross_entropy(placed, labels, denominator="batch", dp_group=dp_group)
        torch.testing.assert_close(loss.full_tensor(), expected * 5 / 6)


def test_denominators_are_counted_over_the_mesh(ranks) -> None:
    ranks.run(4, counted)


def explained(rank: Rank) -> str:
    mesh = init_device_mesh("cpu", (4,))
    logits, target = torch.randn(6, 11), torch.randint(0, 11, (6,))
    whole = xent.explain(logits, target).to_json()
    placed = distribute_tensor(logits, mesh, [Shard(1)])
    assert xent.explain(placed, distribute_tensor(target, mesh, [Replicate()])).to_json() == whole
    for name in ("group", "dp_group"):
        loss = xent.CrossEntropyLoss(**{name: rank.group})
        with pytest.raises(ValueError, match=f"loss: expected a loss without {name}; got Cross"):
            xent.explain(logits, target, loss=loss)
    return repr(xent.CrossEntropyLoss(group=mesh, dp_group=rank.group))


def test_an_explanation_is_of_all_classes(ranks) -> None:
    for shown in ranks.run(4, explained):
        assert shown == "CrossEntropyLoss(group=<4 ranks>, dp_group=<4 ranks>)"


def mixed(rank: Rank, what: str) -> None:
    mesh = init_device_mesh("cpu", (4,))
    logits, target = torch.randn(6, 11), torch.randint(0, 11, (6,))
    classifier = distribute_tensor(torch.randn(11, 11), mesh, [Shard(0)])
    if what == "linear":
        xent.linear_cross_entropy(logits, classifier, target)
    elif what == "target":
        xent.cross_entropy(logits, distribute_tensor(target, mesh, [Replicate()]))
    else:
        weight = distribute_tensor(torch.rand(11), mesh, [Replicate()])
        xent.cross_entropy(logits, target, weight)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("linear", "linear_weight: expected what this rank has, as a plain tensor; got a DTensor"),
        ("target", "target: expected a plain tensor, since input is one; got a DTensor"),
        ("weight", "weight: expected a plain tensor, since input is one; got a DTensor"),
    ],
)
def test_a_dtensor_beside_plain_logits_is_refused(ranks, what, text) -> None:
    for outcome in ranks.outcomes(4, mixed, what):
        assert isinstance(outcome.error, TypeError), outcome.trace
        assert text in str(outcome.error)


@pytest.mark.parametrize(
    ("what", "kind", "text"),
    [
        ("partial", ValueError, "input: expected a DTensor that is sharded or replicated"),
        ("twice", ValueError, "input: expected classes that are sharded along one axis"),
        ("group", ValueError, "group: expected None, since the logits are a DTensor"),
        ("a part", ValueError, "target: expected a DTensor, or all of it on every rank, shape"),
        ("another mesh", ValueError, "target: expected a DTensor on the mesh of input"),
        ("labels", IndexError, "expected 0..10 or ignore_index=-100"),
        ("shape", ValueError, "target: expected class indices of shape (6,)"),
        ("uneven", ValueError, "input: expected classes that are cut as Shard cuts them"),
        ("statistics", TypeError, "target: expected a DTensor, since input is one; got an int64"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_on_every_rank(ranks, what, kind, text) -> None:
    for outcome in ranks.outcomes(4, refused, what):
        assert isinstance(outcome, Failure)
        assert isinstance(outcome.error, kind), outcome.trace
        assert text in str(outcome.error)
