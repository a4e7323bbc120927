"""Who computes: what is asked for, what can be had, and that nobody can tell the difference."""

from __future__ import annotations

import logging
import textwrap
import threading

import pytest
import torch
from torch import Tensor, func

import xent
from test_memory import run
from xent.backends.numba import launch
from xent.statistics import compiled

X = 3 * torch.randn(20, 50, generator=torch.Generator().manual_seed(1))
TARGET = torch.arange(20)
SINGLE = {"rtol": 16 * torch.finfo(torch.float32).eps, "atol": 16 * torch.finfo(torch.float32).eps}


def chosen(input: Tensor = X) -> str:
    return xent.explain_dispatch(input).backend


# ---- what is asked for ----


@pytest.mark.parametrize("name", ["Numba", "cuda", "", "auto"])
def test_an_unknown_name_is_refused_with_those_that_there_are(name) -> None:
    expected = "expected 'numba', 'torch' or 'triton'"
    with pytest.raises(ValueError, match=expected), xent.backend(name):
        pass
    assert chosen() == "numba"


def test_choices_nest() -> None:
    with xent.backend("torch"):
        assert chosen() == "torch"
        with xent.backend("numba"):
            assert chosen() == "numba"
        assert chosen() == "torch"
    assert chosen() == "numba"


def test_a_choice_ends_with_its_block_though_that_raises() -> None:
    with pytest.raises(KeyError), xent.backend("torch"):
        raise KeyError
    assert chosen() == "numba"


def test_a_choice_belongs_to_a_thread() -> None:
    seen = []
    with xent.backend("torch"):
        thread = threading.Thread(target=lambda: seen.append(chosen()))
        thread.start()
        thread.join()
    assert seen == ["numba"]


def test_a_backward_follows_the_choice_around_it(monkeypatch) -> None:
    calls = []
    kernel = launch.logit_gradient
    monkeypatch.setattr(
        launch, "logit_gradient", lambda *a, **k: calls.append(1) or kernel(*a, **k)
    )
    leaf = X.clone().requires_grad_()
    loss = xent.cross_entropy(leaf, TARGET, reduction="none").sum()
    with xent.backend("torch"):
        loss.backward(retain_graph=True)
    assert not calls
    loss.backward()
    assert calls


@pytest.mark.parametrize("name", ["numba", "torch"])
def test_the_environment_chooses_for_a_process(name) -> None:
    script = f"""
    import torch, xent
    assert xent.explain_dispatch(torch.randn(1, 4)).backend == {name!r}
    with xent.backend("torch"):
        assert xent.explain_dispatch(torch.randn(1, 4)).backend == "torch"
    xent.cross_entropy(torch.randn(3, 4), torch.tensor([0, 1, 2]))
    """
    run(textwrap.dedent(script), XENT_BACKEND=name)


def test_a_wrong_environment_is_named_in_the_error() -> None:
    script = "import torch, xent; xent.cross_entropy(torch.randn(3, 4), torch.tensor([0, 1, 2]))"
    with pytest.raises(AssertionError, match="XENT_BACKEND: expected 'numba', 'torch' or 'triton'"):
        run(script, XENT_BACKEND="cuda")


# ---- what can be had ----


def test_few_logits_are_left_to_torch_unless_numba_is_asked_for() -> None:
    few = torch.randn(3, 4)
    assert "fewer than" in xent.explain_dispatch(few).refusals["numba"]
    with xent.backend("numba"):
        assert chosen(few) == "numba"
        assert xent.explain_dispatch(few[:0]).refusals["numba"] == "there are no logits"


def test_logits_elsewhere_are_left_to_torch() -> None:
    assert "on meta" in xent.explain_dispatch(X.to("meta")).refusals["numba"]
    with xent.backend("numba"):
        assert chosen(X.to("meta")) == "torch"


def test_transformed_logits_are_left_to_torch() -> None:
    seen = []
    for transform in (func.vmap, func.grad):

        def look(x: Tensor) -> Tensor:
            seen.append(xent.explain_dispatch(x))
            return x.sum()

        transform(look)(X)
    assert [s.backend for s in seen] == ["torch", "torch"]
    assert all("transforming" in s.refusals["numba"] for s in seen)


def test_an_explanation_is_one_line() -> None:
    assert str(xent.explain_dispatch(X)).startswith("numba (not torch: ")
    with xent.backend("torch"):
        assert str(xent.explain_dispatch(X)).startswith("torch (not numba: backend(")


def test_the_log_says_who_computes_and_why(caplog) -> None:
    with caplog.at_level(logging.DEBUG, logger="xent"):
        xent.cross_entropy(X, TARGET, reduction="none")
        with xent.backend("torch"):
            xent.cross_entropy(X, TARGET, reduction="none")
    said = [r.getMessage() for r in caplog.records if r.name == "xent"]
    assert any("(20, 50, 1) torch.float32: numba" in line for line in said)
    assert any("(20, 50, 1) torch.float32: torch (not numba: " in line for line in said)


def test_the_log_has_a_line_for_a_small_batch_in_the_usual_form(caplog) -> None:
    with caplog.at_level(logging.DEBUG, logger="xent"):
        xent.cross_entropy(X, TARGET)
    assert [r for r in caplog.records if r.name == "xent"]


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numba", "llvmlite"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import torch, xent
x, y = torch.randn(20, 50, requires_grad=True), torch.arange(20)
"""


@pytest.mark.parametrize("asked_for", ["", "numba"])
def test_without_numba_torch_computes_and_says_why(asked_for) -> None:
    script = WITHOUT + """
