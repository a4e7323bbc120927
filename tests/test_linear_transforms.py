"""Every mode of autograd, torch.func, compilers and the other ways in which torch runs a loss."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, func, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

import derivatives
import xent
from composition import Arguments, example, loss_and_gradients, truth
from derivatives import leaves, stepping_aside

pytestmark = derivatives.MARKS

CLOSE = {"rtol": 1e-12, "atol": 1e-13}  # float64; sums of some hundred products
SINGLE = {"rtol": 4e-6, "atol": 4e-6}
AT = ["input", "linear_weight", "linear_bias"]
ROWS = 3 * 4 * 8
"""Bytes of two chunks: three rows of four, then the rest."""

generator = torch.Generator().manual_seed(4)


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


X, W, B = numbers(5, 3), numbers(4, 3), numbers(4)
V, S = numbers(4).exp(), numbers(5).exp()
Q = numbers(5, 4).softmax(1)
INDEX = torch.tensor([1, -100, 3, 0, 2])
WK, QK = numbers(4, 2, 3), numbers(5, 4, 2).softmax(1)
INDEX_K = torch.tensor([[1, -100], [3, 0], [2, 2], [-100, -100], [0, 1]])
LOSS = xent.linear_cross_entropy
STATISTICS = xent.linear_row_statistics


def mixed(x: Tensor, w: Tensor, q: Tensor, v: Tensor) -> Tensor:
    of = STATISTICS(x, w, q, weight=v, uniform=True, predictions=True, chunk_bytes=ROWS)
    return of.lse.sin() * of.uniform + of.cross.square() + of.entropy.exp()


DIFFERENTIATED: list[derivatives.Case] = [
    ("index", lambda x, w, b: LOSS(x, w, INDEX, linear_bias=b, chunk_bytes=ROWS), (X, W, B)),
    ("sum", lambda x, w: LOSS(x, w, INDEX, reduction="sum", chunk_bytes=ROWS), (X, W)),
    ("none", lambda x, w: LOSS(x, w, INDEX, reduction="none", chunk_bytes=ROWS), (X, W)),
    ("frozen classifier", lambda x: LOSS(x, W, INDEX, chunk_bytes=ROWS), (X,)),
    ("frozen hidden states", lambda w: LOSS(X, w, INDEX, chunk_bytes=ROWS), (W,)),
    ("one position", lambda x, w: LOSS(x, w, torch.tensor(2)), (X[0], W)),
    (
        "weight, smoothing",
        lambda x, w, v: LOSS(x, w, INDEX, weight=v, label_smoothing=0.1, chunk_bytes=ROWS),
        (X, W, V),
    ),
    (
        "constant weight, smoothing",
        lambda x, w: LOSS(x, w, INDEX, weight=V, label_smoothing=0.1, chunk_bytes=ROWS),
        (X, W),
    ),
    (
        "sample weight",
        lambda x, w, s: LOSS(x, w, INDEX, sample_weight=s, label_smoothing=0.1, chunk_bytes=ROWS),
        (X, W, S),
    ),
    ("denominator", lambda x, w, by: LOSS(x, w, INDEX, denominator=by), (X, W, S[0])),
    (
        "probabilities",
        lambda x, w, q, v: LOSS(x, w, q, weight=v, label_smoothing=0.1, chunk_bytes=ROWS),
        (X, W, Q, V),
    ),
    ("constant probabilities", lambda x, w: LOSS(x, w, Q, chunk_bytes=ROWS), (X, W)),
    (
        "probabilities that are smoothed away",
        lambda x, w, q: LOSS(x, w, q, label_smoothing=1.0, chunk_bytes=ROWS),
        (X, W, Q),
    ),
    ("several classifiers", lambda x, w: LOSS(x, w, INDEX_K, chunk_bytes=2 * ROWS), (X, WK)),
    ("their probabilities", lambda x, w, q: LOSS(x, w, q, chunk_bytes=2 * ROWS), (X, WK, QK)),
    ("lse", lambda x, w: STATISTICS(x, w, chunk_bytes=ROWS).lse, (X, W)),
    ("lse beside probabilities", lambda x, w, q: STATISTICS(x, w, q).lse + q.sum(1), (X, W, Q)),
    ("nll", lambda x, w: STATISTICS(x, w, INDEX, chunk_bytes=ROWS).nll, (X, W)),
    (
        "entropy",
        lambda x, w, b: (
            STATISTICS(x, w, INDEX, linear_bias=b, predictions=True, chunk_bytes=ROWS).entropy
        ),
        (X, W, B),
    ),
    ("a mix", mixed, (X, W, Q, V)),
]
each_loss = derivatives.each(DIFFERENTIATED)


class TestFirstDerivatives:
    @each_loss
    def test_they_are_numerical_ones(self, function, tensors) -> None:
        assert torch.autograd.gradcheck(function, leaves(tensors))


@stepping_aside
class TestDerivatives:
    @each_loss
    def test_first_derivatives_are_numerical_ones_in_every_mode(self, function, tensors) -> None:
        assert derivatives.numerical_in_every_mode(function, tensors)

    @each_loss
    def test_second_derivatives_are_numerical_ones(self, function, tensors) -> None:
        assert torch.autograd.gradgradcheck(
            function, leaves(tensors), check_fwd_over_rev=True, fast_mode=True
        )

    @each_loss
    def test_second_derivatives_agree_between_modes(self, function, tensors) -> None:
        ways = [
            derivatives.nested(func.jacfwd, func.jacrev),
            derivatives.nested(func.jacrev, func.jacfwd),
            lambda total, _: lambda *at: torch.autograd.functional.hessian(total, at),
        ]
        derivatives.assert_second_derivatives_agree(function, tensors, ways)

    @each_loss
    def test_dual_tensors_carry_the_directional_derivative(self, function, tensors) -> None:
        derivatives.assert_dual_tensors_carry_the_directional_derivative(
            function, tensors, derivatives.autograds_vjp, CLOSE, CLOSE
        )

    @pytest.mark.parametrize("left_out", ["ignore_index", "sample_weight"])
    def test_hidden_states_left_out_are_inert_in_every_mode(self, left_out) -> None:
        x = X.clone()
        x[1] = torch.nan
        s = torch.tensor([1.0, 0.0, 1.0, 0.5, 2.0])

        def loss(x, w):
            options = {"label_smoothing": 0.1, "chunk_bytes": ROWS}
            if left_out == "ignore_index":
                return LOSS(x, w, INDEX, **options)
            return LOSS(x, w, INDEX.clamp(min=0), sample_weight=s, **options)

        for derivative in (func.jacrev, func.jacfwd):
            at_x, at_w = derivative(loss, (0, 1))(x, W)
            assert at_x.isfinite().all()
            assert at_w.isfinite().all()
            assert at_x[1].count_nonzero() == 0
            second = derivative(derivative(loss, 1), (0, 1))(x, W)
            assert all(t.isfinite().all() for t in second)

    def test_a_gradient_penalty_is_that_of_the_composition(self) -> None:
        arguments: Arguments = {
            "input": X, "linear_weight": W, "linear_bias": B, "target": INDEX.clamp(min=0),
        }  # fmt: skip

        def penalised(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def loss(**given: Tensor) -> Tensor:
                value = function(**given)
                (at_input,) = torch.autograd.grad(value, given["input"], create_graph=True)
                return value + at_input.square().sum()

            return loss

        for options in ({}, {"reduction": "sum"}):
            given = {**arguments, **options}
            ours = loss_and_gradients(penalised(LOSS), {**given, "chunk_bytes": ROWS}, AT)
            true = loss_and_gradients(penalised(truth), given, AT)
            torch.testing.assert_close(ours, true, **CLOSE)


@stepping_aside
class TestFunctionTransforms:
    @pytest.mark.parametrize("target", ["index", "probabilities"])
    @pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
    def test_vmap_over_any_argument_is_a_loop(self, reduction, target) -> None:
        x, w = numbers(4, 5, 3), numbers(4, 4, 3)
        y = torch.tensor([[1, -100, 3, 0, 2]] * 4).roll(1, 1) if target == "index" else None
        y = numbers(4, 5, 4).softmax(-1) if y is None else y
        y[1] = y[1].roll(1, 0)

        def loss(x, w, y):
            return LOSS(x, w, y, reduction=reduction, label_smoothing=0.1, chunk_bytes=ROWS)

        for in_dims in ((0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0), (1, 0, 0)):
            tensors = [
                t if d is not None else t[0] for t, d in zip((x, w, y), in_dims, strict=True)
            ]
            each = [
                [t if d is None else t[i] for t, d in zip(tensors, in_dims, strict=True)]
                for i in range(4)
            ]
            expected = torch.stack([loss(*one) for one in each])
            if in_dims[0] == 1:
                tensors[0] = x.transpose(0, 1)
            torch.testing.assert_close(func.vmap(loss, in_dims)(*tensors), expected, **CLOSE)

    def test_gradients_per_sample_are_those_of_each_sample(self) -> None:
        def loss(w, x, y):
            return LOSS(x, w, y, reduction="sum", label_smoothing=0.1)

        per_sample = func.vmap(func.grad(loss), (None, 0, 0))(W, X, INDEX)
        leaf = W.clone().requires_grad_()
        for one, x, y in zip(per_sample, X, INDEX, strict=True):
            (expected,) = torch.autograd.grad(loss(leaf, x, y), leaf)
            torch.testing.assert_close(one, expected, **CLOSE)
        assert per_sample[1].count_nonzero() == 0

    def test_grad_and_value_and_jvp_are_autograds(self) -> None:
        def loss(x, w):
            return LOSS(x, w, INDEX, label_smoothing=0.1, chunk_bytes=ROWS)

        x, w = leaves((X, W))
        expected = torch.autograd.grad(loss(x, w), (x, w))
        torch.testing.assert_close(func.grad(loss, (0, 1))(X, W), expected, **CLOSE)
        direction = (X.cos(), W.sin())
        _, tangent = func.jvp(loss, (X, W), direction)
        along = sum((g * d).sum() for g, d in zip(expected, direction, strict=True))
        torch.testing.assert_close(tangent, along, **CLOSE)

    def test_the_hessian_is_that_of_the_softmax(self) -> None:
        """At the bias: diag p − p pᵀ."""
        p = (X[0] @ W.T + B).softmax(0)

        def loss(b):
            return LOSS(X[0], W, torch.tensor(1), linear_bias=b)

        torch.testing.assert_close(func.hessian(loss)(B), p.diag() - p.outer(p), **CLOSE)


SINGLES: Arguments = {
    "input": X.float(), "linear_weight": W.float(), "linear_bias": B.float(), "target": INDEX,
    "chunk_bytes": ROWS // 2,
}  # fmt: skip
COMPILED: dict[str, Arguments] = {
    "index": {},
    "none": {"reduction": "none"},
    "sum, ignored": {"reduction": "sum", "ignore_index": (-100, 2)},
    "weight, smoothing": {"weight": V.float(), "label_smoothing": 0.1},
    "probabilities": {"target": Q.float(), "weight": V.float(), "label_smoothing": 0.1},
    "sample weight": {"sample_weight": S.float(), "denominator": "valid", "on_empty": "zero"},
    "batch, dtype": {"denominator": "batch", "dtype": torch.float64},
    "a tensor": {"denominator": torch.tensor(7.0)},
    "int32": {"target": INDEX.int()},
    "without bias": {"linear_bias": None},
    "several classifiers": {"linear_weight": WK.float(), "linear_bias": None, "target": INDEX_K},
}


def compiled_and_eager(
    function: Callable[..., Tensor], arguments: Arguments, names: list[str], dynamic: bool
) -> None:
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    ours = loss_and_gradients(compiled, arguments, names)
    torch.testing.assert_close(ours, loss_and_gradients(function, arguments, names), **SINGLE)


class TestCompilers:
    @pytest.mark.parametrize("options", COMPILED.values(), ids=COMPILED)
    def test_functions_compile_to_one_graph(self, options) -> None:
        arguments = {**SINGLES, **options}
        names = [name for name in AT if arguments[name] is not None]
        compiled_and_eager(LOSS, arguments, names, dynamic=False)

    @stepping_aside
    @pytest.mark.parametrize("name", ["index", "weight, smoothing", "sample weight"])
    def test_they_do_where_every_size_may_change(self, name) -> None:
        compiled_and_eager(LOSS, {**SINGLES, **COMPILED[name]}, AT, dynamic=True)

    @stepping_aside
    @pytest.mark.parametrize("smoothing", [0.1, 1.0])
    def test_gradients_at_labels_and_weights_compile(self, smoothing) -> None:
        options = {**SINGLES, "weight": V.float(), "label_smoothing": smoothing}
        compiled_and_eager(LOSS, options, [*AT, "weight"], dynamic=False)
        dense = {**options, "target": Q.float()}
        compiled_and_eager(LOSS, dense, [*AT, "weight", "target"], dynamic=False)
        factors = {**options, "sample_weight": S.float()}
        compiled_and_eager(LOSS, factors, [*AT, "sample_weight"], dynamic=False)

    @stepping_aside
    @pytest.mark.parametrize("labels", ["none", "index", "probabilities"])
    def test_statistics_compile(self, labels) -> None:
        target = {"none": None, "index": INDEX, "probabilities": Q.float()}[labels]

        def total(input, linear_weight, linear_bias):
            of = STATISTICS(input, linear_weight, target, linear_bias=linear_bias, uniform=True,
                            predictions=True, chunk_bytes=ROWS // 2)  # fmt: skip
            costs = 0 if target is None else (of.nll if of.cross is None else of.cross)
            return of.lse + 2 * of.uniform + 3 * of.entropy + 4 * costs + of.argmax

        compiled_and_eager(total, {name: SINGLES[name] for name in AT}, AT, dynamic=False)

    @stepping_aside
    @pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"reduction": "none"}])
    def test_a_dynamic_graph_serves_other_sizes(self, options) -> None:
        torch.compiler.reset()
        graphs = []

        def compiler(graph, _):
            graphs.append(graph)
            return graph

        module = xent.LinearCrossEntropyLoss(3, 50, chunk_bytes=1000, **options)
        loss = torch.compile(module, fullgraph=True, backend=compiler, dynamic=True)
        for size in (7, 5, 17):
            x, y = torch.randn(size, 3), torch.arange(size) % 4
            torch.testing.assert_close(loss(x, y), module(x, y), **SINGLE)
        assert len(graphs) == 1

    @stepping_aside
    def test_evaluation_compiles(self) -> None:
        torch.compiler.reset()
        compiled = torch.compile(LOSS, fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            torch.testing.assert_close(compiled(**SINGLES), LOSS(**SINGLES), **SINGLE)

    @pytest.mark.parametrize("label", [900, -5])
    @pytest.mark.parametrize("way", ["training", "evaluation", "a loss per row"])
    def test_a_label_that_is_no_class_does_not_pass_for_one(self, way, label) -> None:
        """Compiled code can't look at labels beforehand; a plausible loss is no answer to one."""
        torch.compiler.reset()
        compiled = torch.compile(LOSS, fullgraph=True, backend="aot_eager")
        hidden, classifier = torch.randn(3, 5), torch.randn(700, 5)
        classifier.requires_grad_(way == "training")
        reduction = "none" if way == "a loss per row" else "mean"
        good, bad = torch.tensor([0, 1, 2]), torch.tensor([0, label, 2])
        assert compiled(hidden, classifier, good, reduction=reduction).isfinite().all()
        with pytest.raises((IndexError, RuntimeError), match=r"target|out of bounds"):
            compiled(hidden, classifier, bad, reduction=reduction)

    @stepping_aside
    def test_function_transforms_compile(self) -> None:
        if torch.__version__ < (2, 13):
            pytest.skip("the compiler of this release does not see that transforms are nested")

        def loss(x):
            return LOSS(x, W, INDEX, label_smoothing=0.1)

        for transform in (
            func.grad(loss),
            func.hessian(loss),
            lambda x: func.jvp(loss, (x,), (x.cos(),))[1],
            lambda x: func.vmap(func.grad(loss))(torch.stack([x, 2 * x])),
        ):
            torch.compiler.reset()
            compiled = torch.compile(transform, fullgraph=True, backend="aot_eager")
            torch.testing.assert_close(compiled(X), transform(X), **CLOSE)

    @stepping_aside
    def test_a_model_exports_and_serves_other_batch_sizes(self) -> None:
        module, batch = xent.LinearCrossEntropyLoss(3, 4, bias=True), torch.export.Dim("batch")
        example_inputs = (X.float(), INDEX)
        program = torch.export.export(
            module, example_inputs, dynamic_shapes={"input": {0: batch}, "target": {0: batch}}
        ).module()
        other = numbers(9, 3).float(), torch.arange(9) % 4
        torch.testing.assert_close(program(*other), module(*other), **SINGLE)


