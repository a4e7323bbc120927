"""Times of several programs in one run, in turn: what disturbs one disturbs the others as well."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

LEAST_SECONDS = 2e-3
"""Of one sample: shorter programs run several times in it."""
LEAST_ROUNDS = 5
MOST_ROUNDS = 30


class Program(Protocol):
    """What can be timed."""

    def run(self) -> None:
        """Does the work once, and keeps its result."""

    def release(self) -> None:
        """Lets go of the result."""


def interleaved(programs: Mapping[str, Program], budget: float) -> dict[str, tuple[float, ...]]:
    """Milliseconds of each program, one sample a round, in turn.

    Args:
        programs: by name.
        budget: seconds after which no further round begins, once there are enough.

    Returns:
        The samples of each program, as many for each.
    """
    samples: dict[str, list[float]] = {name: [] for name in programs}
    with _without_collection():
        repeats = {name: _repeats(program) for name, program in programs.items()}
        began = time.perf_counter()
        for done in range(MOST_ROUNDS):
            if done >= LEAST_ROUNDS and time.perf_counter() - began > budget:
                break
            for name, program in programs.items():
                if repeats[name] > 1:  # the threads of the one before still spin on their cores
                    _seconds(program, repeats[name])
                samples[name].append(1e3 * _seconds(program, repeats[name]) / repeats[name])
    return {name: tuple(taken) for name, taken in samples.items()}


def _repeats(program: Program) -> int:
    """How often a program runs in one sample: long enough for the clock."""
    once = _seconds(program, 1)
    if once >= LEAST_SECONDS:
        return 1
    several = math.ceil(0.1 * LEAST_SECONDS / once)
    return math.ceil(LEAST_SECONDS * several / _seconds(program, several))


def _seconds(program: Program, repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        program.run()
    seconds = time.perf_counter() - began
    program.release()  # outside of the time: the next program must not pay for this one's result
    return seconds


@contextmanager
def _without_collection() -> Iterator[None]:
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
