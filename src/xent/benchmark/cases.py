"""What is measured: shapes, labels and modes, and which of them by default."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import torch


class Labels(StrEnum):
    """What a loss is asked for besides the logits."""

    INDEX = "index"
    PROBABILITIES = "probabilities"
    SMOOTHED = "smoothed+weighted"
    IGNORED = "30% ignored"


class Mode(StrEnum):
    """Whether a gradient is asked for."""

    FORWARD = "forward"
    BOTH = "forward+backward"


LEAST_BYTES = 1 << 22
"""Below this the logits stay in cache and a call costs its overhead: no floor of memory applies."""


@dataclass(frozen=True)
class Case:
    """Logits of one shape (classes on axis 1) and dtype, with one kind of labels."""

    shape: tuple[int, ...]
    labels: Labels = Labels.INDEX
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """The shape as an option or a file can hold it."""
        return "x".join(map(str, self.shape))

    @property
    def title(self) -> str:
        """The shape and, where it is not float32, the dtype, to be read."""
        short = {"float32": "", "bfloat16": " bf16"}
        return "×".join(map(str, self.shape)) + short.get(self.dtype, f" {self.dtype}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the logits."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def bytes(self) -> int:
        """Size of the logits, which is the size of their gradient."""
        return math.prod(self.shape) * self.torch_dtype.itemsize

    @property
    def is_large(self) -> bool:
        """Whether memory, not the overhead of a call, limits the speed."""
        return self.bytes >= LEAST_BYTES


LANGUAGE = Case((4096, 32000))
SEGMENTATION = Case((8, 21, 512, 512))
SHAPES = (
    LANGUAGE,
    Case((2048, 128256)),
    Case((65536, 1000)),
    Case((262144, 100)),
    SEGMENTATION,
    Case((512, 50257), dtype="bfloat16"),
    Case((32, 10)),
    Case((128, 1000)),
)
QUICK = (
    Case((1024, 8192)),
    Case((2, 21, 64, 64), Labels.IGNORED),
    Case((32, 10)),
)


def _with_all_labels(case: Case) -> tuple[Case, ...]:
    return tuple(Case(case.shape, labels, case.dtype) for labels in Labels)


def everything() -> tuple[Case, ...]:
    """The whole product of shapes and labels."""
    return tuple(variant for case in SHAPES for variant in _with_all_labels(case))


def default() -> tuple[Case, ...]:
    """Every shape with class indices; one of rows and one of pixels with every kind of labels."""
    in_full = (LANGUAGE, SEGMENTATION)
    return tuple(
        variant
        for case in SHAPES
        for variant in (_with_all_labels(case) if case in in_full else (case,))
    )


def shows_memory(case: Case) -> bool:
    """Whether the memory of a case is measured: options of index labels add vectors only."""
    return case.is_large and case.labels in (Labels.INDEX, Labels.PROBABILITIES)


def chosen(cases: Iterable[Case], names: Iterable[str]) -> tuple[Case, ...]:
    """The cases of the named shapes, or all where none is named.

    Raises:
        ValueError: a name is not among the cases; the message lists those that are.
    """
    cases, names = tuple(cases), tuple(names)
    known = dict.fromkeys(case.name for case in cases)
    for name in names:
        if name not in known:
            raise ValueError(f"no case {name!r}; there are {', '.join(known)}")
    return tuple(case for case in cases if not names or case.name in names)
