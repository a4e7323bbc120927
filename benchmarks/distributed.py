"""Time of the loss of logits whose classes are spread over processes, beside other peers.

    python benchmarks/distributed.py             # about three minutes on two cores
    python benchmarks/distributed.py --ranks 4   # over four as well, also on fewer cores
    python benchmarks/distributed.py --quick     # does it run here?
    torchrun --nproc-per-node 2 benchmarks/distributed.py --constant   # α of a cluster

Starts the processes itself, each with one thread. Every peer's loss and gradient are compared with
float64 before it is timed; the times are taken in turn, and so are those of the floor, and the
slowest process counts. Written to benchmarks/results/distributed.json, with what each kind of call
says to the other processes and what a message costs, which the model in ``distributed_cost`` needs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor

from distributed_bytes import CALLS, counted, sent
from distributed_cost import ROWS
from distributed_peers import PEERS, Case, Data, Least, Program, made
from distributed_ranks import all_reduce_seconds, alpha_of, everywhere, in_turn, started
from xent.benchmark.cases import Mode
from xent.benchmark.files import write
from xent.benchmark.load import Load
from xent.benchmark.machine import machine

ROOT = Path(__file__).parent.parent
CASES = (Case(2048, 32000), Case(1024, 128256))
QUICK = (Case(64, 1000),)
SECONDS = 20.0
"""Of timing in each row, after five rounds."""
LOSS_BAR, GRADIENT_BAR = 1e-5, 1e-4
"""The relative error, of a gradient in the norm, above which a peer is wrong."""

console = Console(stderr=True)


def measured(cases: tuple[Case, ...], seconds: float) -> dict[str, Any]:
    """Of one group, on each of its ranks: the rows, and of two ranks what they say besides."""
    rows = [row for case in cases for row in _rows(case, seconds)]
    return {"rows": rows} | (_said(ROWS) if dist.get_world_size() == 2 else {})


def _rows(case: Case, seconds: float) -> Iterator[dict[str, Any]]:
    """One for each mode."""
    data = made(case)
    for mode in Mode:
        yield _row(case, mode, data, seconds)


def _row(case: Case, mode: Mode, data: Data, seconds: float) -> dict[str, Any]:
    """One row: who is right, and how long each takes."""
    programs: dict[str, Any] = {"floor": None}  # it comes first, when the sizes are known
    peers: dict[str, dict[str, Any]] = {}
    for peer in PEERS:
        program = Program(peer, data, mode)
        with counted() as sizes:
            peers[peer] = _judged(program, data, mode)
        if peer == "xent":
            programs["floor"] = Least(data, mode, sizes)
        if "reason" not in peers[peer]:
            programs[peer] = program
        elif peer.startswith("xent"):
            raise SystemExit(f"{peer} is wrong: {peers[peer]['reason']}")
    samples = in_turn(programs, seconds)
    for peer, found in peers.items():
        found["samples_ms"] = samples.get(peer, [])
    ranks = dist.get_world_size()
    row = {
        "case": asdict(case), "title": case.title, "mode": mode, "ranks": ranks,
        "floor_ms": samples["floor"], "peers": peers,
    }  # fmt: skip
    if dist.get_rank() == 0:
        console.print(_line(row), soft_wrap=True)
    return row


def _judged(program: Program, data: Data, mode: Mode) -> dict[str, Any]:
    """Its largest errors over all ranks, and a reason if it can't be timed."""
    reason = None
    errors: dict[str, float] = {}
    try:
        program.run()
        errors["loss_error"] = _distance(program.loss, data.truth.loss)
        if mode is Mode.BOTH:
            errors["gradient_error"] = _distance(program.gradient, data.truth.gradient)
    except Exception as error:  # a peer that can't run is reported, whatever it raises
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    program.release()
    said = everywhere((reason, errors))
    reasons = [reason for reason, _ in said if reason is not None]
    if reasons:
        return {"reason": reasons[0]}
    found: dict[str, Any] = {name: max(own[name] for _, own in said) for name in errors}
    if any(not own["loss_error"] <= LOSS_BAR for _, own in said):
        found["reason"] = f"its loss is {found['loss_error']:.1%} off"
    elif any(not own.get("gradient_error", 0) <= GRADIENT_BAR for _, own in said):
        found["reason"] = f"its gradient is {found['gradient_error']:.1%} off"
    return found


def _said(rows: int) -> dict[str, Any]:
    """What each kind of call reduces, in bytes, and how long one number takes, in seconds."""
    return {
        "counted_rows": rows,
        "sent": {call: sent(call, rows) for call in CALLS},
        "all_reduce_seconds": all_reduce_seconds(torch.device("cpu")),
        "machine": asdict(machine()),
    }


def constant() -> None:
    """Measures α over the two processes that torchrun has started, and prints it."""
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if device.type != "cpu":
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group()
    if dist.get_world_size() != 2:
        raise SystemExit(
            "α is measured over two processes: torchrun --nproc-per-node 2, or over two machines "
            "torchrun --nnodes 2 --nproc-per-node 1"
        )
    times = all_reduce_seconds(device)
    if dist.get_rank() == 0:
        print(f"{alpha_of(times):.3g}")
        print(
            f"seconds: half the median time of {len(times)} all-reduces of one float32 over two "
            f"ranks; {dist.get_backend_config()} on {device.type}, torch {torch.__version__}"
        )
    dist.destroy_process_group()


def main() -> None:
    """Measures and writes."""
    options = _options()
    if options.constant:
        constant()
        return
    cases, seconds = (QUICK, 0.0) if options.quick else (CASES, SECONDS)
    load = Load()
    sizes = dict.fromkeys((2, *options.ranks))
    of_groups = [started(ranks, measured, cases, seconds) for ranks in sizes]
    result = {
        "command": " ".join(("python benchmarks/distributed.py", *sys.argv[1:])),
        **of_groups[0],  # of two ranks
        "rows": [row for found in of_groups for row in found["rows"]],
        "other_cores": load.other_cores(),
    }
    console.print(f"a message takes {1e6 * alpha_of(result['all_reduce_seconds']):.1f} µs")
    if not options.quick:
        path = ROOT / "benchmarks" / "results" / "distributed.json"
        write(path, json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times of losses over processes.")
    parser.add_argument("--quick", action="store_true", help="does it run? writes nothing")
    parser.add_argument("--constant", action="store_true", help="print α, under torchrun")
    # more ranks than cores wait for each other's turn, which says nothing of the loss
    usual = [n for n in (2, 4) if n <= max(2, os.cpu_count() or 2)]
    parser.add_argument("--ranks", type=int, nargs="+", default=usual, help="besides two processes")
    return parser.parse_args()


def _line(row: dict[str, Any]) -> str:
    times = {"floor": row["floor_ms"]}
    times |= {peer: found["samples_ms"] for peer, found in row["peers"].items()}
    shown = ", ".join(f"{name} {median(t):.1f}" if t else f"{name} –" for name, t in times.items())
    return f"{row['ranks']} ranks, {row['title']}, {row['mode']}, ms: {shown}"


def _distance(ours: Tensor | None, truth: Tensor) -> float:
    """‖ours − truth‖ / ‖truth‖."""
    if ours is None:
        return float("nan")
    return float((ours.double() - truth).norm() / truth.norm())


if __name__ == "__main__":
    main()
