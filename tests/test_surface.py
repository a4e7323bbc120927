"""The public surface: names, signatures, documentation, state."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import xent

PAIRS = [
    (xent.cross_entropy, F.cross_entropy),
    (xent.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits),
    (xent.explain, F.cross_entropy),
    (xent.explain_binary, F.binary_cross_entropy_with_logits),
    (xent.CrossEntropyLoss.__init__, torch.nn.CrossEntropyLoss.__init__),
    (xent.BCEWithLogitsLoss.__init__, torch.nn.BCEWithLogitsLoss.__init__),
]


LOSS_SECTIONS = ("Args:", "Returns:", "Raises:", "Source:")
SECTIONS = {  # what is no loss has no source, and says of the others what there is to say
    "backend": ("Args:", "Raises:"),  # a context manager gives nothing
    "check_errors": ("Raises:",),
    "valid_denominator": ("Args:", "Returns:", "Raises:"),
    "class_shards": ("Args:", "Returns:", "Raises:"),
    "empty_cache": ("Returns:",),
    "explain_dispatch": ("Args:", "Returns:"),
}


def test_exported_names() -> None:
    assert set(xent.__all__) == {
        "BCEWithLogitsLoss",
        "ClassShards",
        "CrossEntropyLoss",
        "DenseCrossEntropy",
        "DenseCrossEntropyLoss",
        "Explanation",
        "LinearCrossEntropyLoss",
        "LinearRowStatistics",
        "RowStatistics",
        "__version__",
        "backend",
        "binary_cross_entropy_with_logits",
        "check_errors",
        "class_shards",
        "cross_entropy",
        "dense_cross_entropy",
        "empty_cache",
        "explain",
        "explain_binary",
        "explain_dispatch",
        "functional",
        "linear_cross_entropy",
        "linear_row_statistics",
        "nn",
        "row_statistics",
        "valid_denominator",
    }
    assert all(hasattr(xent, name) for name in xent.__all__)
    assert xent.DenseCrossEntropy is xent.DenseCrossEntropyLoss


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda f: f.__qualname__)
def test_positional_arguments_are_torchs_in_order_and_default(ours, theirs) -> None:
    def positional(function):
        parameters = inspect.signature(function).parameters.values()
        return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert positional(ours) == positional(theirs)
    further = inspect.signature(ours).parameters.values()
    assert all(p.default is not p.empty for p in further if p.kind is p.KEYWORD_ONLY)


@pytest.mark.parametrize("name", sorted(set(xent.__all__) - {"__version__", "functional", "nn"}))
def test_every_public_name_is_documented_with_an_example(name) -> None:
    documentation = inspect.getdoc(getattr(xent, name))
    assert documentation
    if not name.endswith("RowStatistics"):  # documented by the function that returns them
        assert ">>>" in documentation
    for section in SECTIONS.get(name, LOSS_SECTIONS) if name[0].islower() else ():
        assert section in documentation


@pytest.mark.parametrize("name", ["functional", "nn"])
def test_a_public_function_is_not_hidden_behind_its_module(name) -> None:
    for module in pkgutil.walk_packages(xent.__path__, "xent."):
        importlib.import_module(module.name)
    assert callable(xent.functional.cross_entropy)
    assert xent.cross_entropy is xent.functional.cross_entropy
    assert inspect.ismodule(getattr(xent, name))


def test_import_loads_nothing_that_is_not_used() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import xent;"
        "print(*sorted(m for m in set(sys.modules) - before if not m.startswith('xent')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


MODULES = [
    xent.CrossEntropyLoss(torch.rand(4), label_smoothing=0.1),
    xent.CrossEntropyLoss(ignore_index=(0, 3), denominator="valid", on_empty="zero"),
    xent.DenseCrossEntropyLoss(torch.rand(4)),
    xent.BCEWithLogitsLoss(torch.rand(4), pos_weight=torch.rand(4), label_smoothing=0.1),
]


def loss_of(module: torch.nn.Module) -> torch.Tensor:
    logits = torch.linspace(-2, 2, 12).reshape(3, 4)
    if isinstance(module, xent.CrossEntropyLoss):
        return module(logits, torch.tensor([0, 1, 3]))
    return module(logits, logits.softmax(1))


@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_modules_survive_pickling_copying_and_their_state_dict(module) -> None:
    expected = loss_of(module)
    for twin in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module), copy.copy(module)):
        assert torch.equal(loss_of(twin), expected)
        assert repr(twin) == repr(module)
    state = module.state_dict()
    assert set(state) == {n for n, b in module.named_buffers()}
    fresh = copy.deepcopy(module)
    for buffer in fresh.buffers():
        buffer.zero_()
    fresh.load_state_dict(state)
    assert torch.equal(loss_of(fresh), expected)


@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_weights_are_buffers_that_move(module) -> None:
    assert not list(module.parameters())
    moved = copy.deepcopy(module).to(torch.float64)
    assert all(buffer.dtype == torch.float64 for buffer in moved.buffers())
    assert all(b.device.type == "meta" for b in copy.deepcopy(module).to("meta").buffers())


def test_torchs_state_and_types_are_kept() -> None:
    weight = torch.rand(4)
    theirs = torch.nn.CrossEntropyLoss(weight)
    ours = xent.CrossEntropyLoss(torch.ones(4))
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours.weight, weight)
    assert isinstance(ours, torch.nn.CrossEntropyLoss)
    assert isinstance(xent.BCEWithLogitsLoss(), torch.nn.BCEWithLogitsLoss)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (xent.CrossEntropyLoss(), "CrossEntropyLoss()"),
        (
            xent.CrossEntropyLoss(torch.ones(4), reduction="sum", dim=-1),
            "CrossEntropyLoss(weight=<(4,)>, reduction='sum', dim=-1)",
        ),
        (
            xent.CrossEntropyLoss(denominator=torch.tensor(4.0), dtype=torch.float32),
            "CrossEntropyLoss(denominator=4.0, dtype=torch.float32)",
        ),
        (xent.DenseCrossEntropy(label_smoothing=0.2), "DenseCrossEntropyLoss(label_smoothing=0.2)"),
        (xent.BCEWithLogitsLoss(ignore_index=-1), "BCEWithLogitsLoss(ignore_index=-1)"),
    ],
)
def test_repr_names_what_differs_from_the_defaults(module, text) -> None:
    assert repr(module) == text


def test_a_call_may_bring_its_own_denominator_and_sample_weight() -> None:
    criterion = xent.CrossEntropyLoss(denominator="valid")
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, -100])
    total = xent.cross_entropy(logits, target, reduction="sum")
    torch.testing.assert_close(criterion(logits, target), total / 3)
    torch.testing.assert_close(criterion(logits, target, denominator=10), total / 10)
    factors = torch.tensor([1.0, 0.0, 2.0, 1.0])
    weighted = xent.cross_entropy(logits, target, sample_weight=factors, reduction="sum")
    torch.testing.assert_close(criterion(logits, target, sample_weight=factors), weighted / 2)


@pytest.mark.parametrize(
    "options",
    [
        {"dim": -1},
        {"ignore_index": (0, 3)},
        {"reduction": "none"},
        {"label_smoothing": 0.2},
        {"denominator": "batch"},
        {"on_empty": "zero", "ignore_index": (0, 1, 2, 3)},
        {"dtype": torch.float64},
        {"weight": torch.tensor([0.5, 1.0, 2.0, 3.0])},
    ],
    ids=lambda o: "-".join(o),
)
def test_a_module_forwards_each_of_its_options(options) -> None:
    logits, target = torch.randn(4, 4, 4), torch.arange(16).reshape(4, 4) % 4
    by_module = xent.CrossEntropyLoss(**options)(logits, target)
    by_function = xent.cross_entropy(logits, target, **options)
    assert by_module.dtype == by_function.dtype
    assert torch.equal(by_module, by_function)
    plain = xent.cross_entropy(logits, target)
    assert not torch.equal(by_module.double(), plain.double()) or "dtype" in options


@pytest.mark.parametrize(
    "options",
    [
        {"ignore_index": 1},
        {"label_smoothing": 0.2},
        {"weight": torch.tensor([0.5, 2.0])},
        {"pos_weight": torch.tensor([0.5, 2.0])},
        {"reduction": "sum"},
    ],
    ids=lambda o: "-".join(o),
)
def test_the_binary_module_forwards_each_of_its_options(options) -> None:
    logits, target = torch.randn(4, 2), torch.tensor([[0, 1], [1, 0], [1, 1], [0, 0]])
    by_module = xent.BCEWithLogitsLoss(**options)(logits, target)
    assert torch.equal(by_module, xent.binary_cross_entropy_with_logits(logits, target, **options))
    assert not torch.equal(by_module, xent.binary_cross_entropy_with_logits(logits, target))


def test_options_of_a_module_are_kept_in_a_form_that_can_be_read_twice() -> None:
    assert xent.CrossEntropyLoss(ignore_index=[1]).ignore_index == 1
    assert xent.CrossEntropyLoss(ignore_index={1, 2}).ignore_index == (1, 2)
    assert xent.CrossEntropyLoss(ignore_index=range(2)).ignore_index == (0, 1)
