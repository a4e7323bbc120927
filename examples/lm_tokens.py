"""Tokens: bytes, or merged byte pairs; each knows how many bytes of text it stands for."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BYTES = 256
SPECIAL = 2
"""Ids behind those of the text: the start of a document, and padding. No text can spell them."""


@dataclass(frozen=True)
class Vocabulary:
    """Ids of text, and two more."""

    byte_counts: Tensor
    """``[V]``: UTF-8 bytes of each token, 0 for start and padding."""
    tokenizer: Any
    """Of the ``tokenizers`` package, or None for bytes."""

    @property
    def size(self) -> int:
        """V: text, start and padding."""
        return len(self.byte_counts)

    @property
    def start(self) -> int:
        """What the first token of a document is predicted from; never predicted itself."""
        return self.size - 2

    @property
    def padding(self) -> int:
        """What fills a sequence behind the end of its document."""
        return self.size - 1

    def encoded(self, documents: Sequence[str]) -> list[Tensor]:
        """The ids of each document, without start or padding."""
        if self.tokenizer is None:
            rows = [list(document.encode()) for document in documents]
        else:
            rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(documents))]
        return [torch.tensor(row) for row in rows]


def has_tokenizers() -> bool:
    """Whether byte pairs can be merged here."""
    return importlib.util.find_spec("tokenizers") is not None


def byte_vocabulary() -> Vocabulary:
    """A token per byte."""
    return Vocabulary(_with_special([1] * BYTES), None)


def merged_vocabulary(documents: Sequence[str], size: int) -> Vocabulary:
    """Byte pairs merged until there are ``size`` tokens, or no pair occurs twice.

    Args:
        documents: what the merges are learned from: none that is held out.
        size: of the whole vocabulary, start and padding included.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size - SPECIAL,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),  # sorted: it is a set
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    # A token is spelled with one character per byte, whatever the byte.
    spelled = {place: token for token, place in tokenizer.get_vocab().items()}
    return Vocabulary(_with_special([len(spelled[i]) for i in range(len(spelled))]), tokenizer)


def _with_special(counts: list[int]) -> Tensor:
    return torch.tensor([*counts, *[0] * SPECIAL])
