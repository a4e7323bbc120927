"""Puts the committed results into the pages that quote them: no figure is typed in.

A page marks the place with a pair of comments, `<!-- NAME -->` and `<!-- /NAME -->`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import distributed_report
import gpu_report
from gpu_cases import Kind
from gpu_machine import slug
from gpu_targets import target_cells
from xent.benchmark.cells import Cells, compact_cells, memory_cells, notes, origin, speed_cells
from xent.benchmark.trace import Report

RESULTS = Path(__file__).parent / "results"
ROOT = RESULTS.parent.parent
NOTHING_YET = "\nNothing has been measured yet.\n\n"
sys.path.append(str(ROOT / "examples"))
PAGES = (
    "README.md", "docs/distributed.md", "docs/exactness.md", "docs/gpu.md",
    "docs/language_model.md", "docs/linear_cross_entropy.md", "docs/page.md",
    "docs/plant_pathology.md", "docs/speed.md", "docs/tensor_parallel.md",
)  # fmt: skip


def main() -> None:
    """Rewrites the marked tables of every page."""
    for page in PAGES:
        path = ROOT / page
        text = path.read_text()
        for name in TABLES:
            text = filled(text, name)
        path.write_text(text)


def filled(text: str, name: str) -> str:
    """The text with this table between its marks."""
    marks = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    return re.sub(marks, lambda m: m[1] + table(name) + m[2], text, flags=re.DOTALL)


def table(name: str) -> str:
    """A Markdown table of a result, and its machine below; of each result that fits a pattern."""
    result, render = TABLES[name]
    paths = sorted(RESULTS.glob(f"{result}.json"))
    return "".join(render(json.loads(path.read_text())) for path in paths) or NOTHING_YET


def exactness(result: dict[str, Any]) -> str:
    """Every row as it is."""
    header = tuple(column.replace("_", " ") for column in result["rows"][0])
    lines = tuple(tuple(map(shown, row.values())) for row in result["rows"])
    machine = result["machine"]
    below = f"{machine['cpu']}, {machine['torch_threads']} threads, torch {machine['torch']}."
    return markdown(Cells(header, lines, words=0), below)


def distributed(result: dict[str, Any]) -> str:
    """Times of losses over processes, and who was not timed."""
    told = (*distributed_report.notes(result), of_machine(result["machine"]))
    return markdown(distributed_report.times_cells(result), "\n\n".join(told))


def distributed_cost(result: dict[str, Any]) -> str:
    """What such a loss says to other ranks, in bytes, and by a model in time."""
    told = (*distributed_report.cost_notes(result), of_machine(result["machine"]))
    return markdown(distributed_report.cost_cells(result), "\n\n".join(told))


def plants(result: dict[str, Any]) -> str:
    """What a training on leaves printed, and its machine below."""
    from plants_report import page_text  # the folder of the examples is no package

    return printed(page_text(result), result)


def language_model(result: dict[str, Any]) -> str:
    """What a training on sources printed, and its machine below."""
    from lm_report import page_text  # the folder of the examples is no package

    return printed(page_text(result), result)


def tensor_parallel(result: dict[str, Any]) -> str:
    """What a training of ranks that share a classifier printed, and its machine below."""
    from tp_run import page_text  # the folder of the examples is no package

    return printed(page_text(result), result)


def printed(text: str, result: dict[str, Any]) -> str:
    """What an example printed, and below it where, when and how long it ran."""
    below = f"{of_machine(result['machine'])} {result['seconds']:.0f} s in all."
    return f"\n```text\n{text}\n```\n\n{below}\n\n"


def page(result: dict[str, Any]) -> str:
    """How quickly the page is there and answers."""
    cells = Cells(
        ("size, kB", "there after, ms", "one change, ms", "95 % of changes within, ms"),
        ((
            f"{result['bytes'] / 1000:.0f}", f"{result['ready_ms']:.0f}",
            f"{result['answer_ms']:.1f}", f"{result['answer_ms_95']:.1f}",
        ),),
        words=0,
    )  # fmt: skip
    machine = result["machine"]
    return markdown(cells, f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}.")


def linear(result: dict[str, Any]) -> str:
    """Times of the loss of a large vocabulary, and who was not timed."""
    others = [peer for peer in result["rows"][0]["peers"] if peer != "xent"]
    header = ("rows × features × vocabulary", "mode", "xent ms", "xent/floor")
    lines, missing = [], []
    for row in result["rows"]:
        times = {peer: found["samples_ms"] for peer, found in row["peers"].items()}
        ours, floor = median(times["xent"]), median(row["floor_ms"])
        ratios = (f"{median(times[p]) / ours:.2f}" if times[p] else "–" for p in others)
        lines.append((row["title"], row["mode"], f"{ours:.0f}", f"{ours / floor:.2f}", *ratios))
        missing += [
            f"{peer} was not timed at {row['title']}, {row['mode']}: {found['reason']}."
            for peer, found in row["peers"].items()
            if "reason" in found
        ]
    cells = Cells((*header, *(f"{peer}/xent" for peer in others)), tuple(lines), words=2)
    return markdown(cells, "\n\n".join((*missing, of_machine(result["machine"]))))


def linear_memory(result: dict[str, Any]) -> str:
    """Peak memory of each peer at each vocabulary, in MiB."""
    memory = result["memory"]
    header = ("vocabulary", *memory["peaks"], "the gradients alone")
    columns = (*memory["peaks"].values(), memory["gradients"])
    lines = tuple(
        (f"{vocabulary // 1024}k", *("–" if v is None else f"{v / (1 << 20):.0f}" for v in values))
        for vocabulary, *values in zip(memory["vocabularies"], *columns, strict=True)
    )
    return markdown(Cells(header, lines, words=1), of_machine(result["machine"]))


def gpu_logits(result: dict[str, Any]) -> str:
    """Bandwidth and memory of every contender on a device, and its picture."""
    name = f"images/gpu-{slug(result['device']['name'])}.svg"
    picture = f"\n![Achieved bandwidth]({name})\n" if (ROOT / "docs" / name).exists() else ""
    below = (*gpu_report.dispatches(result), gpu_report.origin(result))
    return (
        picture
        + _bare(gpu_report.logits_cells(result))
        + markdown(gpu_report.memory_cells(result, Kind.LOGITS), "\n\n".join(below))
    )


def gpu_linear(result: dict[str, Any]) -> str:
    """Time, rate and memory of the loss of hidden states on a device."""
    memory = gpu_report.memory_cells(result, Kind.LINEAR)
    below = gpu_report.origin(result)
    return _bare(gpu_report.linear_cells(result)) + markdown(memory, below)


def gpu_targets(result: dict[str, Any]) -> str:
    """What is aimed at, how the tests went, and who was not timed."""
    told = (gpu_report.suite_line(result["suite"]), *gpu_report.notes(result))
    return markdown(target_cells(result), "\n\n".join((*told, gpu_report.origin(result))))


def of_machine(machine: dict[str, Any]) -> str:
    """Where and when a result was measured."""
    count = machine["torch_threads"]
    threads = "1 thread" if count == 1 else f"{count} threads"
    return (
        f"{machine['cpu']}, {threads}, torch {machine['torch']}, "
        f"xent {machine['xent']}, {machine['date']}."
    )


def of_report(cells: Callable[[Report], Cells]) -> Callable[[dict[str, Any]], str]:
    """A table of the speed report, with who is missing in it and why."""

    def render(result: dict[str, Any]) -> str:
        report = Report.read(result)
        return markdown(cells(report), "\n\n".join((*notes(report), origin(report))))

    return render


def markdown(cells: Cells, below: str) -> str:
    """The cells as Markdown, and a text below them."""
    return f"{_bare(cells)}\n{below}\n\n"


def _bare(cells: Cells) -> str:
    """The cells as Markdown, figures to the right."""
    align = [":---"] * cells.words + ["---:"] * (len(cells.header) - cells.words)
    rows = "\n".join(f"| {' | '.join(line)} |" for line in (cells.header, align, *cells.lines))
    return f"\n{rows}\n"


def shown(value: float | int | str) -> str:
    """A cell: two digits of what is tiny, three of what is not."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.3g}"


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "distributed": ("distributed", distributed),
    "distributed_cost": ("distributed", distributed_cost),
    "exactness": ("exactness", exactness),
    "gpu_linear": ("gpu-*", gpu_linear),
    "gpu_logits": ("gpu-*", gpu_logits),
    "gpu_targets": ("gpu-*", gpu_targets),
    "linear": ("linear", linear),
    "linear_memory": ("linear", linear_memory),
    "lm": ("language_model", language_model),
    "page": ("page", page),
    "run": ("plant_pathology", plants),
    "speed": ("speed", of_report(compact_cells)),
    "tensor_parallel": ("tensor_parallel", tensor_parallel),
    "speed_full": ("speed", of_report(speed_cells)),
    "memory": ("speed", of_report(memory_cells)),
}
"""By mark: the result it shows, or a pattern of results, and how."""


if __name__ == "__main__":
    main()
