"""Measures, in a process of its own: a peer may take the process, or the device in it, down.

    python benchmarks/gpu_worker.py TASK

reads a ``Task`` and writes one JSON object a line to the file that it names: ``facts`` about the
device, ``started`` before each peer, ``failed`` where one took the device with it, a ``row`` when a
cell is done, ``finished``.
"""

from __future__ import annotations

import json
import site
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

import xent
from gpu_cases import Cell, Kind, LinearData, cells, made_linear, made_logits
from gpu_machine import clocks, device_facts
from gpu_peers import PEERS, Products, Program
from gpu_timing import DeviceLostError, EventClock, Times, WallClock, interleaved, recovered
from gpu_truth import judged_linear, judged_logits, linear_truth
from xent.benchmark.data import Data
from xent.benchmark.peers.contender import first_line
from xent.benchmark.truth import truth_of

NO_TIME = "no time was left"
LOST = 3
"""Exit status where the device is lost."""

Emit = Callable[..., None]


@dataclass
class Task:
    """What to measure, and how."""

    device: str
    tiny: bool
    events: str
    until: float
    """Seconds since the epoch."""
    seconds: float
    """Of timing in each row."""
    contenders: list[str] | None = None
    peers: str | None = None
    """A folder with packages."""
    done: list[str] = field(default_factory=list)
    """Cells that are not measured again, by key."""
    refused: dict[str, dict[str, str]] = field(default_factory=dict)
    """By cell or kind: contenders that are not run, and why."""

    def names(self, kind: Kind) -> list[str]:
        """Of the contenders, in their order."""
        wanted = self.contenders
        return [name for name in PEERS[kind] if wanted is None or name in wanted]

    def refusal(self, cell: Cell, name: str) -> str | None:
        """Why this contender is not run here."""
        by_key = self.refused.get(cell.key, {}).get(name)
        return by_key or self.refused.get(cell.kind, {}).get(name)

    @property
    def is_over(self) -> bool:
        """Whether time has run out."""
        return time.time() > self.until


class Bench:
    """The data of one case, what its losses have to give, and a contender to be judged."""

    def __init__(self, cell: Cell, device: str) -> None:
        self.of = (cell.kind, cell.sizes, cell.dtype)
        self._data: Data | LinearData
        if cell.kind is Kind.LOGITS:
            self._data = made_logits(cell, device)
            self.given: tuple[torch.Tensor, ...] = (self._data.logits,)
            self._judged = partial(judged_logits, truth=truth_of(self._data), dtype=cell.dtype)
        else:
            self._data = made_linear(cell, device)
            self.given = (self._data.hidden, self._data.classifier)
            self._judged = partial(judged_linear, truth=linear_truth(self._data), dtype=cell.dtype)

    def program(self, name: str, cell: Cell) -> Program:
        """A contender with this data."""
        return Program(PEERS[cell.kind][name], self.given, self._data.target, cell.mode)

    def judged(self, program: Program) -> dict[str, Any]:
        """The errors of one run, and a reason if it is wrong."""
        program.prepare()
        for tensor in self.given:  # what is not written must not hold another one's answer
            torch.full_like(tensor, float("nan"))
        program.run()
        found = self._judged(program)
        program.release()
        return found


def row_of(cell: Cell, bench: Bench, clock: WallClock, task: Task, emit: Emit) -> dict[str, Any]:
    """One cell: who is right, how long each takes, and how much memory."""
    programs: dict[str, Any] = {"copy": clock.copy}
    on_logits = cell.kind is Kind.LOGITS
    if not on_logits:
        programs["products"] = Products(*bench.given, cell.mode)
    found: dict[str, dict[str, Any]] = {}
    for name in task.names(cell.kind):
        found[name], program = _admitted(name, cell, bench, clock, task, emit)
        if program is not None:
            programs[name] = program
    emit("started", cell=cell.key, contender=None)
    times = interleaved(programs, clock, task.seconds)
    for name, result in found.items():
        _add_times(result, times.get(name))
    return {
        **_head(cell),
        "dispatch": str(xent.explain_dispatch(bench.given[0])) if on_logits else None,
        "copy": {"bytes": clock.copy.bytes, "samples_ms": times["copy"].samples_ms},
        "products_ms": times["products"].samples_ms if "products" in times else None,
        "contenders": found,
    }


