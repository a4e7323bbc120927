"""Which backend computes the row statistics of a tensor."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from xent.backends.torch import rows as torch_rows


class RowBackend(Protocol):
    """What a backend offers; ``backends.torch.rows`` documents each function.

    Derivatives at labels and class weights, forward mode and second derivatives always run on
    the torch backend: they are rare, and one readable definition of them is enough.
    """

    def statistics(
        self,
        logits: Tensor,
        index: Tensor | None,
        probabilities: Tensor | None,
        weight: Tensor | None,
        valid: Tensor | None,
        with_uniform: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """``(maximum, rest, nll, uniform, cross)``."""
        ...

    def logit_gradient(
        self,
        logits: Tensor,
        index: Tensor | None,
        probabilities: Tensor | None,
        weight: Tensor | None,
        valid: Tensor | None,
        maximum: Tensor,
        rest: Tensor,
        nll: Tensor | None,
        a: Tensor,
        b: Tensor | None,
        u: Tensor | None,
        d: Tensor | None,
    ) -> Tensor:
        """The gradient at the logits, in their dtype."""
        ...


def backend_for(logits: Tensor) -> RowBackend:
    """The backend for these logits: so far the readable one, on every device."""
    del logits
    return torch_rows
