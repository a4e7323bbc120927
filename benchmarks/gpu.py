"""On a machine with a GPU: the tests on the device, then time and memory beside other programs.

    python benchmarks/gpu.py                  # under nine minutes
    python benchmarks/gpu.py --peers FOLDER   # with packages, or wheels, from a folder

Needs torch with a GPU, numba, rich and click; pytest for the tests, matplotlib for the picture.
Writes benchmarks/results/gpu-<device>.json after each row, docs/images/gpu-<device>.svg, and what
everybody printed to build/gpu.log. docs/gpu.md says what is measured.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
import time
import zipfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gpu_drawing import draw
from gpu_machine import slug
from gpu_plot import plot
from gpu_suite import ROOT, suite
from gpu_supervisor import Supervisor
from gpu_worker import Task
from xent.benchmark.files import write
from xent.benchmark.machine import machine

SECONDS = 1.5
"""Of timing in each row."""

PAGE = 160
"""Characters in a line where there is no terminal."""

progress = Console(stderr=True)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--peers", type=Path, metavar="DIR", help="packages or wheels to compare with")
    add("--output", type=Path, metavar="FILE", help="the result; picture and log go beside it")
    add("--budget", type=float, default=500, metavar="S", help="seconds in all [500]")
    add("--suite-seconds", type=float, default=180, metavar="S", help="of the tests; 0: none [180]")
    add("--contenders", metavar="A,B", help="only these, by their names in the tables")
    add("--device", default="cuda", help="cpu: by the wall clock, which says nothing about speed")
    add("--tiny", action="store_true", help="small sizes: does it run?")
    return parser.parse_args(given)


class Run:
    """One run: what it has found so far, and where that is written."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._began = time.time()
        self._dry = options.tiny or options.device == "cpu"
        self.log = self._log(folder)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("")
        self.suite: dict[str, Any] = {"status": "not asked for"}
        task = Task(
            device=options.device,
            tiny=options.tiny,
            events="",
            until=self._began + options.budget,
            seconds=0.05 if self._dry else SECONDS,
            contenders=options.contenders.split(",") if options.contenders else None,
            peers=str(unpacked(options.peers, folder)) if options.peers else None,
        )
        self.supervisor = Supervisor(task, self.log, self._hear)

    def _log(self, folder: Path) -> Path:
        if self._options.output:
            return self._options.output.with_suffix(".log")
        return (folder if self._dry else ROOT / "build") / "gpu.log"

    def measure(self) -> None:
        """The tests, then the rows."""
        seconds = min(self._options.suite_seconds, 0.6 * self._options.budget)
        if seconds > 0:
            progress.print("tests on the device")
            self.suite = suite(self._options.device, seconds, self.log)
            progress.print(str(self.suite.get("counts", self.suite["status"])))
        self.supervisor.run()

    @property
    def result(self) -> dict[str, Any]:
        """All of it, finished or not."""
        told = self.supervisor
        return {
            "command": shlex.join(["python", *sys.argv]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self._began, 1),
            "budget_s": self._options.budget,
            "device": told.facts,
            "clocks": told.clocks,
            "machine": asdict(machine()),
            "suite": self.suite,
            "problems": told.problems,
            "skipped": told.skipped,
            "rows": told.rows,
        }

    @property
    def output(self) -> Path | None:
        """Where the result goes; a dry run has no place of its own."""
        if self._options.output or self._dry or self.supervisor.facts is None:
            return self._options.output
        name = f"gpu-{slug(self.supervisor.facts['name'])}.json"
        return ROOT / "benchmarks" / "results" / name

    @property
    def picture(self) -> Path | None:
        """Where the picture goes."""
        output = self.output
        if output is None or self._options.output:
            return output and output.with_suffix(".svg")
        return ROOT / "docs" / "images" / output.with_suffix(".svg").name

    def save(self) -> None:
        """Replaces what was written before."""
        if self.output is not None:
            write(self.output, json.dumps(self.result, indent=1) + "\n")

    def finish(self) -> None:
        """Writes, shows, and draws where it can; the picture is the least of it."""
        self.save()
        draw(self.result, Console(width=None if sys.stdout.isatty() else PAGE))
        if self.picture is not None and (text := _picture(self.result)) is not None:
            write(self.picture, text)
        if not self.supervisor.rows or self.supervisor.problems:
            progress.print("".join(self.log.read_text(errors="replace").splitlines(True)[-40:]))

    def _hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "started" and event["contender"]:
            seconds = time.time() - self._began
            progress.print(f"{seconds:4.0f} s  {event['cell']}: {event['contender']}")
        elif event["event"] == "row":
            self.save()


def unpacked(peers: Path, folder: Path) -> Path:
    """The folder itself, or where the wheels in it are unpacked."""
    wheels = sorted(peers.glob("*.whl"))
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "peers")
    return folder / "peers" if wheels else peers.resolve()


def _picture(result: dict[str, Any]) -> str | None:
    try:
        return plot(result)
    except ImportError as error:
        progress.print(f"no picture: {error}")
        return None


def main(given: list[str] | None = None) -> int:
    """Measures, and writes whatever it has got to."""
    options = arguments(given)
    if options.device != "cpu" and not torch.cuda.is_available():
        progress.print(f"torch {torch.__version__} of {sys.executable} sees no GPU here.")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        run = Run(options, Path(folder))
        try:
            run.measure()
        finally:
            run.finish()
    return 0 if run.supervisor.rows else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # it still writes what there is
    sys.exit(main())
