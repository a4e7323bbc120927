"""A result of a GPU as tables of text, for every renderer the same. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

from gpu_cases import OURS, Kind
from gpu_peers import PEERS
from xent.benchmark.cases import Mode
from xent.benchmark.cells import NOTHING, Cells

GIBI = 1 << 30
SHORT = {Mode.FORWARD: "forward", Mode.BOTH: "+ backward"}

Row = dict[str, Any]


def rows_of(result: dict[str, Any], kind: Kind) -> list[Row]:
    """The rows of one kind, those of a size and dtype together, forward first."""
    rows = [row for row in result["rows"] if row["kind"] == kind]
    order = list(dict.fromkeys(row["title"] for row in rows))
    return sorted(rows, key=lambda row: (order.index(row["title"]), row["mode"] != Mode.FORWARD))


def measured(result: dict[str, Any], kind: Kind) -> list[str]:
    """Contenders with a figure in at least one row, in their order."""
    rows = rows_of(result, kind)
    return [name for name in PEERS[kind] if any(ms(row, name) is not None for row in rows)]


def ms(row: Row, name: str) -> float | None:
    """The median of a contender's samples."""
    samples = row["contenders"].get(name, {}).get("samples_ms")
    return median(samples) if samples else None


def rate(row: Row, name: str) -> float | None:
    """What it got done, in TB/s; in TFLOP/s if linear."""
    taken = ms(row, name)
    return None if taken is None else row["work"] / taken / 1e9


def copy_rate(row: Row) -> float | None:
    """Of a copy in the same rounds, in TB/s."""
    copy = row.get("copy")
    if not copy or not copy["samples_ms"]:
        return None
    return copy["bytes"] / median(copy["samples_ms"]) / 1e9


def peak(row: Row, name: str) -> int | None:
    """Bytes above what is there before."""
    return row["contenders"].get(name, {}).get("peak_bytes")


def over(one: float | None, other: float | None) -> float | None:
    """Their ratio where there are both."""
    return one / other if one is not None and other else None


def logits_cells(result: dict[str, Any]) -> Cells:
    """Every contender's bandwidth."""
    names = measured(result, Kind.LOGITS)
    header = ("logits", "mode", "xent ms", "xent/copy", "copy TB/s", *(f"{n} TB/s" for n in names))
    lines = tuple(
        (
            row["title"], SHORT[row["mode"]],
            _digits(ms(row, OURS)),
            _format(over(rate(row, OURS), copy_rate(row)), ".0%"),
            _format(copy_rate(row), ".2f"),
            *(_format(rate(row, name), ".2f") for name in names),
        )
        for row in rows_of(result, Kind.LOGITS)
    )  # fmt: skip
    return Cells(header, lines, words=2)


def linear_cells(result: dict[str, Any]) -> Cells:
    """Times and rate of the loss of hidden states; the matrix products alone are the floor."""
    names = measured(result, Kind.LINEAR)
    header = ("rows × features × vocabulary", "mode", "xent TFLOP/s", "products ms")
    lines = tuple(
        (
            row["title"], SHORT[row["mode"]],
            _format(rate(row, OURS), ".0f"),
            _digits(median(row["products_ms"]) if row.get("products_ms") else None),
            *(_digits(ms(row, name)) for name in names),
        )
        for row in rows_of(result, Kind.LINEAR)
    )  # fmt: skip
    return Cells((*header, *(f"{name} ms" for name in names)), lines, words=2)


def memory_cells(result: dict[str, Any], kind: Kind) -> Cells:
    """Peak of every contender with a gradient, on top of what it is given, in GiB."""
    names = measured(result, kind)
    lines = tuple(
        (row["title"], *(_format(over(peak(row, name), GIBI), ".3f") for name in names))
        for row in rows_of(result, kind)
        if row["mode"] == Mode.BOTH and any(peak(row, name) is not None for name in names)
    )
    return Cells(("peak of forward + backward, GiB", *names), lines, words=1)


def notes(result: dict[str, Any]) -> tuple[str, ...]:
    """Who was not timed and why, each reason once; what was skipped; what went wrong."""
    places: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in result["rows"]:
        for name, found in row["contenders"].items():
            if found.get("reason"):
                key = (row["kind"], name, found["status"], found["reason"])
                places.setdefault(key, []).append(row)
    missing = tuple(
        f"{kind}: {name} is {status} in {_places(rows, result['rows'])}: {reason}"
        for (kind, name, status, reason), rows in places.items()
    )
    skipped = result["skipped"]
    rest = (f"Not measured: {'; '.join(skipped)}.",) if skipped else ()
    return (*missing, *rest, *result["problems"])


def dispatches(result: dict[str, Any]) -> tuple[str, ...]:
    """Which backend of ours was measured, each answer once."""
    found: dict[str, int] = {}
    for row in result["rows"]:
        if row.get("dispatch"):
            found[row["dispatch"]] = found.get(row["dispatch"], 0) + 1
    return tuple(f"xent computed with {text} in {count} rows." for text, count in found.items())


def suite_line(suite: dict[str, Any]) -> str:
    """How the tests on the device went."""
    counts = ", ".join(f"{count} {outcome}" for outcome, count in suite.get("counts", {}).items())
    bad = "; ".join(failure["test"] for failure in suite.get("failures", []))
    line = f"Tests on the device: {counts or 'none'} ({suite['status']})."
    return f"{line} Not passed: {bad}." if bad else line


def origin(result: dict[str, Any]) -> str:
    """Device, versions and day in one line."""
    device, at = result["device"] or {"name": "no device", "versions": {}}, result["machine"]
    versions = {"torch": at["torch"], **device["versions"], "xent": at["xent"]}
    shown = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    return f"{device['name']}; {shown}, Python {at['python']}; {result['date'][:10]}."


def _places(rows: Iterable[Row], all_rows: Iterable[Row]) -> str:
    rows = list(rows)
    if len(rows) == sum(row["kind"] == rows[0]["kind"] for row in all_rows):
        return "every row"
    return ", ".join(f"{row['title']} {SHORT[row['mode']]}" for row in rows)


def _digits(value: float | None) -> str:
    """Three digits, and no more than thousandths."""
    if value is None:
        return NOTHING
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}"


def _format(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