for reduction in ("mean", "none"):
    xent.cross_entropy(x, y, reduction=reduction).sum().backward()
expected = torch.nn.functional.cross_entropy
torch.testing.assert_close(xent.cross_entropy(x, y), expected(x, y))
choice = xent.explain_dispatch(x)
assert choice.backend == "torch"
assert "can't be imported" in choice.refusals["numba"], choice
assert "numba" in choice.refusals["numba"] or "llvmlite" in choice.refusals["numba"]
assert xent.empty_cache() == 0
"""  # fmt: skip
    run(script, XENT_BACKEND=asked_for)


def test_importing_xent_loads_no_numba_and_a_loss_of_torchs_does_not_either() -> None:
    script = """
    import sys, torch, xent
    assert "numba" not in sys.modules
    with xent.backend("torch"):
        xent.cross_entropy(torch.randn(20, 50), torch.arange(20))
    assert "numba" not in sys.modules
    xent.cross_entropy(torch.randn(20, 50), torch.arange(20))
    assert "numba" in sys.modules
    """
    run(script, XENT_BACKEND="")


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_default_device_does_not_move_the_computation(reduction) -> None:
    expected = xent.cross_entropy(X, TARGET, reduction=reduction)
    leaf = X.clone().requires_grad_()
    with torch.device("meta"):
        loss = xent.cross_entropy(leaf, TARGET, reduction=reduction)
        (gradient,) = torch.autograd.grad(loss, leaf, torch.ones_like(loss))
    assert torch.equal(loss, expected)
    assert gradient.device.type == "cpu"


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_default_dtype_does_not_change_the_computation(dtype, reduction) -> None:
    expected = xent.cross_entropy(X, TARGET, reduction=reduction, label_smoothing=0.1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        loss = xent.cross_entropy(X, TARGET, reduction=reduction, label_smoothing=0.1)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(loss, expected)


# ---- the operators of compiled code ----


def operands(kind: str, weighted: bool) -> tuple[Tensor | None, ...]:
    """Rows of logits with 4 positions of 70 classes, as the operators take them."""
    logits = torch.randn(2, 70, 2, dtype=torch.float64).requires_grad_()
    target = torch.randint(70, (2, 2)) if kind == "index" else None
    q = torch.randn(2, 70, 2).double().softmax(1).requires_grad_() if target is None else None
    weight = torch.rand(70).double().requires_grad_() if weighted else None
    return logits, target, q, weight, torch.tensor([[True, False], [True, True]])


@pytest.mark.filterwarnings("ignore")  # torch's own, of its tests of operators
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_the_operator_of_statistics_is_what_torch_expects(kind, weighted) -> None:
    with xent.backend("numba"):
        torch.library.opcheck(compiled._statistics, (*operands(kind, weighted), weighted))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_the_operator_of_the_gradient_is_what_torch_expects(kind) -> None:
    rows = [t if t is None else t.detach() for t in operands(kind, False)]
    with xent.backend("numba"):
        maximum, rest, nll, *_ = (t.detach() for t in compiled._statistics(*rows, False))
        ones = torch.ones_like(rest)
        last = (nll, None, None, ones, None, None)
        if kind == "probabilities":
            last = (None, None, None, None, None, ones)
        torch.library.opcheck(compiled._logit_gradient, (*rows, maximum, rest, *last))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiled_code_has_the_loss_and_the_gradient_of_eager_code(reduction) -> None:
    def loss(x: Tensor) -> Tensor:
        return xent.cross_entropy(x, TARGET, label_smoothing=0.1, reduction=reduction).sum()

    torch.compiler.reset()
    results = []
    for function in (torch.compile(loss, fullgraph=True, backend="aot_eager"), loss):
        leaf = X.clone().requires_grad_()
        value = function(leaf)
        results.append((value.detach(), *torch.autograd.grad(value, leaf, torch.tensor(0.75))))
    torch.testing.assert_close(*results, **SINGLE)


# ---- derivatives of what a kernel computed ----


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_second_derivatives_of_what_kernels_computed_are_numerical_ones(reduction) -> None:
    x = torch.randn(3, 22, dtype=torch.float64).requires_grad_()
    y = torch.tensor([0, -100, 21])
    assert chosen(x) == "numba"
    assert torch.autograd.gradgradcheck(lambda x: xent.cross_entropy(x, y, reduction=reduction), x)


def test_a_jacobian_of_many_rows_is_diagonal_in_positions() -> None:
    jacobian = func.jacrev(lambda x: xent.cross_entropy(x, TARGET, reduction="none"))(X)
    gradient = func.grad(lambda x: xent.cross_entropy(x, TARGET, reduction="sum"))(X)
    torch.testing.assert_close(jacobian.diagonal(dim1=0, dim2=1).T, gradient, **SINGLE)
    assert jacobian.count_nonzero() == gradient.count_nonzero()
    mapped = func.vmap(xent.cross_entropy)(X, TARGET)
    torch.testing.assert_close(mapped, xent.cross_entropy(X, TARGET, reduction="none"), **SINGLE)
