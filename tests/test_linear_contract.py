"""What torch.nn.functional.linear_cross_entropy and its Module promise, kept."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import xent
from composition import (
    Arguments,
    assert_near,
    differentiable,
    example,
    loss_and_gradients,
    needs_torchs,
    truth,
)

pytestmark = [pytest.mark.usefixtures("backend"), needs_torchs]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("labels", ["index", "probabilities"])
@pytest.mark.parametrize("outputs", [(9,), (3, 2), (3, 2, 2)], ids=str)
def test_results_are_torchs(outputs, labels, smoothing, reduction) -> None:
    for shape in [(5, 6), (6,)][: 2 if len(outputs) == 1 else 1]:
        for bias, weighted in ((False, True), (True, False)):
            arguments = example(shape, outputs, labels=labels, bias=bias, weighted=weighted)
            if labels == "index" and len(shape) > 1:
                arguments["target"].view(-1)[2] = 1
                arguments["ignore_index"] = 1
            arguments |= {"label_smoothing": smoothing, "reduction": reduction, "chunk_bytes": 80}
            names = differentiable(arguments)
            if labels == "index" and weighted:
                names.remove("weight")  # which torch does not differentiate
            loss, gradients = loss_and_gradients(xent.linear_cross_entropy, arguments, names)
            true, correct = loss_and_gradients(truth, arguments, names, wide=True)
            del arguments["chunk_bytes"]
            theirs, others = loss_and_gradients(F.linear_cross_entropy, arguments, names)
            assert_near(loss, theirs, true)
            for mine, other, expected in zip(gradients, others, correct, strict=True):
                assert_near(mine, other, expected)


def test_arguments_are_torchs_in_name_and_order() -> None:
    def parameters(function: object) -> list[tuple[str, object]]:
        return [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]

    theirs = parameters(F.linear_cross_entropy)[:-1]
    assert parameters(F.linear_cross_entropy)[-1][0] == "options"
    assert parameters(xent.linear_cross_entropy)[: len(theirs)] == theirs
    of_module = parameters(nn.LinearCrossEntropyLoss)[:-1]
    assert parameters(xent.LinearCrossEntropyLoss)[: len(of_module)] == of_module
    assert all(
        p.default == q.default
        for p, q in zip(
            inspect.signature(nn.LinearCrossEntropyLoss).parameters.values(),
            inspect.signature(xent.LinearCrossEntropyLoss).parameters.values(),
            strict=False,
        )
        if p.name not in ("ignore_index", "options")  # None there is −100
    )


OF_MODULE: dict[str, Arguments] = {
    "plain": {},
    "bias": {"bias": True},
    "weight": {"weight": torch.rand(5)},
    "several classifiers": {"out_features": (2, 3), "bias": True, "weight": torch.rand(5)},
    "float64": {"dtype": torch.float64, "bias": True},
    "options": {"ignore_index": 2, "reduction": "none", "label_smoothing": 0.1},
}
each_module = pytest.mark.parametrize("options", OF_MODULE.values(), ids=OF_MODULE)


def modules(options: Arguments) -> tuple[nn.Module, nn.Module]:
    theirs = nn.LinearCrossEntropyLoss(4, 5, **options)
    ours = xent.LinearCrossEntropyLoss(4, 5, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def data(options: Arguments) -> tuple[torch.Tensor, torch.Tensor]:
    hidden = torch.randn(6, 4, dtype=options.get("dtype"))
    return hidden, torch.randint(0, 5, (6, *options.get("out_features", ())))


@each_module
def test_a_state_dict_of_torchs_is_one_of_ours(options) -> None:
    ours, theirs = modules(options)
    hidden, target = data(options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in theirs.state_dict().items())
    close = {"rtol": 1e-14, "atol": 1e-14} if "dtype" in options else {}
    torch.testing.assert_close(ours(hidden, target), theirs(hidden, target), **close)


@each_module
def test_initial_weights_are_torchs(options) -> None:
    torch.manual_seed(3)
    ours = xent.LinearCrossEntropyLoss(4, 5, **options)
    torch.manual_seed(3)
    theirs = nn.LinearCrossEntropyLoss(4, 5, **options)
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in theirs.state_dict().items())


@each_module
def test_a_copy_is_independent_and_the_same(options) -> None:
    module, _ = modules(options)
    hidden, target = data(options)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(hidden, target), module(hidden, target))
        with torch.no_grad():
            twin.linear.weight.add_(torch.randn_like(twin.linear.weight))
        assert not torch.equal(twin(hidden, target), module(hidden, target))


def test_repr_names_shape_and_what_is_not_default() -> None:
    module = xent.LinearCrossEntropyLoss(
        4, 5, out_features=(2,), bias=True, weight=torch.ones(5), reduction="sum",
        ignore_index=(1, 2), label_smoothing=0.1, chunk_bytes=1024,
    )  # fmt: skip
    assert repr(module).splitlines()[1].strip() == (
        "in_features=4, num_classes=5, bias=True, out_features=(2,), weight=<(5,)>, "
        "reduction='sum', ignore_index=(1, 2), label_smoothing=0.1, chunk_bytes=1024"
    )
    assert repr(xent.LinearCrossEntropyLoss(4, 5)).splitlines()[1].strip() == (
        "in_features=4, num_classes=5, bias=False"
    )


def test_every_option_of_the_module_is_that_of_the_function() -> None:
    hidden, target = data({})
    factors = torch.rand(6)
    options = {
        "weight": torch.rand(5), "ignore_index": (1, -7), "label_smoothing": 0.1,
        "denominator": "valid", "on_empty": "zero", "chunk_bytes": 60,
    }  # fmt: skip
    module = xent.LinearCrossEntropyLoss(4, 5, bias=True, **options)
    classifier, bias = module.linear.weight, module.linear.bias

    def expected(target, **more):
        return xent.linear_cross_entropy(
            hidden, classifier, target, linear_bias=bias, **{**options, **more}
        )

    assert torch.equal(
        module(hidden, target, sample_weight=factors), expected(target, sample_weight=factors)
    )
    assert torch.equal(module(hidden, target, denominator=3.5), expected(target, denominator=3.5))
    assert not torch.equal(module(hidden, target, denominator=3.5), module(hidden, target))
    nobody = torch.full((6,), -7)
    assert module(hidden, nobody).item() == 0.0
    total = xent.LinearCrossEntropyLoss(4, 5, reduction="none")
    assert total(hidden, target).shape == (6,)


def test_a_module_moves_between_dtypes_and_devices() -> None:
    module = xent.LinearCrossEntropyLoss(4, 5, bias=True, weight=torch.rand(5)).double()
    hidden, target = torch.randn(6, 4).double(), torch.randint(0, 5, (6,))
    assert module(hidden, target).dtype == torch.float64
    assert module.weight.dtype == torch.float64
    assert module.to("meta")(hidden.to("meta"), target.to("meta")).device.type == "meta"
    assert xent.LinearCrossEntropyLoss(4, 5, device="meta").linear.weight.is_meta
    half = xent.LinearCrossEntropyLoss(4, 5, dtype=torch.bfloat16)
    assert half.linear.weight.dtype == torch.bfloat16
    assert half(hidden.bfloat16(), target).dtype == torch.bfloat16


def test_tied_embeddings_get_both_gradients() -> None:
    embedding = nn.Embedding(9, 4)
    criterion = xent.LinearCrossEntropyLoss(4, 9, chunk_bytes=80)
    criterion.linear.weight = embedding.weight
    tokens, target = torch.randint(0, 9, (2, 5)), torch.randint(0, 9, (2, 5))
    criterion(embedding(tokens).tanh(), target).backward()
    weight = embedding.weight.detach().double().requires_grad_()
    truth(F.embedding(tokens, weight).tanh(), weight, target).backward()
    torch.testing.assert_close(embedding.weight.grad.double(), weight.grad, rtol=1e-6, atol=1e-7)
    assert len(list(nn.ModuleList([embedding, criterion]).parameters())) == 1


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.script` is deprecated:DeprecationWarning")
def test_a_module_is_not_scripted() -> None:
    with pytest.raises(NotImplementedError, match=r"cannot be scripted.*torch\.compile"):
        torch.jit.script(xent.LinearCrossEntropyLoss(4, 5))


def test_options_are_checked_when_a_module_is_made() -> None:
    for wrong in (
        {"reduction": "average"}, {"denominator": "rows"}, {"on_empty": None}, {"chunk_bytes": 0},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(wrong))):
            xent.LinearCrossEntropyLoss(4, 5, **wrong)
    with pytest.raises(RuntimeError, match="label_smoothing"):
        xent.LinearCrossEntropyLoss(4, 5, label_smoothing=1.5)


def test_class_weights_of_another_number_are_refused_when_a_module_is_made() -> None:
    for module in (nn.LinearCrossEntropyLoss, xent.LinearCrossEntropyLoss):
        with pytest.raises(RuntimeError, match="weight"):
            module(4, 5, weight=torch.rand(4))
