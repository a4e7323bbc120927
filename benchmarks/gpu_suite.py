"""The tests that can run on a device, in a process of their own and for a limited time."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PATTERN = "test_triton*.py"
VARIABLE = "XENT_TEST_DEVICE"
"""Tells the tests where to put their tensors."""
MOST_PROCESSES = 8  # each takes some of the device's memory
OUTCOMES = "PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS"
ALONE = re.compile(rf"(?P<test>.*::.*) (?P<outcome>{OUTCOMES})\b")
SHARED = re.compile(rf"\[gw\d+\] \[ *\d+%\] (?P<outcome>{OUTCOMES}) (?P<test>.*)")
SUMMARY = re.compile(r"(?P<outcome>FAILED|ERROR) (?P<test>.+?)(?: - (?P<message>.*))?$")
BAD = ("FAILED", "ERROR")


def suite(device: str, seconds: float, log: Path) -> dict[str, Any]:
    """Runs the tests and says how many passed, and which did not.

    Args:
        device: where the tests put their tensors.
        seconds: after which they are ended; what they did until then counts.
        log: pytest's output is added to it.
    """
    tests = sorted((ROOT / "tests").glob(PATTERN))
    if not tests:
        return {"status": f"there is no tests/{PATTERN}"}
    began = time.monotonic()
    start = log.stat().st_size if log.exists() else 0
    with log.open("a", encoding="utf-8") as file:
        code = _run(command([str(path.relative_to(ROOT)) for path in tests]), device, seconds, file)
    with log.open(encoding="utf-8", errors="replace") as file:
        file.seek(start)
        found = outcomes(file)
    status = "ended for want of time" if code is None else f"exit status {code}"
    return {"status": status, "seconds": round(time.monotonic() - began, 1), **found}


def command(tests: list[str]) -> list[str]:
    """Of pytest, in several processes; the warnings of other versions are no errors."""
    processes = min(MOST_PROCESSES, (os.cpu_count() or 1) // 2)
    shared = processes > 1 and importlib.util.find_spec("xdist") is not None
    spread = ["-n", str(processes)] if shared else []
    options = ["-v", "--tb=short", "-W", "default", "-p", "no:cacheprovider"]
    return [sys.executable, "-m", "pytest", *options, *spread, *tests]


def outcomes(lines: Iterable[str]) -> dict[str, Any]:
    """Counts, and the tests that failed with their messages, from verbose output."""
    seen: dict[str, str] = {}
    messages: dict[str, str] = {}
    for line in lines:
        text = line.rstrip()
        if found := SHARED.match(text) or ALONE.match(text):
            seen[found["test"].strip()] = found["outcome"]
        elif found := SUMMARY.match(text):
            seen.setdefault(found["test"], found["outcome"])
            messages[found["test"]] = found["message"] or ""
    counts = Counter(outcome.lower() for outcome in seen.values())
    bad = [test for test, outcome in seen.items() if outcome in BAD]
    failures = [{"test": test, "message": messages.get(test, "")} for test in bad]
    return {"counts": dict(counts), "failures": failures}


def _run(command: list[str], device: str, seconds: float, file: Any) -> int | None:
    """The exit status, or None where time ran out."""
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, VARIABLE: device, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """Ends a process that leads a session, and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
