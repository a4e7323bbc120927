"""Losses in threads, processes, training loops and beyond 2³¹ elements: the same to the bit."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import xent
from exactness import grad_output_for
from test_memory import poison, run
from xent.backends.numba import launch, memory

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "positions": Tensor.contiguous,
    "rows": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
}


@pytest.fixture(autouse=True)
def numba() -> Iterator[None]:
    with xent.backend("numba"):
        yield


@pytest.fixture
def many_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small problems are cut into ranges, too; afterwards torch has its threads again."""
    monkeypatch.setattr(launch, "GRAIN", 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def poisoned_pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small gradients are pooled, too, and their memory is NaN as soon as it is idle."""
    gc.collect()
    memory.empty_cache()
    monkeypatch.setattr(memory, "SMALLEST", 1024)
    monkeypatch.setattr(memory, "_on_return", poison)
    yield
    memory.empty_cache()


def loss_and_gradient(logits: Tensor, target: Tensor, **options) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().requires_grad_()
    loss = xent.cross_entropy(leaf, target, **options)
    (gradient,) = torch.autograd.grad(loss, leaf, grad_output_for(loss).to(loss.dtype))
    return loss.detach(), gradient


def assert_bits_of_each_number_of_threads_agree(logits: Tensor, target: Tensor, **options) -> None:
    torch.set_num_threads(1)
    loss, gradient = loss_and_gradient(logits, target, **options)
    for number in (2, 3, 5):
        torch.set_num_threads(number)
        again = loss_and_gradient(logits, target, **options)
        assert torch.equal(again[0], loss)
        assert torch.equal(again[1], gradient)


# ---- threads ----


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_the_number_of_threads_changes_no_bit(kind, reduction, layout, many_threads) -> None:
    logits = LAYOUTS[layout](torch.randn(5, 70, 131))
    target = torch.randint(70, (5, 131))
    if kind == "probabilities":
        target = torch.randn(5, 70, 131).softmax(1)
    assert_bits_of_each_number_of_threads_agree(
        logits, target, reduction=reduction, label_smoothing=0.1
    )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("options", ["plain", "weight", "sample weight"])
def test_the_number_of_threads_changes_no_bit_of_a_long_sum(
    options, reduction, many_threads
) -> None:
    """More positions than torch sums in one thread."""
    logits, target = torch.randn(150_001, 4), torch.randint(4, (150_001,))
    target[::7] = -100
    named = {
        "plain": {},
        "weight": {"weight": torch.rand(4)},
        "sample weight": {"sample_weight": torch.rand(150_001)},
    }[options]
    assert_bits_of_each_number_of_threads_agree(logits, target, reduction=reduction, **named)


def test_the_number_of_threads_changes_no_bit_of_a_batch_in_the_usual_form(many_threads) -> None:
    assert_bits_of_each_number_of_threads_agree(torch.randn(64, 1000), torch.arange(64))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_threads_may_compute_at_once(layout, many_threads, poisoned_pool) -> None:
    torch.set_num_threads(3)
    problems = [
        (LAYOUTS[layout](torch.randn(4, 60 + i, 67)), torch.randint(60, (4, 67))) for i in range(8)
    ]
    expected = [loss_and_gradient(*problem, reduction="none") for problem in problems]
    wrong = []

    def work(i: int) -> None:
        for _ in range(20):
            with xent.backend("numba"):  # a choice belongs to a thread
                result = loss_and_gradient(*problems[i], reduction="none")
            if not all(map(torch.equal, result, expected[i])):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- processes ----

LOSS = """
import os, torch, xent
from xent.backends.numba import launch, memory
launch.GRAIN = 1
memory.SMALLEST = 1024
torch.set_num_threads(2)
torch.manual_seed(20)
x, y = torch.randn(40, 600), torch.arange(40)  # few enough for torch to need no thread of its own

def result():
    leaf = x.clone().requires_grad_()
    loss = xent.cross_entropy(leaf, y, reduction="none")
    loss.backward(torch.linspace(0.5, 2, 40))
    return torch.cat([loss.detach(), leaf.grad.flatten()])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_computes_the_same() -> None:
    script = LOSS + """
expected = result()
for _ in range(3):
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(result(), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
assert torch.equal(result(), expected)
"""  # fmt: skip
    run(script, XENT_BACKEND="numba")


def test_workers_of_a_data_loader_compute_the_same() -> None:
    script = LOSS + """
from torch.utils.data import DataLoader

class Losses(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, _):
        return result()

if __name__ == "__main__":
    expected = result()
    for _ in range(2):
        for batch in DataLoader(Losses(), num_workers=2, multiprocessing_context="fork"):
            assert torch.equal(batch[0], expected)
"""  # fmt: skip
    run(script, XENT_BACKEND="numba")


# ---- gradients and the pool ----


def test_gradients_of_two_backward_passes_share_no_memory(poisoned_pool) -> None:
    leaf = torch.randn(64, 1000, 2).requires_grad_()
    target = torch.randint(1000, (64, 2))
    loss = xent.cross_entropy(leaf, target)
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(2 * loss, leaf)
    assert first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr()
    second.fill_(torch.nan)
    assert torch.equal(first, kept)


def trained() -> list[Tensor]:
    """A small model after a few steps that do what training loops do."""
    torch.manual_seed(20)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 50))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for _ in range(4):
        optimizer.zero_grad()
        for _ in range(3):  # gradients are accumulated
            scores = model(torch.randn(64, 20))
            scores.retain_grad()
            loss = xent.cross_entropy(scores[:, :, None], torch.randint(50, (64, 1)))
            loss.backward(retain_graph=True)
            loss.backward()
            seen.append(scores.grad.clone())
        optimizer.step()
        gc.collect()
    return [*seen, *(p.detach() for p in model.parameters())]


