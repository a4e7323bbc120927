"""What a result has to say about where it comes from."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import xent


@dataclass(frozen=True)
class Machine:
    """The machine, the versions and the day; None for a package that is not installed."""

    cpu: str
    cores: int | None
    torch_threads: int
    python: str
    torch: str
    jax: str | None
    numba: str | None
    xent: str
    date: str


def machine() -> Machine:
    """This machine, today."""
    return Machine(
        cpu=_cpu_name(),
        cores=os.cpu_count(),
        torch_threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        jax=_version("jax"),
        numba=_version("numba"),
        xent=xent.__version__,
        date=datetime.now(UTC).date().isoformat(),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
