"""What a benchmark measured: frozen records, for every renderer the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import median
from typing import Any

from xent.benchmark.cases import Case, Labels, Mode
from xent.benchmark.machine import Machine

OURS = "xent"


class Status(StrEnum):
    """What became of a peer in a row."""

    TIMED = "timed"
    WRONG = "wrong"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Result:
    """One peer in one row."""

    peer: str
    status: Status
    reason: str | None = None
    """Why it was not timed."""
    samples_ms: tuple[float, ...] = ()
    loss_error: float | None = None
    """Relative to the loss in float64."""
    gradient_error: float | None = None
    """The largest of any entry, relative to the terms whose difference the entry is."""
    peak_memory: float | None = None
    """Taken on top of the data, in units of one logits-sized tensor: 1 is one gradient."""

    @property
    def ms(self) -> float | None:
        """Median milliseconds."""
        return median(self.samples_ms) if self.samples_ms else None


@dataclass(frozen=True)
class Row:
    """One case in one mode: the floor and every peer, measured in turn in one run."""

    case: Case
    mode: Mode
    floor_samples_ms: tuple[float, ...]
    results: tuple[Result, ...]

    @property
    def floor_ms(self) -> float | None:
        """Median milliseconds of what memory allows, or None where it is not what limits."""
        return median(self.floor_samples_ms) if self.floor_samples_ms else None

    def result(self, peer: str) -> Result | None:
        """What this peer gave, if it was asked."""
        return next((result for result in self.results if result.peer == peer), None)

    def ms(self, peer: str) -> float | None:
        """Median milliseconds of a peer."""
        result = self.result(peer)
        return None if result is None else result.ms

    def over_floor(self, peer: str) -> float | None:
        """A peer's time as a multiple of the floor."""
        return _ratio(self.ms(peer), self.floor_ms)

    def over_ours(self, peer: str) -> float | None:
        """A peer's time as a multiple of xent's."""
        return _ratio(self.ms(peer), self.ms(OURS))

    def peak_memory(self, peer: str) -> float | None:
        """A peer's memory in gradients."""
        result = self.result(peer)
        return None if result is None else result.peak_memory


@dataclass(frozen=True)
class Report:
    """Everything that a run measured."""

    command: str
    machine: Machine
    rows: tuple[Row, ...]
    other_cores: float | None
    """Cores that other programs kept busy meanwhile, on average."""

    @property
    def peers(self) -> tuple[str, ...]:
        """All that were asked, xent first."""
        return tuple(dict.fromkeys(result.peer for row in self.rows for result in row.results))

    def document(self) -> dict[str, Any]:
        """Everything, with what follows from it, as JSON can hold it."""
        return {
            "command": self.command,
            "machine": asdict(self.machine),
            "other_cores": self.other_cores,
            "rows": [_row_document(row) for row in self.rows],
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Report:
        """The report that a document holds."""
        rows = tuple(_read_row(row) for row in document["rows"])
        machine = Machine(**document["machine"])
        return cls(document["command"], machine, rows, document["other_cores"])


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above / below


def _row_document(row: Row) -> dict[str, Any]:
    results = [
        asdict(result)
        | {
            "samples_ms": list(result.samples_ms),
            "ms": result.ms,
            "over_floor": row.over_floor(result.peer),
            "over_xent": row.over_ours(result.peer),
        }
        for result in row.results
    ]
    return {
        "shape": list(row.case.shape),
        "dtype": row.case.dtype,
        "labels": row.case.labels,
        "mode": row.mode,
        "floor_ms": row.floor_ms,
        "floor_samples_ms": list(row.floor_samples_ms),
        "results": results,
    }


def _read_row(row: Mapping[str, Any]) -> Row:
    case = Case(tuple(row["shape"]), Labels(row["labels"]), row["dtype"])
    derived = {"ms", "over_floor", "over_xent"}
    results = []
    for result in row["results"]:
        given = {name: value for name, value in result.items() if name not in derived}
        given |= {"status": Status(given["status"]), "samples_ms": tuple(given["samples_ms"])}
        results.append(Result(**given))
    return Row(case, Mode(row["mode"]), tuple(row["floor_samples_ms"]), tuple(results))
