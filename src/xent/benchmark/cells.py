"""The tables of a report as text, for every renderer the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xent.benchmark.cases import Labels, Mode
from xent.benchmark.load import NOTABLE_CORES
from xent.benchmark.trace import OURS, Report, Row

NOTHING = "–"


@dataclass(frozen=True)
class Cells:
    """A header and lines under it; the first ``words`` columns are words, the rest figures."""

    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    words: int


def speed_cells(report: Report) -> Cells:
    """Every row: ours in ms, the floor in ms, and the others as multiples of ours."""
    others = [peer for peer in report.peers if peer != OURS]
    lines = (
        (row.case.title, _words(row.case.labels), _short(row.mode), *_times(row, others))
        for row in report.rows
    )
    header = ("logits", "labels", "mode", *_time_header(others))
    return Cells(header, tuple(lines), words=3)


def compact_cells(report: Report) -> Cells:
    """Large shapes with class indices only, the mode beside the shape."""
    others = [peer for peer in report.peers if peer != OURS]
    rows = (row for row in report.rows if row.case.is_large and row.case.labels is Labels.INDEX)
    lines = ((f"{row.case.title} {_words(row.mode)}", *_times(row, others)) for row in rows)
    return Cells(("work", *_time_header(others)), tuple(lines), words=1)


def memory_cells(report: Report) -> Cells:
    """Peak memory of every row in which it was measured."""
    rows = (
        row
        for row in report.rows
        if row.mode is Mode.BOTH and any(row.peak_memory(peer) is not None for peer in report.peers)
    )
    lines = (
        (
            row.case.title,
            _words(row.case.labels),
            *(_figure(row.peak_memory(peer), ".2f") for peer in report.peers),
        )
        for row in rows
    )
    return Cells(("logits", "labels", *report.peers), tuple(lines), words=2)


def notes(report: Report) -> tuple[str, ...]:
    """Who was not timed and why, each reason once; and whether the machine was disturbed."""
    counts: dict[tuple[str, str, str], list[Row]] = {}
    for row in report.rows:
        for result in row.results:
            if result.reason is not None:
                key = (result.peer, result.status, result.reason)
                counts.setdefault(key, []).append(row)
    missing = tuple(
        f"{peer} is {status} in {_places(rows, len(report.rows))}: {reason}"
        for (peer, status, reason), rows in counts.items()
    )
    if (report.other_cores or 0) < NOTABLE_CORES:
        return missing
    disturbed = f"Other programs took {report.other_cores:.1f} cores meanwhile: measure again."
    return (*missing, disturbed)


def origin(report: Report) -> str:
    """The machine and the versions in one line."""
    at = report.machine
    packages = {"torch": at.torch, "jax": at.jax, "numba": at.numba, "xent": at.xent}
    versions = ", ".join(f"{name} {number}" for name, number in packages.items() if number)
    threads = "1 thread" if at.torch_threads == 1 else f"{at.torch_threads} threads"
    return f"{at.cpu}, {threads}; {versions}, Python {at.python}; {at.date}."


def _places(rows: Sequence[Row], of: int) -> str:
    if len(rows) == of:
        return "every row"
    if len(rows) == 1:
        row = rows[0]
        return f"{row.case.title}, {row.case.labels}, {row.mode}"
    return f"{len(rows)} rows"


def _short(mode: Mode) -> str:
    return "forward" if mode is Mode.FORWARD else "+ backward"


def _words(name: str) -> str:
    """Several lines where a column is narrow."""
    return name.replace("+", " + ")


def _time_header(others: Iterable[str]) -> tuple[str, ...]:
    ratios = (f"{peer}/{OURS}" for peer in others)
    return (f"{OURS} ms", "floor ms", f"{OURS}/floor", *ratios)


def _times(row: Row, others: Iterable[str]) -> tuple[str, ...]:
    ratios = (_figure(row.over_ours(peer), ".2f") for peer in others)
    ours = _milliseconds(row.ms(OURS))
    return (ours, _milliseconds(row.floor_ms), _figure(row.over_floor(OURS), ".2f"), *ratios)


def _milliseconds(value: float | None) -> str:
    """Three digits, and no more than thousandths."""
    if value is None:
        return NOTHING
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def _figure(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
