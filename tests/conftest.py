"""What every test stands on: one thread per worker, a fixed seed, and a choice of backends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import xent

torch.set_num_threads(1)  # the workers of pytest-xdist share the cores already


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20)


@pytest.fixture(scope="module", params=["numba", "torch"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Whoever uses it runs on each backend; one asked for by name takes small logits, too.

    For a module, as Hypothesis draws many examples within one test.
    """
    with xent.backend(request.param):
        yield request.param
