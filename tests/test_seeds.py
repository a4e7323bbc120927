"""The facts the project began with, with their numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import xent

pytestmark = pytest.mark.usefixtures("backend")


def test_p_minus_y() -> None:
    """Class 0 is true and has p = 0.1: it is pulled up by 0.9, the others are pushed down by p."""
    logits = torch.log(torch.tensor([[0.1, 0.7, 0.2]])).requires_grad_()
    xent.cross_entropy(logits, torch.tensor([0])).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.9, 0.7, 0.2]]))


def test_the_gradient_is_the_chain_through_softmax() -> None:
    """∂L/∂p is zero at every wrong class; the coupling lives in the softmax's denominator."""
    logits = torch.log(torch.tensor([0.1, 0.7, 0.2], dtype=torch.float64))
    p = logits.softmax(0)
    at_p = torch.tensor([-1 / 0.1, 0.0, 0.0], dtype=torch.float64)
    jacobian = p.diag() - p.outer(p)
    leaf = logits.clone().requires_grad_()
    xent.cross_entropy(leaf, torch.tensor(0)).backward()
    torch.testing.assert_close(leaf.grad, jacobian @ at_p)


def test_rows_of_four_by_27_sum_to_one() -> None:
    logits = torch.randn(4, 27)
    p = (logits - xent.row_statistics(logits).lse[:, None]).exp()
    torch.testing.assert_close(p.sum(1), torch.ones(4))
    torch.testing.assert_close(p, logits.softmax(1))


def test_it_is_log_softmax_then_nll() -> None:
    logits, target = torch.randn(6, 5), torch.randint(0, 5, (6,))
    weight = torch.rand(5)
    composed = nn.NLLLoss(weight)(nn.LogSoftmax(dim=1)(logits), target)
    torch.testing.assert_close(xent.CrossEntropyLoss(weight)(logits, target), composed)


def kernel_dense_cross_entropy(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """What the kernel does, in its four steps."""
    times_labels = -x.float().log_softmax(dim=-1) * target.float()
    return times_labels.sum(-1).mean()


def test_dense_is_log_softmax_times_labels_summed_over_classes() -> None:
    logits, labels = torch.randn(8, 4), torch.rand(8, 4).softmax(-1)
    expected = kernel_dense_cross_entropy(logits, labels)
    torch.testing.assert_close(xent.DenseCrossEntropy()(logits, labels), expected)
    over_positions = torch.randn(2, 3, 5, 4)
    soft = torch.rand(2, 3, 5, 4).softmax(-1)
    torch.testing.assert_close(
        xent.dense_cross_entropy(over_positions, soft),
        kernel_dense_cross_entropy(over_positions, soft),
    )


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["float", "int", "bool"])
def test_dense_of_one_hot_is_index_exactly(
    reduction, label_smoothing, dtype, kind, backend
) -> None:
    logits = (4 * torch.randn(5, 3, 7)).to(dtype)
    index = torch.randint(0, 7, (5, 3))
    one_hot = nn.functional.one_hot(index, 7)
    one_hot = {"float": one_hot.to(dtype), "int": one_hot, "bool": one_hot.bool()}[kind]
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    dense = xent.dense_cross_entropy(logits, one_hot, **options)
    assert_equal(dense, xent.cross_entropy(logits, index, dim=-1, **options), backend)


def test_dense_of_one_hot_is_index_exactly_with_class_weights_per_position(backend) -> None:
    logits, index, weight = torch.randn(9, 4), torch.randint(0, 4, (9,)), torch.rand(4)
    one_hot = nn.functional.one_hot(index, 4).float()
    dense = xent.dense_cross_entropy(logits, one_hot, weight, reduction="none")
    of_index = xent.cross_entropy(logits, index, weight, reduction="none")
    assert_equal(dense, of_index, backend)


def assert_equal(dense: torch.Tensor, of_index: torch.Tensor, backend: str) -> None:
    if backend == "triton" and dense.dtype != torch.float64:
        # With one read the distance to the maximum is a sum, and meets the logarithm and the mass
        # of a label apart from each other: some roundings, and one in the dtype.
        rounding = torch.finfo(dense.dtype).eps
        torch.testing.assert_close(dense, of_index, rtol=rounding + 2**-21, atol=0)
    else:
        assert torch.equal(dense, of_index)


def test_two_class_softmax_is_the_sigmoid_of_the_difference() -> None:
    logits, target = torch.randn(10, 2), torch.randint(0, 2, (10,))
    binary = xent.binary_cross_entropy_with_logits(logits[:, 1] - logits[:, 0], target)
    torch.testing.assert_close(binary, xent.cross_entropy(logits, target))


def test_the_binary_loss_is_its_formula() -> None:
    logits, y = torch.randn(10), torch.rand(10)
    p = logits.sigmoid()
    formula = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    torch.testing.assert_close(xent.BCEWithLogitsLoss()(logits, y), formula)


def test_the_weighted_mean_of_one_sample_cancels_its_weight() -> None:
    """Torch's rule divides by Σ w_y for indices, by the number of positions for probabilities."""
    logits, index, weight = torch.randn(1, 3), torch.tensor([2]), torch.tensor([1.0, 2.0, 5.0])
    plain = xent.cross_entropy(logits, index)
    one_hot = nn.functional.one_hot(index, 3).float()
    torch.testing.assert_close(xent.cross_entropy(logits, index, weight), plain)
    torch.testing.assert_close(xent.cross_entropy(logits, one_hot, weight), 5 * plain)
    named = xent.cross_entropy(logits, one_hot, weight, denominator="weight")
    torch.testing.assert_close(named, plain)


def test_micro_batches_with_a_common_denominator_are_the_whole_batch() -> None:
    """A mean of means is not the mean when micro-batches hold unequal numbers of labels."""
    logits, target = torch.randn(8, 6), torch.randint(0, 6, (8,))
    target[:3] = -100
    whole = xent.cross_entropy(logits, target)
    halves = list(zip(logits.chunk(2), target.chunk(2), strict=True))
    valid = (target != -100).sum()
    parts = sum(xent.cross_entropy(x, y, denominator=valid) for x, y in halves)
    torch.testing.assert_close(parts, whole)
    mean_of_means = sum(xent.cross_entropy(x, y) for x, y in halves) / 2
    assert abs(mean_of_means - whole) > 1e-3
