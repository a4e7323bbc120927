"""Time, memory and error of the two losses, on the hidden states of a trained model.

    python examples/lm_measure.py HIDDEN.pt linear 2

prints the bytes that one of them takes, in a process of its own.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lm_model import LanguageModel
from lm_sequences import IGNORED, Sequences
from lm_training import LOSSES
from xent.benchmark.memory import peak_bytes
from xent.benchmark.timing import interleaved

SECONDS = 20.0
"""After which no further round of the timing begins, once there are five."""
LONGEST = 600.0
"""Seconds a process may take that measures memory."""
MOST_ERROR = 1e-4
"""A loss that is further off is wrong, not rounded; it is not timed."""
PIECE = 512
"""Positions whose logits the float64 reference holds at a time."""
FEW = 64
"""Positions to warm up on: what is loaded once for all is no memory of the loss."""


class Hidden(NamedTuple):
    """What a loss is given: hidden states ``[N, D]``, classifier ``[V, D]``, labels ``[N]``."""

    states: Tensor
    classifier: Tensor
    labels: Tensor


class Answer(NamedTuple):
    """A loss in nats, and its gradients."""

    loss: Tensor
    states: Tensor
    classifier: Tensor


@dataclass(frozen=True)
class Measured:
    """One loss, forward and backward."""

    name: str
    milliseconds: float
    """The median."""
    samples: tuple[float, ...]
    bytes: int | None
    """At the peak, on top of what it is given; None if the process failed."""
    loss_error: float
    """Relative to float64, as are these: of the largest entry, in units of the largest entry."""
    states_error: float
    classifier_error: float


@torch.no_grad()
def hidden_of(model: LanguageModel, micro_batches: list[Sequences]) -> Hidden:
    """What the loss is given in one step of the optimizer."""
    states = torch.cat([model(batch.inputs).flatten(0, 1) for batch in micro_batches])
    labels = torch.cat([batch.labels.flatten() for batch in micro_batches])
    return Hidden(states, model.embedding.detach().clone(), labels)


def measure(hidden: Hidden) -> list[Measured]:
    """Both losses: first their errors, then their times in turn, then each one's memory.

    Raises:
        FloatingPointError: one of them is wrong.
    """
    exact = reference(hidden)
    errors = {name: _errors(answer_of(name, hidden), exact) for name in LOSSES}
    for name, found in errors.items():
        if not max(found) < MOST_ERROR:  # NaN is not less
            raise FloatingPointError(f"The {name} loss or gradient is off by {max(found):.1e}.")
    samples = interleaved({name: Program(name, hidden) for name in LOSSES}, SECONDS)
    peaks = _peaks(hidden)
    return [
        Measured(name, statistics.median(samples[name]), samples[name], peaks[name], *errors[name])
        for name in LOSSES
    ]


class Program:
    """Forward and backward of one loss, for ``interleaved`` and ``peak_bytes``."""

    def __init__(self, name: str, hidden: Hidden) -> None:
        self.name, self.hidden = name, hidden
        self.answer: Answer | None = None

    def run(self) -> None:
        """Once."""
        self.answer = answer_of(self.name, self.hidden)

    def release(self) -> None:
        """Lets go of the gradients."""
        self.answer = None


def answer_of(name: str, hidden: Hidden) -> Answer:
    """The loss of this name over the labels that count, and its gradients."""
    states, classifier = (tensor.detach().requires_grad_() for tensor in hidden[:2])
    count = int((hidden.labels != IGNORED).sum())
    loss = LOSSES[name](states, classifier, hidden.labels, count)
    return Answer(loss.detach(), *torch.autograd.grad(loss, (states, classifier)))


def reference(hidden: Hidden) -> Answer:
    """The same in float64 with torch's operations alone, some positions at a time."""
    count = int((hidden.labels != IGNORED).sum())
    classifier = hidden.classifier.double().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    gradients, of_classifier = [], torch.zeros_like(classifier)
    pieces = zip(*(torch.split(h, PIECE) for h in (hidden.states, hidden.labels)), strict=True)
    for some, labels in pieces:
        states = some.double().requires_grad_()
        loss = F.cross_entropy(F.linear(states, classifier), labels, reduction="sum") / count
        here = torch.autograd.grad(loss, (states, classifier))
        total += loss.detach()
        gradients.append(here[0])
        of_classifier += here[1]
    return Answer(total, torch.cat(gradients), of_classifier)


def _errors(answer: Answer, exact: Answer) -> tuple[float, ...]:
    pairs = zip(answer, exact, strict=True)
    return tuple(((a - e).abs().max() / e.abs().max()).item() for a, e in pairs)


def _peaks(hidden: Hidden) -> dict[str, int | None]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hidden.pt"
        torch.save(tuple(hidden), file)
        return {name: _peak_in_a_process(file, name) for name in LOSSES}


def _peak_in_a_process(file: Path, name: str) -> int | None:
    """A fresh one: memory that another loss had and gave back would hide what this one takes."""
    command = [sys.executable, __file__, str(file), name, str(torch.get_num_threads())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=True)
    except subprocess.SubprocessError:
        return None
    return int(done.stdout.split()[-1])


def main(file: str, name: str, threads: str) -> None:
    """Measures one loss and prints the bytes."""
    torch.set_num_threads(int(threads))
    hidden = Hidden(*torch.load(file, weights_only=True))
    answer_of(name, Hidden(hidden.states[:FEW], hidden.classifier, hidden.labels[:FEW]))
    print(peak_bytes(Program(name, hidden).run))


if __name__ == "__main__":
    main(*sys.argv[1:])
