"""The losses on the triton backend: each option, each mode of torch, and who computes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, func

import xent
from triton_rows import DEVICE, EPS, INTERPRETED
from xent.backends.triton import launch
from xent.statistics import compiled

CLASSES = 37


@pytest.fixture(autouse=True)
def triton() -> Iterator[None]:
    with xent.backend("triton"):
        yield
    xent.check_errors()


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The names of what is launched."""
    seen: list[str] = []
    for name in ("statistics", "logit_gradient", "prediction"):
        kernel = getattr(launch, name)

        def noted(*given: Any, _name: str = name, _kernel: Any = kernel, **named: Any) -> Any:
            seen.append(_name)
            return _kernel(*given, **named)

        monkeypatch.setattr(launch, name, noted)
    return seen


def logits(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (2 * torch.randn(shape or (6, CLASSES))).to(DEVICE, dtype)


def labels(kind: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    if kind == "probabilities":
        return torch.randn(shape).softmax(1).to(DEVICE, dtype)
    target = torch.randint(shape[1], (shape[0], *shape[2:]))
    target.view(-1)[1::4] = -100
    return target.to(DEVICE)


def assert_as_in_float64(ours: Any, x: Tensor, target: Tensor, **options: Any) -> None:
    """Loss and gradient against torch's in float64 on a CPU."""
    leaf = x.detach().clone().requires_grad_()
    loss = ours(leaf)
    start = (0.75 + torch.arange(loss.numel()) % 7 / 8).reshape(loss.shape)
    loss.backward(start.to(loss))
    exact = x.detach().cpu().double().requires_grad_()
    target = target.cpu().double() if target.is_floating_point() else target.cpu()
    weight = options.pop("weight", None)
    weight = None if weight is None else weight.cpu().double()
    truth = F.cross_entropy(exact, target, weight, **options)
    truth.backward(start.double())
    # exp is approximate on devices: 2e-7 + 1e-7 for each unit that a logit lies behind the largest
    unit = max(32 * EPS, 2 * torch.finfo(x.dtype).eps if x.dtype != torch.float32 else 0.0)
    for mine, true in ((loss, truth), (leaf.grad, exact.grad)):
        assert mine.dtype == x.dtype
        size = float(true.detach().abs().max())
        torch.testing.assert_close(
            mine.detach().cpu().double(), true.detach(), rtol=unit, atol=unit * size
        )


GRID = [
    (kind, weighted, smoothing, reduction)
    for kind in ("index", "probabilities")
    for weighted in (False, True)
    for smoothing in (0.0, 0.1)
    for reduction in ("mean", "sum", "none")
]


@pytest.mark.parametrize(("kind", "weighted", "smoothing", "reduction"), GRID)
def test_cross_entropy_is_torchs_in_float64(kind, weighted, smoothing, reduction, calls) -> None:
    weight = (torch.rand(CLASSES) + 0.5).to(DEVICE) if weighted else None
    options = {"weight": weight, "label_smoothing": smoothing, "reduction": reduction}
    for shape in ((6, CLASSES), (2, CLASSES, 3)):
        x, target = logits(*shape), labels(kind, shape)
        loss = partial(xent.cross_entropy, target=target, **options)
        assert_as_in_float64(loss, x, target, **options)
    assert calls.count("statistics") == calls.count("logit_gradient") == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_half_types(kind, dtype, calls) -> None:
    x, target = logits(dtype=dtype), labels(kind, (6, CLASSES), dtype)
    assert_as_in_float64(lambda x: xent.cross_entropy(x, target), x, target)
    assert calls


def test_other_arguments(calls) -> None:
    """A class axis elsewhere, factors of positions, a denominator, several labels to ignore."""
    x, target = logits(2, 3, 7), labels("index", (2, 7, 3)).clamp(min=0)
    s = torch.rand(2, 3).to(DEVICE)
    losses = xent.cross_entropy(x, target, dim=2, sample_weight=s, reduction="none")
    truth = F.cross_entropy(x.movedim(2, 1).double(), target, reduction="none") * s
    torch.testing.assert_close(losses.double(), truth, rtol=1e-6, atol=1e-6)
    by = xent.cross_entropy(x, target, dim=2, denominator=5.0)
    torch.testing.assert_close(
        by.double(), F.cross_entropy(x.movedim(2, 1).double(), target, reduction="sum") / 5,
        rtol=1e-6, atol=0,
    )  # fmt: skip
    some = xent.cross_entropy(x, target, dim=2, ignore_index=(0, 1), reduction="none")
    assert torch.equal(some == 0, (target == 0) | (target == 1))
    assert len(calls) == 3


@pytest.mark.parametrize("kind", ["index", "probabilities"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_linear_cross_entropy(reduction, bias, kind, calls) -> None:
    hidden, classifier = logits(6, 5), logits(CLASSES, 5)
    offsets = logits(CLASSES) if bias else None
    target = labels(kind, (6, CLASSES))
    given = [t for t in (hidden, classifier, offsets) if t is not None]
    leaves = [t.clone().requires_grad_() for t in given]
    loss = xent.linear_cross_entropy(
        *leaves[:2], target, linear_bias=leaves[2] if bias else None, reduction=reduction,
        label_smoothing=0.1, chunk_bytes=3 * CLASSES * 4,
    )  # fmt: skip
    loss.sum().backward()
    exact = [t.cpu().double().requires_grad_() for t in given]
    y = target.cpu().double() if target.is_floating_point() else target.cpu()
    truth = F.cross_entropy(F.linear(*exact), y, reduction=reduction, label_smoothing=0.1)
    truth.sum().backward()
    for mine, true in (
        (loss, truth),
        *((a.grad, b.grad) for a, b in zip(leaves, exact, strict=True)),
    ):
        size = float(true.detach().abs().max())
        torch.testing.assert_close(
            mine.detach().cpu().double(), true.detach(), rtol=1e-5, atol=2e-6 * size
        )
    assert "statistics" in calls


def test_linear_statistics_without_gradients(calls) -> None:
    hidden, classifier, target = logits(6, 5), logits(CLASSES, 5), labels("index", (6, CLASSES))
    target[1::4] = -100
    with torch.no_grad():
        found = xent.linear_row_statistics(hidden, classifier, target)
    truth = F.cross_entropy(hidden.double() @ classifier.double().T, target, reduction="none")
    torch.testing.assert_close(found.nll.double(), truth, rtol=1e-5, atol=1e-6)
    assert calls


# ---- derivatives and transforms ----


@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_second_derivatives(kind) -> None:
    x, target = logits(3, 7), labels(kind, (3, 7))

    def curvature(x: Tensor, y: Tensor, loss: Any) -> Tensor:
        leaf = x.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf, y), leaf, create_graph=True)
        (second,) = torch.autograd.grad(slope.square().sum(), leaf)
        return second.cpu().double()

    exact = target.double() if target.is_floating_point() else target
    ours = curvature(x, target, xent.cross_entropy)
    truth = curvature(x.double(), exact, F.cross_entropy)
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-7)


def test_labels_and_weights_have_gradients() -> None:
    x, q = logits(3, 7), labels("probabilities", (3, 7))
    w = (torch.rand(7) + 0.5).to(DEVICE)

    def slopes(*tensors: Tensor) -> list[Tensor]:
        leaves = [t.detach().clone().requires_grad_() for t in tensors]
        loss = xent.cross_entropy(*leaves, label_smoothing=0.1)
        return [g.cpu().double() for g in torch.autograd.grad(loss, leaves)]

    ours, truth = slopes(x, q, w), slopes(x.double(), q.double(), w.double())
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own use
def test_function_transforms() -> None:
    x, target = logits(3, 7), labels("index", (3, 7))

    def loss(x: Tensor) -> Tensor:
        return xent.cross_entropy(x, target)

    leaf = x.clone().requires_grad_()
    loss(leaf).backward()
    close = {"rtol": 1e-5, "atol": 1e-7}
    torch.testing.assert_close(func.grad(loss)(x), leaf.grad, **close)
    torch.testing.assert_close(func.jacfwd(loss)(x), leaf.grad, **close)
    several = torch.stack([x, 2 * x])
    each = func.vmap(loss)(several)
    torch.testing.assert_close(each, torch.stack([loss(x), loss(2 * x)]), **close)
    _, slope = func.jvp(loss, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(slope, leaf.grad.sum(), **close)
    batched = torch.autograd.grad(
        xent.cross_entropy(leaf, target, reduction="none"), leaf, torch.eye(3, device=DEVICE),
        is_grads_batched=True,
    )[0]  # fmt: skip
    assert batched.shape == (3, 3, 7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_gradient_may_overwrite_its_logits(dtype, calls) -> None:
    x, target = logits(dtype=dtype), labels("index", (6, CLASSES))
    kept, lost = (x.clone().requires_grad_() for _ in range(2))
    xent.cross_entropy(kept * 1, target).backward()
    computed = lost * 1
    xent.cross_entropy(computed, target, inplace_backward=True).backward()
    assert torch.equal(kept.grad, lost.grad)
    assert torch.equal(computed, lost.grad)
    computed = lost * 1
    part = computed[1:5, 3:]
    clean = computed.detach().clone()
    picked = target[1:5].clamp(max=CLASSES - 4)
    xent.cross_entropy(part, picked, inplace_backward=True).backward()
    assert torch.equal(computed[0], clean[0])
    assert torch.equal(computed[:, :3], clean[:, :3])
    assert not torch.equal(computed, clean)
    assert "logit_gradient" in calls


def test_deterministic_algorithms(calls) -> None:
    x, target = logits(), labels("index", (6, CLASSES))
    torch.use_deterministic_algorithms(True)
    try:
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        for leaf in leaves:
            xent.cross_entropy(leaf, target).backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(leaves[0].grad, leaves[1].grad)
    assert calls.count("logit_gradient") == 2


@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_compiled_whole(kind) -> None:
    x, target = logits(), labels(kind, (6, CLASSES))

    def loss(x: Tensor) -> Tensor:
        return xent.cross_entropy(x, target, label_smoothing=0.1)

    kept, leaf = (x.clone().requires_grad_() for _ in range(2))
    loss(kept).backward()
    torch.compiler.reset()
    value = torch.compile(loss, fullgraph=True, backend="aot_eager")(leaf)
    value.backward()
    torch.testing.assert_close(value, loss(kept), rtol=1e-5, atol=0)
    torch.testing.assert_close(leaf.grad, kept.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_the_operators_keep_torchs_promises(kind) -> None:
    pytest.importorskip("expecttest", reason="torch.library.opcheck imports it")
    x = logits(2, 7, 1).requires_grad_()
    index, q, w = None, None, (torch.rand(7) + 0.5).to(DEVICE)
    if kind == "index":
        index = torch.tensor([[1], [6]], device=DEVICE)
    else:
        q = labels("probabilities", (2, 7, 1)).requires_grad_()
    valid = torch.tensor([[True], [False]], device=DEVICE)
    torch.library.opcheck(compiled._statistics, (x, index, q, w, valid, True))
    vectors = launch.statistics(compiled.Rows(x, index, q, w, valid), True)
    one = torch.ones_like(vectors.rest)
    given = (one, one, one, None) if kind == "index" else (one, None, one, one)
    torch.library.opcheck(
        compiled._logit_gradient,
        (x.detach(), index, None if q is None else q.detach(), w, valid, vectors.maximum,
         vectors.rest, vectors.nll, vectors.mass, *given),
    )  # fmt: skip


# ---- who computes ----


def test_float64_is_left_to_torch(calls) -> None:
    x = logits().double()
    found = xent.explain_dispatch(x)
    assert found.backend == "torch"
    assert found.refusals["triton"] == "it computes in float32, and the logits are float64"
    target = labels("index", (6, CLASSES))
    torch.testing.assert_close(xent.cross_entropy(x, target), F.cross_entropy(x, target))
    assert not calls


def test_what_explain_dispatch_says() -> None:
    found = xent.explain_dispatch(logits())
    assert found.backend == "triton"
    assert str(found).startswith("triton (not numba: ")
    seen = []
    func.vmap(lambda x: seen.append(xent.explain_dispatch(x)) or x)(logits())
    assert (seen[0].backend, "transforming" in seen[0].refusals["triton"]) == ("torch", True)
    elsewhere = xent.explain_dispatch(torch.empty(3, 4, device="meta"))
    assert elsewhere.refusals["triton"] == "it computes on GPUs, and the logits are on meta"
    with xent.backend("torch"):
        assert "asks for another" in xent.explain_dispatch(logits()).refusals["triton"]
    assert "triton" in str(xent.explain_dispatch(logits(1)))  # few logits: asked for by name


def run(script: str, **environment: str) -> str:
    """What a script says in a process of its own, on a CPU."""
    settings = {**os.environ, "TRITON_INTERPRET": "1", **environment}
    settings["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={name: value for name, value in settings.items() if value},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


COMPUTES = """
    import torch, xent
    x, y = torch.randn(4, 40, requires_grad=True), torch.arange(4)
    found = xent.explain_dispatch(x)
    xent.cross_entropy(x, y).backward()
    expected = torch.nn.functional.cross_entropy(x, y)
    torch.testing.assert_close(xent.cross_entropy(x, y), expected)
    print(found)
"""


def test_the_environment_chooses() -> None:
    assert run(COMPUTES, XENT_BACKEND="triton").startswith("triton (")


def test_compiled_kernels_are_not_for_cpus() -> None:
    said = run(COMPUTES, XENT_BACKEND="triton", TRITON_INTERPRET="0")
    assert said.startswith("torch (")
    assert "not triton: it computes on GPUs, and the logits are on cpu" in said


WITHOUT = """
    import sys

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "triton":
                raise ModuleNotFoundError("No module named 'triton'", name="triton")

    sys.meta_path.insert(0, Missing())
"""


def test_a_process_without_triton_says_so() -> None:
    said = run(textwrap.dedent(WITHOUT) + textwrap.dedent(COMPUTES), XENT_BACKEND="triton")
    assert said.startswith("torch (")
    assert "not triton: it can't be imported: No module named 'triton'" in said
    assert run(textwrap.dedent(WITHOUT) + textwrap.dedent(COMPUTES)).startswith("numba (")


def test_triton_is_imported_when_it_is_needed() -> None:
    said = run("""
        import sys, torch, xent
        before = "triton" in sys.modules or "xent.backends.triton.launch" in sys.modules
        x = torch.randn(20, 40, requires_grad=True)
        xent.cross_entropy(x, torch.arange(20)).backward()
        xent.linear_cross_entropy(x, torch.randn(7, 40), torch.arange(20) % 7).backward()
        xent.explain_dispatch(x), xent.check_errors()
        print(before, "triton" in sys.modules or "xent.backends.triton.launch" in sys.modules)
    """)
    assert said.split() == ["False", "False"]


@pytest.mark.skipif(INTERPRETED, reason="without a device nothing is chosen by itself")
def test_tensors_of_a_device_are_tritons_by_themselves() -> None:
    script = "import torch, xent; print(xent.explain_dispatch(torch.randn(4, 9, device='cuda')))"
    assert run(script, TRITON_INTERPRET="").startswith("triton (not numba: it computes on CPUs")
