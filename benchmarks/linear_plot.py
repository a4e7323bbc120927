"""Peak memory against the size of the vocabulary, as a picture."""

from __future__ import annotations

from typing import Any

from xent.benchmark.plots import COLOURS, LINE, MARKERS, QUIET, figure_svg, new_figure

LOOKS = {
    "xent": (COLOURS["xent"], MARKERS["xent"]),
    "two steps": (COLOURS["torch"], MARKERS["torch"]),
    "compile": (COLOURS["compile"], MARKERS["compile"]),
    "torch": ("#94a3b8", "v"),
    "torch in chunks": ("#7c3aed", "P"),
    "CCE": (COLOURS["jax"], MARKERS["jax"]),
}
MEBI = 1 << 20


def plot(memory: dict[str, Any]) -> str:
    """One line a peer, and one for the gradients that any of them has to write."""
    figure = new_figure(9)
    place = figure.subplots()
    vocabularies = memory["vocabularies"]
    for peer, peaks in memory["peaks"].items():
        points = [(v, peak / MEBI) for v, peak in zip(vocabularies, peaks, strict=True) if peak]
        colour, marker = LOOKS[peer]
        place.plot(*zip(*points, strict=True), color=colour, marker=marker, label=peer)
    gradients = [size / MEBI for size in memory["gradients"]]
    place.plot(vocabularies, gradients, color=QUIET, linestyle="--", label="the gradients alone")
    place.set_xscale("log", base=2)
    place.set_yscale("log", base=2)
    place.set_xticks(vocabularies, [f"{v // 1024}k" for v in vocabularies])
    place.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    place.set_xlabel(f"vocabulary; {memory['rows']} hidden states of {memory['features']} features")
    place.set_ylabel("MiB on top of the data")
    place.grid(color=LINE, linewidth=0.8)
    place.set_axisbelow(True)
    place.tick_params(length=0, colors=QUIET)
    place.spines[:].set_visible(False)
    handles, names = place.get_legend_handles_labels()
    title = "Peak memory of the loss of a large vocabulary, forward and backward"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    return figure_svg(figure)
