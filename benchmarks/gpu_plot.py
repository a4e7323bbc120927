"""Achieved bandwidth of every contender as a picture, beside that of a copy."""

from __future__ import annotations

from typing import Any

from gpu_cases import Kind
from gpu_peers import PEERS
from gpu_report import SHORT, copy_rate, rate, rows_of
from xent.benchmark.plots import COLOURS, LINE, MARKERS, QUIET, figure_svg, new_figure

LOOKS = {
    "xent": (COLOURS["xent"], MARKERS["xent"]),
    "eager": (COLOURS["torch"], MARKERS["torch"]),
    "compile": (COLOURS["compile"], MARKERS["compile"]),
    "Liger": ("#7c3aed", "P"),
    "flash-attention": ("#94a3b8", "v"),
    "quack": (COLOURS["jax"], MARKERS["jax"]),
}


def plot(result: dict[str, Any]) -> str | None:
    """A line a row, a dot a contender; None where nothing was measured."""
    rows = [row for row in rows_of(result, Kind.LOGITS) if copy_rate(row) is not None]
    if not rows:
        return None
    figure = new_figure(len(rows))
    place = figure.subplots()
    for name in PEERS[Kind.LOGITS]:
        points = [(found, line) for line, row in enumerate(rows) if (found := rate(row, name))]
        if points:
            colour, marker = LOOKS[name]
            across, down = zip(*points, strict=True)
            place.plot(across, down, linestyle="", marker=marker, color=colour, label=name)
    copies = [copy_rate(row) for row in rows]
    place.plot(copies, range(len(rows)), color=QUIET, linewidth=1, label="copy")
    place.set_yticks(range(len(rows)), [f"{row['title']}  {SHORT[row['mode']]}" for row in rows])
    place.set_ylim(len(rows) - 0.5, -0.5)
    place.set_xlim(left=0)
    place.set_xlabel("TB/s: one read of the logits forward; two and one write with backward")
    place.grid(color=LINE, linewidth=0.8)
    place.set_axisbelow(True)
    place.tick_params(length=0, colors=QUIET)
    place.spines[:].set_visible(False)
    title = f"Achieved bandwidth, {result['device']['name']} (right is faster)"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    handles, names = place.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    return figure_svg(figure)
