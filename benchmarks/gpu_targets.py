"""What is aimed at on a GPU, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from gpu_cases import OURS, Kind
from gpu_report import Row, copy_rate, ms, over, peak, rate, rows_of
from xent.benchmark.cases import Mode
from xent.benchmark.cells import NOTHING, Cells

LONG = 4096
"""Classes from which on the bandwidth has to be there."""


@dataclass(frozen=True)
class Target:
    """A figure of a row, and what it has to reach; None where there is nothing to compare with."""

    words: str
    kind: Kind
    value: Callable[[Row], float | None]
    bar: float
    at_least: bool
    form: str = ".2f"

    def is_met(self, value: float) -> bool:
        """Whether it is reached."""
        return value >= self.bar if self.at_least else value <= self.bar


def _bandwidth(row: Row) -> float | None:
    return over(rate(row, OURS), copy_rate(row)) if row["sizes"][1] >= LONG else None


def _over_best(row: Row) -> float | None:
    others = [taken for name in ("Liger", "quack") if (taken := ms(row, name)) is not None]
    return over(min(others, default=None), ms(row, OURS))


def _over_compile(row: Row) -> float | None:
    return over(ms(row, "compile"), ms(row, OURS)) if row["mode"] == Mode.BOTH else None


def _of_cce(row: Row) -> float | None:
    return over(peak(row, OURS), peak(row, "CCE")) if row["mode"] == Mode.BOTH else None


def _of_eager(row: Row) -> float | None:
    return over(ms(row, OURS), ms(row, "eager"))


def _of_products(row: Row) -> float | None:
    floor = row.get("products_ms")
    return over(ms(row, OURS), median(floor)) if floor else None


TARGETS = (
    Target("bandwidth ≥ 90 % of a copy, C ≥ 4096", Kind.LOGITS, _bandwidth, 0.9, True, ".0%"),
    Target("speed ≥ 1.0 × the better of Liger and quack", Kind.LOGITS, _over_best, 1, True),
    Target("speed ≥ 2 × torch.compile, + backward", Kind.LOGITS, _over_compile, 2, True),
    Target("linear: memory ≤ 1.2 × CCE, + backward", Kind.LINEAR, _of_cce, 1.2, False),
    Target("linear: time ≤ 1.1 × eager with all logits", Kind.LINEAR, _of_eager, 1.1, False),
    Target("linear: time ≤ 1.1 × its matrix products", Kind.LINEAR, _of_products, 1.1, False),
)


def target_cells(result: dict[str, Any]) -> Cells:
    """In how many rows each is met, and the row that is furthest from it."""
    return Cells(
        ("target", "furthest from it", "met in", "rows", "worst"),
        tuple(_line(target, rows_of(result, target.kind)) for target in TARGETS),
        words=2,
    )


def _line(target: Target, rows: list[Row]) -> tuple[str, ...]:
    found = [(value, row) for row in rows if (value := target.value(row)) is not None]
    if not found:
        return target.words, NOTHING, NOTHING, "0", NOTHING
    worst = (min if target.at_least else max)(found, key=lambda pair: pair[0])
    met = sum(target.is_met(value) for value, _ in found)
    where = f"{worst[1]['title']} {worst[1]['mode']}"
    return target.words, where, str(met), str(len(found)), format(worst[0], target.form)
