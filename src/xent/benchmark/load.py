"""How much other programs took of the machine: one core less can slow OpenMP down tenfold."""

from __future__ import annotations

import os
import time
from pathlib import Path

STATISTICS = Path("/proc/stat")
NOTABLE_CORES = 0.1


class Load:
    """Measures from when it is made."""

    def __init__(self) -> None:
        self._began, self._busy = time.monotonic(), _busy_seconds()

    def other_cores(self) -> float | None:
        """Cores that other programs kept busy on average, or None where the system does not say."""
        busy = _busy_seconds()
        if self._busy is None or busy is None:
            return None
        return max(0.0, (busy - self._busy) / (time.monotonic() - self._began))


def _busy_seconds() -> float | None:
    """Core seconds that were spent so far, without those of this program and its children."""
    if not STATISTICS.exists():
        return None
    user, nice, system, _idle, _wait, interrupts, soft_interrupts, stolen, *_ = map(
        int, STATISTICS.read_text().splitlines()[0].split()[1:]
    )
    spent = user + nice + system + interrupts + soft_interrupts + stolen
    return spent / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])
