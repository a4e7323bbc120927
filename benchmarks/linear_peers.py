"""The programs that are compared: the loss of hidden states through a classifier.

Each is made for one case and does one mode of it: ``run`` computes and keeps the loss and the
gradients, ``release`` lets go of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor

import xent


class Mode(StrEnum):
    """What is asked for."""

    FORWARD = "forward"
    BOTH = "forward + backward"
    PER_ROW = "per-row losses + backward"


@dataclass(frozen=True)
class Case:
    """So many hidden states of D features, a vocabulary of V, in one dtype."""

    rows: int
    features: int
    vocabulary: int
    dtype: str = "float32"

    @property
    def title(self) -> str:
        """The sizes and, where it is not float32, the dtype."""
        sizes = f"{self.rows}×{self.features}×{self.vocabulary}"
        return sizes if self.dtype == "float32" else f"{sizes} {self.dtype}"


@dataclass(frozen=True)
class Data:
    """Hidden states whose logits have a deviation of about 1, and labels."""

    hidden: Tensor
    classifier: Tensor
    target: Tensor
    at_rows: Tensor
    """The gradient that per-row losses are given."""


def made(case: Case) -> Data:
    """The same numbers for everybody."""
    torch.manual_seed(0)
    dtype = getattr(torch, case.dtype)
    hidden = torch.randn(case.rows, case.features).to(dtype)
    classifier = (torch.randn(case.vocabulary, case.features) / case.features**0.5).to(dtype)
    target = torch.randint(0, case.vocabulary, (case.rows,))
    return Data(hidden, classifier, target, torch.rand(case.rows).to(dtype))


Loss = Callable[[Tensor, Tensor, Tensor, str], Tensor]
"""Of hidden states, classifier, labels, and "mean" or "none"."""


def of_xent(hidden: Tensor, classifier: Tensor, target: Tensor, reduction: str) -> Tensor:
    """xent.linear_cross_entropy."""
    return xent.linear_cross_entropy(hidden, classifier, target, reduction=reduction)


def two_steps(hidden: Tensor, classifier: Tensor, target: Tensor, reduction: str) -> Tensor:
    """F.linear, then F.cross_entropy."""
    return F.cross_entropy(F.linear(hidden, classifier), target, reduction=reduction)


def of_torch(hidden: Tensor, classifier: Tensor, target: Tensor, reduction: str) -> Tensor:
    """F.linear_cross_entropy with its default options."""
    return F.linear_cross_entropy(hidden, classifier, target, reduction=reduction)


def of_torch_in_chunks(
    hidden: Tensor, classifier: Tensor, target: Tensor, reduction: str
) -> Tensor:
    """F.linear_cross_entropy with its chunks."""
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, classifier, target, reduction=reduction, options=options)


def of_cce(hidden: Tensor, classifier: Tensor, target: Tensor, reduction: str) -> Tensor:
    """cut-cross-entropy's implementation for machines without a GPU."""
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(
        hidden, classifier, target, reduction=reduction, impl="torch_compile"
    )


def _compiled() -> Loss:
    torch._dynamo.reset()
    return torch.compile(two_steps, dynamic=False)


PEERS: dict[str, Callable[[], Loss]] = {
    "xent": lambda: of_xent,
    "two steps": lambda: two_steps,
    "compile": _compiled,
    "torch": lambda: of_torch,
    "torch in chunks": lambda: of_torch_in_chunks,
    "CCE": lambda: of_cce,
}


class Program:
    """One peer at one case and mode."""

    def __init__(self, peer: str, data: Data, mode: Mode) -> None:
        self._loss = PEERS[peer]()
        self._data = data
        self._mode = mode
        trained = mode is not Mode.FORWARD
        self._hidden = data.hidden.clone().requires_grad_(trained)
        self._classifier = data.classifier.clone().requires_grad_(trained)
        self.loss: Tensor | None = None

    def run(self) -> None:
        """The loss, and the gradients if the mode asks for them."""
        reduction = "none" if self._mode is Mode.PER_ROW else "mean"
        with torch.set_grad_enabled(self._mode is not Mode.FORWARD):
            loss = self._loss(self._hidden, self._classifier, self._data.target, reduction)
        if self._mode is Mode.PER_ROW:
            loss.backward(self._data.at_rows)
        elif self._mode is Mode.BOTH:
            loss.backward()
        self.loss = loss.detach()

    def release(self) -> None:
        """Nothing is kept for the next round."""
        self.loss = self._hidden.grad = self._classifier.grad = None

    @property
    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """At hidden states and classifier."""
        return self._hidden.grad, self._classifier.grad


class Products:
    """The floor: the matrix products alone, into memory that is mapped already."""

    def __init__(self, data: Data, mode: Mode) -> None:
        # what a CPU multiplies quickest; half types are slower on most
        self._hidden, self._classifier = data.hidden.float(), data.classifier.float()
        self._logits = torch.ones(len(data.hidden), len(data.classifier))
        self._mode = mode
        self._at = torch.ones_like(self._hidden), torch.ones_like(self._classifier)

    def run(self) -> None:
        """One product, or three; four where the logits are made twice."""
        for _ in range(2 if self._mode is Mode.PER_ROW else 1):
            torch.mm(self._hidden, self._classifier.t(), out=self._logits)
        if self._mode is not Mode.FORWARD:
            torch.mm(self._logits, self._classifier, out=self._at[0])
            torch.mm(self._logits.t(), self._hidden, out=self._at[1])

    def release(self) -> None:
        """Nothing to let go of."""
