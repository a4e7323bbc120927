"""Losses of torch tensors: xent's, torch's own, and torch's own compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xent.benchmark.cases import Mode
from xent.benchmark.data import Data
from xent.benchmark.peers.contender import UnavailableError, first_line
from xent.benchmark.truth import Answer

Loss = Callable[..., Tensor]


class TorchLoss:
    """A loss function on torch tensors, called as a training step calls it."""

    def __init__(self, loss: Loss, data: Data, mode: Mode) -> None:
        self._loss = loss
        self._backward = mode is Mode.BOTH
        self._logits = data.logits.detach().requires_grad_(self._backward)
        self._target = data.target
        self._options: dict[str, Any] = data.options
        self._value: Tensor | None = None

    def run(self) -> None:
        """One step; the gradient of the one before is let go of first, as ``zero_grad`` does."""
        self._logits.grad = None
        self._value = self._loss(self._logits, self._target, **self._options)
        if self._backward:
            self._value.backward()  # type: ignore[no-untyped-call]  # torch's

    def answer(self, rows: Tensor) -> Answer:
        """The loss and the gradient of the last run."""
        assert self._value is not None
        gradient = self._logits.grad
        return Answer(self._value.item(), None if gradient is None else gradient[rows])

    def release(self) -> None:
        """Lets go of the gradient and of what the loss remembers."""
        self._logits.grad = self._value = None


def compiled(data: Data, mode: Mode) -> TorchLoss:
    """``torch.compile`` of torch's loss, forward and backward, for exactly this shape.

    Raises:
        UnavailableError: it does not compile here, for want of a C++ compiler for example.
    """

    def loss(*arguments: Any, **options: Any) -> Tensor:
        return F.cross_entropy(*arguments, **options)

    torch.compiler.reset()  # every case compiles anew: no limit of recompilations is reached
    function = torch.compile(loss, dynamic=False, fullgraph=True)
    contender = TorchLoss(function, data, mode)
    try:
        contender.run()
    except Exception as error:  # the compiler's errors have no class in common
        raise UnavailableError(first_line(error)) from error
    contender.release()
    return contender