@stepping_aside
class TestWithoutValues:
    @pytest.mark.parametrize("options", COMPILED.values(), ids=COMPILED)
    def test_meta_and_fake_tensors_have_a_loss_and_gradients_of_the_right_kind(
        self, options
    ) -> None:
        arguments = {**SINGLES, **options}
        names = [name for name in AT if arguments[name] is not None]
        real, slopes = loss_and_gradients(LOSS, arguments, names)

        def check(convert: Callable[[Tensor], Tensor]) -> None:
            given = {k: convert(v) if isinstance(v, Tensor) else v for k, v in arguments.items()}
            for name in names:
                given[name].requires_grad_()
            loss = LOSS(**given)
            at = torch.autograd.grad(loss.sum(), [given[name] for name in names])
            assert (loss.shape, loss.dtype) == (real.shape, real.dtype)
            assert [g.shape for g in at] == [s.shape for s in slopes]
            assert [g.dtype for g in at] == [s.dtype for s in slopes]

        check(lambda t: t.detach().to("meta"))
        with FakeTensorMode() as mode:
            check(mode.from_tensor)

    @pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
    def test_a_traced_loss_survives_saving_and_serves_other_sizes(self) -> None:
        module = xent.LinearCrossEntropyLoss(3, 4, bias=True, chunk_bytes=32)
        stored = io.BytesIO()
        torch.jit.save(torch.jit.trace(module, (X.float(), INDEX)), stored)
        stored.seek(0)
        loaded = torch.jit.load(stored)
        more = torch.cat([X, -X, X]).float(), torch.cat([INDEX] * 3)
        results = []
        for criterion in (loaded, module):
            x = more[0].clone().requires_grad_()
            value = criterion(x, more[1])
            results.append((value, *torch.autograd.grad(value, x, torch.tensor(0.75))))
        torch.testing.assert_close(*results, **SINGLE)


