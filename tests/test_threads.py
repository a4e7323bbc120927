"""Every row once, no work left behind, whatever is raised; and no deadlock in any company."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xent.backends.numba import threads
from xent.backends.numba.threads import in_ranges

Range = tuple[int, int]


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def run(script: str) -> str:
    """Runs a script in a process of its own; it must succeed and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@given(count=st.integers(0, 300), grain=st.integers(1, 100), number=st.integers(1, 9))
def test_every_row_once(count: int, grain: int, number: int) -> None:
    torch.set_num_threads(number)
    ranges: list[Range] = []
    rows = np.zeros(count, dtype=int)

    def kernel(array: np.ndarray, start: int, stop: int) -> None:
        assert start < stop
        array[start:stop] += 1
        ranges.append((start, stop))

    in_ranges(kernel, count, rows, grain=grain)
    assert (rows == 1).all()
    assert len(ranges) <= -(-count // grain)
    if number == 1 or count <= grain:
        assert ranges == ([(0, count)] if count else [])


def test_one_part_runs_in_the_caller() -> None:
    seen: list[threading.Thread] = []
    in_ranges(lambda *_: seen.append(threading.current_thread()), 100, grain=100)
    torch.set_num_threads(1)
    in_ranges(lambda *_: seen.append(threading.current_thread()), 100)
    assert seen == [threading.current_thread()] * 2


@pytest.mark.parametrize("number", [3, 2, 8, 4])
def test_threads_follow_torch(number: int) -> None:
    """Ranges that wait for each other need that many threads at once, and there are no more."""
    torch.set_num_threads(number)
    meeting = threading.Barrier(number, timeout=30)
    seen: set[int] = set()

    def kernel(start: int, stop: int) -> None:
        seen.add(threading.get_ident())
        meeting.wait()

    in_ranges(kernel, number * threads.RANGES_PER_THREAD)
    assert len(seen) == number
    assert threading.get_ident() in seen


def test_grain_bounds_threads() -> None:
    seen: set[int] = set()

    def kernel(start: int, stop: int) -> None:
        assert stop - start >= 25
        seen.add(threading.get_ident())
        time.sleep(0.01)

    in_ranges(kernel, 50, grain=25)
    assert len(seen) <= 2


def test_a_slow_thread_delays_a_range_only() -> None:
    torch.set_num_threads(2)
    done: dict[int, int] = {}
    slow: list[int] = []

    def kernel(start: int, stop: int) -> None:
        me = threading.get_ident()
        if not slow:
            slow.append(me)
        time.sleep(0.2 if me in slow else 0.001)
        done[me] = done.get(me, 0) + 1

    in_ranges(kernel, 2 * threads.RANGES_PER_THREAD)
    assert done.pop(slow[0]) == 1
    assert sum(done.values()) > 1


class KernelError(Exception):
    """What the kernels below raise."""


@pytest.mark.parametrize("culprit", ["caller", "worker", "both"])
def test_an_exception_waits_for_the_ranges_that_were_begun(culprit: str) -> None:
    torch.set_num_threads(2)
    caller = threading.current_thread()
    meeting = threading.Barrier(2, timeout=30)
    working: set[int] = set()

    def kernel(start: int, stop: int) -> None:
        working.add(start)
        meeting.wait()
        try:
            mine = "caller" if threading.current_thread() is caller else "worker"
            if culprit in (mine, "both"):
                raise KernelError(mine)
            time.sleep(0.1)
        finally:
            working.remove(start)

    for _ in range(3):
        with pytest.raises(KernelError):
            in_ranges(kernel, 2)
        assert not working


@pytest.mark.parametrize("culprit", ["caller", "worker"])
def test_ranges_that_were_not_begun_are_left_out(culprit: str) -> None:
    torch.set_num_threads(2)
    caller = threading.current_thread()
    meeting = threading.Barrier(2, timeout=30)
    begun: list[int] = []

    def kernel(start: int, stop: int) -> None:
        begun.append(start)
        if len(begun) <= 2:
            meeting.wait()
        if culprit == ("caller" if threading.current_thread() is caller else "worker"):
            raise KernelError
        time.sleep(0.1)

    with pytest.raises(KernelError):
        in_ranges(kernel, 8)
    assert len(begun) == 2


def test_workers_survive_errors() -> None:
    meeting = threading.Barrier(4, timeout=30)

    def kernel(start: int, stop: int) -> None:
        meeting.wait()
        raise SystemExit

    for _ in range(3):
        with pytest.raises(SystemExit):
            in_ranges(kernel, 4)
    assert len(threads._workers.threads) >= 3
    assert all(thread.is_alive() for thread in threads._workers.threads)


@pytest.fixture
def no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("culprit", ["nobody", "caller", "worker", "both"])
def test_arguments_are_let_go(culprit: str, no_collections: None) -> None:
    """A worker, or an error that was handled, would keep a gradient's memory."""
    torch.set_num_threads(2)
    caller = threading.current_thread()
    meeting = threading.Barrier(2, timeout=30)
    array = np.zeros(2)
    ended = weakref.ref(array)

    def kernel(array: np.ndarray, start: int, stop: int) -> None:
        meeting.wait()
        if culprit in ("both", "caller" if threading.current_thread() is caller else "worker"):
            raise KernelError

    for _ in range(5):
        try:
            in_ranges(kernel, len(array), array)
        except KernelError:
            assert culprit != "nobody"
    del array
    deadline = time.monotonic() + 10
    while ended() is not None and time.monotonic() < deadline:
        time.sleep(0.001)  # a worker may just be returning from its part
    assert ended() is None


def test_a_call_that_no_worker_took_lets_its_arguments_go(
    monkeypatch: pytest.MonkeyPatch, no_collections: None
) -> None:
    absent = threads._Workers()
    absent.threads = [threading.Thread()] * 3  # never started: the queue is not served
    monkeypatch.setattr(threads, "_workers", absent)
    array = np.zeros(100)
    ended = weakref.ref(array)
    in_ranges(lambda array, start, stop: array[start:stop].fill(1), len(array), array)
    assert (array == 1).all()
    del array
    assert absent.calls.qsize() == 3
    assert ended() is None


def test_interrupts_wait_for_the_ranges_that_were_begun() -> None:
    torch.set_num_threads(2)
    caller = threading.current_thread()
    meeting = threading.Barrier(2, timeout=30)
    working: set[int] = set()

    def kernel(start: int, stop: int) -> None:
        working.add(start)
        meeting.wait()
        if threading.current_thread() is not caller:
            for _ in range(3):  # the caller has ended its range and waits by then
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        working.remove(start)

    # a job in the background is born deaf to it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            in_ranges(kernel, 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not working


def test_many_callers() -> None:
    rows = np.zeros((8, 1000), dtype=int)
    failed: list[BaseException] = []

    def kernel(array: np.ndarray, start: int, stop: int) -> None:
        array[start:stop] += 1

    def call(row: np.ndarray) -> None:
        try:
            for step in range(1, 201):
                in_ranges(kernel, len(row), row)
                assert (row == step).all()
        except BaseException as error:
            failed.append(error)

    callers = [threading.Thread(target=call, args=(row,)) for row in rows]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
        assert not caller.is_alive()
    assert not failed
    assert len(threads._workers.threads) < 64


def test_nested_calls() -> None:
    rows = np.zeros((40, 50, 6), dtype=int)

    def inmost(array: np.ndarray, start: int, stop: int) -> None:
        array[start:stop] += 1

    def inner(array: np.ndarray, start: int, stop: int) -> None:
        for row in array[start:stop]:
            in_ranges(inmost, len(row), row)

    def outer(array: np.ndarray, start: int, stop: int) -> None:
        for row in array[start:stop]:
            in_ranges(inner, len(row), row)

    in_ranges(outer, len(rows), rows)
    assert (rows == 1).all()


def test_without_more_threads_the_caller_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_workers", threads._Workers())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    rows = np.zeros(100)

    def kernel(start: int, stop: int) -> None:
        rows[start:stop] += 1

    in_ranges(kernel, 100)
    assert (rows == 1).all()


PREAMBLE = """
import os, sys, threading, time
import numpy as np
import torch
from xent.backends.numba.threads import in_ranges

torch.set_num_threads(4)

def fill(rows, start, stop):
    rows[start:stop] += 1

def check():
    rows = np.zeros(1000)
    in_ranges(fill, len(rows), rows)
    assert (rows == 1).all()

"""


def test_a_forked_process_has_its_own_workers() -> None:
    script = """
check()
child = os.fork()
if child == 0:
    meeting = threading.Barrier(4, timeout=10)
    in_ranges(lambda *_: meeting.wait(), 4)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
check()
"""
    run(PREAMBLE + script)


def test_forks_while_other_threads_work() -> None:
    script = """
import signal
running = True

def work():
    while running:
        check()

workers = [threading.Thread(target=work) for _ in range(4)]
for worker in workers:
    worker.start()
for _ in range(30):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a deadlock ends by this
        torch.set_num_threads(4)
        check()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status != 0:
        break
running = False
for worker in workers:
    worker.join()
assert status == 0, status
"""
    if sys.version_info >= (3, 12):  # forking with threads is what is tested
        script = "import warnings; warnings.simplefilter('ignore')\n" + script
    run(PREAMBLE + script)


def test_workers_of_a_data_loader() -> None:
    script = """
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        assert torch.get_num_threads() == 1
        check()
        torch.set_num_threads(2)
        check()
        torch.set_num_threads(1)
        return index

check()
loader = DataLoader(Rows(), num_workers=2, multiprocessing_context="fork")
assert sorted(int(x) for x in loader) == [0, 1, 2, 3]
"""
    run(PREAMBLE + script)


@pytest.mark.parametrize("before", ["check()", ""], ids=["with workers", "without workers"])
def test_shutdown(before: str) -> None:
    script = f"""
import atexit
{before}
atexit.register(check)

def late():
    time.sleep(0.2)
    check()
    print("late")
threading.Thread(target=late).start()
"""
    assert run(PREAMBLE + script) == "late\n"


def test_exit_while_a_daemon_calls() -> None:
    script = """
def work():
    while True:
        check()

threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
"""
    run(PREAMBLE + script)
