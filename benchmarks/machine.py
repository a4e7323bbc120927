"""What a result has to say about where it comes from."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

import xent

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """The machine and the versions, as a result states them."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "xent": xent.__version__,
    }


def save(name: str, rows: list[dict[str, Any]]) -> Path:
    """Writes a result with its command and machine."""
    path = RESULTS / f"{name}.json"
    command = f"python benchmarks/{Path(sys.argv[0]).name}"
    document = {"command": command, "machine": machine(), "rows": rows}
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