class Model(nn.Module):
    """Tokens in, loss out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.criterion = xent.LinearCrossEntropyLoss(6, 40, bias=True, chunk_bytes=800)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return self.criterion(self.layer(input).tanh(), target)


class TestSurroundings:
    @pytest.mark.parametrize("use_reentrant", [False, True])
    @pytest.mark.parametrize("reduction", ["none", "mean"])
    def test_checkpoints_change_nothing(self, reduction, use_reentrant) -> None:
        model = Model()
        model.criterion.reduction = reduction
        x, y = torch.randn(9, 6), torch.randint(0, 40, (9,))
        results = []
        for run in (model, lambda *a: checkpoint(model, *a, use_reentrant=use_reentrant)):
            model.zero_grad()
            inputs = x.clone().requires_grad_()
            loss = run(inputs, y)
            loss.backward(0.75 + torch.arange(loss.numel()).view(loss.shape) / 8)
            results.append([loss.detach(), inputs.grad, *(p.grad for p in model.parameters())])
        assert all(map(torch.equal, *results))

    @pytest.mark.parametrize("reduction", ["none", "mean"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_autocast_gives_a_float32_loss_and_gradients_in_the_dtype_of_leaves(
        self, dtype, reduction
    ) -> None:
        arguments = {**example((7, 6), (40,), dtype), "reduction": reduction, "chunk_bytes": 500}

        def under_autocast(**given: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return LOSS(**given)

        loss, gradients = loss_and_gradients(under_autocast, arguments, AT)
        true, correct = loss_and_gradients(truth, arguments, AT, wide=True)
        assert loss.dtype == torch.float32
        # On a CPU autocast's products are not rounded to half types either.
        torch.testing.assert_close(loss.double(), true, rtol=2e-6, atol=2e-6)
        for mine, expected in zip(gradients, correct, strict=True):
            assert mine.dtype == dtype
            close = torch.finfo(dtype).eps
            torch.testing.assert_close(mine.double(), expected, rtol=close, atol=2e-6)

    def test_autocast_of_a_model_trains_its_float32_weights(self) -> None:
        model = Model()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.layer(torch.randn(9, 6)).tanh()
            assert hidden.dtype == torch.bfloat16
            loss = model.criterion(hidden, torch.randint(0, 40, (9,)))
            loss.backward()
        assert loss.dtype == torch.float32
        for parameter in model.parameters():
            assert parameter.grad.dtype == torch.float32
            assert parameter.grad.count_nonzero() > 0

    def test_autocast_is_off_in_a_backward_that_makes_products(self) -> None:
        arguments = {**example((7, 6), (40,)), "reduction": "none"}
        given = {k: v.clone().requires_grad_() if k in AT else v for k, v in arguments.items()}
        loss = LOSS(**given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mine = torch.autograd.grad(loss.sum(), [given[n] for n in AT], retain_graph=True)
        plain = torch.autograd.grad(loss.sum(), [given[n] for n in AT])
        assert all(map(torch.equal, mine, plain))

    def test_second_derivatives_under_autocast_keep_their_digits(self) -> None:
        x, w = (t.float().requires_grad_() for t in (X, W))
        for reduction in ("mean", "none"):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = LOSS(x, w, INDEX, reduction=reduction).sum()
            (at_x,) = torch.autograd.grad(loss, x, create_graph=True)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                penalty = at_x.square().sum()
            (second,) = torch.autograd.grad(penalty, w)
            wide = X.clone().requires_grad_(), W.clone().requires_grad_()
            true = truth(*wide, INDEX, reduction=reduction).sum()
            (at_wide,) = torch.autograd.grad(true, wide[0], create_graph=True)
            (expected,) = torch.autograd.grad(at_wide.square().sum(), wide[1])
            torch.testing.assert_close(second.double(), expected, rtol=1e-5, atol=1e-5)

    def test_a_deep_copied_model_trains_by_itself(self) -> None:
        model = Model()
        twin = copy.deepcopy(model)
        twin(torch.randn(3, 6), torch.tensor([1, 2, 3])).backward()
        assert all(p.grad is None for p in model.parameters())

    def test_anomaly_detection_finds_nothing(self) -> None:
        model = Model()
        y = torch.tensor([1, -100, 3])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is slow
            anomalies = torch.autograd.detect_anomaly(check_nan=True)
        with anomalies:
            x = torch.randn(3, 6)
            model(x, y).backward()
        assert model.layer.weight.grad.isfinite().all()

    def test_data_parallel_means_sum_with_a_denominator(self) -> None:
        arguments = example((8, 6), (40,))
        whole = LOSS(**arguments)
        parts = [
            LOSS(**{**arguments, "input": arguments["input"][i::2],
                    "target": arguments["target"][i::2]}, denominator=8)
            for i in range(2)
        ]  # fmt: skip
        torch.testing.assert_close(sum(parts), whole, rtol=1e-6, atol=0)
