"""Every mode of autograd, torch.func, compilers and the other ways in which torch runs a loss."""

from __future__ import annotations

import copy
import io
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, func, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import derivatives
import xent
from derivatives import leaves, stepping_aside
from exactness import grad_output_for

pytestmark = derivatives.MARKS

# Ways of one computation may differ by the rounding of sums in another order: a few eps.
CLOSE = {"rtol": 16 * torch.finfo(torch.float64).eps, "atol": 16 * torch.finfo(torch.float64).eps}
SINGLE = {"rtol": 16 * torch.finfo(torch.float32).eps, "atol": 16 * torch.finfo(torch.float32).eps}

INDEX = torch.tensor([1, -100, 3])
IMAGE_INDEX = torch.tensor([[1, -100], [3, 0], [2, 2]])


def logits(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(shape or (3, 4), generator=random, dtype=dtype)


def labels(*shape: int, dim: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return logits(*shape, dtype=dtype, seed=2).softmax(dim)


def factors(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 3) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(shape or (4,), generator=random, dtype=dtype) + 0.25


def mixed(x: Tensor, q: Tensor, w: Tensor) -> Tensor:
    rows = xent.row_statistics(x, q, weight=w, uniform=True)
    return rows.lse.sin() * rows.uniform + rows.cross.square()


BINARY = xent.binary_cross_entropy_with_logits

DIFFERENTIATED: list[derivatives.Case] = [
    ("index", lambda x: xent.cross_entropy(x, INDEX), (logits(),)),
    ("one position", lambda x: xent.cross_entropy(x, torch.tensor(2)), (logits(4),)),
    ("image", lambda x: xent.cross_entropy(x, IMAGE_INDEX, reduction="sum"), (logits(3, 4, 2),)),
    (
        "index, weight, smoothing",
        lambda x, w: xent.cross_entropy(x, INDEX, w, label_smoothing=0.1),
        (logits(), factors()),
    ),
    (
        "index, weight, sample weight, none",
        lambda x, w, s: xent.cross_entropy(x, INDEX, w, reduction="none", sample_weight=s),
        (logits(), factors(), factors(3)),
    ),
    (
        "index, sample weight, on_empty, smoothing",
        lambda x, s: xent.cross_entropy(
            x, INDEX, sample_weight=s, on_empty="zero", label_smoothing=0.3
        ),
        (logits(), factors(3)),
    ),
    (
        "a denominator",
        lambda x, by: xent.cross_entropy(x, INDEX, denominator=by),
        (logits(), factors(1)[0]),
    ),
    (
        "probabilities, weight, smoothing",
        lambda x, q, w: xent.cross_entropy(x, q, w, label_smoothing=0.1),
        (logits(), labels(), factors()),
    ),
    (
        "probabilities of an image, denominator of weights",
        lambda x, q, w: xent.cross_entropy(x, q, w, denominator="weight"),
        (logits(2, 3, 2), labels(2, 3, 2), factors(3)),
    ),
    (
        "dense",
        lambda x, q, w: xent.dense_cross_entropy(x, q, w, label_smoothing=0.1),
        (logits(2, 2, 3), labels(2, 2, 3, dim=-1), factors(3)),
    ),
    ("dense, none", lambda x, q: xent.dense_cross_entropy(x, q, reduction="none"),
     (logits(), labels())),
    ("binary", lambda x, y: BINARY(x, y), (logits(), labels())),
    (
        "binary, weights, smoothing",
        lambda x, y, w, v: BINARY(x, y, w, pos_weight=v, label_smoothing=0.1, reduction="none"),
        (logits(), labels(), factors(3, 1), factors()),
    ),
    (
        "binary, ignored",
        lambda x, v: BINARY(x, torch.tensor([1, 0, -1, 1]), pos_weight=v, ignore_index=-1),
        (logits(4), factors(1)),
    ),
    ("lse", lambda x: xent.row_statistics(x).lse, (logits(),)),
    ("nll", lambda x: xent.row_statistics(x, INDEX).nll, (logits(),)),
    (
        "uniform",
        lambda x, w: xent.row_statistics(x, INDEX, weight=w, uniform=True).uniform,
        (logits(), factors()),
    ),
    (
        "cross",
        lambda x, q, w: xent.row_statistics(x, q, weight=w).cross,
        (logits(), labels(), factors()),
    ),
    ("a mix", mixed, (logits(), labels(), factors())),
]  # fmt: skip
each_loss = derivatives.each(DIFFERENTIATED)


@stepping_aside
class TestDerivatives:
    @each_loss
    def test_first_derivatives_are_numerical_ones_in_every_mode(self, function, tensors) -> None:
        assert derivatives.numerical_in_every_mode(function, tensors)

    @each_loss
    def test_second_derivatives_are_numerical_ones_in_every_mode(self, function, tensors) -> None:
        assert torch.autograd.gradgradcheck(
            function,
            leaves(tensors),
            check_fwd_over_rev=True,
            check_rev_over_rev=True,
            check_batched_grad=True,
        )

    @each_loss
    def test_second_derivatives_agree_between_modes(self, function, tensors) -> None:
        modes = func.jacfwd, func.jacrev
        ways = [derivatives.nested(outer, inner) for outer in modes for inner in modes]
        derivatives.assert_second_derivatives_agree(function, tensors, ways)

    @each_loss
    def test_dual_tensors_carry_the_directional_derivative(self, function, tensors) -> None:
        derivatives.assert_dual_tensors_carry_the_directional_derivative(
            function, tensors, func.vjp, CLOSE, {"rtol": 1e-13, "atol": 1e-13}
        )

    @each_loss
    def test_a_second_backward_gives_the_same_gradients(self, function, tensors) -> None:
        inputs = leaves(tensors)
        loss = function(*inputs)
        gradient = grad_output_for(loss)
        first = torch.autograd.grad(loss, inputs, gradient, retain_graph=True)
        copies = [g.clone() for g in first]
        again = torch.autograd.grad(loss, inputs, gradient)
        assert all(torch.equal(a, b) for a, b in zip(copies, again, strict=True))

    @each_loss
    def test_gradients_are_linear_in_grad_output(self, function, tensors) -> None:
        inputs = leaves(tensors)
        loss = function(*inputs)
        gradient = grad_output_for(loss)
        whole = torch.autograd.grad(loss, inputs, gradient, retain_graph=True)
        parts = [torch.zeros_like(t) for t in inputs]
        for i, factor in enumerate(gradient.flatten()):
            one = torch.zeros(loss.numel(), dtype=loss.dtype)
            one[i] = 1
            of_one = torch.autograd.grad(loss, inputs, one.view_as(loss), retain_graph=True)
            parts = [p + factor * g for p, g in zip(parts, of_one, strict=True)]
        torch.testing.assert_close(list(whole), parts, **CLOSE)

    @pytest.mark.parametrize("left_out", ["ignore_index", "sample_weight"])
    def test_positions_left_out_are_inert_in_every_mode(self, left_out) -> None:
        x = logits()
        x[1] = torch.nan

        s = torch.tensor([1.0, 0.0, 1.0])

        def loss(x):
            if left_out == "ignore_index":
                return xent.cross_entropy(x, INDEX, label_smoothing=0.1)
            return xent.cross_entropy(x, INDEX.clamp(min=0), label_smoothing=0.1, sample_weight=s)

        for derivative in (func.jacrev, func.jacfwd):
            assert derivative(loss)(x).isfinite().all()
            assert torch.equal(derivative(loss)(x)[1], torch.zeros(4, dtype=torch.float64))


SOFTMAX_HESSIANS = {
    "hessian": func.hessian,
    "jacfwd(jacfwd)": lambda f: func.jacfwd(func.jacfwd(f)),
    "jacrev(jacrev)": lambda f: func.jacrev(func.jacrev(f)),
    "jacrev(jacfwd)": lambda f: func.jacrev(func.jacfwd(f)),
    "jacfwd(grad)": lambda f: func.jacfwd(func.grad(f)),
    "autograd.functional": lambda f: lambda x: torch.autograd.functional.hessian(f, x),
}
ROW_LABELS = labels(4, dim=0)
ONE_ROW_LOSSES = {
    "index": lambda x: xent.cross_entropy(x, torch.tensor(1)),
    "probabilities": lambda x: xent.cross_entropy(x, ROW_LABELS),
    "smoothing": lambda x: xent.cross_entropy(x, torch.tensor(1), label_smoothing=0.2),
    "lse": lambda x: xent.row_statistics(x).lse,
}


@stepping_aside
class TestFunctionTransforms:
    @pytest.mark.parametrize("mode", SOFTMAX_HESSIANS)
    @pytest.mark.parametrize("loss", ONE_ROW_LOSSES)
    def test_the_hessian_is_diag_p_minus_p_pT(self, loss, mode) -> None:  # noqa: N802  # transpose
        x = logits(4)
        p = x.softmax(0)
        hessian = SOFTMAX_HESSIANS[mode](ONE_ROW_LOSSES[loss])(x)
        torch.testing.assert_close(hessian, p.diag() - p.outer(p), **CLOSE)

    @pytest.mark.parametrize("outer", [func.jacfwd, func.jacrev])
    @pytest.mark.parametrize("middle", [func.jacfwd, func.jacrev])
    @pytest.mark.parametrize("inner", [func.jacfwd, func.jacrev])
    def test_third_derivatives_are_those_of_log_sum_exp(self, inner, middle, outer) -> None:
        def third(f):
            return outer(middle(inner(f)))(logits(4))

        expected = third(lambda x: torch.logsumexp(x, 0))
        for loss in ONE_ROW_LOSSES.values():
            torch.testing.assert_close(third(loss), expected, rtol=1e-12, atol=1e-14)

    @pytest.mark.parametrize("axis", [0, 1, 2, -1])
    @pytest.mark.parametrize("target", ["index", "probabilities"])
    def test_vmap_over_logits_is_a_loop(self, axis, target) -> None:
        batch = logits(5, 3, 4)
        y, w = INDEX if target == "index" else labels(), factors()

        def loss(x):
            return xent.cross_entropy(x, y, w, label_smoothing=0.1)

        expected = torch.stack([loss(x) for x in batch])
        mapped = func.vmap(loss, in_dims=axis)(batch.movedim(0, axis))
        torch.testing.assert_close(mapped, expected, **CLOSE)

    @pytest.mark.parametrize("in_dims", [(None, 1, None), (0, None, None), (0, 1, None),
                                         (None, None, 1), (0, 1, 1)])  # fmt: skip
    @pytest.mark.parametrize("target", ["index", "probabilities"])
    def test_vmap_over_any_argument_is_a_loop(self, in_dims, target) -> None:
        y = torch.tensor([[1, 3, 0, 2, 2], [-100, 1, -100, 0, 3], [0, 0, 1, 1, -100]])
        if target == "probabilities":
            y = labels(3, 5, 4, dim=-1)
        arguments = (logits(5, 3, 4), y, factors(4, 5))
        arguments = tuple(
            t if d is not None else t.select(i, 0)
            for t, d, i in zip(arguments, in_dims, (0, 1, 1), strict=True)
        )

        def loss(x, y, w):
            return xent.cross_entropy(x, y, w, label_smoothing=0.1, reduction="none")

        expected = torch.stack(
            [
                loss(*(t if d is None else t.select(d, i)
                       for t, d in zip(arguments, in_dims, strict=True)))
                for i in range(5)
            ]
        )  # fmt: skip
        torch.testing.assert_close(func.vmap(loss, in_dims)(*arguments), expected, **CLOSE)

    def test_vmap_over_sample_weights_and_denominators_is_a_loop(self) -> None:
        x, s, by = logits(), factors(3, 5), factors(5)

        def loss(s, by):
            return xent.cross_entropy(x, INDEX, sample_weight=s, denominator=by)

        expected = torch.stack([loss(s[:, i], by[i]) for i in range(5)])
        torch.testing.assert_close(func.vmap(loss, in_dims=(1, 0))(s, by), expected, **CLOSE)

    def test_nested_vmap_is_a_loop(self) -> None:
        x, y = logits(5, 3, 4), torch.tensor([0, 3, 1])
        inner = func.vmap(xent.cross_entropy, in_dims=(0, 0))
        expected = torch.stack([xent.cross_entropy(row, y, reduction="none") for row in x])
        torch.testing.assert_close(func.vmap(inner, (0, None))(x, y), expected, **CLOSE)

    @pytest.mark.parametrize("name", ["index", "probabilities"])
    def test_gradients_per_sample_are_those_of_each_sample(self, name) -> None:
        x = logits(6, 4)
        y = torch.tensor([0, 1, 2, 3, -100, 1]) if name == "index" else labels(6, 4)

        def loss(x, y):
            return xent.cross_entropy(x, y, reduction="sum", label_smoothing=0.1)

        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(loss(leaf, y), leaf)
        torch.testing.assert_close(func.vmap(func.grad(loss))(x, y), expected, **CLOSE)

    def test_binary_gradients_per_sample_are_those_of_each_sample(self) -> None:
        x, y = logits(6, 4), labels(6, 4)
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(BINARY(leaf, y, reduction="sum"), leaf)
        per_sample = func.vmap(func.grad(lambda x, y: BINARY(x, y, reduction="sum")))(x, y)
        torch.testing.assert_close(per_sample, expected, **CLOSE)

    @each_loss
    def test_the_jacobian_is_the_same_forwards_and_backwards(self, function, tensors) -> None:
        argnums = tuple(range(len(tensors)))
        forwards = func.jacfwd(function, argnums)(*tensors)
        torch.testing.assert_close(func.jacrev(function, argnums)(*tensors), forwards, **CLOSE)

    def test_per_sample_gradients_of_a_model_through_functional_call(self) -> None:
        model = nn.Sequential(
            nn.Linear(4, 3, dtype=torch.float64), Criterion(xent.CrossEntropyLoss())
        )
        parameters = dict(model[0].named_parameters())
        x, y = logits(5, 4), torch.tensor([0, 1, 2, 0, -100])

        def loss(parameters, x, y):
            scores = func.functional_call(model[0], parameters, (x[None],))
            return xent.cross_entropy(scores, y[None], reduction="sum")

        per_sample = func.vmap(func.grad(loss), (None, 0, 0))(parameters, x, y)
        whole = func.grad(lambda p: xent.cross_entropy(
            func.functional_call(model[0], p, (x,)), y, reduction="sum"))(parameters)  # fmt: skip
        for name, gradient in whole.items():
            torch.testing.assert_close(per_sample[name].sum(0), gradient, **CLOSE)
        assert torch.equal(per_sample["weight"][4], torch.zeros(3, 4, dtype=torch.float64))

    def test_make_fx_traces_the_gradient(self) -> None:
        gradient = func.grad(lambda x: xent.cross_entropy(x, INDEX, label_smoothing=0.1))
        traced = make_fx(gradient)(logits())
        other = logits(seed=7)
        torch.testing.assert_close(traced(other), gradient(other), **CLOSE)


class Criterion(nn.Module):
    """A model that ends in its loss."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return self.loss(input, target)


X = logits(3, 4, 2, dtype=torch.float32)
Q = labels(3, 4, 2, dtype=torch.float32)
W = factors(4, dtype=torch.float32)
S = factors(3, 2, dtype=torch.float32)

COMPILED: dict[str, Callable[..., Tensor]] = {
    "index": lambda x: xent.cross_entropy(x, IMAGE_INDEX),
    "none": lambda x: xent.cross_entropy(x, IMAGE_INDEX, reduction="none"),
    "weight, smoothing, ignored": lambda x: xent.cross_entropy(
        x, IMAGE_INDEX, W, ignore_index=(-100, 2), label_smoothing=0.1
    ),
    "probabilities": lambda x: xent.cross_entropy(x, Q, W, label_smoothing=0.1),
    "sample weight, valid": lambda x: xent.cross_entropy(
        x, IMAGE_INDEX, sample_weight=S, denominator="valid", on_empty="zero"
    ),
    "denominator of weights": lambda x: xent.cross_entropy(x, Q, W, denominator="weight"),
    "denominator batch, dtype": lambda x: xent.cross_entropy(
        x, IMAGE_INDEX, denominator="batch", dtype=torch.float64
    ),
    "a number": lambda x: xent.cross_entropy(x, IMAGE_INDEX, denominator=7),
    "a tensor": lambda x: xent.cross_entropy(x, IMAGE_INDEX, denominator=torch.tensor(7.0)),
    "last axis": lambda x: xent.cross_entropy(x.mT, IMAGE_INDEX, dim=-1),
    "int32": lambda x: xent.cross_entropy(x, IMAGE_INDEX.int()),
    "deprecated": lambda x: xent.cross_entropy(x, IMAGE_INDEX, reduce=False),
    "dense": lambda x: xent.dense_cross_entropy(x.mT, Q.mT),
    "binary": lambda x: BINARY(x, Q, label_smoothing=0.1),
    "binary, weights": lambda x: BINARY(x, Q, S[0], pos_weight=W[:, None]),
    "binary, weights made in the graph": lambda x: BINARY(x, Q, pos_weight=torch.ones(4, 2)),
    "binary, ignored": lambda x: BINARY(x, (Q > 0.5).long(), ignore_index=1),
    "statistics": lambda x: xent.row_statistics(x, IMAGE_INDEX, dim=1, uniform=True).uniform,
}
MODULES: dict[str, tuple[nn.Module, Tensor]] = {
    "CrossEntropyLoss": (xent.CrossEntropyLoss(), IMAGE_INDEX),
    "CrossEntropyLoss, options": (
        xent.CrossEntropyLoss(W, ignore_index=(-100, 2), label_smoothing=0.1, on_empty="zero"),
        IMAGE_INDEX,
    ),
    "CrossEntropyLoss, probabilities": (xent.CrossEntropyLoss(W, label_smoothing=0.1), Q),
    "DenseCrossEntropyLoss": (xent.DenseCrossEntropyLoss(factors(2).float()), Q),
    "BCEWithLogitsLoss": (xent.BCEWithLogitsLoss(label_smoothing=0.1), Q),
    "BCEWithLogitsLoss, weights": (xent.BCEWithLogitsLoss(S[0], pos_weight=W[:, None]), Q),
}
each_module = pytest.mark.parametrize(("module", "target"), MODULES.values(), ids=MODULES)


def value_and_gradient(function: Callable[..., Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    loss = function(leaf)
    (gradient,) = torch.autograd.grad(loss, leaf, grad_output_for(loss).to(loss.dtype))
    return loss.detach(), gradient


def assert_compiles(function: Callable[..., Tensor], x: Tensor, **options: Any) -> None:
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, **options)
    torch.testing.assert_close(value_and_gradient(compiled, x), value_and_gradient(function, x),
                               **SINGLE)  # fmt: skip


class TestCompilers:
    @pytest.mark.filterwarnings("ignore:size_average and reduce args:UserWarning")
    @pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
    @pytest.mark.parametrize("name", COMPILED)
    def test_functions_compile_to_one_graph(self, name, dynamic) -> None:
        assert_compiles(COMPILED[name], X, backend="aot_eager", dynamic=dynamic)

    @pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
    @each_module
    def test_modules_compile_to_one_graph(self, module, target, dynamic) -> None:
        assert_compiles(lambda x: module(x, target), X, backend="aot_eager", dynamic=dynamic)

    @pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"denominator": "batch"}])
    def test_a_dynamic_graph_serves_other_sizes(self, options) -> None:
        torch.compiler.reset()
        loss = torch.compile(
            xent.CrossEntropyLoss(**options), fullgraph=True, backend="aot_eager", dynamic=True
        )
        expected = xent.CrossEntropyLoss(**options)
        with torch.compiler.set_stance(skip_guard_eval_unsafe=False):
            for size in (3, 5, 8):
                x, y = logits(size, 4), torch.arange(size) % 4
                torch.testing.assert_close(loss(x, y), expected(x, y), **CLOSE)

    @pytest.mark.parametrize(
        "transform", ["grad", "jvp", "vmap", "per-sample grad", "hessian", "jvp of grad"]
    )
    def test_function_transforms_compile(self, transform) -> None:
        if transform in ("per-sample grad", "hessian", "jvp of grad") and torch.__version__ < (
            2,
            13,
        ):
            pytest.skip("the compiler of this release does not see that transforms are nested")

        def loss(x):
            return xent.cross_entropy(x, INDEX, label_smoothing=0.1)

        functions = {
            "grad": func.grad(loss),
            "jvp": lambda x: func.jvp(loss, (x,), (x.cos(),))[1],
            "vmap": lambda x: func.vmap(loss)(torch.stack([x, 2 * x])),
            "per-sample grad": lambda x: func.vmap(func.grad(loss))(torch.stack([x, 2 * x])),
            "hessian": func.hessian(loss),
            "jvp of grad": lambda x: func.jvp(func.grad(loss), (x,), (x.cos(),))[1],
        }
        torch.compiler.reset()
        compiled = torch.compile(functions[transform], fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(logits()), functions[transform](logits()), **CLOSE)

    def test_a_compiled_loss_keeps_the_backward_that_is_written_by_hand(self, backend) -> None:
        targets = []

        def compiler(graph, _):
            targets.extend(str(node.target) for node in graph.graph.nodes)
            return graph

        torch.compiler.reset()
        torch.compile(xent.CrossEntropyLoss(), backend=compiler)(logits().requires_grad_(), INDEX)
        kept = "xent.row_statistics" if backend == "numba" else "autograd_function_apply"
        assert any(kept in target for target in targets)

    @pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
    def test_inductor_gives_the_eager_loss_and_gradient(self) -> None:
        assert_compiles(COMPILED["weight, smoothing, ignored"], X)

    @each_module
    def test_modules_export(self, module, target) -> None:
        exported = torch.export.export(Criterion(module), (X, target)).module()
        torch.testing.assert_close(exported(X, target), module(X, target), **SINGLE)

    def test_an_exported_program_serves_other_batch_sizes(self) -> None:
        module, batch = xent.CrossEntropyLoss(label_smoothing=0.1), torch.export.Dim("batch")
        example = (logits(6, 4), torch.tensor([0, 1, 2, 3, -100, 1]))
        program = torch.export.export(
            Criterion(module), example, dynamic_shapes=({0: batch}, {0: batch})
        )
        other = (logits(9, 4), torch.arange(9) % 4)
        torch.testing.assert_close(program.module()(*other), module(*other), **CLOSE)


# A trace asks about shapes, which a traced graph keeps as they were; it does no harm here, and
# torch.jit.trace is deprecated anyway.
traced = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


@stepping_aside
class TestTorchScript:
    @traced
    @each_module
    def test_a_traced_loss_survives_saving_and_serves_other_sizes(self, module, target) -> None:
        stored = io.BytesIO()
        torch.jit.save(torch.jit.trace(Criterion(module), (X, target)), stored)
        stored.seek(0)
        loaded = torch.jit.load(stored)
        more = torch.cat([X, -X]), torch.cat([target, target])
        torch.testing.assert_close(
            value_and_gradient(lambda x: loaded(x, more[1]), more[0]),
            value_and_gradient(lambda x: module(x, more[1]), more[0]),
            **SINGLE,
        )

    @traced
    def test_a_trace_without_ignored_positions_ignores_those_that_come_later(self) -> None:
        module = xent.CrossEntropyLoss(label_smoothing=0.1)
        loss = torch.jit.trace(Criterion(module), (X, IMAGE_INDEX.clamp(min=0)))
        torch.testing.assert_close(loss(X, IMAGE_INDEX), module(X, IMAGE_INDEX), **SINGLE)

    @pytest.mark.parametrize(
        ("module", "target"),
        [
            (xent.CrossEntropyLoss(W, label_smoothing=0.1, reduction="sum"), IMAGE_INDEX),
            (xent.CrossEntropyLoss(ignore_index=3), IMAGE_INDEX.clamp(min=0)),
            (xent.BCEWithLogitsLoss(S[0], pos_weight=W[:, None]), Q),
        ],
        ids=["weight", "ignored", "binary"],
    )
    def test_a_scripted_model_gets_torchs_loss_and_a_warning(self, module, target) -> None:
        with pytest.warns(UserWarning, match=f"TorchScript puts torch.nn.{type(module).__name__}"):
            scripted = torch.jit.script(Criterion(module))
        # torch's float32 loses eps times the logits' size and the number of positions
        torch.testing.assert_close(scripted(X, target), module(X, target), rtol=1e-6, atol=0)

    @pytest.mark.parametrize(
        "module",
        [
            xent.CrossEntropyLoss(dim=-1),
            xent.CrossEntropyLoss(denominator="valid"),
            xent.CrossEntropyLoss(denominator=torch.tensor(2.0)),
            xent.CrossEntropyLoss(on_empty="zero"),
            xent.CrossEntropyLoss(dtype=torch.float32),
            xent.CrossEntropyLoss(ignore_index=(0, 1)),
            xent.DenseCrossEntropyLoss(),
            xent.BCEWithLogitsLoss(ignore_index=1),
            xent.BCEWithLogitsLoss(label_smoothing=0.1),
        ],
        ids=repr,
    )
    def test_options_that_torch_lacks_refuse_to_be_scripted(self, module) -> None:
        with pytest.raises(NotImplementedError, match=r"cannot be scripted.*torch\.compile"):
            torch.jit.script(Criterion(module))


@stepping_aside
class TestWithoutValues:
    @each_module
    def test_meta_tensors_have_a_loss_and_a_gradient_of_the_right_kind(
        self, module, target
    ) -> None:
        x = X.to("meta").requires_grad_()
        loss = copy.deepcopy(module).to("meta")(x, target.to("meta"))
        (gradient,) = torch.autograd.grad(loss, x)
        real, slope = value_and_gradient(lambda x: module(x, target), X)
        assert (loss.shape, loss.dtype, loss.device.type) == (real.shape, real.dtype, "meta")
        assert (gradient.shape, gradient.stride()) == (slope.shape, slope.stride())

    @each_module
    def test_fake_tensors_have_a_loss_and_a_gradient(self, module, target) -> None:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            x = mode.from_tensor(X).requires_grad_()
            loss = module(x, mode.from_tensor(target))
            (gradient,) = torch.autograd.grad(loss, x)
        assert (loss.shape, gradient.shape) == ((), X.shape)


class TestSurroundings:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    @each_module
    def test_autocast_gives_a_float32_loss_and_gradients_in_the_dtype_of_leaves(
        self, module, target, dtype
    ) -> None:
        x = X.detach().clone().to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = module(x, target)
        (gradient,) = torch.autograd.grad(loss, x, torch.tensor(0.75))
        assert (loss.dtype, gradient.dtype) == (torch.float32, dtype)
        expected, slope = value_and_gradient(lambda x: module(x, target), x.detach().float())
        torch.testing.assert_close(loss.detach(), expected, **SINGLE)
        eps = torch.finfo(dtype).eps  # the gradient is rounded once, to the dtype of the leaf
        torch.testing.assert_close(gradient.float(), slope, rtol=eps, atol=SINGLE["atol"])

    def test_autocast_of_a_model_trains_its_float32_weights(self) -> None:
        layer = nn.Linear(4, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = layer(logits(3, 4, dtype=torch.float32))
            loss = xent.cross_entropy(scores, INDEX, W)
        assert (scores.dtype, loss.dtype) == (torch.bfloat16, torch.float32)
        loss.backward()
        assert layer.weight.grad.dtype == torch.float32
        assert layer.weight.grad.isfinite().all()

    @each_module
    def test_a_deep_copy_is_independent(self, module, target) -> None:
        expected, twin = module(X, target), copy.deepcopy(module)
        for buffer in twin.buffers():
            buffer.mul_(3).add_(torch.arange(buffer.numel()).view_as(buffer))
        assert torch.equal(module(X, target), expected)
        assert list(twin.buffers()) == [] or not torch.equal(twin(X, target), expected)

    @pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
    @each_module
    def test_the_loss_is_the_same_where_no_gradient_is_wanted(self, module, target, mode) -> None:
        with mode():
            loss = module(X, target)
        assert not loss.requires_grad
        assert torch.equal(loss, module(X, target))

    @pytest.mark.parametrize("use_reentrant", [False, True])
    @each_module
    def test_a_checkpointed_loss_has_the_same_gradient(self, module, target, use_reentrant) -> None:
        leaf = X.clone().requires_grad_()
        loss = checkpoint(module, leaf, target, use_reentrant=use_reentrant)
        loss.backward(torch.tensor(0.75))  # a reentrant checkpoint knows backward() only
        expected, gradient = value_and_gradient(lambda x: module(x, target), X)
        assert torch.equal(loss.detach(), expected)
        assert torch.equal(leaf.grad, gradient)

    @each_module
    def test_gradients_accumulate_over_backwards(self, module, target) -> None:
        leaf = X.clone().requires_grad_()
        for _ in range(2):
            module(leaf, target).backward(torch.tensor(0.75))
        _, gradient = value_and_gradient(lambda x: module(x, target), X)
        assert torch.equal(leaf.grad, 2 * gradient)

    @each_module
    def test_logits_and_labels_are_left_as_they_were(self, module, target) -> None:
        x, y = X.clone(), target.clone()
        value_and_gradient(lambda x: module(x, y), x)
        assert torch.equal(x, X)
        assert torch.equal(y, target)
