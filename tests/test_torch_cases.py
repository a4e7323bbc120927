"""PyTorch's own test cases, run against the functions and Modules that take their place.

The samples are those of torch's OpInfo and ModuleInfo databases. The formulas in extended precision
are the truth and torch is the bar, in float64 as in the dtype of the sample.
"""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import reference
import xent
from exactness import assert_no_further, grad_output_for, loss_and_gradients

pytestmark = pytest.mark.usefixtures("backend")


class Pair(NamedTuple):
    """A loss of this library, the one of torch whose place it takes, and the truth of both."""

    ours: Callable[..., Tensor]
    theirs: Callable[..., Tensor]
    module: type[torch.nn.Module]
    truth: Callable[..., tuple[Tensor, dict[str, Tensor | None]]]


def cross_entropy_truth(input: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, dict]:
    truth = reference.cross_entropy(input, target, **options)
    return truth.loss, {
        "input": truth.logits_gradient,
        "target": truth.target_gradient,
        "weight": truth.weight_gradient,
    }


def binary_truth(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor | None]]:
    """The binary loss and its gradients by hand, in extended precision."""
    x, y = reference.wide(input), reference.wide(target)
    w, v = (np.longdouble(1) if f is None else reference.wide(f) for f in (weight, pos_weight))
    tail = np.log1p(np.exp(-abs(x)))
    yes, no = tail + np.maximum(-x, 0), tail + np.maximum(x, 0)  # −log p, −log(1 − p)
    costs = v * y * yes + (1 - y) * no
    reduce = {"none": lambda a: a, "sum": np.sum, "mean": np.mean}[reduction]
    loss = reference.narrow(reduce(w * costs))
    scale = reference.wide(grad_output_for(loss)) / (x.size if reduction == "mean" else 1)
    gradients = {
        "input": w * ((1 - y) * np.exp(-yes) - v * y * np.exp(-no)),
        "target": w * (v * yes - no),
        "weight": costs,
        "pos_weight": w * y * yes,
    }
    shaped = {"input": input, "target": target, "weight": weight, "pos_weight": pos_weight}
    return loss, {
        name: None
        if like is None
        else reference.narrow(scale * gradients[name]).sum_to_size(like.shape)
        for name, like in shaped.items()
    }


CROSS_ENTROPY = Pair(
    xent.cross_entropy, F.cross_entropy, xent.CrossEntropyLoss, cross_entropy_truth
)
BINARY = Pair(
    xent.binary_cross_entropy_with_logits,
    F.binary_cross_entropy_with_logits,
    xent.BCEWithLogitsLoss,
    binary_truth,
)
FUNCTIONS = {
    "nn.functional.cross_entropy": CROSS_ENTROPY,
    "nn.functional.binary_cross_entropy_with_logits": BINARY,
}
MODULES = {torch.nn.CrossEntropyLoss: CROSS_ENTROPY, torch.nn.BCEWithLogitsLoss: BINARY}
OPS = {op.name: op for op in op_db if op.name in FUNCTIONS}
INFOS = [info for info in module_db if info.module_cls in MODULES]
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@functools.cache
def samples_of(name: str, dtype: torch.dtype, requires_grad: bool) -> list[Any]:
    torch.manual_seed(20)
    random.seed(20)  # some samples are drawn with Python's generator
    return list(OPS[name].sample_inputs("cpu", dtype, requires_grad=requires_grad))


@functools.cache
def module_inputs_of(info: Any, dtype: torch.dtype) -> list[Any]:
    torch.manual_seed(20)
    options = {"device": "cpu", "dtype": dtype, "requires_grad": True, "training": True}
    return info.module_inputs_func(info, **options)


def module_errors_of(info: Any) -> list[Any]:
    database = getattr(info, "module_error_inputs_func", None)  # torch 2.11 has none for these two
    options = {"device": "cpu", "dtype": torch.float32, "requires_grad": False, "training": True}
    return database(info, **options) if database else []


OP_CASES = [
    pytest.param(op.name, dtype, i, id=f"{op.name.rpartition('.')[2]}-{str(dtype)[6:]}-{i}")
    for op in OPS.values()
    for dtype in sorted(op.supported_dtypes("cpu"), key=str)
    for i in range(len(samples_of(op.name, dtype, requires_grad=False)))
]
MODULE_CASES = [
    pytest.param(info, dtype, i, id=f"{info.name}-{str(dtype)[6:]}-{i}-{case.desc}")
    for info in INFOS
    for dtype in DTYPES
    for i, case in enumerate(module_inputs_of(info, dtype))
]
MODULE_ERRORS = [(info, error) for info in INFOS for error in module_errors_of(info)]


