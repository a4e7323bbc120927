"""What every test stands on: one thread per worker, a fixed seed, quiet compilers."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)  # the workers of pytest-xdist share the cores already


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20)
