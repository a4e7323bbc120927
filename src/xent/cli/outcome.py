"""What a demonstration measured: frozen records, for every renderer the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

PROMISE = 1e-5
"""Nats by which the training-loss curves of torch and xent may differ at any step."""


@dataclass(frozen=True)
class Environment:
    """Where it was measured."""

    python: str
    torch: str
    xent: str
    threads: int
    cpu: str


@dataclass(frozen=True)
class Setup:
    """What was trained, on what, and for how long."""

    epochs: int
    seed: int
    train_images: int
    held_out_images: int
    image_shape: tuple[int, int]
    classes: int
    batch_size: int
    model: str
    optimizer: str
    warm_up_steps: int
    """Steps of every run that train and count in the curves, but not in the times."""
    label_smoothing: float
    """Mass that the soft labels spread evenly over the classes."""
    soft_label_entropy: float
    """Nats of one soft label: its loss cannot fall below."""


@dataclass(frozen=True)
class Run:
    """One training: the loss it used and what came of it."""

    criterion: str
    labels: str
    losses: tuple[float, ...]
    """Training loss in nats, every step."""
    loss_seconds: tuple[float, ...]
    """Forward of the loss and its backward to the logits, every timed step."""
    accuracy: float
    """Share of the held-out digits that were read rightly."""

    @property
    def total_ms(self) -> float:
        """Time in the loss over all timed steps, ms."""
        return 1e3 * sum(self.loss_seconds)

    @property
    def median_us(self) -> float:
        """Time in the loss of the median step, µs."""
        return 1e6 * median(self.loss_seconds)


@dataclass(frozen=True)
class ConfusedDigit:
    """The held-out digit of the highest loss under the model that xent trained."""

    image: int
    """Its place in the data set."""
    pixels: tuple[tuple[float, ...], ...]
    """Ink in [0, 1], row by row."""
    label: int
    predicted: int
    loss: float
    """Nats."""
    probabilities: tuple[float, ...]
    gradient: tuple[float, ...]
    """Of the loss at the logits, from autograd."""


@dataclass(frozen=True)
class Outcome:
    """The three trainings and the digit; ``seconds`` is the whole experiment."""

    environment: Environment
    setup: Setup
    torch: Run
    xent: Run
    soft: Run
    confused: ConfusedDigit
    seconds: float

    @property
    def runs(self) -> tuple[Run, Run, Run]:
        """The trainings in the order they are shown in."""
        return self.torch, self.xent, self.soft

    @property
    def steps(self) -> int:
        """Steps of each training."""
        return len(self.torch.losses)

    @property
    def largest_difference(self) -> float:
        """Nats between the curves of torch and xent, at the step where they differ most."""
        return max(abs(a - b) for a, b in zip(self.torch.losses, self.xent.losses, strict=True))

    @property
    def agrees(self) -> bool:
        """Whether the promise was kept in this run."""
        return self.largest_difference <= PROMISE

    def document(self) -> dict[str, Any]:
        """Everything, with what follows from it, as JSON can hold it."""
        document = asdict(self)
        for name, run in (("torch", self.torch), ("xent", self.xent), ("soft", self.soft)):
            document[name] |= {"loss_total_ms": run.total_ms, "loss_median_us": run.median_us}
        document["confused"]["gradient_sum"] = sum(self.confused.gradient)
        agreement = {
            "steps": self.steps,
            "largest_difference": self.largest_difference,
            "promise": PROMISE,
            "agrees": self.agrees,
        }
        return {"agreement": agreement, **document}
