"""How a training loop uses a loss on hidden states, and what that costs in products and memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import xent
from composition import Arguments, assert_true, example, loss_and_gradients, truth
from xent.statistics.linear import chunks, tiles

pytestmark = pytest.mark.usefixtures("backend")

REDUCTIONS = ["none", "mean", "sum"]
AT = ["input", "linear_weight", "linear_bias"]
COUNT, CLASSES, FEATURES = 60, 100, 8


class Watch(TorchDispatchMode):
    """Counts multiplications of matrices, and keeps the size of the largest tensor made."""

    def __init__(self) -> None:
        super().__init__()
        self.multiplied = 0
        self.largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        kind = func.overloadpacket.__name__.rstrip("_")
        if kind in ("mm", "addmm"):
            left, right = args[-2:]
            self.multiplied += left.shape[0] * left.shape[1] * right.shape[1]
        else:
            assert kind not in ("bmm", "baddbmm", "linear", "matmul", "einsum", "mv"), kind
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):  # in memory: logits in name are one number, expanded
                self.largest = max(self.largest, tensor.untyped_storage().nbytes() // 4)
        return result

    @property
    def products(self) -> float:
        """In units of hidden states times classifier."""
        return self.multiplied / (COUNT * CLASSES * FEATURES)


def batch(**more: Any) -> Arguments:
    made = example((COUNT, FEATURES), (CLASSES,), **more)
    return {**made, "chunk_bytes": 7 * CLASSES * 4}


def leaves(arguments: Arguments, *names: str) -> Arguments:
    return {
        name: value.detach().clone().requires_grad_() if name in names else value
        for name, value in arguments.items()
    }


def gradients(loss: Tensor, arguments: Arguments, *names: str, **options: Any) -> list[Tensor]:
    grad_output = 0.75 + torch.arange(loss.numel()).view(loss.shape) % 7 / 8
    return list(
        torch.autograd.grad(loss, [arguments[n] for n in names or AT], grad_output, **options)
    )


CASES: dict[str, tuple[Arguments, list[str], float]] = {
    "evaluation": ({}, [], 1),
    "evaluation of smoothed labels": ({"label_smoothing": 0.1}, [], 1),
    "evaluation, a loss per row": ({"reduction": "none"}, [], 1),
    "mean": ({}, AT, 3),
    "sum, smoothing": ({"reduction": "sum", "label_smoothing": 0.1}, AT, 3),
    "a loss per row": ({"reduction": "none"}, AT, 4),
    "class weights": ({}, [*AT, "weight"], 4),
    "a frozen classifier": ({}, ["input"], 2),
    "frozen hidden states": ({}, ["linear_weight"], 2),
    "a bias alone": ({}, ["linear_bias"], 1),
    "a frozen classifier, a loss per row": ({"reduction": "none"}, ["input"], 3),
    "class weights alone": ({}, ["weight"], 2),
}


@pytest.mark.parametrize("labels", ["index", "probabilities"])
@pytest.mark.parametrize(("options", "names", "products"), CASES.values(), ids=CASES)
def test_no_product_is_made_that_nobody_asked_for(options, names, products, labels) -> None:
    arguments = leaves({**batch(labels=labels, weighted=True), **options}, *names)
    with Watch() as watch:
        loss = xent.linear_cross_entropy(**arguments)
        if names:
            gradients(loss, arguments, *names)
    assert watch.products == products


HELD = {"numba": 1, "torch": 4}
"""How many tensors of the size of a chunk a backend may hold at a time."""


@pytest.mark.parametrize("rows", ["counted", "all"])
def test_rows_that_do_not_count_do_not_come_to_a_product(rows, backend, monkeypatch) -> None:
    arguments = batch()
    if rows == "counted":
        arguments["target"][::3] = -100
    seen = []
    logits = chunks.Products.logits

    def counting(self, hidden, out, first=0):
        seen.append(len(hidden))
        logits(self, hidden, out, first)

    monkeypatch.setattr(chunks.Products, "logits", counting)
    xent.linear_cross_entropy(**leaves(arguments, *AT)).backward()
    count = 40 if rows == "counted" else 60
    assert sum(seen) == count
    most = 7 // HELD[backend] or 1
    assert max(seen) <= most
    assert len(seen) == -(-count // most)


@pytest.mark.parametrize("labels", ["index", "no labels"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_logits_of_all_rows_are_never_there(reduction, labels) -> None:
    arguments = leaves({**batch(), "reduction": reduction}, *AT)
    with Watch() as watch:
        if labels == "index":
            gradients(xent.linear_cross_entropy(**arguments), arguments)
        else:
            given = {k: arguments[k] for k in ("input", "linear_weight", "chunk_bytes")}
            of = xent.linear_row_statistics(**given, predictions=True)
            (of.lse + of.entropy).sum().backward()
    assert watch.largest == max(CLASSES * FEATURES, 7 * CLASSES)


@pytest.mark.parametrize("predictions", [False, True])
def test_second_derivatives_do_not_have_them_either(predictions) -> None:
    arguments = leaves(batch(), *AT)
    with Watch() as watch:
        if predictions:
            given = {k: arguments[k] for k in ("input", "linear_weight", "chunk_bytes")}
            loss = xent.linear_row_statistics(**given, predictions=True).entropy.sum()
        else:
            loss = xent.linear_cross_entropy(**arguments)
        (at_input,) = torch.autograd.grad(loss, arguments["input"], create_graph=True)
        at_input.square().sum().backward()
    assert watch.largest < COUNT * CLASSES


@pytest.mark.parametrize("grad", [True, False])
def test_the_buffer_is_within_the_budget(grad, backend, monkeypatch) -> None:
    made: list[int] = []
    reused = chunks.reused

    def recording(shape, dtype, device):
        tensor = reused(shape, dtype, device)
        if not grad or tuple(shape) not in ((CLASSES, FEATURES), (COUNT, FEATURES), (CLASSES,)):
            made.append(tensor.numel() * tensor.itemsize)
        return tensor

    monkeypatch.setattr(chunks, "reused", recording)
    monkeypatch.setattr(tiles, "reused", recording)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        for budget in (1, CLASSES * 8 - 1, CLASSES * 8, 7777, 10**9):
            made.clear()
            arguments = {**batch(dtype=dtype), "chunk_bytes": budget}
            with torch.set_grad_enabled(grad):
                xent.linear_cross_entropy(**leaves(arguments, *AT))
            row = CLASSES * max(4, dtype.itemsize)
            assert made
            assert all(HELD[backend] * held <= max(budget, HELD[backend] * row) for held in made)
            assert HELD[backend] * max(made) >= min(budget // 2, COUNT * row)  # and is not wasted


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_second_backward_gives_the_same_gradients(reduction) -> None:
    arguments = leaves({**batch(weighted=True), "reduction": reduction}, *AT)
    loss = xent.linear_cross_entropy(**arguments)
    first = gradients(loss, arguments, retain_graph=True)
    copies = [g.clone() for g in first]
    for g in first:
        g.mul_(7)  # a clip in place must not reach what is kept
    again = gradients(loss, arguments, retain_graph=True)
    assert all(map(torch.equal, again, copies))
    halved = torch.autograd.grad(loss.sum() / 2, arguments["input"], retain_graph=True)
    assert_true((loss.detach(), gradients(loss, arguments)), {**arguments}, AT)
    assert halved[0].shape == arguments["input"].shape


def test_a_second_backward_of_a_freed_graph_is_refused() -> None:
    for reduction in REDUCTIONS:
        arguments = leaves({**batch(), "reduction": reduction}, *AT)
        loss = xent.linear_cross_entropy(**arguments).sum()
        loss.backward()
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            loss.backward()


def test_two_losses_of_one_hidden_state_add_their_gradients() -> None:
    arguments = leaves(batch(), *AT)
    other = {**arguments, "target": arguments["target"].flip(0), "reduction": "sum"}
    (xent.linear_cross_entropy(**arguments) * 2 - xent.linear_cross_entropy(**other)).backward()
    _, mine = loss_and_gradients(lambda **a: 2 * truth(**a), arguments, AT, wide=True)
    _, theirs = loss_and_gradients(truth, other, AT, wide=True)
    for name, a, b in zip(AT, mine, theirs, strict=True):
        expected = (a - b) / 0.75  # which is the grad_output of both
        torch.testing.assert_close(arguments[name].grad.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_micro_batches_with_a_denominator_are_the_whole_batch(dtype) -> None:
    arguments = batch(dtype=dtype)
    arguments["target"][[0, 5, 17, 33]] = -100
    count = (arguments["target"] != -100).sum()
    loss, whole = loss_and_gradients(truth, arguments, AT, wide=True)
    parts = leaves(arguments, "linear_weight", "linear_bias")
    total = 0.0
    for start in (0, 20, 40):
        micro = {
            **parts,
            "input": parts["input"][start : start + 20].clone().requires_grad_(),
            "target": parts["target"][start : start + 20],
        }
        part = xent.linear_cross_entropy(**micro, denominator=count, dtype=torch.float32)
        (0.75 * part).backward()
        total += part.item()
        expected = whole[0][start : start + 20]
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(micro["input"].grad.double(), expected, rtol=eps, atol=1e-7)
    assert total == pytest.approx(loss.item(), rel=1e-6)
    # each micro-batch rounds once, to the dtype of the classifier, and autograd adds in it
    torch.testing.assert_close(
        parts["linear_weight"].grad.double(), whole[1], rtol=2 * eps, atol=4 * eps * whole[1].max()
    )


def test_a_training_step_is_that_of_torch() -> None:
    torch.manual_seed(0)
    embedding, layer = nn.Embedding(50, 8), nn.Linear(8, 8)
    ours = xent.LinearCrossEntropyLoss(8, 50, bias=True, ignore_index=0, chunk_bytes=1000)
    parameters = [*embedding.parameters(), *layer.parameters(), *ours.parameters()]
    start = [p.detach().clone() for p in parameters]
    tokens = torch.randint(0, 50, (4, 6))

    def steps(loss: Callable[[Tensor, Tensor], Tensor]) -> Iterator[float]:
        with torch.no_grad():
            for p, s in zip(parameters, start, strict=True):
                p.copy_(s)
        optimizer = torch.optim.SGD(parameters, lr=0.5)
        for _ in range(5):
            optimizer.zero_grad()
            value = loss(layer(embedding(tokens[:, :-1])).tanh(), tokens[:, 1:])
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            yield value.item()

    def theirs(hidden: Tensor, target: Tensor) -> Tensor:
        logits = nn.functional.linear(hidden, ours.linear.weight, ours.linear.bias)
        return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=0)

    assert list(steps(ours)) == pytest.approx(list(steps(theirs)), rel=1e-5)


def test_gradients_do_not_share_memory_with_anything_kept() -> None:
    arguments = leaves(batch(), *AT)
    first = gradients(xent.linear_cross_entropy(**arguments), arguments)
    copies = [g.clone() for g in first]
    for _ in range(3):  # buffers that were given back too early would be written again
        gradients(xent.linear_cross_entropy(**arguments), arguments)
    assert all(map(torch.equal, first, copies))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_arguments_are_left_as_they_were(reduction) -> None:
    arguments = leaves({**batch(weighted=True), "reduction": reduction}, *AT)
    before = {k: v.detach().clone() for k, v in arguments.items() if isinstance(v, Tensor)}
    gradients(xent.linear_cross_entropy(**arguments), arguments)
    assert all(torch.equal(arguments[k], v) for k, v in before.items())


def test_a_classifier_changed_before_the_backward_is_noticed() -> None:
    for reduction in ("none", "mean"):
        arguments = leaves({**batch(), "reduction": reduction}, *AT)
        loss = xent.linear_cross_entropy(**arguments).sum()
        with torch.no_grad():
            arguments["linear_weight"].mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_without_gradients_there_is_no_graph() -> None:
    arguments = leaves(batch(), *AT)
    with torch.no_grad():
        evaluated = xent.linear_cross_entropy(**arguments)
    with torch.inference_mode():
        inferred = xent.linear_cross_entropy(**arguments)
        own = xent.linear_cross_entropy(**batch(), reduction="none")
    assert not evaluated.requires_grad
    assert inferred.is_inference()
    assert own.is_inference()
    assert torch.equal(inferred, evaluated)
    trained = xent.linear_cross_entropy(**arguments)
    torch.testing.assert_close(trained.detach(), evaluated, rtol=1e-6, atol=0)


def test_retained_hooks_see_one_gradient() -> None:
    arguments = leaves(batch(), *AT)
    seen = []
    arguments["input"].register_hook(lambda g: seen.append(g.clone()))
    xent.linear_cross_entropy(**arguments).backward()
    assert len(seen) == 1
    assert torch.equal(seen[0], arguments["input"].grad)
    seen.clear()
    again = leaves(arguments, *AT)
    again["input"].register_hook(lambda g: seen.append(g.clone()))
    loss = xent.linear_cross_entropy(**again)
    torch.autograd.grad(loss, again["input"], create_graph=True)
    assert len(seen) == 1


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_number_of_threads_does_not_change_a_loss_without_products(reduction) -> None:
    """One feature and a classifier of ones: what is left is the work of the chunks."""
    arguments = {**example((300, 1), (700,)), "reduction": reduction, "chunk_bytes": 10**5}
    arguments["linear_weight"] = torch.ones(700, 1)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            results.append(loss_and_gradients(xent.linear_cross_entropy, arguments, AT))
        finally:
            torch.set_num_threads(1)
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-6, atol=1e-6)
    again = loss_and_gradients(xent.linear_cross_entropy, arguments, AT)
    assert torch.equal(again[0], results[0][0])
    assert all(map(torch.equal, again[1], results[0][1]))


def test_more_than_2_to_the_31_logits(backend) -> None:
    if backend == "torch":
        pytest.skip("the sizes are torch's to get right there, and it takes a minute")
    count, classes = 70_001, 32_000  # 2.2e9, of which a chunk's are held
    bias = torch.linspace(-1, 1, classes)
    target = torch.arange(count) % classes
    losses = xent.linear_cross_entropy(
        torch.zeros(count, 1), torch.ones(classes, 1), target,
        linear_bias=bias, reduction="none",
    )  # fmt: skip
    wide = bias.double()
    torch.testing.assert_close(losses.double(), wide.logsumexp(0) - wide[target])


@pytest.mark.large
@pytest.mark.skipif("XENT_LARGE_TESTS" not in os.environ, reason="XENT_LARGE_TESTS is not set")
def test_a_chunk_of_more_than_2_to_the_31_logits(backend) -> None:
    if backend == "torch":
        pytest.skip("the sizes are torch's to get right there, and it takes a minute")
    count, classes = 70_001, 32_000  # 9 GB
    bias = torch.linspace(-1, 1, classes).requires_grad_()
    target = torch.arange(count) % classes
    loss = xent.linear_cross_entropy(
        torch.zeros(count, 1), torch.ones(classes, 1), target,
        linear_bias=bias, reduction="sum", chunk_bytes=16 << 30,
    )  # fmt: skip
    loss.backward()
    wide = bias.detach().double()
    expected = count * wide.softmax(0) - target.bincount(minlength=classes)
    torch.testing.assert_close(bias.grad.double(), expected, rtol=1e-5, atol=1e-5)
