"""The programs that are compared on a GPU, and how each is called.

A peer is a function of the device's tensors that gives the mean loss; its maker imports what it
needs and raises where that is missing. Nothing is imported before a cell asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import xent
from gpu_cases import OURS, Kind
from xent.benchmark.cases import Mode

Loss = Callable[..., Tensor]
"""Of logits and labels, or of hidden states, classifier and labels; gives the mean."""


@dataclass(frozen=True)
class Peer:
    """How to get at a loss, and whether it writes into what it is given."""

    make: Callable[[], Loss]
    overwrites: bool = False


class Program:
    """One peer with the data of one cell: ``run`` is timed, ``prepare`` and ``release`` are not."""

    def __init__(self, peer: Peer, given: tuple[Tensor, ...], target: Tensor, mode: Mode) -> None:
        self._function = peer.make()
        self._target = target
        self._given = given if peer.overwrites else None
        self._trained = mode is Mode.BOTH
        leaves = (t.clone() if peer.overwrites else t.detach() for t in given)
        self._leaves = tuple(leaf.requires_grad_(self._trained) for leaf in leaves)
        self.loss: Tensor | None = None
        self.gradients: tuple[Tensor, ...] = ()

    def prepare(self) -> None:
        """Puts back what the run before has overwritten."""
        if self._given is None:
            return
        with torch.no_grad():
            for leaf, given in zip(self._leaves, self._given, strict=True):
                leaf.copy_(given)

    def run(self) -> None:
        """The loss, and its gradients if they are asked for."""
        self.loss = self._function(*self._leaves, self._target)
        if self._trained:
            self.gradients = torch.autograd.grad(self.loss, self._leaves)

    def release(self) -> None:
        """Nothing is kept for the next round."""
        self.loss, self.gradients = None, ()


class Products:
    """The matrix products of the linear loss alone, into memory that is there: its floor."""

    def __init__(self, hidden: Tensor, classifier: Tensor, mode: Mode) -> None:
        self._hidden, self._classifier = hidden, classifier
        self._trained = mode is Mode.BOTH
        self._logits: Tensor | None = None
        self._at: tuple[Tensor, ...] = ()

    def prepare(self) -> None:
        """Takes the memory, once."""
        if self._logits is not None:
            return
        self._logits = self._hidden.new_empty(len(self._hidden), len(self._classifier))
        if self._trained:
            self._at = torch.empty_like(self._hidden), torch.empty_like(self._classifier)

    def run(self) -> None:
        """One product, or three."""
        assert self._logits is not None
        torch.mm(self._hidden, self._classifier.t(), out=self._logits)
        if self._trained:
            torch.mm(self._logits, self._classifier, out=self._at[0])
            torch.mm(self._logits.t(), self._hidden, out=self._at[1])

    def release(self) -> None:
        """Nothing to let go of."""


def _compiled(loss: Loss) -> Loss:
    torch.compiler.reset()  # each cell compiles anew: no limit of recompilations is reached
    return torch.compile(loss, dynamic=False, fullgraph=True)


def _in_rows(loss: Loss) -> Loss:
    """For peers that take (N, C) only: a pixel's classes are brought together, in their time."""

    def of_rows(logits: Tensor, target: Tensor) -> Tensor:
        if logits.ndim > 2:
            logits, target = logits.movedim(1, -1).flatten(0, -2), target.flatten()
        return loss(logits.contiguous(), target)

    return of_rows


def _of_torch(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target)


def _liger() -> Loss:
    from liger_kernel.transformers import LigerCrossEntropyLoss

    return _in_rows(LigerCrossEntropyLoss())


def _quack() -> Loss:
    from quack.cross_entropy import cross_entropy

    return _in_rows(cross_entropy)  # its default is the mean


def _flash() -> Loss:
    from flash_attn.ops.triton.cross_entropy import cross_entropy_loss

    return _in_rows(lambda logits, target: cross_entropy_loss(logits, target)[0].mean())


def two_steps(hidden: Tensor, classifier: Tensor, target: Tensor) -> Tensor:
    """All logits at once."""
    return F.cross_entropy(F.linear(hidden, classifier), target)


def _torch_in_chunks() -> Loss:
    options = torch.nn.LinearCrossEntropyOptions()  # AttributeError before torch 2.13
    return lambda h, w, y: F.linear_cross_entropy(h, w, y, options=options)


def _liger_linear() -> Loss:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss()
    return lambda hidden, classifier, target: loss(classifier, hidden, target)


def _cce(**options: None) -> Loss:
    from cut_cross_entropy import linear_cross_entropy

    return lambda h, w, y: linear_cross_entropy(h, w, y, impl="cce", **options)


def _quack_linear() -> Loss:
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    return chunked_linear_cross_entropy


PEERS: dict[Kind, dict[str, Peer]] = {
    Kind.LOGITS: {
        OURS: Peer(lambda: xent.cross_entropy),
        "eager": Peer(lambda: _of_torch),
        "compile": Peer(lambda: _compiled(_of_torch)),
        "Liger": Peer(_liger, overwrites=True),
        "flash-attention": Peer(_flash),
        "quack": Peer(_quack),
    },
    Kind.LINEAR: {
        OURS: Peer(lambda: xent.linear_cross_entropy),
        "eager": Peer(lambda: two_steps),
        "compile": Peer(lambda: _compiled(two_steps)),
        "CCE": Peer(_cce),
        "CCE exact": Peer(lambda: _cce(filter_eps=None)),
        "Liger": Peer(_liger_linear),
        "torch chunks": Peer(_torch_in_chunks),
        "quack": Peer(_quack_linear),
    },
}
"""By what they are given; in each, ours first, and last those that take longest to compile."""
