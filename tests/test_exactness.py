"""Where torch loses digits and xent does not: the tail, huge logits, half types, limits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import xent
from exactness import exact_nll, loss_and_gradients
from xent.contract.layout import layout_of

pytestmark = pytest.mark.usefixtures("backend")

INF = math.inf
NAN = math.nan
MARGINS = [5.0, 10.0, 15.0, 17.0, 20.0, 30.0, 60.0, 85.0]


def one_row(margin: float, dtype: torch.dtype) -> torch.Tensor:
    """Class 1 leads by ``margin``; the others differ a little."""
    return torch.tensor([[0.25, margin, -0.5, 0.0]], dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("labels", ["index", "one-hot", "dense"])
def test_confident_predictions_keep_their_digits(margin, dtype, labels) -> None:
    logits = one_row(margin, dtype)
    target = torch.tensor([1])
    one_hot = F.one_hot(target, 4).to(dtype)
    loss, (gradient,) = {
        "index": lambda x: loss_and_gradients(lambda x: xent.cross_entropy(x, target), [x]),
        "one-hot": lambda x: loss_and_gradients(lambda x: xent.cross_entropy(x, one_hot), [x]),
        "dense": lambda x: loss_and_gradients(lambda x: xent.dense_cross_entropy(x, one_hot), [x]),
    }[labels](logits)
    true_loss, true_gradient = exact_nll(logits[0].tolist(), 1)
    eps = torch.finfo(dtype).eps
    assert loss.item() == pytest.approx(true_loss, rel=4 * eps)
    expected = [0.75 * g for g in true_gradient]  # grad_output is 0.75
    # exp(−margin) of a rounded logit is itself uncertain by margin · eps / 2, relatively
    assert gradient[0].tolist() == pytest.approx(expected, rel=(8 + margin) * eps)


@pytest.mark.parametrize("margin", [10.0, 15.0, 20.0])
def test_torch_in_float32_loses_them(margin) -> None:
    """Where 1 − p is e⁻¹⁰, e⁻¹⁵, e⁻²⁰; otherwise there would be nothing to win."""
    logits = torch.tensor([[math.log(math.expm1(margin) / 3 + 1 / 3), 0.0, 0.0, 0.0]])
    target = torch.tensor([0])
    true_loss, true_gradient = exact_nll(logits[0].tolist(), 0)
    theirs, (gradient,) = loss_and_gradients(lambda x: F.cross_entropy(x, target), [logits])
    ours, (our_gradient,) = loss_and_gradients(lambda x: xent.cross_entropy(x, target), [logits])

    def error(value: float, truth: float) -> float:
        return abs(value - truth) / abs(truth)

    truth = 0.75 * true_gradient[0]
    assert error(ours.item(), true_loss) < 1e-6 < error(theirs.item(), true_loss)
    assert error(our_gradient[0, 0].item(), truth) < 1e-6 < error(gradient[0, 0].item(), truth)


@pytest.mark.parametrize("offset", [-3000.0, 1000.0, 30000.0])
def test_logits_in_the_thousands_keep_the_gradient(offset) -> None:
    row = [offset + x for x in (0.0, 1.5, -2.0, 0.25)]
    _, (gradient,) = loss_and_gradients(
        lambda x: xent.cross_entropy(x, torch.tensor([2])), [torch.tensor([row])]
    )
    _, truth = exact_nll(row, 2)
    assert gradient[0].tolist() == pytest.approx([0.75 * g for g in truth], rel=1e-6)


def test_half_types_are_summed_in_float32() -> None:
    ours = xent.cross_entropy(torch.zeros(40000, 8, dtype=torch.float16), torch.zeros(40000).long())
    assert ours.item() == torch.tensor(math.log(8), dtype=torch.float16).item()
    mean = xent.cross_entropy(torch.zeros(64, 8, dtype=torch.bfloat16), torch.zeros(64).long())
    assert mean.item() == torch.tensor(math.log(8), dtype=torch.bfloat16).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_dtype_asks_for_an_unrounded_loss(dtype) -> None:
    logits = torch.randn(6, 9).to(dtype)
    target = torch.arange(6)
    loss = xent.cross_entropy(logits, target, dtype=torch.float32)
    assert loss.dtype == torch.float32
    truth = F.cross_entropy(logits.double(), target)
    assert loss.item() == pytest.approx(truth.item(), rel=1e-6)
    assert xent.cross_entropy(logits, target).dtype == dtype


def test_masked_classes_cost_nothing_where_no_label_is() -> None:
    logits = torch.tensor([[1.0, -INF, 0.5], [0.0, 2.0, -INF]])
    index = torch.tensor([0, 1])
    one_hot = F.one_hot(index, 3).float()
    by_index = loss_and_gradients(lambda x: xent.cross_entropy(x, index), [logits])
    dense = loss_and_gradients(lambda x: xent.cross_entropy(x, one_hot), [logits])
    assert dense[0] == by_index[0]
    assert torch.equal(dense[1][0][logits == -INF], torch.zeros(2))
    torch.testing.assert_close(dense[1][0], by_index[1][0], rtol=1e-6, atol=0)
    assert F.cross_entropy(logits, one_hot).isnan()  # what torch does


def test_a_masked_class_with_label_mass_costs_infinity() -> None:
    logits = torch.tensor([[1.0, -INF, 0.5]])
    assert xent.cross_entropy(logits, torch.tensor([1])).item() == INF
    assert xent.cross_entropy(logits, torch.tensor([[0.5, 0.5, 0.0]])).item() == INF
    assert xent.cross_entropy(logits, torch.tensor([0]), label_smoothing=0.1).item() == INF


def test_class_weight_zero_takes_a_masked_class_out_of_the_smoothing() -> None:
    logits = torch.tensor([[1.0, -INF, 0.5]])
    weight = torch.tensor([1.0, 0.0, 1.0])
    loss = xent.cross_entropy(logits, torch.tensor([0]), weight, label_smoothing=0.3)
    nll = -logits.log_softmax(1)[0]
    expected = 0.7 * nll[0] + 0.1 * (nll[0] + nll[2])
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("row", [[-INF] * 3, [INF, 0.0, 1.0], [NAN, 0.0, 1.0], [0.0, -INF, NAN]])
@pytest.mark.parametrize("target", [0, 1, 2])
def test_rows_without_a_softmax_are_nan_as_in_torch(row, target) -> None:
    logits, label = torch.tensor([row, [0.0, 1.0, 2.0]]), torch.tensor([target, 1])
    probabilities = F.one_hot(label, 3).float()
    for labels in (label, probabilities):
        loss, (gradient,) = loss_and_gradients(
            lambda x, y=labels: xent.cross_entropy(x, y, reduction="none"), [logits]
        )
        assert F.cross_entropy(logits, label, reduction="none").isnan().tolist() == [True, False]
        assert loss.isnan().tolist() == [True, False]
        assert gradient.isnan().all(1).tolist() == [True, False]


def test_one_class_costs_nothing_and_a_masked_one_is_nan() -> None:
    assert xent.cross_entropy(torch.tensor([[3.0]]), torch.tensor([0])).item() == 0.0
    assert xent.cross_entropy(torch.tensor([[-INF]]), torch.tensor([0])).isnan()


@pytest.mark.parametrize("garbage", [NAN, INF, -INF])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_ignored_rows_are_inert(garbage, label_smoothing) -> None:
    logits = torch.randn(4, 5, 3)
    target = torch.randint(0, 5, (4, 3))
    target[1, 2] = target[3, 0] = -100
    spoiled = logits.clone()
    spoiled[1, :, 2] = garbage
    spoiled[3, 2, 0] = garbage
    weight = torch.rand(5)

    def loss(x):
        return xent.cross_entropy(x, target, weight, label_smoothing=label_smoothing)

    clean, dirty = (loss_and_gradients(loss, [x]) for x in (logits, spoiled))
    assert torch.equal(clean[0], dirty[0])
    assert torch.equal(clean[1][0], dirty[1][0])
    assert torch.equal(dirty[1][0][1, :, 2], torch.zeros(5))


def test_ignored_rows_are_inert_in_second_derivatives() -> None:
    logits = torch.full((2, 3), NAN)
    logits[0] = torch.tensor([1.0, 2.0, 3.0])
    logits.requires_grad_()
    loss = xent.cross_entropy(logits, torch.tensor([1, -100]), label_smoothing=0.1)
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), logits)
    assert second.isfinite().all()
    assert torch.equal(second[1], torch.zeros(3))


def test_sample_weight_zero_is_inert_with_probabilities_too() -> None:
    logits = torch.tensor([[1.0, 2.0], [NAN, INF]])
    labels = torch.tensor([[0.3, 0.7], [NAN, 0.5]])
    loss, (gradient,) = loss_and_gradients(
        lambda x: xent.cross_entropy(x, labels, sample_weight=torch.tensor([1.0, 0.0])), [logits]
    )
    torch.testing.assert_close(loss, F.cross_entropy(logits[:1], labels[:1]))
    assert torch.equal(gradient[1], torch.zeros(2))


def test_the_gradient_at_a_sample_weight_of_zero_is_the_loss_behind_it() -> None:
    logits, target = torch.randn(3, 4), torch.tensor([0, 1, 2])
    factors = torch.zeros(3, requires_grad=True)
    xent.cross_entropy(logits, target, sample_weight=factors, reduction="sum").backward()
    torch.testing.assert_close(factors.grad, F.cross_entropy(logits, target, reduction="none"))


@pytest.mark.parametrize(
    ("logit", "label", "expected", "slope"),
    [
        (-INF, 0.0, 0.0, 0.0),
        (INF, 1.0, 0.0, 0.0),
        (-INF, 1.0, INF, -1.0),
        (INF, 0.0, INF, 1.0),
        (INF, 0.5, INF, 0.5),
        (-40.0, 0.0, math.exp(-40), math.exp(-40)),
        (40.0, 1.0, math.exp(-40), -math.exp(-40)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_binary_limits_and_tails(logit, label, expected, slope, dtype) -> None:
    x = torch.tensor([logit], dtype=dtype)
    y = torch.tensor([label], dtype=dtype)
    loss, (gradient,) = loss_and_gradients(
        lambda x: xent.binary_cross_entropy_with_logits(x, y, reduction="sum"), [x]
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert gradient.item() == pytest.approx(0.75 * slope, rel=1e-6)


def test_lse_of_masked_rows_is_their_limit() -> None:
    logits = torch.tensor([[-INF, -INF], [INF, 0.0], [1000.0, 1000.0]])
    expected = torch.tensor([-INF, INF, 1000.0 + math.log(2)])
    assert torch.equal(xent.row_statistics(logits).lse, expected)


def test_statistics_of_positions_that_do_not_count_are_zero_and_inert() -> None:
    logits = torch.tensor([[NAN, INF], [1.0, 2.0]], requires_grad=True)
    valid = torch.tensor([False, True])
    rows = xent.row_statistics(logits, logits.detach(), valid=valid, uniform=True)
    statistics = torch.stack([rows.lse, rows.uniform, rows.cross])
    assert torch.equal(statistics[:, 0], torch.zeros(3))
    assert (statistics[:, 1] > 0).all()
    statistics.sum().backward()
    assert torch.equal(logits.grad[0], torch.zeros(2))
    assert logits.grad[1].isfinite().all()


def test_every_gradient_keeps_its_relative_precision() -> None:
    """Not only the largest: a class of p = e⁻³⁰ has its digits too."""
    logits = torch.linspace(-15, 15, 41)[None]
    for target in (0, 20, 40):
        _, (gradient,) = loss_and_gradients(
            lambda x, y=target: xent.cross_entropy(x, torch.tensor([y])), [logits]
        )
        _, truth = exact_nll(logits[0].tolist(), target)
        expected = [0.75 * g for g in truth]
        assert gradient[0].tolist() == pytest.approx(expected, rel=16 * 2**-24)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, and dynamo's own
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # shapes become constants
@pytest.mark.parametrize("mode", ["trace", "jvp of grad", "compile"])
@pytest.mark.parametrize("labels", ["index", "one-hot"])
def test_the_tail_survives_tracing_and_transforms(mode, labels) -> None:
    logits = torch.tensor([[20.0, 0.0, 0.0]])
    target = torch.tensor([0]) if labels == "index" else torch.tensor([[1.0, 0.0, 0.0]])

    def loss(x):
        return xent.cross_entropy(x, target)

    if mode == "jvp of grad":
        gradient, _ = torch.func.jvp(torch.func.grad(loss), (logits,), (torch.ones(1, 3),))
    else:
        recorded = {
            "trace": lambda f: torch.jit.trace(f, logits),
            "compile": lambda f: torch.compile(f, backend="aot_eager", fullgraph=True),
        }[mode](loss)
        leaf = logits.clone().requires_grad_()
        recorded(leaf).backward()
        gradient = leaf.grad
    _, truth = exact_nll([20.0, 0.0, 0.0], 0)
    assert gradient[0, 0].item() == pytest.approx(truth[0], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_divisors_are_summed_in_float32(dtype) -> None:
    labels = torch.full((70000, 2), 0.5, dtype=dtype)
    loss = xent.cross_entropy(torch.zeros(70000, 2, dtype=dtype), labels, denominator="weight")
    assert loss.item() == torch.tensor(math.log(2), dtype=dtype).item()


def test_class_weight_zero_on_a_masked_label_costs_nothing_for_index_and_one_hot() -> None:
    logits, index = torch.tensor([[1.0, -INF, 0.5]]), torch.tensor([1])
    weight = torch.tensor([1.0, 0.0, 1.0])
    for label_smoothing in (0.0, 0.3, 1.0):
        options = {"reduction": "sum", "label_smoothing": label_smoothing}
        by_index = xent.cross_entropy(logits, index, weight, **options)
        dense = xent.cross_entropy(logits, F.one_hot(index, 3).float(), weight, **options)
        assert by_index.isfinite()
        assert torch.equal(by_index, dense)


def test_an_infinite_class_weight_does_not_reach_ignored_rows() -> None:
    weight = torch.tensor([INF, 1.0, 1.0])
    losses = xent.cross_entropy(
        torch.zeros(2, 3), torch.tensor([-100, 1]), weight, reduction="none"
    )
    torch.testing.assert_close(losses, torch.tensor([0.0, math.log(3)]))


def test_ignored_binary_labels_are_compared_in_a_dtype_that_holds_them() -> None:
    logits = torch.zeros(3)
    for target, absent in [
        (torch.tensor([0, 1, 0], dtype=torch.uint8), 256),
        (torch.tensor([156, 1, 0], dtype=torch.uint8), -100),
        (torch.tensor([-1, 1, 0], dtype=torch.int8), 255),
        (torch.tensor([256.0, 1.0, 0.0], dtype=torch.bfloat16), 257),
    ]:
        options = {"reduction": "none", "ignore_index": absent}
        losses = xent.binary_cross_entropy_with_logits(logits, target, **options)
        assert (losses != 0).all()


def test_half_types_work_on_meta_tensors() -> None:
    logits, target = torch.zeros(2, 3, dtype=torch.float16, device="meta"), torch.zeros(2).long()
    assert xent.cross_entropy(logits, target.to("meta")).dtype == torch.float16


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x[:, :-1],
        lambda x: x.transpose(0, 1),
        lambda x: x[1:, 2:, ::1],
    ],
    ids=["whole", "shifted", "transposed", "sliced"],
)
def test_logits_become_rows_without_a_copy(view) -> None:
    logits = view(torch.randn(3, 5, 7))
    rows = layout_of(logits, -1).rows(logits)
    assert rows.data_ptr() == logits.data_ptr()
    assert rows._base is not None or rows is logits
    images = view(torch.randn(3, 5, 7)).movedim(-1, 1)
    assert layout_of(images, 1).rows(images).data_ptr() == images.data_ptr()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own, at first use
def test_the_forward_derivative_at_a_sample_weight_of_zero_is_the_loss_behind_it() -> None:
    logits, target = torch.randn(3, 4), torch.tensor([0, 1, 2])

    def total(factors):
        return xent.cross_entropy(logits, target, sample_weight=factors, reduction="sum")

    _, tangent = torch.func.jvp(total, (torch.zeros(3),), (torch.ones(3),))
    torch.testing.assert_close(tangent, F.cross_entropy(logits, target, reduction="sum"))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(torch.zeros(3), torch.ones(3))
        tangent = torch.autograd.forward_ad.unpack_dual(total(dual)).tangent
    torch.testing.assert_close(tangent, F.cross_entropy(logits, target, reduction="sum"))


def test_without_gradients_a_learned_sample_weight_of_zero_is_inert() -> None:
    logits, target = torch.tensor([[1.0, 2.0], [NAN, INF]]), torch.tensor([0, 1])
    factors = torch.tensor([1.0, 0.0], requires_grad=True)
    with torch.no_grad():
        loss = xent.cross_entropy(logits, target, sample_weight=factors)
    torch.testing.assert_close(loss, F.cross_entropy(logits[:1], target[:1]))
