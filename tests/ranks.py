"""Real processes that talk to each other over gloo, kept for as many tests as need them.

Processes take seconds to start, a call of a loss a few milliseconds: each worker of pytest-xdist
starts four when a test first needs one, and smaller groups are the first of them.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

MOST = 4
PATIENCE = 60.0
"""Seconds that a group waits for a rank, and a test for all of them."""


GONE = object()


class Rank(NamedTuple):
    """Where a function runs."""

    rank: int
    size: int
    group: Any


class Failure(NamedTuple):
    """What a function raised on its rank."""

    error: Exception
    trace: str


class Pool:
    """Some processes, with a group for each number of them."""

    def __init__(self, folder: Path, most: int = MOST, patience: float = PATIENCE) -> None:
        context = multiprocessing.get_context("spawn")
        self.patience = patience
        self.ends: list[Connection] = []
        self.processes = []
        for rank in range(most):
            here, there = context.Pipe()
            arguments = (rank, most, str(folder / "store"), there, patience)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            there.close()
            self.ends.append(here)
            self.processes.append(process)

    def outcomes(self, size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What ``function(rank, *arguments)`` returns or, as ``Failure``, raises on each rank.

        ``GONE`` for a rank that is.
        """
        for end in self.ends[:size]:
            end.send_bytes(pickle.dumps((size, function, arguments)))  # tensors by value
        return [self._answer(end) for end in self.ends[:size]]

    def run(self, size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What it returns, where none may fail."""
        found = self.outcomes(size, function, *arguments)
        for rank, outcome in enumerate(found):
            if isinstance(outcome, Failure):
                raise AssertionError(f"rank {rank} of {size}:\n{outcome.trace}")
            assert outcome is not GONE, f"rank {rank} of {size} is gone"
        return found

    def _answer(self, end: Connection) -> Any:
        if not end.poll(2 * self.patience + 10):
            raise AssertionError("a rank has not answered: it hangs beyond its group's timeout")
        try:
            return pickle.loads(end.recv_bytes())
        except (EOFError, ConnectionResetError):
            return GONE

    def close(self) -> None:
        """Ends them all."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()


@contextmanager
def pool(folder: Path, most: int = MOST, patience: float = PATIENCE) -> Iterator[Pool]:
    """Processes of one's own, for tests that break them."""
    ranks = Pool(folder, most, patience)
    try:
        yield ranks
    finally:
        ranks.close()


def _serve(rank: int, most: int, store: str, end: Connection, patience: float) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    timeout = timedelta(seconds=patience)
    if sys.platform == "linux":  # where a host's own name may lead nowhere
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(most))
    dist.init_process_group(
        "gloo", store=dist.FileStore(store, most), rank=rank, world_size=most, timeout=timeout
    )
    groups = {size: dist.new_group(list(range(size)), timeout) for size in range(1, most + 1)}
    while True:
        try:
            size, function, arguments = pickle.loads(end.recv_bytes())
        except EOFError:
            return
        torch.manual_seed(20)
        try:
            outcome = function(Rank(rank, size, groups[size]), *arguments)
        except Exception as error:  # the test decides whether it may be
            outcome = Failure(_picklable(error), traceback.format_exc())
        end.send_bytes(pickle.dumps(outcome))


def _picklable(error: Exception) -> Exception:
    """Without what led to it; in words, if it holds what cannot be sent."""
    error.__cause__ = error.__context__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of any type: it is whatever the error holds
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error.with_traceback(None)
