"""The loss curves as characters."""

from __future__ import annotations

import math
from statistics import fmean

from rich.text import Text

from xent.cli.outcome import Outcome, Run

HEIGHT = 16
STYLES = ("cyan", "yellow", "magenta")
MARKERS = ("⠶⠶", "×", "○")
LINE = r"[\u2801-\u28ff]+"


def plot(outcome: Outcome, width: int) -> Text:
    """Torch's curve as a line, xent's as crosses on it, that of the soft labels as circles.

    Markers tell the curves apart; colour only repeats what they say.
    """
    steps = math.ceil(outcome.steps / max(1, width // 3))  # crosses leave some of the line to see
    drawn = Text(_characters(outcome, width, steps), no_wrap=True)
    for pattern, style in zip((LINE, *MARKERS[1:]), STYLES, strict=True):
        drawn.highlight_regex(pattern, style)
    title = Text("Training loss in nats", style="bold")
    title.append(f", means of up to {steps} steps" if steps > 1 else ", every step")
    return Text("\n").join([title, *_legend(outcome), drawn])


def _legend(outcome: Outcome) -> list[Text]:
    return [
        Text.assemble((f"{marker:>4} ", style), f"{run.criterion}, {run.labels}")
        for marker, style, run in zip(MARKERS, STYLES, outcome.runs, strict=True)
    ]


def _characters(outcome: Outcome, width: int, steps: int) -> str:
    import plotext

    # The size is the console's, which also holds in a pipe.
    plotext.terminal.limit(False, False)
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, HEIGHT)
    epochs = outcome.setup.epochs
    layers = ((outcome.soft, MARKERS[2]), (outcome.torch, "braille"), (outcome.xent, MARKERS[1]))
    for run, marker in layers:  # the last lies on top
        curve = figure.signal(*_curve(run, epochs, steps), marker=marker)
        figure.draw(curve.lines() if marker == "braille" else curve)
    every = math.ceil(epochs / 10)
    figure.ruler("x").lim(0, epochs)
    figure.ruler("x").ticks(list(range(0, epochs + 1, every)))
    figure.label("epoch")
    return str(figure.build().string(True)).rstrip()


def _curve(run: Run, epochs: int, steps: int) -> tuple[list[float], list[float]]:
    """Means over so many steps each, at the epoch where each of them ends."""
    blocks = [run.losses[i : i + steps] for i in range(0, len(run.losses), steps)]
    per_epoch = len(run.losses) / epochs
    ends = [min((i + 1) * steps, len(run.losses)) / per_epoch for i in range(len(blocks))]
    return ends, [fmean(block) for block in blocks]
