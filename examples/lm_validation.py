"""How well a model predicts documents that it has not seen, in bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import xent
from lm_model import LanguageModel
from lm_sequences import IGNORED, Sequences


@dataclass(frozen=True)
class Validation:
    """Means over all tokens of the held-out documents."""

    tokens: int
    bytes: int
    """UTF-8 bytes of these tokens."""
    loss: float
    """Nats per token."""
    perplexity: float
    bits_per_byte: float
    accuracy: float
    """Share of the tokens that were the likeliest."""
    entropy: float
    """Nats per token: the loss that the model expects of itself."""


@torch.no_grad()
def validate(
    model: LanguageModel, sequences: Sequences, byte_counts: Tensor, batch_size: int
) -> Validation:
    """Judges the model.

    Args:
        model: as it is.
        sequences: held out.
        byte_counts: ``[V]``, the UTF-8 bytes of each token.
        batch_size: sequences at a time.
    """
    nll = entropy = 0.0
    right = 0
    for batch in sequences.split(batch_size):
        of = xent.linear_row_statistics(
            model(batch.inputs), model.embedding, batch.labels,
            ignore_index=IGNORED, predictions=True,
        )  # fmt: skip
        assert of.nll is not None  # there were labels,
        assert of.entropy is not None  # and predictions were asked for
        assert of.argmax is not None
        nll += of.nll.double().sum().item()  # padding has 0 in both,
        entropy += of.entropy.double().sum().item()
        right += int((of.argmax == batch.labels).sum())  # and −1 here, which is no label
    tokens, size = sequences.valid(), predicted_bytes(sequences.labels, byte_counts)
    return Validation(
        tokens=tokens,
        bytes=size,
        loss=nll / tokens,
        perplexity=math.exp(nll / tokens),
        bits_per_byte=nll / math.log(2) / size,
        accuracy=right / tokens,
        entropy=entropy / tokens,
    )


def predicted_bytes(labels: Tensor, byte_counts: Tensor) -> int:
    """UTF-8 bytes of exactly the tokens that are predicted."""
    return int(byte_counts[labels[labels != IGNORED]].sum())
