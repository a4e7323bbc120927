"""What a run found, drawn in a terminal or put into a page."""

from __future__ import annotations

import io
import math
from typing import Any

from rich.console import Console
from rich.table import Table

from lm_measure import Measured
from lm_training import Step
from lm_validation import Validation

EVERY = 10
"""Steps from one line to the next."""
MEGABYTE = 1e6


def is_shown(step: int, steps: int) -> bool:
    """Whether a step has a line: the first, the last, and every tenth."""
    return step in (1, steps) or step % EVERY == 0


def step_line(step: Step, steps: int) -> str:
    """One step in one line."""
    return (
        f"step {step.step:>{len(str(steps))}}/{steps}   training {step.loss:.3f} nats   "
        f"{step.tokens / step.seconds:,.0f} tokens/s"
    )


def draw_validation(
    terminal: Console, before: Validation, after: Validation, vocabulary: int
) -> None:
    """Prints what the model knew of the held-out documents at the start and at the end."""
    rows = (
        ("loss, nats per token", "loss", ".4f"),
        ("perplexity", "perplexity", ",.1f"),
        ("bits per byte", "bits_per_byte", ".3f"),
        ("accuracy", "accuracy", ".1%"),
        ("entropy, nats per token", "entropy", ".4f"),
    )
    table = _table("held-out files", "before", "after")
    for words, name, shown in rows:
        table.add_row(words, *(format(getattr(at, name), shown) for at in (before, after)))
    terminal.print()
    terminal.print(table)
    terminal.print(
        f"\n{after.tokens:,} tokens, {after.bytes:,} bytes. "
        f"An even guess costs log {vocabulary:,} = {math.log(vocabulary):.4f} nats."
    )


def draw_comparison(terminal: Console, comparison: dict[str, Any]) -> None:
    """Prints by how much the curves of the two losses differ."""
    terminal.print(
        f"\nThe first {comparison['steps']} steps with either loss, from the same start: "
        f"the training losses differ by {comparison['largest_difference']:.1e} nats at most."
    )


def draw_measured(terminal: Console, measured: list[Measured], positions: int) -> None:
    """Prints whether both losses are right, and what each takes."""
    terminal.print(
        "\nForward and backward on the trained model's hidden states of one step, all "
        f"{positions:,} positions at once. Errors are those of the largest entry, relative "
        "to float64."
    )
    errors = ("error: loss", "∂ hidden", "∂ classifier")
    table = _table("loss", *errors, "median ms", "peak MB")
    for row in measured:
        peak = "–" if row.bytes is None else f"{row.bytes / MEGABYTE:,.0f}"
        found = (row.loss_error, row.states_error, row.classifier_error)
        table.add_row(
            row.name, *(f"{error:.1e}" for error in found), f"{row.milliseconds:,.0f}", peak
        )
    terminal.print()
    terminal.print(table)
    terminal.print("\n" + gain(measured), style="bold")


def gain(measured: list[Measured]) -> str:
    """What the loss on hidden states saves, in one line."""
    by_name = {row.name: row for row in measured}
    one, two = by_name["linear"], by_name["two-step"]
    time = f"{one.milliseconds / two.milliseconds:.0%} of the usual time."
    if one.bytes is None or not two.bytes:
        return f"xent.linear_cross_entropy: {time}"
    return f"xent.linear_cross_entropy: {one.bytes / two.bytes:.0%} of the usual memory, {time}"


def page_text(document: dict[str, Any]) -> str:
    """What the terminal showed in the run of this document."""
    terminal = Console(file=io.StringIO(), width=88, highlight=False, color_system=None)
    steps = document["settings"]["steps"]
    terminal.print(document["introduction"] + "\n")
    for step in document["steps"]:
        if is_shown(step["step"], steps):
            terminal.print(step_line(Step(**step), steps))
    before, after = (Validation(**document["validation"][at]) for at in ("before", "after"))
    draw_validation(terminal, before, after, document["vocabulary"])
    if document["comparison"]:
        draw_comparison(terminal, document["comparison"])
    draw_measured(terminal, [Measured(**row) for row in document["losses"]], document["positions"])
    file = terminal.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _table(words: str, *figures: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(words)
    for figure in figures:
        table.add_column(figure, justify="right")
    return table
