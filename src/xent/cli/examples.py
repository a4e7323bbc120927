"""Logits and labels to begin with: ``--example``."""

from __future__ import annotations

from typing import NamedTuple

import torch

from xent.cli.files import LabelledLogits

_DOUBLE = torch.float64


class Example(NamedTuple):
    """What is explained, and how."""

    inputs: LabelledLogits
    binary: bool = False


def _pets() -> Example:
    """The gradient (−0.9, 0.7, 0.2): the true class has the least probability."""
    logits = torch.tensor([0.1, 0.7, 0.2], dtype=_DOUBLE).log()
    return Example(LabelledLogits(logits, torch.tensor(0), names=("cat", "dog", "bird")))


def _leaves() -> Example:
    """Leaves of the Plant Pathology competition, with dense labels; the second is a mixture."""
    logits = torch.tensor([[0.5, -1.0, 2.5, 0.0], [1.5, -0.5, 0.0, 1.0]], dtype=_DOUBLE)
    labels = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.7, 0.0, 0.0, 0.3]], dtype=_DOUBLE)
    names = ("healthy", "multiple_diseases", "rust", "scab")
    return Example(LabelledLogits(logits, labels, names=names))


def _letters() -> Example:
    """Four examples of 27 classes, letters and an end, as a first language model has them."""
    logits = torch.randn((4, 27), generator=torch.Generator().manual_seed(27), dtype=_DOUBLE)
    names = (".", *"abcdefghijklmnopqrstuvwxyz")
    return Example(LabelledLogits(logits, torch.tensor([5, 13, 13, 1]), names=names))


def _padded() -> Example:
    """Four words of a sentence, each one of three kinds; the last is padding."""
    scores = [[2.0, 0.5, 0.0], [0.0, 1.0, 1.5], [0.5, 0.0, 3.0], [1.0, 0.0, -1.0]]
    logits, labels = torch.tensor(scores, dtype=_DOUBLE), torch.tensor([0, 1, 2, -100])
    return Example(LabelledLogits(logits, labels, names=("noun", "verb", "other")))


def _apart() -> Example:
    """Logits so far apart that float32 has no number for the least probability."""
    logits = torch.tensor([60.0, 40.0, -50.0], dtype=_DOUBLE)
    return Example(LabelledLogits(logits, torch.tensor(1), names=("cat", "dog", "bird")))


def _mail() -> Example:
    """One logit, yes or no."""
    logits, labels = torch.tensor([2.0], dtype=_DOUBLE), torch.tensor([0])
    return Example(LabelledLogits(logits, labels, names=("ham", "spam")), binary=True)


EXAMPLES = {
    "gradient": _pets(),
    "dense": _leaves(),
    "4x27": _letters(),
    "padded": _padded(),
    "apart": _apart(),
    "binary": _mail(),
}
