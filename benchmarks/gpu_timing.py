"""Times on a device: events in its own queue, caches cold, the programs in turn."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

from xent.benchmark.peers.contender import first_line

BUFFER = 2 << 30
"""Bytes of each of the two buffers of the copy, where the device has 64 GiB or more."""
TINY_BUFFER = 1 << 20
WARM_SECONDS = 0.3
"""Of running before the first sample: an idle device has slow clocks."""
LEAST_ROUNDS, MOST_ROUNDS = 5, 30


class Program(Protocol):
    """What can be timed."""

    def prepare(self) -> None:
        """Puts back what the last run has overwritten; not timed."""

    def run(self) -> None:
        """Does the work once."""

    def release(self) -> None:
        """Lets go of the result; not timed."""


class DeviceLostError(Exception):
    """Nothing runs on the device any more in this process: an illegal access, for example."""

    def __init__(self, reason: str, program: str | None = None) -> None:
        super().__init__(reason)
        self.program = program


@dataclass
class Times:
    """Samples of one program, and why there are no more of them."""

    samples_ms: list[float] = field(default_factory=list)
    host_ms: list[float] = field(default_factory=list)
    """Until the host has queued the work, or longer where the program waits for the device."""
    reason: str | None = None


class Copy:
    """From one buffer into another; the second one also serves to empty the caches."""

    def __init__(self, device: str, size: int) -> None:
        self._source = torch.ones(size // 4, device=device)
        self._sink = torch.ones_like(self._source)
        self.bytes = 2 * 4 * self._source.numel()  # read and written

    def prepare(self) -> None:
        """Nothing to put back."""

    def run(self) -> None:
        """Once through both."""
        self._sink.copy_(self._source)

    def release(self) -> None:
        """Nothing to let go of."""

    def flush(self) -> None:
        """Writes more than any cache holds."""
        self._sink.zero_()


class WallClock:
    """For a CPU, where a dry run only has to get through."""

    def __init__(self, device: str = "cpu") -> None:
        self.copy = Copy(device, TINY_BUFFER)

    def sample(self, program: Program) -> tuple[float, float]:
        """Milliseconds of one run, on the device and on the host."""
        program.prepare()
        began = time.perf_counter()
        program.run()
        taken = 1e3 * (time.perf_counter() - began)
        program.release()
        return taken, taken

    def peak(self, program: Program) -> int | None:
        """Unknown here."""
        del program

    def check(self) -> None:
        """A CPU is always there."""

    def clear(self) -> None:
        """Gives memory back."""
        gc.collect()


class EventClock(WallClock):
    """For a GPU.

    Before each run the caches are emptied by a write of 2 GiB. It takes the device half a
    millisecond, in which the host queues the run behind it: what is timed is the device's work, as
    in a training step whose queue is full. A program that waits for the device still pays for it.
    """

    def __init__(self, device: str, *, tiny: bool = False) -> None:
        total = torch.cuda.get_device_properties(device).total_memory
        self.copy = Copy(device, TINY_BUFFER if tiny else min(BUFFER, total // 32))

    def sample(self, program: Program) -> tuple[float, float]:
        """Milliseconds of one run, on the device and on the host."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        program.prepare()
        self.copy.flush()
        begin.record()
        began = time.perf_counter()
        program.run()
        host = 1e3 * (time.perf_counter() - began)
        end.record()
        end.synchronize()
        program.release()
        return begin.elapsed_time(end), host

    def peak(self, program: Program) -> int | None:
        """Bytes on top of what is there before, in one run."""
        program.prepare()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        program.run()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        program.release()
        return peak

    def check(self) -> None:
        """Whether the device still answers.

        Raises:
            DeviceLostError: it does not.
        """
        try:
            torch.cuda.synchronize()
        except Exception as error:
            raise DeviceLostError(first_line(error)) from error

    def clear(self) -> None:
        """Gives memory back to the device."""
        gc.collect()
        torch.cuda.empty_cache()


def interleaved(
    programs: Mapping[str, Program], clock: WallClock, seconds: float
) -> dict[str, Times]:
    """Samples of each program, one a round, in turn; one that fails drops out with its reason.

    Args:
        programs: by name.
        clock: how to time.
        seconds: after which no further round begins, once there are enough.

    Raises:
        DeviceLostError: a failure took the device with it.
    """
    found = {name: Times() for name in programs}
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        _round(programs, clock, found)
        began = time.perf_counter()
        while time.perf_counter() - began < min(WARM_SECONDS, seconds):
            _round(programs, clock, found)
        for times in found.values():
            times.samples_ms.clear()
            times.host_ms.clear()
        began = time.perf_counter()
        for done in range(MOST_ROUNDS):
            if done >= LEAST_ROUNDS and time.perf_counter() - began > seconds:
                break
            _round(programs, clock, found)
    finally:
        if was_enabled:
            gc.enable()
    return found


def _round(programs: Mapping[str, Program], clock: WallClock, found: dict[str, Times]) -> None:
    for name, program in programs.items():
        times = found[name]
        if times.reason is not None:
            continue
        try:
            sample, host = clock.sample(program)
            times.samples_ms.append(sample)
            times.host_ms.append(host)
        except Exception as error:  # whatever a peer raises
            times.reason = first_line(error)
        if times.reason is not None:  # out of the handler, whose traceback holds tensors
            try:
                recovered(program, clock)
            except DeviceLostError as error:
                raise DeviceLostError(times.reason, name) from error


def recovered(program: Program | None, clock: WallClock) -> None:
    """Cleans up after a program that has failed.

    Raises:
        DeviceLostError: there is nothing left to go on with.
    """
    clock.check()
    if program is not None:
        program.release()
    clock.clear()
