"""Which backend computes the row statistics of a tensor."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from xent.backends.torch import rows as torch_rows
from xent.contract.rows import Coefficients, Rows, Vectors


class RowBackend(Protocol):
    """What a backend offers; ``backends.torch.rows`` documents each function.

    Derivatives at labels and class weights, forward mode and second derivatives always run on
    the torch backend: they are rare, and one readable definition of them is enough.
    """

    def statistics(self, rows: Rows, with_uniform: bool) -> Vectors:
        """The statistics of rows; what was not asked for is None."""
        ...

    def logit_gradient(self, rows: Rows, vectors: Vectors, coefficients: Coefficients) -> Tensor:
        """The gradient at the logits, in their dtype."""
        ...


def backend_for(logits: Tensor) -> RowBackend:
    """The backend for these logits: so far the readable one, on every device."""
    del logits
    return torch_rows
