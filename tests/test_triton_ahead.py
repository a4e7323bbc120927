"""The kernels compiled ahead of time, for devices that are not here: what they take, and read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="it is the compiler")

SCRIPT = Path(__file__).parent.parent / "scripts/compile_kernels.py"
TARGETS = {"sm_80": 166_912, "sm_90": 232_448, "gfx942": 65_536}
LONG = "8192×32000 bfloat16, labels"
SHORT = "65536×10 float32, labels"
IMAGES = "8×21×1048576 bfloat16, probabilities, smoothed, weighed"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return in_a_process([str(SCRIPT), *arguments])


def in_a_process(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Kernels are compiled or interpreted for a whole process; this one may interpret."""
    paths = filter(None, [str(SCRIPT.parent), *sys.path])
    settings = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"}
    settings.pop("TRITON_INTERPRET", None)
    return subprocess.run(
        [sys.executable, *arguments],
        env=settings, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@cache
def report(only: str, *arguments: str) -> list[dict[str, Any]]:
    done = command("--json", "--only", only, *arguments)
    assert done.returncode == 0, done.stderr or done.stdout
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert found
    return found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("only", [LONG, IMAGES], ids=["long rows", "images"])
def test_kernels_fit_their_targets(only, target) -> None:
    kernels = [kernel for kernel in report(only) if kernel["target"] == target]
    assert {k["kernel"] for k in kernels} == {"statistics", "gradient", "predictions"}
    for kernel in kernels:
        assert kernel["fits"]
        assert kernel["spills"] == 0
        assert kernel["registers"] > 0
        assert kernel["shared_limit"] == TARGETS[target]
        assert kernel["shared_bytes"] <= TARGETS[target]


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_aligned_long_rows_are_read_16_bytes_at_once(target) -> None:
    kernels = [k for k in report(LONG) if k["case"] == LONG and k["target"] == target]
    assert {k["kernel"]: k["widest_load"] for k in kernels} == {
        "statistics": 16, "gradient": 16, "predictions": 16,
    }  # fmt: skip


def test_few_rows_are_shared_among_programs() -> None:
    kernels = report("4×128256 float32, probabilities, smoothed, weighed", "--target", "sm_80")
    assert "joined_statistics" in {k["kernel"] for k in kernels}
    assert all(k["fits"] for k in kernels)


def test_short_rows_fit(tmp_path) -> None:
    kernels = report(SHORT, "--target", "gfx942", "--keep", str(tmp_path / "kept"))
    assert {k["case"] for k in kernels} == {SHORT, f"{SHORT}, ignored, smoothed, weighed"}
    kept = list((tmp_path / "kept").glob("*.amdgcn"))
    assert len(kept) == len(kernels)


CHANGED = """
import re, sys
import compile_kernels as script
{change}
sys.argv = ["compile_kernels.py", "--only", {only!r}, "--target", "sm_90"]
script.main()
"""
PLANTS = {
    "little shared memory":
        "target = script.TARGETS['sm_90']; "
        "script.TARGETS['sm_90'] = target._replace(shared_bytes=1)",
    "few registers":  # of a thread: the others are spilled
        "compile = script.triton.compile; script.triton.compile = lambda source, target, options: "
        "compile(source, target=target, options=options | {'maxnreg': 24})",
}  # fmt: skip


@pytest.mark.parametrize("change", PLANTS.values(), ids=PLANTS)
def test_what_does_not_fit_is_an_error(change) -> None:
    only = LONG + ", ignored, smoothed, weighed"
    done = in_a_process(["-c", CHANGED.format(change=change, only=only)])
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 1, done.stdout
