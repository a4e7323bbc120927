"""Tables of losses whose classes are spread over processes: what was measured, what is modelled."""

from __future__ import annotations

from statistics import median
from typing import Any

from distributed_bytes import vectors_of
from distributed_cost import BANDWIDTH, CLASSES, FEATURES, ROWS, Network, Step, Traffic, steps
from distributed_ranks import alpha_of
from xent.benchmark.cells import NOTHING, Cells
from xent.benchmark.load import NOTABLE_CORES

OURS = "xent"


def times_cells(result: dict[str, Any]) -> Cells:
    """Ours in ms on the slowest rank, over the floor, and the others as multiples of ours."""
    others = [peer for peer in result["rows"][0]["peers"] if peer != OURS]
    lines = []
    for row in result["rows"]:
        times = {peer: found["samples_ms"] for peer, found in row["peers"].items()}
        ours, floor = median(times[OURS]), median(row["floor_ms"])
        ratios = (f"{median(times[p]) / ours:.2f}" if times[p] else NOTHING for p in others)
        mode = row["mode"].replace("+", " + ")
        of_ours = f"{ours:.0f}", f"{ours / floor:.2f}"
        lines.append((str(row["ranks"]), row["title"], mode, *of_ours, *ratios))
    header = ("processes", "rows × classes", "mode", "xent ms", "xent/floor")
    return Cells((*header, *(f"{peer}/xent" for peer in others)), tuple(lines), words=3)


def notes(result: dict[str, Any]) -> list[str]:
    """Who was not timed and why, and whether the machine was disturbed."""
    missing = [
        f"{peer} was not timed over {row['ranks']} processes at {row['title']}, {row['mode']}: "
        f"{found['reason']}."
        for row in result["rows"]
        for peer, found in row["peers"].items()
        if "reason" in found
    ]
    if (result["other_cores"] or 0) < NOTABLE_CORES:
        return missing
    disturbed = f"Other programs took {result['other_cores']:.1f} cores meanwhile: measure again."
    return [*missing, disturbed]


def cost_cells(result: dict[str, Any]) -> Cells:
    """What a step says over each number of ranks, and how long that takes by the model."""
    network = Network(alpha_of(result["all_reduce_seconds"]))
    header = (
        "ranks", "loss, MB", "ms", "three all-reduces, MB", "ms",
        "gradient at hidden states, MB", "ms", "all logits, MB", "ms",
    )  # fmt: skip
    lines = (_cost_line(step) for step in steps(network, _vectors(result, "class indices")))
    return Cells(header, tuple(lines), words=1)


def cost_notes(result: dict[str, Any]) -> list[str]:
    """What the model stands on: what was measured or counted, and what was assumed."""
    alpha = alpha_of(result["all_reduce_seconds"])
    calls = (call for call in result["sent"] if call != "linear_cross_entropy")
    counts = ", ".join(f"{call} {_vectors(result, call)}" for call in calls)
    return [
        f"Modelled, not measured: {ROWS} rows, {CLASSES} classes, {FEATURES} bfloat16 features.",
        f"A message takes α = {1e6 * alpha:.0f} µs, measured over two processes of the machine "
        f"below (gloo); a link carries {BANDWIDTH / 1e9:.0f} GB a second, assumed.",
        f"Counted vectors of the second all-reduce: {counts}.",
    ]


def _vectors(result: dict[str, Any], call: str) -> int:
    return vectors_of(result["sent"][call]["forward"], result["counted_rows"])


def _cost_line(step: Step) -> tuple[str, ...]:
    traffics: tuple[Traffic, ...] = (step.loss, step.three, step.hidden, step.gathered)
    figures = (
        figure for t in traffics for figure in (_three(t.bytes / 1e6), _three(1e3 * t.seconds))
    )
    return str(step.ranks), *figures


def _three(value: float) -> str:
    """Three digits, and no power of ten."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"
