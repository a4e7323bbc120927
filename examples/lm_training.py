"""The training: micro-batches with one denominator for all of a step's, and AdamW."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import xent
from lm_model import LanguageModel
from lm_sequences import Sequences, drawn

LEARNING_RATE = 2e-3
LAST_SHARE = 0.1
"""Of the learning rate that is left at the end."""
WARM_UP = 0.1
"""Share of the steps in which the rate rises."""
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)
LONGEST_GRADIENT = 1.0
"""Norm beyond which a step's gradient is shortened."""

Loss = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""(hidden states, classifier, labels, denominator) to Σ nll / denominator, in nats."""


@dataclass(frozen=True)
class Settings:
    """What a run depends on, beside its text."""

    steps: int
    context: int
    width: int
    layers: int
    heads: int
    batch_size: int
    micro_batches: int
    seed: int
    loss: str


@dataclass(frozen=True)
class Step:
    """One update of the weights."""

    step: int
    loss: float
    """Nats per token, of all micro-batches, before the update."""
    tokens: int
    seconds: float


def linear_loss(hidden: Tensor, classifier: Tensor, labels: Tensor, denominator: int) -> Tensor:
    """In one step: the logits are never all there."""
    return xent.linear_cross_entropy(hidden, classifier, labels, denominator=denominator)


def two_step_loss(hidden: Tensor, classifier: Tensor, labels: Tensor, denominator: int) -> Tensor:
    """As usual: all logits, then torch's cross-entropy of them."""
    logits = F.linear(hidden, classifier).flatten(0, -2)
    return F.cross_entropy(logits, labels.flatten(), reduction="sum") / denominator


LOSSES: dict[str, Loss] = {"linear": linear_loss, "two-step": two_step_loss}


def accumulate(model: LanguageModel, loss: Loss, micro_batches: list[Sequences]) -> float:
    """Adds the gradient of the mean over all labels of all micro-batches; returns that mean, nats.

    Let micro-batch m have n_m labels that count and the losses l_mi, and let N = Σ_m n_m. The mean
    over the step is (1/N) Σ_m Σ_i l_mi = Σ_m (Σ_i l_mi / N): divide each sum by the step's N, and
    the gradients, which backward() adds, are those of one big batch. The mean of the means,
    (1/M) Σ_m (Σ_i l_mi / n_m), is another function: it weighs a token more in a micro-batch that
    has more padding.
    """
    denominator = sum(batch.valid() for batch in micro_batches)
    total = 0.0
    for batch in micro_batches:
        share = loss(model(batch.inputs), model.embedding, batch.labels, denominator)
        share.backward()  # type: ignore[no-untyped-call]  # torch's
        total += share.item()
    return total


class Training:
    """A model on its way; the same settings and text give the same start and the same batches."""

    def __init__(self, sequences: Sequences, vocabulary: int, settings: Settings) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.model = LanguageModel(
            vocabulary, settings.context, settings.width, settings.layers, settings.heads
        )
        self.optimizer = adamw(self.model.parameters())
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: rate(step, settings.steps)
        )
        self.batches = drawn(sequences, settings.batch_size * settings.micro_batches, settings.seed)

    def run(self, steps: int) -> Iterator[Step]:
        """Takes so many more steps.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        loss = LOSSES[self.settings.loss]
        for number in range(1, steps + 1):
            began = time.perf_counter()
            micro_batches = next(self.batches).split(self.settings.batch_size)
            mean = accumulate(self.model, loss, micro_batches)
            if not math.isfinite(mean):
                raise FloatingPointError(f"The training loss is not finite in step {number}.")
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), LONGEST_GRADIENT)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            tokens = sum(batch.valid() for batch in micro_batches)
            yield Step(number, mean, tokens, time.perf_counter() - began)


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """AdamW, whose decay is for matrices alone."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in parameters:
        (decayed if parameter.ndim == 2 else others).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, LEARNING_RATE, betas=BETAS)


def rate(step: int, steps: int) -> float:
    """The share of the learning rate in a step: up in a line, down along half a cosine."""
    rising = max(1, round(WARM_UP * steps))
    if step < rising:
        return (step + 1) / rising
    passed = (step - rising) / max(1, steps - rising)
    return LAST_SHARE + (1 - LAST_SHARE) * (1 + math.cos(math.pi * min(1.0, passed))) / 2
