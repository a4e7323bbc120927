"""Runs a kernel over ranges of rows, on as many threads as torch may use.

A call cuts its rows into a few ranges per thread. Caller and workers claim them one by one, so
that a thread whose core is taken away delays a range and not its whole share. The caller never
depends on a worker: it claims until nothing is left, then waits for the ranges that others have
begun. So calls may be nested or come from many threads at once, and where no worker can be had
(the interpreter is shutting down, say) the caller does all the work.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import pairwise
from queue import SimpleQueue

import torch

Kernel = Callable[..., object]

RANGES_PER_THREAD = 4


def in_ranges(kernel: Kernel, count: int, *args: object, grain: int = 1) -> None:
    """Calls ``kernel(*args, start, stop)`` for disjoint ranges that cover [0, count).

    The kernel writes only what belongs to its range and should release the GIL. Results must not
    depend on how the rows are cut: the number of ranges follows ``torch.get_num_threads()``.
    No range is being worked on any more when this returns or raises, KeyboardInterrupt included.

    Args:
        kernel: called with ``args`` and a range. torch's thread-local modes, such as ``no_grad``,
            are not carried to workers.
        count: number of rows.
        *args: handed to the kernel as they are.
        grain: number of rows that are worth a thread.

    Raises:
        BaseException: what the kernel raised, once all ranges that were begun have ended. Ranges
            that were not begun are left out.
    """
    most = -(-count // grain)
    threads = min(torch.get_num_threads(), most)
    if threads <= 1:
        if count > 0:
            kernel(*args, 0, count)
        return
    call = _Call(kernel, args, _ranges(count, min(threads * RANGES_PER_THREAD, most)))
    try:
        _ask_for_help(call, threads - 1)
        call.work()
    finally:
        call.unclaimed.clear()
        call.settle()
        errors = call.forget()
    if errors:
        # popped: an error whose traceback led back to itself would keep the rows in memory
        raise errors.pop()


def _ranges(count: int, number: int) -> list[tuple[int, int]]:
    """Ranges of nearly equal length, the last first: they are popped from the end."""
    cuts = [count * i // number for i in range(number + 1)]
    return list(pairwise(cuts))[::-1]


class _Call:
    """One call: the ranges that nobody has claimed, and who is at work.

    There is no lock that a signal or a finalizer could leave locked: ``pop``, ``append`` and
    ``clear`` of a list are atomic, and a worker enters before it claims. Once ``unclaimed`` is
    empty, whoever has not entered finds nothing to do.
    """

    def __init__(self, kernel: Kernel, args: tuple[object, ...], ranges: list[tuple[int, int]]):
        self.kernel: Kernel | None = kernel
        self.args = args
        self.unclaimed = ranges
        self.entered: list[None] = []
        self.left: list[None] = []
        self.errors: list[BaseException] = []
        self.someone_left: SimpleQueue[None] = SimpleQueue()

    def work(self) -> None:
        """Claims ranges and runs them until none is left."""
        while True:
            try:
                start, stop = self.unclaimed.pop()
            except IndexError:
                return
            assert self.kernel is not None  # forgotten only after everybody has left
            self.kernel(*self.args, start, stop)

    def help(self) -> None:
        """What a worker does; an error is left for the caller."""
        self.entered.append(None)
        try:
            self.work()
        except BaseException as error:
            self.unclaimed.clear()
            self.errors.append(error)
        finally:
            self.left.append(None)
            self.someone_left.put(None)

    def settle(self) -> None:
        """Waits until everybody who entered has left, whatever is raised meanwhile."""
        try:
            # `left` is read first: as many as have entered by now had left by then
            while len(self.left) < len(self.entered):
                self.someone_left.get()
        finally:
            if len(self.left) < len(self.entered):  # interrupted
                self.settle()

    def forget(self) -> list[BaseException]:
        """Lets go of the arguments, as a worker may find this call in its queue much later.

        Returns the errors, which lead here by their tracebacks and must not be led to from here.
        """
        errors, self.errors = self.errors, []
        self.kernel, self.args = None, ()
        return errors


class _Workers:
    """Daemon threads at one queue: they hold up no exit, and there are as many as were needed."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[_Call] = SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.growing = threading.RLock()  # re-entrant: a finalizer may run a kernel, too

    def grow(self, number: int) -> None:
        """Starts threads until there are ``number``, or as many as the system grants."""
        with self.growing:
            while len(self.threads) < number:
                thread = threading.Thread(
                    target=_serve, args=(self.calls,), name="xent-rows", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # no more threads, or the interpreter is shutting down
                    return
                self.threads.append(thread)


def _serve(calls: SimpleQueue[_Call]) -> None:
    while True:
        calls.get().help()  # held in no variable, which would outlast the call


def _ask_for_help(call: _Call, helpers: int) -> None:
    workers = _workers
    if len(workers.threads) < helpers:
        workers.grow(helpers)
    for _ in range(min(helpers, len(workers.threads))):
        workers.calls.put(call)


def _start_afresh() -> None:
    """A forked child has none of its parent's threads; locks and queues may be in any state."""
    global _workers
    _workers = _Workers()


_workers = _Workers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)
