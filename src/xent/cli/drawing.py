"""An outcome drawn in the terminal. Nothing is computed here but sizes on the screen."""

from __future__ import annotations

from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from xent.cli.console import console
from xent.cli.outcome import PROMISE, ConfusedDigit, Outcome
from xent.cli.plot import plot

INK = " ░▒▓█"


def draw(outcome: Outcome) -> None:
    """Prints all of it to stdout."""
    terminal = console()
    parts = (
        _introduction(outcome),
        plot(outcome, terminal.width),
        _verdict(outcome),
        _comparison(outcome),
        _reading_of_times(outcome),
        _heading(outcome.confused),
        _digit_and_classes(outcome.confused),
        _reading_of_gradient(outcome.confused),
        _ending(outcome),
    )
    for part in parts:
        terminal.print(part)
        terminal.print()


def _introduction(outcome: Outcome) -> Text:
    setup = outcome.setup
    height, width = setup.image_shape
    return Text.assemble(
        ("Handwritten digits, read by one model trained with three losses\n", "bold"),
        f"{setup.train_images} images of {height}×{width} pixels to train on, "
        f"{setup.held_out_images} held out. {setup.model}; {setup.optimizer}. "
        f"{_counted(setup.epochs, 'epoch')} of batches of {setup.batch_size}: "
        f"{_counted(outcome.steps, 'step')}, each taken by all three from the same start on the "
        f"same batch.\nThe soft labels are one-hot labels smoothed by hand by "
        f"{setup.label_smoothing}; their entropy is {setup.soft_label_entropy:.3f} nats, and that "
        "loss cannot fall below it.",
    )


def _verdict(outcome: Outcome) -> Text:
    difference = outcome.largest_difference
    kept, broken = ("≤", "kept", "bold green"), (">", "BROKEN", "bold red")
    sign, word, style = kept if outcome.agrees else broken
    return Text.assemble(
        f"Largest difference between the curves of torch and xent, over "
        f"{_counted(outcome.steps, 'step')}: ",
        (f"{difference:.1e}", "bold"),
        f" nats {sign} {PROMISE:.0e}, the promise: ",
        (word, style),
    )


def _comparison(outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("loss", no_wrap=True)
    table.add_column("held-out\naccuracy", justify="right")
    table.add_column("time in\nloss, ms", justify="right")
    table.add_column("median\nstep, µs", justify="right")
    for run in outcome.runs:
        table.add_row(
            run.criterion, f"{run.accuracy:.1%}", f"{run.total_ms:.1f}", f"{run.median_us:.0f}"
        )
    return table


def _reading_of_times(outcome: Outcome) -> Text:
    setup = outcome.setup
    return Text(
        f"Time in the loss: its forward and its backward to the logits, {setup.batch_size} × "
        f"{setup.classes} a step, after {setup.warm_up_steps} steps of warm-up. Other programs "
        "disturb the median least.",
        style="dim",
    )


def _heading(digit: ConfusedDigit) -> Text:
    return Text.assemble(
        ("The most confused held-out digit", "bold"),
        f": image {digit.image} of the set, label {digit.label}, read as {digit.predicted}. "
        f"Loss under the model that xent trained: {digit.loss:.3f} nats.",
    )


def _digit_and_classes(digit: ConfusedDigit) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_row(_picture(digit), _classes(digit))
    return grid


def _picture(digit: ConfusedDigit) -> Text:
    """Two characters a pixel, since characters are twice as high as wide."""
    levels = len(INK) - 1
    rows = ("".join(2 * INK[round(levels * ink)] for ink in row) for row in digit.pixels)
    return Text("\n" + "\n".join(rows))


def _classes(digit: ConfusedDigit) -> Table:
    table = Table(box=None, pad_edge=False, expand=True, collapse_padding=True)
    table.add_column("digit", justify="right")
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("", ratio=1)
    table.add_column("gradient", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    marks = {digit.predicted: ("predicted", "red"), digit.label: ("true", "green")}
    if digit.predicted == digit.label:
        marks = {digit.label: ("true, predicted", "green")}
    for number, (p, gradient) in enumerate(zip(digit.probabilities, digit.gradient, strict=True)):
        mark, style = marks.get(number, ("", "none"))
        row = (str(number), _short(p), Bar(1, 0, p), _short(gradient, sign="+"), mark)
        table.add_row(*row, style=style)
    return table


def _reading_of_gradient(digit: ConfusedDigit) -> Text:
    wrong = [g for number, g in enumerate(digit.gradient) if number != digit.label]
    positive = sum(g > 0 for g in wrong)
    have = "every wrong class has"
    if positive < len(wrong):  # a probability too small for float32
        have = f"{positive} of {len(wrong)} wrong classes have"
    return Text(
        f"The gradient at the logits is p − y: {have} a positive one, so descent lowers its "
        f"logit; that of the true class is {digit.gradient[digit.label]:+.3f}, so descent raises "
        f"its logit; together they sum to {sum(digit.gradient):.0e}, zero but for rounding."
    )


def _ending(outcome: Outcome) -> Text:
    at = outcome.environment
    return Text(
        f"{outcome.seconds:.1f} s in all; seed {outcome.setup.seed}; xent {at.xent}, torch "
        f"{at.torch}, Python {at.python}; {_counted(at.threads, 'thread')} of {at.cpu}",
        style="dim",
    )


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _short(value: float, sign: str = "") -> str:
    """Four digits, or the power of ten where they would all be zero."""
    form = ".4f" if abs(value) >= 1e-3 else ".1e"
    return format(value, sign + form)