def test_idle_memory_never_belongs_to_a_gradient_of_a_training_loop(poisoned_pool) -> None:
    with xent.backend("torch"):
        expected = trained()
    for mine, theirs in zip(trained(), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


# ---- more than 2³¹ elements ----

FAR = 2**31 + 64  # elements: more than 32 bits can count


def far_apart(shape: tuple[int, int, int], axis: int) -> Tensor:
    """[outer, C, inner] with one axis of strides beyond 2³¹; between them nothing is touched."""
    strides = [0, 0, 0]
    order = [i for i in range(3) if i != axis]
    strides[order[1]], strides[order[0]], strides[axis] = 1, shape[order[1]], FAR
    try:
        memory = torch.empty(FAR * (shape[axis] - 1) + 10**5, dtype=torch.bfloat16)
    except RuntimeError as error:
        pytest.skip(f"no address space for that: {error}")
    return memory.as_strided(shape, strides).copy_(torch.randn(shape))


@pytest.mark.parametrize("kind", ["index", "probabilities"])
@pytest.mark.parametrize(("shape", "axis"), [((2, 70, 1), 0), ((2, 5, 70), 0), ((2, 2, 70), 1)])
def test_offsets_beyond_32_bits(shape, axis, kind) -> None:
    logits = far_apart(shape, axis)
    near = logits.clone(memory_format=torch.contiguous_format)
    target = torch.randint(shape[1], (shape[0], shape[2]))
    if kind == "probabilities":
        target = near.softmax(1)
    near_loss, near_gradient = loss_and_gradient(near, target, reduction="none")
    loss, gradient = loss_and_gradient(logits, target, reduction="none")
    assert torch.equal(loss, near_loss)
    assert torch.equal(gradient, near_gradient)


def test_more_rows_than_32_bits_can_count_elements_of() -> None:
    one = torch.randn(1, 4096)
    with torch.no_grad():
        loss = xent.cross_entropy(one, torch.tensor([7]), reduction="none")
        rows, count = one.expand(2**19 + 1, 4096), 2**19 + 1
        losses = xent.cross_entropy(rows, torch.full((count,), 7), reduction="none")
    assert torch.equal(losses, loss.expand(count))


@pytest.mark.large
@pytest.mark.skipif("XENT_LARGE_TESTS" not in os.environ, reason="XENT_LARGE_TESTS is not set")
@pytest.mark.skipif(
    memory._physical_memory() < 16 << 30, reason="logits and gradient take 10 GB of memory"
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_than_2_to_the_31_elements_in_memory(layout) -> None:
    outer, classes, inner = 3, 2**20, 700  # 2.2e9
    shape = (outer, classes, inner) if layout == "positions" else (outer, inner, classes)
    logits = torch.empty(shape, dtype=torch.bfloat16)
    for image in logits:  # random numbers for all of it would take minutes
        image.copy_(torch.randn(shape[2], dtype=torch.bfloat16))
    logits = logits if layout == "positions" else logits.mT
    target = torch.randint(classes, (outer, inner))
    loss, gradient = loss_and_gradient(logits, target, reduction="none")
    slope = grad_output_for(loss).to(loss.dtype)
    for i, k in [(0, 0), (1, inner // 2), (outer - 1, inner - 1)]:
        row = logits[i, :, k].double().requires_grad_()
        true = nn.functional.cross_entropy(row, target[i, k])
        (expected,) = torch.autograd.grad(true, row, slope[i, k].double())
        torch.testing.assert_close(loss[i, k].double(), true.detach(), rtol=2**-8, atol=0)
        torch.testing.assert_close(gradient[i, :, k].double(), expected, rtol=2**-8, atol=1e-12)
