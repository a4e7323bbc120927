"""Every mistake gets torch's exception type and a message that names argument and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import xent

X = torch.zeros(3, 5)
Y = torch.tensor([1, 2, 4])
Q = torch.full((3, 5), 0.2)
IMAGE = torch.zeros(2, 3, 4, 4)
SEQUENCE = torch.zeros(4, 7, 5)

# (what went wrong, the call, torch's exception type, what the message says)
SHARED_WITH_TORCH: list[tuple[str, Callable[..., object], type[Exception], str]] = [
    (
        "target keeps a class axis of one",
        lambda f: f(X, Y[:, None]),
        RuntimeError,
        "target: expected class indices of shape (3,) for input of shape (3, 5) with its classes "
        "on axis 1; got shape (3, 1). The class axis is kept with size 1: target.squeeze(1).",
    ),
    (
        "segmentation target keeps a class axis of one",
        lambda f: f(IMAGE, torch.zeros(2, 1, 4, 4).long()),
        RuntimeError,
        "target.squeeze(1).",
    ),
    (
        "segmentation target of another size",
        lambda f: f(IMAGE, torch.zeros(2, 4, 5).long()),
        RuntimeError,
        "expected class indices of shape (2, 4, 4) for input of shape (2, 3, 4, 4)",
    ),
    (
        "classes on the last axis",
        lambda f: f(SEQUENCE, torch.zeros(4, 7).long()),
        RuntimeError,
        "Are the classes on the last axis? Say dim=-1, or move them there: input.movedim(-1, 1).",
    ),
    (
        "several labels per row",
        lambda f: f(X, torch.zeros(3, 2).long()),
        RuntimeError,
        "Its class axis holds 2, that of input 5.",
    ),
    (
        "batch sizes differ",
        lambda f: f(X, Y[:2]),
        ValueError,
        "The batch sizes differ: 3 and 2.",
    ),
    ("a label without a batch", lambda f: f(X, Y[0]), ValueError, "got shape ()."),
    ("unbatched with two labels", lambda f: f(X[0], Y[:2]), ValueError, "got shape (2,)."),
    (
        "one-hot integers",
        lambda f: f(X, F.one_hot(Y, 5)),
        RuntimeError,
        "target: expected floating-point class probabilities, since it has the shape of input; got "
        "an int64 tensor of shape (3, 5). For one-hot labels: target.float() keeps them, "
        "target.argmax(1) turns them into class indices.",
    ),
    (
        "float indices",
        lambda f: f(X, Y.float()),
        RuntimeError,
        "got a float32 tensor of shape (3,). Class indices: target.long(). Class probabilities: "
        "give them the shape of input, (3, 5).",
    ),
    (
        "bool labels",
        lambda f: f(X, Y.bool()),
        RuntimeError,
        "If two classes are meant: target.long(), or binary_cross_entropy_with_logits",
    ),
    (
        "a label too large",
        lambda f: f(X, torch.tensor([1, 2, 7])),
        IndexError,
        "target[2] is 7; expected 0..4 or ignore_index=-100. "
        "Is a padding id missing from ignore_index?",
    ),
    (
        "a negative label",
        lambda f: f(X, torch.tensor([-1, 2, -1])),
        IndexError,
        "target[0] is -1 (1 more label out of range); expected 0..4",
    ),
    (
        "labels from 1",
        lambda f: f(X, torch.tensor([1, 5, 2])),
        IndexError,
        "target[1] is 5; expected 0..4 or ignore_index=-100. "
        "Do the labels count from 1? Subtract 1 from them.",
    ),
    (
        "unlabelled pixels",
        lambda f: f(IMAGE, torch.full((2, 4, 4), 255)),
        IndexError,
        "target[0, 0, 0] is 255 (31 more labels out of range); expected 0..2 or ignore_index=-100. "
        "Is 255 the mark of unlabelled pixels? Then say ignore_index=255.",
    ),
    (
        "-100 in bytes",
        lambda f: f(X, torch.tensor([1, -100, 2]).to(torch.uint8)),
        IndexError,
        "target[1] is 156; expected 0..4 or ignore_index=-100. "
        "uint8 cannot hold -100, which became 156: keep labels in int64.",
    ),
    ("an unbatched label too large", lambda f: f(X[0], Y[2] + 3), IndexError, "target is 7;"),
    (
        "weight of another length",
        lambda f: f(X, Y, torch.ones(4)),
        RuntimeError,
        "weight: expected one factor for each of the 5 classes, shape (5,); got shape (4,). "
        "It holds one factor per class, not per position.",
    ),
    ("weight with an axis too many", lambda f: f(X, Q, torch.ones(5, 1)), RuntimeError, "weight:"),
    (
        "weight of another dtype",
        lambda f: f(X, Y, torch.ones(5).double()),
        RuntimeError,
        "weight: expected float32, the dtype of input; got float64. "
        "Cast it: weight.to(input.dtype).",
    ),
    (
        "weight on another device",
        lambda f: f(X, Y, torch.ones(5, device="meta")),
        RuntimeError,
        "weight: expected a tensor on cpu, where input is; got one on meta. In a Module, pass it "
        "to the constructor: it is a buffer there and moves with .to().",
    ),
    (
        "target on another device",
        lambda f: f(X, Y.to("meta")),
        RuntimeError,
        "target: expected a tensor on cpu, where input is; got one on meta. "
        "Move it: target.to('cpu').",
    ),
    (
        "arguments swapped",
        lambda f: f(Y, X[:, 0]),
        NotImplementedError,
        "Are logits and labels swapped? The logits come first.",
    ),
    (
        "integer logits",
        lambda f: f(X.long(), Y),
        NotImplementedError,
        "Pass the logits, before argmax.",
    ),
    (
        "complex logits",
        lambda f: f(X.cfloat(), Y),
        NotImplementedError,
        "expected dense logits in one of",
    ),
    (
        "scalar logits, scalar label",
        lambda f: f(torch.tensor(1.0), torch.tensor(0)),
        RuntimeError,
        "a tensor with no axes",
    ),
    (
        "scalar logits, scalar probability",
        lambda f: f(torch.tensor(1.0), torch.tensor(0.5)),
        IndexError,
        "a tensor with no axes",
    ),
    (
        "ignoring a class of probabilities",
        lambda f: f(X, Q, ignore_index=1),
        RuntimeError,
        "ignore_index: expected no class to ignore, since target holds class probabilities; got 1. "
        "To leave positions out, give them sample_weight 0.",
    ),
    (
        "too much smoothing",
        lambda f: f(X, Y, label_smoothing=1.5),
        RuntimeError,
        "label_smoothing: expected a number between 0.0 and 1.0; got 1.5.",
    ),
    (
        "smoothing in words",
        lambda f: f(X, Y, label_smoothing="a"),
        TypeError,
        "got 'a' of type str",
    ),
    (
        "unknown reduction",
        lambda f: f(X, Y, reduction="avg"),
        ValueError,
        "reduction: expected 'none' or 'mean' or 'sum'; got 'avg'.",
    ),
    ("no reduction", lambda f: f(X, Y, reduction=None), ValueError, "got None."),
    ("a list of logits", lambda f: f([[0.0]], Y), TypeError, "Wrap it: torch.as_tensor(input)."),
    (
        "images of another size",
        lambda f: f(IMAGE, torch.zeros(2, 4, 3).long()),
        RuntimeError,
        "They differ on axis 2 of target: 4 and 3.",
    ),
    (
        "labels flattened, logits not",
        lambda f: f(SEQUENCE, torch.zeros(28).long()),
        ValueError,
        "Flatten the logits as well: input.reshape(-1, 5).",
    ),
    (
        "logits flattened, labels not",
        lambda f: f(X[[0, 1, 2, 0]], torch.zeros(2, 2).long()),
        ValueError,
        "Their number is right: target.reshape((4,)).",
    ),
    (
        "unbatched image",
        lambda f: f(torch.zeros(5, 4, 4), torch.zeros(4, 4).long()),
        ValueError,
        "Is there no batch axis? Say dim=0.",
    ),
    (
        "unbatched with a matrix of labels",
        lambda f: f(X[0], torch.zeros(2, 2).long()),
        RuntimeError,
        "target: expected class indices of shape () for input of shape (5,)",
    ),
    (
        "one logit per integer label",
        lambda f: f(X[:, :1], Y[:, None]),
        RuntimeError,
        "For one logit per yes-or-no label use binary_cross_entropy_with_logits, with labels in",
    ),
    (
        "transposed labels",
        lambda f: f(SEQUENCE.transpose(1, 2), torch.zeros(7, 4).long()),
        ValueError,
        "Its axes are in another order: see target.permute.",
    ),
    (
        "0/1 labels for one logit",
        lambda f: f(X[:, :1], torch.tensor([0, 1, 1])),
        IndexError,
        "For one logit per yes-or-no label use binary_cross_entropy_with_logits",
    ),
    (
        "a class more than outputs",
        lambda f: f(X, torch.tensor([0, 5, 3])),
        IndexError,
        "target[1] is 5; expected 0..4 or ignore_index=-100. "
        "Is a padding id missing from ignore_index? Or are there more classes than outputs?",
    ),
    ("no labels", lambda f: f(X, None), TypeError, "target: expected a Tensor; got None of type"),
    ("sparse logits", lambda f: f(X.to_sparse(), Y), NotImplementedError, "(3, 5), sparse."),
    ("a list of labels", lambda f: f(X, [1, 2, 4]), TypeError, "torch.as_tensor(target)."),
    ("a list of weights", lambda f: f(X, Y, [1.0] * 5), TypeError, "weight: expected a Tensor"),
    ("a fractional ignore_index", lambda f: f(X, Y, ignore_index=1.5), TypeError, "ignore_index:"),
    ("no ignore_index", lambda f: f(X, Y, ignore_index=None), TypeError, "The default, -100,"),
]


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [c[1:] for c in SHARED_WITH_TORCH],
    ids=[c[0] for c in SHARED_WITH_TORCH],
)
def test_torchs_exception_with_a_message_that_helps(call, kind, text) -> None:
    with pytest.raises(kind, match=re.escape(text)) as ours:
        call(xent.cross_entropy)
    assert ours.type is kind
    assert kind is kind_raised_by(call, F.cross_entropy)


OWN_OPTIONS = [
    (lambda: xent.cross_entropy(X, Y, label_smoothing=-0.1), RuntimeError, "got -0.1."),
    (lambda: xent.cross_entropy(X, Y, label_smoothing=float("nan")), RuntimeError, "got nan."),
    (lambda: xent.cross_entropy(X, Y, dim=2), IndexError, "dim: expected an axis of input, -2..1"),
    (lambda: xent.cross_entropy(X, Y, dim=1.0), TypeError, "dim: expected an int"),
    (lambda: xent.CrossEntropyLoss(dim="last"), TypeError, "dim: expected an int; got 'last'"),
    (lambda: xent.CrossEntropyLoss(ignore_index="a"), TypeError, "ignore_index: expected an int"),
    (lambda: xent.cross_entropy(X, Y, ignore_index=b"a"), TypeError, "ignore_index:"),
    (lambda: xent.cross_entropy(X, Y, ignore_index={1: 2}), TypeError, "ignore_index:"),
    (lambda: xent.cross_entropy(X, Y, ignore_index=iter((1,))), TypeError, "ignore_index:"),
    (
        lambda: xent.cross_entropy(X, torch.tensor([1, 2, 7]), ignore_index=()),
        IndexError,
        "target[2] is 7; expected 0..4. Is a padding id missing",
    ),
    (
        lambda: xent.cross_entropy(
            torch.zeros(3, 201), torch.tensor([-56, 2, 1], dtype=torch.int8)
        ),
        IndexError,
        "int8 ends at 127; larger labels become negative: keep labels in int64.",
    ),
    (
        lambda: xent.cross_entropy(X, torch.tensor([1, 2, 2**63], dtype=torch.uint64)),
        IndexError,
        "target[2] is 9223372036854775808;",
    ),
    (
        lambda: xent.cross_entropy(SimpleNamespace(logits=X), Y),
        TypeError,
        "Pass the logits of this output: input.logits.",
    ),
    (
        lambda: xent.cross_entropy(X, Y, X[0].cfloat()),
        RuntimeError,
        "weight: expected real factors",
    ),
    (lambda: xent.cross_entropy(X, Y, denominator=torch.tensor(True)), ValueError, "denominator:"),
    (lambda: xent.cross_entropy(X, Y, label_smoothing=True), TypeError, "label_smoothing:"),
    (
        lambda: xent.cross_entropy(X, Y, sample_weight=torch.ones(5)),
        ValueError,
        "sample_weight: expected one factor per position, shape (3,); got shape (5,). "
        "It has the shape of index targets. For one factor per class use weight.",
    ),
    (
        lambda: xent.cross_entropy(X, Y, sample_weight=torch.ones(3).cfloat()),
        TypeError,
        "sample_weight: expected real factors",
    ),
    (lambda: xent.cross_entropy(X, Y, sample_weight=[1, 2, 3]), TypeError, "sample_weight"),
    (
        lambda: xent.cross_entropy(X, Y, denominator="tokens"),
        ValueError,
        "denominator: expected None, 'valid' or 'weight' or 'batch', a number",
    ),
    (lambda: xent.cross_entropy(X, Y, denominator=-1), ValueError, "denominator: "),
    (lambda: xent.cross_entropy(X, Y, denominator=True), TypeError, "denominator: "),
    (lambda: xent.cross_entropy(X, Y, denominator=torch.ones(2)), ValueError, "in a 0-d tensor"),
    (
        lambda: xent.cross_entropy(X, Y, denominator=3, reduction="sum"),
        ValueError,
        "denominator: expected None, since reduction='sum' divides by nothing",
    ),
    (
        lambda: xent.cross_entropy(X, Y, on_empty=0),
        ValueError,
        "on_empty: expected 'nan' or 'zero'",
    ),
    (
        lambda: xent.cross_entropy(X, Y, dtype=torch.int64),
        TypeError,
        "dtype: expected torch.float16",
    ),
    (lambda: xent.cross_entropy(X, Y, dtype="float32"), TypeError, "got 'float32' of type str"),
    (
        lambda: xent.cross_entropy(X, Y, ignore_index="a"),
        TypeError,
        "ignore_index: expected an int",
    ),
    (lambda: xent.cross_entropy(X, Y, ignore_index=(1, 2.0)), TypeError, "a sequence of ints"),
    (lambda: xent.cross_entropy(X, Q, ignore_index=(-1, 2)), RuntimeError, "got 2."),
    (
        lambda: xent.cross_entropy(X, torch.tensor([0, 9, 8]), ignore_index=(9, 7)),
        IndexError,
        "target[2] is 8; expected 0..4 or ignore_index=9, 7.",
    ),
    (
        lambda: xent.cross_entropy(X[:, :0], torch.zeros(3).long()),
        IndexError,
        "expected nothing (input has no classes)",
    ),
    (
        lambda: xent.CrossEntropyLoss(X, Y),
        RuntimeError,
        "size_average: expected a bool or None; got an int64 tensor of shape (3,). Are input and "
        "target in the constructor? Construct the loss first, then call it: Loss()(input, target).",
    ),
    (lambda: xent.CrossEntropyLoss(reduction="avg"), ValueError, "reduction: "),
    (lambda: xent.CrossEntropyLoss(label_smoothing=2), RuntimeError, "label_smoothing: "),
    (lambda: xent.DenseCrossEntropy(reduction="avg"), ValueError, "reduction: "),
    (
        lambda: xent.dense_cross_entropy(X, Y),
        ValueError,
        "labels: expected one probability per class, the shape of logits, (3, 5); got shape (3,). "
        "For class indices use cross_entropy.",
    ),
    (
        lambda: xent.dense_cross_entropy(X.long(), Q),
        NotImplementedError,
        "logits: expected dense logits",
    ),
    (lambda: xent.row_statistics(X, Y, valid=Y), ValueError, "valid: expected a bool tensor"),
    (lambda: xent.row_statistics(torch.tensor(1.0)), IndexError, "input: "),
]


@pytest.mark.parametrize(("call", "kind", "text"), OWN_OPTIONS)
def test_own_options_are_checked_in_words(call, kind, text) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        call()


BINARY: list[tuple[Callable[..., object], type[Exception], str]] = [
    (
        lambda f: f(X, Q[:2]),
        ValueError,
        "target: expected one label per logit, the shape of input, (3, 5); got shape (2, 5). "
        "For one label among several classes use cross_entropy.",
    ),
    (
        lambda f: f(X[:, :1], Q[:, 0]),
        ValueError,
        "Their number is right: target.reshape((3, 1)).",
    ),
    (lambda f: f(X.long(), Q), NotImplementedError, "Are logits and labels swapped?"),
    (lambda f: f(X, Q, torch.ones(4)), RuntimeError, "weight: expected a shape that broadcasts"),
    (lambda f: f(X, Q, pos_weight=torch.ones(4)), RuntimeError, "pos_weight: expected a shape"),
    (lambda f: f(X, Q, torch.ones(2, 3, 5)), RuntimeError, "weight: "),
    (lambda f: f(X, Q.to("meta")), RuntimeError, "target.to('cpu')"),
    (lambda f: f(X, Q, torch.ones(5, device="meta")), RuntimeError, "weight: "),
    (lambda f: f(X, Q, pos_weight=torch.ones(5, device="meta")), RuntimeError, "pos_weight: "),
    (lambda f: f(X, Q, reduction="avg"), ValueError, "reduction: "),
]


@pytest.mark.parametrize(("call", "kind", "text"), BINARY)
def test_the_binary_loss_raises_torchs_exceptions(call, kind, text) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        call(xent.binary_cross_entropy_with_logits)
    assert kind is kind_raised_by(call, F.binary_cross_entropy_with_logits)


def kind_raised_by(call, function) -> type[Exception] | None:
    try:
        call(function)
    except Exception as error:
        return type(error)
    return None


@pytest.mark.parametrize("size_average", [None, True, False])
@pytest.mark.parametrize("reduce", [None, True, False])
@pytest.mark.parametrize(
    ("ours", "theirs", "target"),
    [
        (xent.cross_entropy, F.cross_entropy, Y),
        (xent.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, Q),
    ],
)
def test_deprecated_arguments_do_and_say_what_torchs_do(
    size_average, reduce, ours, theirs, target, recwarn
) -> None:
    logits = torch.randn(3, 5)
    options = {"size_average": size_average, "reduce": reduce}
    expected = theirs(logits, target, **options)
    said = [(w.category, str(w.message)) for w in recwarn]
    recwarn.clear()
    torch.testing.assert_close(ours(logits, target, **options), expected)
    assert [(w.category, str(w.message)) for w in recwarn] == said
    assert all(w.filename == __file__ for w in recwarn)  # it points at the caller


def test_deprecated_constructor_arguments_warn_at_the_caller() -> None:
    with pytest.warns(UserWarning, match="please use reduction='sum' instead") as said:
        assert xent.CrossEntropyLoss(size_average=False).reduction == "sum"
    assert said[0].filename == __file__
    with pytest.warns(UserWarning, match="please use reduction='none' instead"):
        assert xent.BCEWithLogitsLoss(reduce=False).reduction == "none"


def test_the_readme_quotes_the_message() -> None:
    target = torch.arange(18)
    target[17] = 50257
    with pytest.raises(IndexError) as said:
        xent.cross_entropy(torch.zeros(1, 50257).expand(18, 50257), target)
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    assert str(said.value) in " ".join(readme.split())
