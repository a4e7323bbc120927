"""What losses over ranks say to each other: the model by hand, the bytes of real calls counted."""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import distributed
import distributed_bytes
import distributed_cost
import distributed_peers
import distributed_ranks
import distributed_report
import tables
from distributed_bytes import CALLS, FEATURES, counted, sent, vectors_of
from distributed_cost import RANKS, Network, all_reduce, loss_sizes, reduced, steps, three_sizes
from distributed_peers import PEERS, Case, Peer, Program, made
from xent.benchmark.cases import Mode
from xent.statistics.shards.joining import Sums

ROOT = Path(__file__).parent.parent
ROWS = 40

SECOND_ROUND = {
    "class indices": "rest tops behind",
    "class weights": "rest tops behind weight_of_label",
    "label smoothing": "rest tops behind uniform",
    "class weights and label smoothing": "rest tops behind weight_of_label uniform",
    "probabilities": "rest tops cross mass beside",
    "probabilities and label smoothing": "rest tops uniform cross mass beside",
    "linear_cross_entropy": "rest tops behind",
}
"""The vectors of ``Sums`` that each call needs."""
FLOAT32 = 4


@pytest.fixture
def alone() -> Iterator[None]:
    """The only rank of a group: it reduces what each of many would."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


# ---- the model ----


@pytest.mark.parametrize(
    "module", [distributed_cost, distributed_bytes, distributed_ranks], ids=lambda m: m.__name__
)
def test_the_examples_in_the_docstrings_hold(module) -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


def test_the_loss_over_eight_ranks_by_hand() -> None:
    """8192 rows: 32,768 bytes and 98,304 bytes, each times 2·7/8, and 2·3 messages each."""
    step = steps(Network(alpha=1e-5, bandwidth=50e9), vectors=3)[0]
    assert step.ranks == 8
    assert step.loss.bytes == 57_344 + 172_032
    assert step.loss.seconds == pytest.approx(12e-5 + 229_376 / 50e9)
    assert step.three.bytes == 3 * 57_344
    assert step.three.seconds == pytest.approx(18e-5 + 172_032 / 50e9)


def test_hidden_states_and_logits_over_1024_ranks_by_hand() -> None:
    """The gradient has 64 MiB, the logits of a rank 8192 · 125.25 · 2 bytes."""
    step = steps(Network(alpha=1e-5, bandwidth=50e9), vectors=3)[-1]
    assert step.ranks == 1024
    assert step.hidden.bytes == 2 * 1023 / 1024 * 67_108_864 == 134_086_656
    assert step.hidden.seconds == pytest.approx(20e-5 + 134_086_656 / 50e9)
    assert step.gathered.bytes == 1023 * 2_052_096
    assert step.gathered.seconds == pytest.approx(10e-5 + 1023 * 2_052_096 / 50e9)


def test_every_number_of_ranks_is_modelled() -> None:
    assert list(RANKS) == [2**k for k in range(3, 11)]
    assert [step.ranks for step in steps(Network(1e-5), vectors=3)] == list(RANKS)


def test_messages_and_bytes_are_paid_for_separately() -> None:
    only_bytes, only_messages = Network(0, 100.0), Network(1.0, float("inf"))
    assert all_reduce(1000, 5, only_bytes).seconds == 16
    assert all_reduce(1000, 5, only_messages).seconds == 6  # a tree of five is three deep
    assert reduced(loss_sizes(10, 3), 2, only_messages).seconds == 4
    assert reduced(three_sizes(10), 2, only_messages).seconds == 6


# ---- the bytes of real calls ----


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("backend", ["torch", "numba"], indirect=True)
def test_a_call_reduces_what_the_model_says(call, backend, alone) -> None:
    found = sent(call, ROWS)
    vectors = SECOND_ROUND[call].split()
    assert set(vectors) <= set(Sums._fields)
    first, second = loss_sizes(ROWS, len(vectors))
    of_all = FLOAT32 if "uniform" in vectors else 0  # Σ v_c is one number
    assert found["forward"] == [first, second + of_all]
    assert vectors_of(found["forward"], ROWS) == len(vectors)
    hidden = distributed_cost.hidden_size(ROWS, FEATURES, distributed_cost.BFLOAT16)
    assert found["backward"] == ([hidden] if call == "linear_cross_entropy" else [])


def test_the_peer_makes_three_all_reduces(alone) -> None:
    data = made(Case(ROWS, 12))
    with counted() as sizes:
        Program("three all-reduces", data, Mode.BOTH).run()
    assert tuple(sizes) == three_sizes(ROWS)


def test_counting_leaves_torch_as_it_was(alone) -> None:
    before = dist.all_reduce
    with pytest.raises(ZeroDivisionError), counted():
        raise ZeroDivisionError
    assert dist.all_reduce is before


# ---- the measurement ----


@pytest.mark.parametrize("planted", ["loss", "gradient", "error"])
def test_a_peer_that_is_wrong_is_reported_and_not_timed(planted, alone, monkeypatch) -> None:
    def wrong(logits, data):
        loss = torch.nn.functional.cross_entropy(logits, data.target)
        if planted == "error":
            raise ValueError("no such loss\nand more")
        return 1.01 * loss if planted == "loss" else loss + 0.1 * (logits - logits.detach()).sum()

    monkeypatch.setitem(PEERS, "three all-reduces", Peer(wrong))
    *_, row = distributed._rows(Case(ROWS, 12), 0.0)
    found = row["peers"]["three all-reduces"]
    said = {
        "loss": "its loss is 1.0% off",
        "gradient": "its gradient is",
        "error": "ValueError: no",
    }
    assert found["reason"].startswith(said[planted])
    assert not found["samples_ms"]
    assert len(row["peers"]["xent"]["samples_ms"]) >= 5


def test_the_tables_hold_what_was_measured(alone) -> None:
    result = {
        "rows": list(distributed._rows(Case(ROWS, 12), 0.0)),
        "counted_rows": ROWS,
        "sent": {call: sent(call, ROWS) for call in CALLS},
        "all_reduce_seconds": [2e-5, 4e-5, 9e-5],
        "machine": json.loads((ROOT / "benchmarks/results/linear.json").read_text())["machine"],
        "other_cores": 0.5,
    }
    times = distributed_report.times_cells(result)
    assert len(times.lines) == len(Mode)
    assert all(len(line) == len(times.header) for line in times.lines)
    assert "Other programs took 0.5 cores" in tables.distributed(result)
    cost = distributed_report.cost_cells(result)
    assert cost.lines[0][:5] == ("8", "0.23", "0.24", "0.17", "0.36")
    text = tables.distributed_cost(result)
    assert "α = 20 µs" in text
    assert "class indices 3, class weights 4" in text


def test_a_quick_run_over_processes_measures_every_peer_and_writes_nothing() -> None:
    environment = {**os.environ, "XENT_BACKEND": "torch", "PYTHONPATH": str(ROOT / "src")}
    results = ROOT / "benchmarks" / "results"
    before = {path: path.stat().st_mtime_ns for path in results.iterdir()}
    command = [sys.executable, str(ROOT / "benchmarks" / "distributed.py"), "--quick"]
    done = subprocess.run(
        [*command, "--ranks", "2"], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in results.iterdir()} == before
    lines = [line for line in done.stderr.splitlines() if line.startswith("2 ranks")]
    assert len(lines) == len(Mode)
    assert all(peer in line for peer in distributed_peers.PEERS for line in lines)
    assert "–" not in "".join(lines)
    assert "a message takes" in done.stderr
