"""The tensors of a case, and the arguments that every loss gets with them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from xent.benchmark.cases import Case, Labels

SMOOTHING = 0.1
IGNORED_SHARE = 0.3
IGNORE_INDEX = -100
BLOCK = 1 << 22
"""Elements that are worked on at once where a whole copy would be too large."""


@dataclass(frozen=True)
class Data:
    """Logits and target, with the options of the loss."""

    case: Case
    logits: Tensor
    target: Tensor
    weight: Tensor | None = None
    label_smoothing: float = 0.0
    ignore_index: int = IGNORE_INDEX

    @property
    def options(self) -> dict[str, Tensor | float | int]:
        """The arguments after logits and target, as torch names them; none that is a default."""
        options: dict[str, Tensor | float | int] = {}
        if self.weight is not None:
            options["weight"] = self.weight
        if self.label_smoothing:
            options["label_smoothing"] = self.label_smoothing
        if self.case.labels is Labels.IGNORED:
            options["ignore_index"] = self.ignore_index
        return options

    def blocks(self) -> Iterator[slice]:
        """Slices of the batch axis, few enough elements in each."""
        batch, *rest = self.case.shape
        size = max(1, BLOCK // math.prod(rest))
        return (slice(start, start + size) for start in range(0, batch, size))


def made(case: Case, seed: int = 0) -> Data:
    """Normal logits and random labels, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(case.shape, generator=generator).to(case.torch_dtype)
    if case.labels is Labels.PROBABILITIES:
        probabilities = torch.randn(case.shape, generator=generator).to(case.torch_dtype)
        data = Data(case, logits, probabilities)
        for block in data.blocks():  # in place: the peak of a process is measured afterwards
            probabilities[block] = probabilities[block].softmax(1)
        return data
    batch, classes, *positions = case.shape
    target = torch.randint(classes, (batch, *positions), generator=generator)
    if case.labels is Labels.SMOOTHED:
        weight = torch.rand(classes, generator=generator).add_(0.5).to(case.torch_dtype)
        return Data(case, logits, target, weight, SMOOTHING)
    if case.labels is Labels.IGNORED:
        target[torch.rand(target.shape, generator=generator) < IGNORED_SHARE] = IGNORE_INDEX
    return Data(case, logits, target)