def by_name(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict(inspect.signature(function).bind(*args, **kwargs).arguments)


def is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def compare(pair: Pair, named: dict) -> None:
    """The loss, and the gradients at every argument that torch differentiates, by the rule.

    Weights are taken by magnitude: those of the databases have both signs, and a sum in which costs
    cancel has no digits to compare.
    """
    named = {k: v.abs() if "weight" in k and is_floating(v) else v for k, v in named.items()}
    names = [k for k, v in named.items() if is_floating(v) and has_gradient(pair.theirs, named, k)]
    assert "input" in names
    loss, *gradients = evaluate(pair.ours, named, names)
    bar, *their_gradients = evaluate(pair.theirs, named, names)
    true_loss, true_gradients = pair.truth(**named)
    assert_no_further(loss, bar, true_loss)
    for name, mine, other in zip(names, gradients, their_gradients, strict=True):
        assert_no_further(mine, other, true_gradients[name])


def evaluate(function: Callable[..., Tensor], named: dict, names: list[str]) -> list[Any]:
    """The loss, then its gradients at these arguments."""
    constants = {k: v.detach() if is_floating(v) else v for k, v in named.items()}

    def loss(*leaves: Tensor) -> Tensor:
        return function(**{**constants, **dict(zip(names, leaves, strict=True))})

    value, gradients = loss_and_gradients(loss, [named[name] for name in names])
    return [value, *gradients]


def has_gradient(theirs: Callable[..., Tensor], named: dict, name: str) -> bool:
    """Whether torch differentiates its loss with respect to this argument at all."""
    try:
        return evaluate(theirs, named, [name])[1] is not None
    except RuntimeError:  # "the derivative for 'weight' is not implemented"
        return False


def test_the_databases_hold_both_losses() -> None:
    assert set(OPS) == set(FUNCTIONS)
    assert {info.module_cls for info in INFOS} == set(MODULES)


@pytest.mark.parametrize(("name", "dtype", "number"), OP_CASES)
def test_loss_and_gradients_of_a_sample_are_no_further_from_the_truth(name, dtype, number) -> None:
    sample = samples_of(name, dtype, requires_grad=True)[number]
    pair = FUNCTIONS[name]
    compare(pair, by_name(pair.theirs, (sample.input, *sample.args), sample.kwargs))


@pytest.mark.parametrize(("name", "dtype", "number"), OP_CASES)
@pytest.mark.parametrize("requires_grad", [False, True], ids=["constant", "differentiated"])
def test_the_loss_of_a_sample_is_of_torchs_kind(name, dtype, number, requires_grad) -> None:
    sample = samples_of(name, dtype, requires_grad)[number]
    ours, theirs = (
        function(sample.input, *sample.args, **sample.kwargs)
        for function in (FUNCTIONS[name].ours, FUNCTIONS[name].theirs)
    )
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert ours.requires_grad == theirs.requires_grad == requires_grad


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_the_errors_of_the_database_are_raised_with_their_types(op) -> None:
    if op.error_inputs_func is None:
        pytest.skip("this release of torch lists no error inputs for this function")
    for case in op.error_inputs("cpu"):
        sample = case.sample_input
        with pytest.raises(case.error_type):
            FUNCTIONS[op.name].ours(sample.input, *sample.args, **sample.kwargs)


@pytest.mark.parametrize(("info", "dtype", "number"), MODULE_CASES)
def test_loss_and_gradients_of_a_module_are_no_further_from_the_truth(info, dtype, number) -> None:
    case = module_inputs_of(info, dtype)[number]
    pair = MODULES[info.module_cls]
    build = by_name(info.module_cls, case.constructor_input.args, case.constructor_input.kwargs)
    given = by_name(pair.theirs, case.forward_input.args, case.forward_input.kwargs)

    def called(module: type[torch.nn.Module]) -> Callable[..., Tensor]:
        return lambda **named: module(**{k: named[k] for k in build})(*(named[k] for k in given))

    modules = pair._replace(ours=called(pair.module), theirs=called(info.module_cls))
    compare(modules, {**given, **build})


@pytest.mark.parametrize(("info", "dtype", "number"), MODULE_CASES)
def test_a_module_keeps_its_loss_when_pickled_copied_restored_or_cast(info, dtype, number) -> None:
    case = module_inputs_of(info, dtype)[number]
    options = case.constructor_input.kwargs
    args = [v.detach() if is_floating(v) else v for v in case.forward_input.args]
    module, theirs = MODULES[info.module_cls].module(**options), info.module_cls(**options)
    assert list(module.state_dict()) == list(theirs.state_dict())
    restored = copy.deepcopy(module)
    for buffer in restored.buffers():
        buffer.fill_(torch.nan)
    restored.load_state_dict(theirs.state_dict())
    for twin in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module), restored):
        assert_equal(twin(*args), module(*args))
    as_double = [v.double() if is_floating(v) else v for v in args]
    of_double = {k: v.double() if is_floating(v) else v for k, v in options.items()}
    built = MODULES[info.module_cls].module(**of_double)
    assert_equal(module.to(torch.float64)(*as_double), built(*as_double))


def assert_equal(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("info", "error"), MODULE_ERRORS, ids=lambda v: getattr(v, "error_regex", None)
)
def test_the_errors_of_a_module_are_raised_with_their_types(info, error) -> None:
    """At the latest in forward: a bad option is already refused by the constructor."""
    build = error.module_error_input.constructor_input
    forward = error.module_error_input.forward_input
    with pytest.raises(error.error_type):
        MODULES[info.module_cls].module(*build.args, **build.kwargs)(
            *forward.args, **forward.kwargs
        )
