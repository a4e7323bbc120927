"""Processes that compute together: how they are started, and times that they take together."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from xent.benchmark.timing import LEAST_ROUNDS, MOST_ROUNDS, Program

TIMEOUT = timedelta(minutes=2)
"""Of a collective: a rank that has failed does not keep the others for longer."""
FIRST, SAMPLES = 100, 500  # all-reduces of one number


def started(ranks: int, work: Callable[..., Any], *given: Any) -> Any:
    """What ``work(*given)`` returns on rank 0 of a gloo group, as it comes through JSON."""
    with TemporaryDirectory() as folder:
        mp.spawn(_rank, (ranks, folder, work, given), nprocs=ranks)
        return json.loads((Path(folder) / "found.json").read_text())


def _rank(rank: int, ranks: int, folder: str, work: Callable[..., Any], given: Any) -> None:
    torch.set_num_threads(1)
    # a file, as no port is sure to be free
    store = dist.FileStore(f"{folder}/store", ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=TIMEOUT)
    try:
        found = work(*given)
        if rank == 0:
            (Path(folder) / "found.json").write_text(json.dumps(found))
    finally:
        dist.destroy_process_group()


def everywhere(item: Any) -> list[Any]:
    """What each rank has to say."""
    items: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(items, item)
    return items


def in_turn(programs: Mapping[str, Program], budget: float) -> dict[str, list[float]]:
    """Milliseconds of each program on its slowest rank, one sample a round, in turn.

    Args:
        programs: by name, in the same order on each rank.
        budget: seconds after which no further round begins, once there are enough.

    Returns:
        The samples of each program, as many for each; the same on all ranks.
    """
    for program in programs.values():  # memory is mapped, and messages have found their way
        _milliseconds(program)
    samples: dict[str, list[float]] = {name: [] for name in programs}
    gc.collect()
    gc.disable()
    began = time.perf_counter()
    for done in range(MOST_ROUNDS):
        if not _of_rank_0(done < LEAST_ROUNDS or time.perf_counter() - began < budget):
            break
        for name, program in programs.items():
            samples[name].append(_milliseconds(program))
    gc.enable()
    return {name: _slowest(taken) for name, taken in samples.items()}


def all_reduce_seconds(device: torch.device, samples: int = SAMPLES) -> list[float]:
    """Times of an all-reduce of one float32 over the group, on the slower rank."""
    vector = torch.zeros(1, device=device)
    times = []
    for _ in range(FIRST + samples):
        _settle(device)
        began = time.perf_counter()
        dist.all_reduce(vector)
        _settle(device)
        times.append(time.perf_counter() - began)
    return _slowest(times[FIRST:])


def alpha_of(times: Iterable[float]) -> float:
    """α, the seconds of one message: an all-reduce over two ranks is one there and one back.

    >>> alpha_of([2e-5, 3e-5, 9e-5])
    1.5e-05
    """
    return median(times) / 2


def _milliseconds(program: Program) -> float:
    dist.barrier()  # nobody pays for who comes late from the program before
    began = time.perf_counter()
    program.run()
    seconds = time.perf_counter() - began
    program.release()
    return 1e3 * seconds


def _of_rank_0(decision: bool) -> bool:
    decided = torch.tensor(decision)
    dist.broadcast(decided, src=0)
    return bool(decided)


def _slowest(times: list[float]) -> list[float]:
    return [max(of_ranks) for of_ranks in zip(*everywhere(times), strict=True)]


def _settle(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
