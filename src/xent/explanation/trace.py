"""What an explanation knows: frozen records of plain numbers, for every renderer the same.

Losses are in nats, numbers in float64. One row is traced class by class; the batch around it
position by position, down to the value that the loss returned.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassTrace:
    """One class of the row, from its logit to its gradient."""

    index: int
    name: str
    logit: float
    shifted: float
    """x_c − max x."""
    exp: float
    """exp(x_c − max x)."""
    p: float
    """Softmax: exp / Σ exp."""
    log_p: float
    """Log-softmax."""
    label: float
    """The label as it was given: 1 or 0 for an index, else the probability."""
    target: float
    """The label after smoothing: (1 − ε) · label + ε/C."""
    weight: float
    """Class weight; 1 without weights."""
    term: float
    """weight · target · (−log p): what this class adds to the loss."""
    gradient_p: float
    """∂loss/∂p_c = −weight · target / p_c, were the probabilities free."""
    gradient: float
    """∂loss/∂x_c of this position's loss: p − target without weights."""
    gradient_reduced: float
    """∂value/∂x_c of the value that was returned."""


@dataclass(frozen=True)
class Rest:
    """The classes that are not shown, in sum."""

    classes: int
    exp: float
    p: float
    label: float
    target: float
    term: float
    gradient: float
    gradient_reduced: float


@dataclass(frozen=True)
class Step:
    """The row after some steps of gradient descent on its logits."""

    number: int
    loss: float
    p: tuple[float, ...]
    """Softmax of the shown classes, in their order."""
    rest: float
    """Softmax of all others together."""


@dataclass(frozen=True)
class Descent:
    """x ← x − step_size · ∂loss/∂x, on the logits of the row alone; step 0 is the start."""

    step_size: float
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class RowTrace:
    """One position: every number between its logits and its loss."""

    position: tuple[int, ...]
    """Its place in the shape of the positions."""
    class_count: int
    ignored: bool
    """Its label is ignored, or its sample weight is zero: it costs nothing and moves nothing."""
    label_index: int | None
    """The class of an index target."""
    predicted: int
    """The class of the largest logit."""
    maximum: float
    exp_sum: float
    """Σ_c exp(x_c − maximum)."""
    lse: float
    """log Σ_c exp x_c = maximum + log exp_sum."""
    classes: tuple[ClassTrace, ...]
    rest: Rest | None
    target_sum: float
    """Σ_c target: 1 for a label that is a distribution."""
    mass: float
    """Σ_c weight · target."""
    sample_weight: float
    loss: float
    """sample_weight · Σ_c term."""
    cross_entropy: float
    """Σ_c target · (−log p) without weights: entropy + divergence."""
    entropy: float
    """Of the target: the cross-entropy cannot fall below."""
    divergence: float
    """Kullback–Leibler divergence of p from the target."""
    bits: float
    """The cross-entropy in bits."""
    perplexity: float
    """exp(cross-entropy): as unsure as an even guess among so many classes."""
    uniform_guess: float
    """The loss of the same label with p = 1/C everywhere."""
    gradient_sum: float
    """Σ_c ∂loss/∂x_c: zero but for rounding."""
    descent: Descent | None

    def shown(self, index: int | None) -> ClassTrace | None:
        """The class of this index, if it is among those shown."""
        return next((c for c in self.classes if c.index == index), None)

    @property
    def target_classes(self) -> tuple[ClassTrace, ...]:
        """The shown classes that the label names, the likeliest first."""
        labelled = (c for c in self.classes if c.label > 0)
        return tuple(sorted(labelled, key=lambda c: -c.label))


@dataclass(frozen=True)
class PositionTrace:
    """One position of the batch, in short."""

    position: tuple[int, ...]
    label: str
    """Name of the class, the likeliest one for soft labels; empty where ignored."""
    loss: float
    """With its class weight and sample weight."""
    share: float | None
    """What it adds to the divisor of the mean; None if the divisor is no sum over positions."""
    ignored: bool


@dataclass(frozen=True)
class BatchTrace:
    """How the positions' losses became the value."""

    shape: tuple[int, ...]
    """Of the positions."""
    count: int
    ignored: int
    reduction: str
    denominator: str
    """What the mean divides by, in words; empty if there is no mean."""
    positions: tuple[PositionTrace, ...]
    """All of them, or those of the highest losses and the explained one."""
    total: float
    """Σ of the losses."""
    divisor: float | None
    """Of the mean, else None."""
    value: float | None
    """What the loss returned, in its dtype; None if it returned one loss per position."""
    value_dtype: str
    bits: float | None
    """The value in bits."""
    perplexity: float | None
    """exp(value)."""
    label_entropy: float | None
    """Entropy of the labels' frequencies over the positions that count: the mean loss, without
    weights and smoothing, of always guessing those frequencies."""


@dataclass(frozen=True)
class Options:
    """What the caller asked for beyond logits and labels."""

    label_smoothing: float
    weighted: bool
    """Class weights; for the binary loss a weight of the positive side."""
    sample_weighted: bool
    """One factor per position; for the binary loss one per element."""
    ignore_index: tuple[int, ...]
