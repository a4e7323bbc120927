"""What a result has to say about the device it comes from."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

PACKAGES = ("triton", "liger-kernel", "quack-kernels", "cut-cross-entropy", "flash-attn")
CLOCKS = ("clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu", "power.draw")


def device_facts(device: str) -> dict[str, Any]:
    """The device, its driver, and the versions of what runs on it."""
    versions: dict[str, str | None] = {name: _version(name) for name in PACKAGES}
    versions |= {"cuda": torch.version.cuda, "hip": torch.version.hip, "driver": _driver()}
    if device == "cpu":
        return {"name": "cpu", "versions": versions}
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "memory_bytes": found.total_memory,
        "multiprocessors": found.multi_processor_count,
        "l2_bytes": getattr(found, "L2_cache_size", None),
        "versions": versions,
    }


def slug(name: str) -> str:
    """A device's name as a file's: NVIDIA H200 is nvidia-h200."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def clocks() -> dict[str, str] | None:
    """As nvidia-smi reads them now, in MHz, °C and W."""
    answer = _asked(CLOCKS)
    return None if answer is None else dict(zip(CLOCKS, answer.split(", "), strict=False))


def _driver() -> str | None:
    return _asked(("driver_version",))


def _asked(fields: tuple[str, ...]) -> str | None:
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().partition("\n")[0] or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
