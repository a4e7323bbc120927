"""From cases to a report: each peer's answer is judged and, if it is right, its time taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from xent.benchmark.cases import Case, Mode, shows_memory
from xent.benchmark.data import Data, made
from xent.benchmark.floors import floor_of
from xent.benchmark.load import Load
from xent.benchmark.machine import machine
from xent.benchmark.memory import peak_of
from xent.benchmark.peers.contender import Contender, UnavailableError
from xent.benchmark.peers.registry import PEERS
from xent.benchmark.timing import Program, interleaved
from xent.benchmark.trace import OURS, Report, Result, Row, Status
from xent.benchmark.truth import Truth, errors, truth_of

FLOOR = "floor"


class WrongLossError(Exception):
    """xent's own answer is not the truth."""


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long it may take."""

    cases: Sequence[Case]
    peers: Sequence[str]
    row_seconds: float
    """Of timing, in each row; the smallest number of rounds is taken in any case."""
    memory: Callable[[Case], bool] = shows_memory
    """Of which cases the memory is measured."""

    @property
    def steps(self) -> int:
        """How often progress is told."""
        return len(self.cases) * (len(Mode) + 1)


def measured(plan: Plan, command: str, on_step: Callable[[str], None]) -> Report:
    """Measures all of it.

    Args:
        plan: cases and peers.
        command: how to do the same again.
        on_step: told what comes next, ``plan.steps`` times.

    Raises:
        WrongLossError: xent's loss or gradient is wrong in one of the cases.
    """
    # In the first call of a process, torch's exp on several threads is now and then off by 1e-4.
    torch.zeros(1 << 20).exp()
    load = Load()
    rows = tuple(row for case in plan.cases for row in _case_rows(case, plan, on_step))
    return Report(command, machine(), rows, load.other_cores())


def _case_rows(case: Case, plan: Plan, on_step: Callable[[str], None]) -> Iterator[Row]:
    timed = []
    data = made(case)
    truth = truth_of(data)
    for mode in Mode:
        on_step(f"{case.title}, {case.labels}, {mode}")
        timed.append(_row(data, truth, mode, plan))
    del data, truth  # the processes below need the memory
    on_step(f"{case.title}, {case.labels}, memory")
    for row in timed:
        with_memory = row.mode is Mode.BOTH and plan.memory(case)
        yield _with_memory(row) if with_memory else row


def _row(data: Data, truth: Truth, mode: Mode, plan: Plan) -> Row:
    programs: dict[str, Program] = {}
    results = {}
    for peer in plan.peers:
        results[peer], contender = _judged(peer, data, truth, mode)
        if contender is not None:
            programs[peer] = contender
    floor = floor_of(data, mode)
    if floor is not None:
        programs[FLOOR] = floor
    samples = interleaved(programs, plan.row_seconds)
    return Row(
        data.case,
        mode,
        samples.get(FLOOR, ()),
        tuple(
            replace(result, samples_ms=samples.get(peer, ())) for peer, result in results.items()
        ),
    )


def _judged(peer: str, data: Data, truth: Truth, mode: Mode) -> tuple[Result, Contender | None]:
    """The peer's errors, and the peer itself if it may be timed."""
    try:
        contender = PEERS[peer](data, mode)
    except UnavailableError as error:
        return Result(peer, Status.UNAVAILABLE, str(error)), None
    contender.run()
    found = errors(contender.answer(truth.rows), truth)
    contender.release()
    wrong = found.verdict(data.case.dtype)
    if wrong is None:
        result = Result(peer, Status.TIMED, None, (), found.loss, found.gradient)
        return result, contender
    if peer == OURS:
        raise WrongLossError(f"{data.case.title}, {data.case.labels}, {mode}: {OURS}'s {wrong}")
    return Result(peer, Status.WRONG, wrong, (), found.loss, found.gradient), None


def _with_memory(row: Row) -> Row:
    results = []
    for result in row.results:
        peak = peak_of(row.case, result.peer) if result.status is Status.TIMED else None
        results.append(replace(result, peak_memory=peak))
    return replace(row, results=tuple(results))
