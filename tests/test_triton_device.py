"""What only a device can get wrong: streams, graphs, waiting, real tiles, and other devices."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import triton_rows as problems
import xent
from triton_rows import DEVICE, IGNORED, assert_right, problem

pytestmark = [
    pytest.mark.skipif(
        DEVICE.type == "cpu", reason="there is no device, or XENT_TEST_DEVICE is cpu"
    )
]
of_cuda = pytest.mark.skipif(DEVICE.type != "cuda", reason="graphs and streams are CUDA's here")
CLASSES = 1000

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "index": xent.cross_entropy,
    "smoothing": lambda x, y: xent.cross_entropy(x, y, label_smoothing=0.1, reduction="sum"),
    "in place": lambda x, y: xent.cross_entropy(x * 1, y, inplace_backward=True),
    "probabilities": lambda x, y: xent.cross_entropy(
        x, F.one_hot(y.clamp(min=0), x.shape[1]).to(x.dtype)
    ),
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture(autouse=True)
def no_notes() -> Iterator[None]:
    xent.check_errors()
    yield
    xent.check_errors()


def batch(rows: int = 64, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    y = torch.randint(classes, (rows,))
    y[1::5] = IGNORED
    return (3 * torch.randn(rows, classes)).to(DEVICE), y.to(DEVICE)


def assert_right_loss(loss: Loss, value: Tensor, slope: Tensor, x: Tensor, y: Tensor) -> None:
    """Against the definition on a CPU in float64; exp is approximate on a device."""
    exact = x.detach().cpu().double().requires_grad_()
    with xent.backend("torch"):
        truth = loss(exact, y.cpu())
        truth.backward()
    close = {"rtol": 1e-5, "atol": 4e-6 * float(exact.grad.abs().max())}
    torch.testing.assert_close(value.detach().cpu().double(), truth.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(slope.cpu().double(), exact.grad, **close)


# ---- tiles as they are, on all of the device ----

SHAPES = [
    (4096, 1000, 1), (64, 32000, 1), (8, 50257, 1), (4, 128256, 1), (20000, 10, 1), (3, 7, 1),
    (2, 21, 4096), (3, 150, 1001), (1, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_usual_shapes(shape, dtype) -> None:
    for kind in ("index", "probabilities"):
        rows = problem(shape, kind, dtype=dtype, weighted=True, ignored=shape[0] > 1)
        assert_right(rows)
        if shape[1] < 5000:
            assert_right(rows, uniform=True)


def test_few_long_rows_are_shared() -> None:
    grid = problems.plan(problem((4, 128256, 1)))[2]
    assert grid.spans > 1


@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_equal_calls_have_equal_results(kind) -> None:
    rows = problem((16, 50257, 1), kind)
    first = problems.statistics(rows, True)
    given = problems.coefficients_of(first)
    slope = problems.gradient(rows, first, given)
    for _ in range(5):
        again = problems.statistics(rows, True)
        for one, other in zip(again, first, strict=True):
            assert one is other is None or torch.equal(one, other)
        assert torch.equal(problems.gradient(rows, again, given), slope)
    problems.gradient(rows, first, given, inplace=True)
    assert torch.equal(rows.logits, slope)


@pytest.mark.skipif(DEVICE.type != "cuda", reason="asks CUDA for its memory")
def test_offsets_beyond_32_bits() -> None:
    """A view of 2^31 elements and more, most of which nobody reads."""
    step = 1 << 27
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        pytest.skip("needs 12 GB of the device's memory")
    room = torch.empty(33 * step + 8, dtype=torch.bfloat16, device=DEVICE)
    logits = room.as_strided((1, 33, 4), (0, step, 1))
    logits.copy_(torch.randn(1, 33, 4))
    rows = problem((1, 33, 4))._replace(logits=logits)
    assert problems.plan(rows)[1].long
    assert_right(rows)
    across = room.as_strided((33, 4, 1), (step, 1, 1))
    assert_right(problem((33, 4, 1))._replace(logits=across))


# ---- waiting ----


@contextmanager
def without_waiting() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@of_cuda
@each_loss
def test_nothing_waits_for_the_device(loss) -> None:
    x, y = batch()
    leaf = x.clone().requires_grad_()
    with pytest.raises(RuntimeError), without_waiting():  # the mode does what it says
        y.max().item()
    with without_waiting():
        value = loss(leaf, y)
        value.backward()
    assert_right_loss(loss, value, leaf.grad, x, y)


@of_cuda
def test_a_linear_loss_does_not_wait() -> None:
    hidden, y = batch(64, 32)
    y = y.clamp(min=0)
    classifier = torch.randn(CLASSES, 32, device=DEVICE, requires_grad=True)
    leaf = hidden.clone().requires_grad_()
    xent.linear_cross_entropy(leaf, classifier, y).backward()  # libraries set themselves up
    with without_waiting():
        xent.linear_cross_entropy(leaf, classifier, y).backward()
        with torch.no_grad():
            xent.linear_cross_entropy(leaf, classifier, y)


@of_cuda
@each_loss
def test_a_graph_is_captured_and_replayed(loss) -> None:
    x, y = batch()
    leaf = x.clone().requires_grad_()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            leaf.grad = None
            loss(leaf, y).backward()
    torch.cuda.current_stream().wait_stream(side)
    leaf.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss(leaf, y)
        value.backward()
    for _ in range(2):
        other, labels = batch()
        with torch.no_grad():
            leaf.copy_(other)
            y.copy_(labels)
        graph.replay()
        assert_right_loss(loss, value, leaf.grad, other, labels)


@of_cuda
def test_a_replayed_graph_notes_a_bad_label() -> None:
    x, y = batch()
    y.clamp_(min=0)
    xent.cross_entropy(x, y, reduction="none")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = xent.cross_entropy(x, y, reduction="none")
    graph.replay()
    xent.check_errors()
    y[3] = CLASSES
    graph.replay()
    with pytest.raises(IndexError, match=f"target is {CLASSES} at position 3 "):
        xent.check_errors()
    assert value.isnan().nonzero().tolist() == [[3]]
    y[3] = 0
    graph.replay()
    xent.check_errors()
    assert value.isfinite().all()


@of_cuda
def test_a_replay_keeps_the_note_of_the_one_before() -> None:
    x = torch.randn(4, 1013, device=DEVICE)
    y = torch.tensor([0, 1, 2, 3], device=DEVICE)
    xent.cross_entropy(x[:, :1009], y, reduction="none")  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        xent.cross_entropy(x, y, reduction="none")
    y[2] = 1013
    graph.replay()
    y[2] = 0
    graph.replay()
    with pytest.raises(IndexError, match="target is 1013 at position 2 "):
        xent.check_errors()


@of_cuda
@each_loss
def test_another_stream(loss) -> None:
    """Kernels go to the current stream: they wait for what makes their logits, there."""
    x, y = batch(2048)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        late = torch.zeros_like(x)
        big = torch.randn(4096, 4096, device=DEVICE)
        for _ in range(8):
            big = big @ big * 1e-3
        late.copy_(x)
        late.requires_grad_()
        value = loss(late, y)
        value.backward()
    side.synchronize()
    assert_right_loss(loss, value, late.grad, x, y)


@of_cuda
@pytest.mark.skipif(
    DEVICE.type != "cuda" or torch.cuda.device_count() < 2, reason="there is one device"
)
def test_tensors_of_another_device_than_the_current() -> None:
    other = torch.device("cuda:1")
    x, y = (t.to(other) for t in batch())
    leaf = x.clone().requires_grad_()
    assert torch.cuda.current_device() == 0
    value = xent.cross_entropy(leaf, y)
    value.backward()
    assert_right_loss(xent.cross_entropy, value, leaf.grad, x, y)
    y[0] = CLASSES
    assert xent.cross_entropy(leaf, y).isnan()
    with pytest.raises(IndexError, match="in a loss on cuda:1"):
        xent.check_errors()


# ---- labels that are no class ----


@pytest.mark.parametrize("bad", [CLASSES, -1, 1 << 40, -(1 << 62)])
def test_a_bad_label_does_not_end_the_process(bad) -> None:
    x, y = batch()
    y.clamp_(min=0)
    y[5] = bad
    leaf = x.clone().requires_grad_()
    losses = xent.cross_entropy(leaf, y, reduction="none", label_smoothing=0.1)
    losses.sum().backward()
    assert losses.isnan().nonzero().tolist() == [[5]]
    assert leaf.grad.isnan().all(1).nonzero().tolist() == [[5]]
    with pytest.raises(IndexError, match="at position 5 of"):
        xent.check_errors()
    y[5] = 0
    assert xent.cross_entropy(x, y).isfinite()


SCRIPT = """
    import torch, xent
    x = torch.randn(4, 9, device={device!r}, requires_grad=True)
    y = torch.tensor([0, 99, 2, -7], device={device!r})
    losses = {loss}
    losses.sum().backward()
    assert losses.isnan().tolist() == [False, True, False, True], losses
    try:
        xent.check_errors()
    except IndexError as error:
        print(str(error))
"""
UNSEEN = {
    "class weights": "xent.cross_entropy(x, y, torch.ones_like(x[0]), reduction='none')",
    "module": "xent.CrossEntropyLoss(torch.ones_like(x[0].detach()), reduction='none')(x, y)",
    "linear": "xent.linear_cross_entropy(x, torch.ones(9, 9).to(x), y, reduction='none')",
    "linear, class weights": "xent.linear_cross_entropy(x, torch.ones(9, 9).to(x), y, "
    "weight=torch.ones_like(x[0].detach()), reduction='none')",
}


@pytest.mark.parametrize("loss", UNSEEN.values(), ids=UNSEEN)
def test_no_way_of_a_bad_label_ends_the_process(loss) -> None:
    """In one of its own: what comes after an assertion on the device fails."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT.format(device=str(DEVICE), loss=loss))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "expected 0..8 or ignore_index" in done.stdout


def test_values_are_looked_at_if_asked() -> None:
    x, y = batch()
    y[0] = CLASSES
    with pytest.raises(IndexError, match=rf"target\[0\] is {CLASSES}; expected 0..{CLASSES - 1}"):
        xent.cross_entropy(x, y, check="values")
