"""A report as two pictures, SVG: time as a multiple of the floor, and memory in gradients."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from xent.benchmark.cases import Mode
from xent.benchmark.trace import OURS, Report, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"xent": "#c2410c", "torch": "#64748b", "compile": "#0ea5e9", "jax": "#16a34a"}
MARKERS = {"xent": "o", "torch": "s", "compile": "D", "jax": "^"}
NAMES = {"torch": "torch eager", "compile": "torch.compile", "jax": "JAX jit + optax"}
APART = 0.16
"""Between the dots of one row, in rows."""
QUIET, LINE = "#475569", "#e2e8f0"
# Text stays text, and the file is the same for the same figures.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "xent", "font.size": 10}

Value = Callable[[Row, str], float | None]


def plots(report: Report) -> dict[str, str]:
    """The pictures as SVG by name, none that would be empty."""
    limited = [row for row in report.rows if row.floor_ms is not None]
    measured = [row for row in report.rows if row.peak_memory(OURS) is not None]
    pictures = {}
    if limited:
        pictures["speed"] = _speed(report, limited)
    if measured:
        pictures["memory"] = _memory(report, measured)
    return pictures


def _speed(report: Report, rows: Sequence[Row]) -> str:
    """One panel a mode."""
    panels = [(mode, [row for row in rows if row.mode is mode]) for mode in Mode]
    figure = new_figure(max(len(given) for _, given in panels))
    axes = figure.subplots(1, len(panels), sharey=True)
    for place, (mode, given) in zip(axes, panels, strict=True):
        _dots(place, report.peers, given, Row.over_floor)
        place.set_xscale("log")
        place.set_xlabel("time, multiple of the floor of memory")
        place.set_title(mode, loc="left", fontsize=10, color=QUIET)
        _plain_ticks(place)
    _legend(figure, axes[0], "Time of cross-entropy (left is faster)")
    return figure_svg(figure)


def _memory(report: Report, rows: Sequence[Row]) -> str:
    figure = new_figure(len(rows))
    place = figure.subplots()
    _dots(place, report.peers, rows, Row.peak_memory)
    place.set_xlim(left=0)
    place.set_xlabel("peak of forward+backward on top of the data, in gradients")
    _legend(figure, place, "Memory of cross-entropy (left is less)")
    return figure_svg(figure)


def _dots(place: Any, peers: Sequence[str], rows: Sequence[Row], value: Value) -> None:
    """One line a row, one dot a peer, a little apart so that equals do not hide each other."""
    for number, peer in enumerate(peers):
        apart = APART * (number - (len(peers) - 1) / 2)
        points = [(found, line) for line, row in enumerate(rows) if (found := value(row, peer))]
        place.plot(
            [found for found, _ in points],
            [line + apart for _, line in points],
            linestyle="",
            marker=MARKERS.get(peer, "x"),
            markersize=8 if peer == OURS else 6,
            color=COLOURS.get(peer, "black"),
            label=NAMES.get(peer, peer),
        )
    place.axvline(1, color=QUIET, linewidth=1)
    place.set_yticks(range(len(rows)), [f"{row.case.title}  {row.case.labels}" for row in rows])
    place.set_ylim(len(rows) - 0.5, -0.5)
    place.grid(color=LINE, linewidth=0.8)
    place.set_axisbelow(True)
    place.tick_params(length=0, colors=QUIET)
    place.spines[:].set_visible(False)


def _plain_ticks(place: Any) -> None:
    """1, 2, 5, 10 instead of powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    place.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    place.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    place.xaxis.set_minor_locator(NullLocator())


def _legend(figure: Figure, place: Any, title: str) -> None:
    handles, names = place.get_legend_handles_labels()
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)


def new_figure(lines: int) -> Figure:
    """An empty picture with room for so many lines."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1)
    return Figure(figsize=(9, 1.8 + 0.32 * lines), layout=layout, facecolor="white")


def figure_svg(figure: Figure) -> str:
    """The picture as text, the same for the same figures."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
