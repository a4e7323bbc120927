"""Products with a classifier, which is widened piece by piece if it is kept in fewer bits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from xent.contract.dtypes import accumulation, without_autocast
from xent.contract.rows import LinearRows

PIECE_BYTES = 2 << 20
"""Of a widened piece: it stays in a second cache until it has been multiplied."""


class Piece(NamedTuple):
    """Outputs [start, stop) of a classifier, in the dtype that is multiplied in."""

    start: int
    stop: int
    weight: Tensor


class Products:
    """The matrix products of a linear layer, into memory that is there already."""

    def __init__(self, rows: LinearRows) -> None:
        self._classifier = rows.classifier.detach()
        self._kind = rows.kind
        self._bias = None if rows.bias is None else rows.bias.detach().to(rows.kind)

    def logits(self, hidden: Tensor, out: Tensor, first: int = 0) -> None:
        """Writes hidden · classifierᵀ + bias, from the output ``first`` on."""
        for start, stop, weight in self._pieces(first, first + out.shape[1]):
            place = out[:, start - first : stop - first]
            if self._bias is None:
                torch.mm(hidden, weight.t(), out=place)
            else:
                torch.addmm(self._bias[start:stop], hidden, weight.t(), out=place)

    def at_input(self, gradient: Tensor, out: Tensor) -> None:
        """Writes the gradient at hidden, of that at its logits."""
        if not gradient.shape[1]:  # a rank without a class
            out.zero_()
        for start, stop, weight in self._pieces(0, gradient.shape[1]):
            if start == 0:
                write_product(out, gradient[:, start:stop], weight)
            else:
                add_product(out, gradient[:, start:stop], weight)

    def _pieces(self, start: int, end: int) -> Iterator[Piece]:
        if self._classifier.dtype == self._kind:
            yield Piece(start, end, self._classifier[start:end])
            return
        features = self._classifier.shape[1]
        length = max(1, PIECE_BYTES // max(1, features * self._kind.itemsize))
        held = self._classifier.new_empty(min(length, end - start), features, dtype=self._kind)
        while start < end:
            stop = min(start + length, end)
            yield Piece(start, stop, held[: stop - start].copy_(self._classifier[start:stop]))
            start = stop


def write_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """Writes a · b, unrounded where ``out`` is wider and the device can."""
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    elif _widens(a.device, a.dtype):
        torch.mm(a, b, out_dtype=out.dtype, out=out)
    else:
        out.copy_(a @ b)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds a · b to what has come so far, likewise."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif _widens(a.device, a.dtype):
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total.add_(a @ b)


@cache
def _widens(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of half types come in float32 there: some devices can, by newer torchs.

    It is tried: nobody can be asked. Nothing waits for the result.
    """
    ones = torch.ones((16, 16), dtype=dtype, device=device)
    total = torch.zeros((16, 16), dtype=torch.float32, device=device)
    try:
        torch.addmm(total, ones, ones, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError):  # NotImplementedError is a RuntimeError
        return False
    return True


def plain_logits(rows: LinearRows) -> Tensor:
    """The logits ``[outer, C, inner]`` as torch operations that can be differentiated."""
    bias = None if rows.bias is None else rows.bias.to(rows.kind)
    with without_autocast(rows.hidden.device.type):
        logits = F.linear(rows.hidden.to(rows.kind), rows.classifier.to(rows.kind), bias)
    logits = logits.to(accumulation(logits.dtype))
    return logits.reshape(rows.hidden.shape[0], rows.classes, rows.inner)
