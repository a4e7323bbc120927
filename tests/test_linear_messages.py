"""Every mistake gets torch's exception type and a message that names argument and remedy."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest
import torch
import torch.nn.functional as F

import xent
from composition import needs_torchs

X = torch.zeros(3, 5)
W = torch.zeros(7, 5)
Y = torch.tensor([1, 2, 6])
Q = torch.full((3, 7), 1 / 7)

Mistake = tuple[str, Callable[..., object], type[Exception], tuple[str, ...]]

# (what went wrong, the call, the exception, what the message says)
SHARED_WITH_TORCH: list[Mistake] = [
    (
        "a transposed classifier",
        lambda f: f(X, W.T, Y),
        RuntimeError,
        (
            "linear_weight: expected",
            "5 features",
            "got shape (5, 7)",
            "Is the classifier transposed?",
        ),
    ),
    (
        "logits in the place of hidden states",
        lambda f: f(X @ W.T, W, Y),
        RuntimeError,
        ("linear_weight: expected", "7 features", "Are these logits already?", "cross_entropy"),
    ),
    (
        "another number of features",
        lambda f: f(torch.zeros(3, 4), W, Y),
        RuntimeError,
        ("linear_weight: expected", "4 features", "got shape (7, 5)"),
    ),
    (
        "a classifier without features",
        lambda f: f(X, W[0], Y),
        RuntimeError,
        ("linear_weight: expected", "(C, D)", "got shape (5,)"),
    ),
    (
        "a hidden state without features",
        lambda f: f(X[0, 0], W, Y[0]),
        RuntimeError,
        ("input: expected", "(D), (N, D)", "no axes"),
    ),
    (
        "a bias of another size",
        lambda f: f(X, W, Y, linear_bias=torch.zeros(5)),
        RuntimeError,
        ("linear_bias: expected", "(7,)", "got shape (5,)"),
    ),
    (
        "a flat bias of several classifiers",
        lambda f: f(X, W.view(7, 1, 5), Y[:, None], linear_bias=torch.zeros(7)),
        RuntimeError,
        ("linear_bias: expected", "(7, 1)", "got shape (7,)"),
    ),
    (
        "a classifier of another dtype",
        lambda f: f(X, W.half(), Y),
        RuntimeError,
        ("linear_weight: expected float32", "got float16", "torch.autocast"),
    ),
    (
        "hidden states of another dtype",
        lambda f: f(X.double(), W, Y),
        RuntimeError,
        ("linear_weight: expected float64", "got float32"),
    ),
    (
        "a bias of another dtype",
        lambda f: f(X, W, Y, linear_bias=torch.zeros(7, dtype=torch.bfloat16)),
        RuntimeError,
        ("linear_bias: expected float32", "got bfloat16"),
    ),
    (
        "class weights of another size",
        lambda f: f(X, W, Y, weight=torch.ones(5)),
        RuntimeError,
        ("weight: expected", "7", "got"),
    ),
    (
        "batch sizes differ",
        lambda f: f(X, W, Y[:2]),
        ValueError,
        ("target: expected", "got shape (2,)"),
    ),
    (
        "several labels per row",
        lambda f: f(X, W, Y[:, None]),
        RuntimeError,
        ("target: expected class indices of shape (3,)", "got shape (3, 1)"),
    ),
    (
        "float indices",
        lambda f: f(X, W, Y.float()),
        RuntimeError,
        ("target", "float32 tensor of shape (3,)", "(3, 7)"),
    ),
    (
        "one-hot integers",
        lambda f: f(X, W, F.one_hot(Y, 7)),
        RuntimeError,
        ("target: expected floating-point class probabilities", "(3, 7)"),
    ),
    (
        "a label that is no class",
        lambda f: f(X, W, torch.tensor([1, 7, 2])),
        IndexError,
        ("target[1]", "7", "0..6"),
    ),
    (
        "a negative label",
        lambda f: f(X, W, torch.tensor([1, 0, -1])),
        IndexError,
        ("target[2]", "-1", "0..6"),
    ),
    (
        "label smoothing above one",
        lambda f: f(X, W, Y, label_smoothing=1.5),
        RuntimeError,
        ("label_smoothing: expected", "1.5"),
    ),
    (
        "an unknown reduction",
        lambda f: f(X, W, Y, reduction="average"),
        ValueError,
        ("reduction: expected 'none' or 'mean' or 'sum'", "'average'"),
    ),
]
OURS: list[Mistake] = [
    ("a list of hidden states", lambda f: f([1.0], W, Y), TypeError, ("input", "Tensor", "list")),
    ("a list as classifier", lambda f: f(X, [1.0], Y), TypeError, ("linear_weight", "list")),
    ("a list of labels", lambda f: f(X, W, [1, 2, 6]), TypeError, ("target", "list")),
    (
        "a number as bias",
        lambda f: f(X, W, Y, linear_bias=0.0),
        TypeError,
        ("linear_bias", "0.0 of type float"),
    ),
    (
        "token ids",
        lambda f: f(X.long(), W.long(), Y),
        NotImplementedError,
        ("input: expected", "int64 tensor of shape (3, 5)", "Are these token ids?"),
    ),
    (
        "complex hidden states",
        lambda f: f(X.cfloat(), W.cfloat(), Y),
        NotImplementedError,
        ("input: expected", "complex64"),
    ),
    (
        "another device",
        lambda f: f(X, W.to("meta"), Y),
        RuntimeError,
        ("linear_weight: expected a tensor on cpu", "meta", "Move the model"),
    ),
    (
        "a bias on another device",
        lambda f: f(X, W, Y, linear_bias=torch.zeros(7, device="meta")),
        RuntimeError,
        ("linear_bias: expected a tensor on cpu", "meta"),
    ),
    (
        "labels on another device",
        lambda f: f(X, W, Y.to("meta")),
        RuntimeError,
        ("target: expected a tensor on cpu", "meta"),
    ),
    ("no bytes", lambda f: f(X, W, Y, chunk_bytes=0), ValueError,
     ("chunk_bytes: expected a positive number of bytes, or None", "got 0")),
    ("negative bytes", lambda f: f(X, W, Y, chunk_bytes=-1), ValueError, ("chunk_bytes", "got -1")),
    ("bytes are a bool", lambda f: f(X, W, Y, chunk_bytes=True), TypeError,
     ("chunk_bytes", "True of type bool")),
    ("bytes are a word", lambda f: f(X, W, Y, chunk_bytes="1"), TypeError,
     ("chunk_bytes", "'1' of type str")),
    ("bytes are a float", lambda f: f(X, W, Y, chunk_bytes=1e6), TypeError,
     ("chunk_bytes", "of type float")),
    ("negative smoothing", lambda f: f(X, W, Y, label_smoothing=-0.1), RuntimeError,
     ("label_smoothing: expected", "-0.1")),
    ("sample weights of another shape", lambda f: f(X, W, Y, sample_weight=torch.ones(2)),
     ValueError, ("sample_weight: expected", "(3,)", "(2,)")),
    ("a denominator of a sum", lambda f: f(X, W, Y, reduction="sum", denominator=2), ValueError,
     ("denominator: expected None", "reduction='sum'")),
    ("an unknown denominator", lambda f: f(X, W, Y, denominator="rows"), ValueError,
     ("denominator: expected", "'rows'")),
    ("an unknown on_empty", lambda f: f(X, W, Y, on_empty="one"), ValueError,
     ("on_empty: expected 'nan' or 'zero'", "'one'")),
    ("a dtype that is no float", lambda f: f(X, W, Y, dtype=torch.int64), TypeError,
     ("dtype: expected", "int64")),
    ("an ignored class among probabilities", lambda f: f(X, W, Q, ignore_index=1), RuntimeError,
     ("ignore_index", "probabilities")),
    ("labels that are words", lambda f: f(X, W, Y, ignore_index="pad"), TypeError,
     ("ignore_index", "'pad'")),
    ("a label of several classifiers", lambda f: f(X, W.view(7, 1, 5), Y[:, None] + 3),
     IndexError, ("target[2, 0]", "9", "0..6")),
    ("a label within a batch of sequences",
     lambda f: f(X.view(1, 3, 5), W, torch.tensor([[0, 1, 8]])), IndexError,
     ("target[0, 2]", "8", "0..6")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "kind", "parts"),
    [case[1:] for case in (*SHARED_WITH_TORCH, *OURS)],
    ids=[case[0] for case in (*SHARED_WITH_TORCH, *OURS)],
)
def test_a_mistake_is_named_with_what_was_expected_and_what_came(call, kind, parts) -> None:
    with pytest.raises(kind) as caught:
        call(xent.linear_cross_entropy)
    assert type(caught.value) is kind
    missing = [part for part in parts if part not in str(caught.value)]
    assert not missing, str(caught.value)


@needs_torchs
@pytest.mark.parametrize(
    ("call", "kind"),
    [(case[1], case[2]) for case in SHARED_WITH_TORCH],
    ids=[case[0] for case in SHARED_WITH_TORCH],
)
def test_torch_raises_the_same_type(call, kind) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # its type is what is tested
        call(F.linear_cross_entropy)
    assert type(caught.value) is kind, caught.value


def test_the_value_of_a_bad_label_does_not_hide_behind_chunks() -> None:
    target = torch.zeros(1000, dtype=torch.long)
    target[777] = 50
    for chunk_bytes in (28, None):
        with pytest.raises(IndexError, match=r"target\[777\].*50"):
            xent.linear_cross_entropy(torch.zeros(1000, 5), W, target, chunk_bytes=chunk_bytes)


def test_numbers_of_numpy_are_numbers() -> None:
    loss = xent.linear_cross_entropy(X, W, Y, chunk_bytes=numpy.int64(64))
    assert torch.equal(loss, xent.linear_cross_entropy(X, W, Y))
