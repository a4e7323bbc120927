"""``check="values"``: labels are looked at wherever they are, in whatever form, if asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import xent
from triton_rows import DEVICE, INF, NAN

CLASSIFIER = torch.eye(5)


def linear(x: Tensor, y: Tensor, **options: Any) -> Tensor:
    return xent.linear_cross_entropy(x, CLASSIFIER.to(x), y, **options)


def own_classifier(**options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return xent.LinearCrossEntropyLoss(5, 5, device=DEVICE, **options)


LOSSES: dict[str, Callable[..., Any]] = {
    "cross_entropy": xent.cross_entropy,
    "linear_cross_entropy": linear,
    "row_statistics": lambda x, y, **o: xent.row_statistics(x, y, **o).lse,
    "linear_row_statistics": lambda x, y, **o: (
        xent.linear_row_statistics(x, CLASSIFIER.to(x), y, **o).lse
    ),
    "CrossEntropyLoss": lambda x, y, **o: xent.CrossEntropyLoss(**o)(x, y),
    "LinearCrossEntropyLoss": lambda x, y, **o: own_classifier(**o)(x, y),
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    yield
    xent.check_errors()


def logits() -> Tensor:
    return torch.randn(3, 5, device=DEVICE)


@each_loss
@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("bad", [5, -1, 1 << 40])
def test_a_label_that_is_no_class_is_named(bad, backend, loss) -> None:
    y = torch.tensor([0, -100, bad], device=DEVICE)
    with xent.backend(backend):
        with pytest.raises(IndexError, match=rf"target\[2\] is {bad}; expected 0..4 or ignore_in"):
            loss(logits(), y, check="values")
        assert loss(logits(), y.clamp(max=4, min=-1), ignore_index=-1, check="values") is not None


@each_loss
@pytest.mark.parametrize("bad", [-0.25, INF, -INF, NAN])
def test_a_probability_that_is_none_is_named(bad, loss) -> None:
    q = logits().softmax(1)
    assert torch.as_tensor(loss(logits(), q, check="values")).isfinite().all()
    q[1, 3] = bad
    expected = rf"target\[1, 3\]: expected a probability, finite and not negative; got {bad}\. "
    with pytest.raises(ValueError, match=expected + "Are these logits"):
        loss(logits(), q, check="values")
    loss(logits(), q)  # nobody looks
    loss(logits(), q, check=None)


def test_probabilities_may_sum_to_anything_and_be_zero() -> None:
    q = torch.zeros(3, 5, device=DEVICE)
    q[1] = 7.0
    assert xent.cross_entropy(logits(), q, check="values").isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_probabilities_of_other_dtypes_and_shapes(dtype) -> None:
    q = torch.rand(2, 5, 3).to(DEVICE, dtype)
    x = torch.randn(2, 5, 3).to(DEVICE, dtype)
    xent.cross_entropy(x, q, check="values")
    q[1, 4, 2] = -0.5
    with pytest.raises(ValueError, match=r"target\[1, 4, 2\]: .*; got -0\.5\."):
        xent.cross_entropy(x, q, check="values")
    with pytest.raises(ValueError, match=r"target\[1, 2, 4\]: "):  # as the user wrote it
        xent.cross_entropy(x.movedim(1, 2), q.movedim(1, 2), dim=2, check="values")


@each_loss
@pytest.mark.parametrize("wrong", ["value", "", True, 1, ("values",)])
def test_an_unknown_check_is_refused(wrong, loss) -> None:
    y = torch.tensor([0, 1, 2], device=DEVICE)
    with pytest.raises(ValueError, match="check: expected None or 'values'; got "):
        loss(logits(), y, check=wrong)


@pytest.mark.parametrize("loss", ["row_statistics", "linear_row_statistics"])
def test_an_unknown_check_is_refused_without_labels(loss) -> None:
    with pytest.raises(ValueError, match="check: expected None or 'values'"):
        LOSSES[loss](logits(), None, check="value")


def test_labels_that_are_no_tensor_are_named_as_ever() -> None:
    with pytest.raises(TypeError, match="target: expected a Tensor; got"):
        xent.cross_entropy(logits(), [0, 1, 2], check="values")


@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_compiled_code_does_not_look(kind) -> None:
    """A look would break its graph: the loss is as without."""
    q = logits().softmax(1)
    q[1, 3] = -0.25
    y = torch.tensor([0, 1, 2], device=DEVICE) if kind == "index" else q
    x = logits()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return xent.cross_entropy(x, y, check="values")

    torch.compiler.reset()
    found = torch.compile(loss, fullgraph=True, backend="aot_eager")(x, y)
    torch.testing.assert_close(found, xent.cross_entropy(x, y))


def test_transforms_do_not_look() -> None:
    x, y = torch.randn(4, 3, 5, device=DEVICE), torch.tensor([0, 1, 2], device=DEVICE)
    q = torch.full((4, 3, 5), -1.0, device=DEVICE)
    found = torch.func.vmap(lambda x, q: xent.cross_entropy(x, q, check="values"))(x, q)
    assert found.shape == (4,)
    looked = torch.func.vmap(lambda x: xent.cross_entropy(x, y, check="values"))(x)
    assert looked.shape == (4,)


def test_a_module_says_that_it_looks() -> None:
    assert repr(xent.CrossEntropyLoss(check="values")) == "CrossEntropyLoss(check='values')"
    assert repr(xent.CrossEntropyLoss()) == "CrossEntropyLoss()"
    first, second, *_ = repr(xent.LinearCrossEntropyLoss(3, 4, check="values")).splitlines()
    assert first == "LinearCrossEntropyLoss("
    assert second.strip() == "in_features=3, num_classes=4, bias=False, check='values'"
    assert "check" not in repr(xent.LinearCrossEntropyLoss(3, 4))


@pytest.mark.parametrize("module", [xent.CrossEntropyLoss, own_classifier])
def test_a_module_refuses_at_once(module) -> None:
    with pytest.raises(ValueError, match="check: expected None or 'values'; got 'value'"):
        module(check="value")


# ---- labels that nobody looked at ----


@pytest.fixture
def unseen(monkeypatch) -> None:
    """As on a device: no label of a CPU is looked at, either."""
    import xent.contract.denominator as denominator
    import xent.contract.targets as targets
    import xent.statistics.linear.tiles as tiles

    monkeypatch.setattr(targets, "values_at_hand", lambda tensor: False)
    monkeypatch.setattr(denominator, "within", lambda index, classes: index.clamp(0, classes - 1))
    monkeypatch.setattr(tiles, "values_at_hand", lambda tensor: False)
    monkeypatch.setattr(tiles, "GPUS", (DEVICE.type,))


UNSEEN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda x, y: xent.cross_entropy(x, y, reduction="none"),
    "smoothing": lambda x, y: xent.cross_entropy(x, y, label_smoothing=0.1, reduction="none"),
    "all smooth": lambda x, y: xent.cross_entropy(x, y, label_smoothing=1.0, reduction="none"),
    "linear": lambda x, y: linear(x, y, reduction="none"),
    "linear, smoothing": lambda x, y: linear(x, y, label_smoothing=0.1, reduction="none"),
    "linear, chunks": lambda x, y: linear(x, y, reduction="none", chunk_bytes=40),
    "class weights": lambda x, y: xent.cross_entropy(
        x, y, torch.ones(5, device=DEVICE), reduction="none"
    ),
    "linear, class weights": lambda x, y: linear(
        x, y, weight=torch.ones(5, device=DEVICE), reduction="none"
    ),
}


@pytest.mark.parametrize("loss", UNSEEN.values(), ids=UNSEEN)
def test_an_unseen_bad_label_makes_its_row_nan(loss, unseen) -> None:
    x = logits().requires_grad_()
    with xent.backend("triton"):
        losses = loss(x, torch.tensor([0, 9, -100], device=DEVICE))
        losses.sum().backward()
    assert losses.isnan().tolist() == [False, True, False]
    assert x.grad.isnan().any(1).tolist() == [False, True, False]
    with pytest.raises(IndexError, match=r"target is 9 at position [01] of .* expected 0..4 or"):
        xent.check_errors()


def test_an_unseen_bad_label_in_linear_statistics(unseen) -> None:
    with torch.no_grad(), xent.backend("triton"):
        y = torch.tensor([0, 9, -100], device=DEVICE)
        assert LOSSES["linear_cross_entropy"](logits(), y).isnan()
        with pytest.raises(IndexError, match="target is 9"):
            xent.check_errors()
        none = linear(logits()[:0], y[:0], reduction="sum")
    assert none == 0
