"""Keeps a worker going: what ends it is named and left out, and the rest is measured.

A contender that ends the process, loses the device or does not answer is not tried again: ours not
in that cell, another not in any of its kind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gpu_cases import OURS, Cell, cells
from gpu_peers import PEERS
from gpu_suite import ROOT, end
from gpu_worker import NO_TIME, Task

PATIENCE = 90.0
"""Seconds without an event after which a worker is taken to hang; a compilation takes some."""
GRACE = 15.0
"""Seconds past its time after which a worker is ended."""
PAUSE = 0.1
MOST_WORKERS = 8

Listener = Callable[[dict[str, Any]], None]


class Supervisor:
    """What workers have told so far."""

    def __init__(self, task: Task, log: Path, listener: Listener) -> None:
        self.rows: list[dict[str, Any]] = []
        self.facts: dict[str, Any] | None = None
        self.clocks: dict[str, str] | None = None
        self.problems: list[str] = []
        self._task = task
        self._log = log
        self._listener = listener
        self._current: tuple[str, str | None] | None = None
        self._failure: str | None = None
        self._finished = False

    @property
    def skipped(self) -> list[str]:
        """Titles of the cells that were not measured."""
        done = {row["key"] for row in self.rows}
        return [cell.key for cell in self._cells if cell.key not in done]

    def run(self) -> None:
        """One worker after another, until one has got to the end."""
        for _ in range(MOST_WORKERS):
            self._current = self._failure = None
            ended = self._worker()
            if self._finished or self._task.is_over:
                return
            if self._current is None:  # it has not even begun
                self.problems.append(f"The worker did not start: {ended}.")
                return
            self._leave_out(self._failure or ended)
        self.problems.append(f"{MOST_WORKERS} workers ended before their time.")

    @property
    def _cells(self) -> tuple[Cell, ...]:
        return cells(tiny=self._task.tiny)

    def _worker(self) -> str:
        """Runs one, and says how it ended."""
        with tempfile.TemporaryDirectory() as folder, self._log.open("a") as log:
            events = Path(folder) / "events"
            events.touch()
            task = Path(folder) / "task.json"
            task.write_text(json.dumps(asdict(replace(self._task, events=str(events)))))
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("gpu_worker.py")), str(task)],
                env=_environment(), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            try:
                return self._follow(process, events)
            finally:
                end(process)

    def _follow(self, process: subprocess.Popen[bytes], events: Path) -> str:
        heard = time.monotonic()
        with events.open(encoding="utf-8") as file:
            lines = _whole_lines(file)
            while True:
                over = process.poll() is not None
                for line in iter(lambda: next(lines), None):
                    heard = time.monotonic()
                    self._hear(json.loads(line))
                if over:
                    return f"its process ended with status {process.returncode}"
                quiet = time.monotonic() - heard
                if self._finished and quiet > GRACE:
                    return "it has finished"
                if quiet > PATIENCE:
                    return f"no answer for {PATIENCE:.0f} s"
                if time.time() > self._task.until + GRACE:
                    return NO_TIME
                time.sleep(PAUSE)

    def _hear(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "facts":
                self.facts = event["facts"]
            case "clocks":
                self.clocks = event["clocks"]
            case "started":
                self._current = event["cell"], event["contender"]
            case "failed":
                self._failure = event["reason"]
                if self._current is not None and event["contender"] is not None:
                    self._current = self._current[0], event["contender"]
            case "row":
                self._add(event["row"])
            case "finished":
                self._finished = True
        self._listener(event)

    def _add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._task.done.append(row["key"])

    def _leave_out(self, reason: str) -> None:
        """Nothing that has ended a worker ends the next one."""
        assert self._current is not None
        key, contender = self._current
        self.problems.append(f"{key}, {contender or 'all together'}: {reason}.")
        cell = next(cell for cell in self._cells if cell.key == key)
        if contender not in PEERS[cell.kind]:
            self._task.done.append(key)
            return
        where = key if contender == OURS else cell.kind
        self._task.refused.setdefault(where, {})[contender] = reason


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def _whole_lines(file: Any) -> Iterator[str | None]:
    """Each line once it is complete; None where there is no other yet."""
    begun = ""
    while True:
        begun += file.readline()
        if begun.endswith("\n"):
            yield begun
            begun = ""
        else:
            yield None
