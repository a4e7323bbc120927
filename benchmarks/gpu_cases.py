"""What is measured on a GPU: shapes, dtypes and modes, the most telling first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from xent.benchmark.cases import Case, Mode
from xent.benchmark.data import Data

OURS = "xent"
PASSES = {Mode.FORWARD: 1, Mode.BOTH: 3}
"""Over the logits: one read; two reads and one write. Matrix products: one; three."""


class Kind(StrEnum):
    """What a loss is given."""

    LOGITS = "logits"
    LINEAR = "linear"


@dataclass(frozen=True)
class Cell:
    """One size, dtype and mode: (N, C, …) of logits; N rows, D features, a vocabulary of V."""

    kind: Kind
    sizes: tuple[int, ...]
    dtype: str
    mode: Mode

    @property
    def title(self) -> str:
        """Sizes and dtype."""
        short = {"float32": "fp32", "bfloat16": "bf16"}
        return f"{'×'.join(map(str, self.sizes))} {short.get(self.dtype, self.dtype)}"

    @property
    def key(self) -> str:
        """A name of its own."""
        return f"{self.kind} {self.title} {self.mode}"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of all floating-point data."""
        return getattr(torch, self.dtype)

    @property
    def work(self) -> int:
        """Bytes to be moved; floating-point operations if linear."""
        size = math.prod(self.sizes)
        each = 2 if self.kind is Kind.LINEAR else self.torch_dtype.itemsize
        return PASSES[self.mode] * size * each


LOGITS = ((8192, 32000), (8192, 128256), (16384, 131072), (65536, 1000), (8, 21, 1024, 1024))
LINEAR = ((8192, 4096, 128256), (16384, 2048, 248320))
TINY_LOGITS = ((64, 5000), (2, 5, 16, 16))
TINY_LINEAR = ((64, 32, 1000),)


def cells(*, tiny: bool = False) -> tuple[Cell, ...]:
    """All of them, in the order in which they are measured: bfloat16 first, as time may run out."""
    logits, linear = (TINY_LOGITS, TINY_LINEAR) if tiny else (LOGITS, LINEAR)
    groups = (
        (Kind.LOGITS, logits, "bfloat16"),
        (Kind.LINEAR, linear, "bfloat16"),
        (Kind.LOGITS, logits, "float32"),
    )
    return tuple(cell for group in groups for cell in _group(*group))


def _group(kind: Kind, shapes: tuple[tuple[int, ...], ...], dtype: str) -> Iterator[Cell]:
    for shape in shapes:
        for mode in (Mode.BOTH, Mode.FORWARD):
            yield Cell(kind, shape, dtype, mode)


def made_logits(cell: Cell, device: str) -> Data:
    """Normal logits and random labels, made on the device: 2³¹ logits take a CPU half a minute."""
    generator = torch.Generator(device).manual_seed(0)
    rows, classes, *positions = cell.sizes
    logits = torch.empty(cell.sizes, dtype=cell.torch_dtype, device=device)
    for row in logits.split(max(1, rows // 64)):  # no second tensor of that size
        row.copy_(torch.randn(row.shape, generator=generator, device=device))
    shape = (rows, *positions)
    target = torch.randint(classes, shape, generator=generator, device=device)
    return Data(Case(cell.sizes, dtype=cell.dtype), logits, target)


@dataclass(frozen=True)
class LinearData:
    """Hidden states (N, D) and a classifier (V, D) whose logits have a deviation of 1; labels."""

    hidden: Tensor
    classifier: Tensor
    target: Tensor


def made_linear(cell: Cell, device: str) -> LinearData:
    """The same numbers for everybody."""
    generator = torch.Generator(device).manual_seed(0)
    rows, features, vocabulary = cell.sizes
    drawn = {"generator": generator, "device": device}
    hidden = torch.randn(rows, features, **drawn).to(cell.torch_dtype)
    classifier = torch.randn(vocabulary, features, **drawn).div_(features**0.5)
    target = torch.randint(vocabulary, (rows,), **drawn)
    return LinearData(hidden, classifier.to(cell.torch_dtype), target)