def _admitted(
    name: str, cell: Cell, bench: Bench, clock: WallClock, task: Task, emit: Emit
) -> tuple[dict[str, Any], Program | None]:
    """A contender's errors and memory, and the contender itself if it may be timed."""
    refusal = task.refusal(cell, name)
    if refusal is not None:
        return {"status": "failed", "reason": refusal}, None
    if task.is_over:
        return {"status": "skipped", "reason": NO_TIME}, None
    emit("started", cell=cell.key, contender=name)
    program = None
    try:
        program = bench.program(name, cell)
        found = bench.judged(program)
        if "reason" in found:
            return {"status": "wrong", **found}, None
        return {"status": "timed", **found, "peak_bytes": clock.peak(program)}, program
    except Exception as error:  # whatever it raises
        absent = program is None and isinstance(error, (ImportError, AttributeError))
        if not absent:
            print(f"{cell.key}, {name}:", file=sys.stderr)
            traceback.print_exc()
        failure = {"status": "unavailable" if absent else "failed", "reason": first_line(error)}
    try:
        recovered(program, clock)
    except DeviceLostError as error:
        raise DeviceLostError(failure["reason"], name) from error
    return failure, None


def _add_times(result: dict[str, Any], times: Times | None) -> None:
    if times is None:
        return
    if times.reason is not None:
        result |= {"status": "failed", "reason": times.reason}
        return
    result["samples_ms"] = [round(sample, 5) for sample in times.samples_ms]
    result["host_ms"] = round(median(times.host_ms), 5)


def _head(cell: Cell) -> dict[str, Any]:
    return {**asdict(cell), "title": cell.title, "key": cell.key, "work": cell.work}


def _all_failed(cell: Cell, task: Task, reason: str) -> dict[str, Any]:
    failure = {"status": "failed", "reason": reason}
    names = task.names(cell.kind)
    return {**_head(cell), "contenders": {name: dict(failure) for name in names}}


def rows(task: Task, clock: WallClock, emit: Emit) -> Iterator[dict[str, Any]]:
    """Every cell that is left, until time runs out; data are made once for both modes."""
    bench: Bench | None = None
    for cell in cells(tiny=task.tiny):
        if task.is_over:
            return
        if cell.key in task.done:
            continue
        emit("started", cell=cell.key, contender=None)
        failure = None
        try:
            if bench is None or bench.of != (cell.kind, cell.sizes, cell.dtype):
                bench = None  # its memory goes first
                clock.clear()
                bench = Bench(cell, task.device)
            yield row_of(cell, bench, clock, task, emit)
        except DeviceLostError:
            raise
        except Exception as error:  # the data of a cell may be too much for a device
            traceback.print_exc()
            failure = first_line(error)
        if failure is not None:
            bench = None
            recovered(None, clock)
            yield _all_failed(cell, task, failure)


def main(path: str) -> int:
    """Works through a task."""
    task = Task(**json.loads(Path(path).read_text()))
    if task.peers is not None:
        site.addsitedir(task.peers)  # behind the machine's own packages; reads .pth files
    with Path(task.events).open("a", encoding="utf-8") as file:

        def emit(event: str, **values: Any) -> None:
            print(json.dumps({"event": event, **values}), file=file, flush=True)

        on_gpu = task.device != "cpu"
        clock = EventClock(task.device, tiny=task.tiny) if on_gpu else WallClock()
        emit("facts", facts=device_facts(task.device))
        try:
            for number, row in enumerate(rows(task, clock, emit)):
                emit("row", row=row)
                if number == 0 and on_gpu:
                    emit("clocks", clocks=clocks())  # while they are up
        except DeviceLostError as lost:
            traceback.print_exc()
            emit("failed", contender=lost.program, reason=str(lost))
            return LOST
        emit("finished")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
