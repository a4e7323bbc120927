"""What every test stands on: one thread per worker, a fixed seed; backends, ranks, a browser."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch

import xent
from xent.contract import notes

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from browser import Visit
    from ranks import Pool

if not torch.cuda.is_available() and not torch.xpu.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before any kernel is imported
torch.set_num_threads(1)  # the workers of pytest-xdist share the cores already


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(20)


@pytest.fixture(autouse=True)
def _own_notes() -> Iterator[None]:
    """What a test has noted of bad labels does not come up in another."""
    yield
    notes._notes.clear()


INTERPRETED = ("test_contract", "test_exactness", "test_linear", "test_seeds")
"""What triton's interpreter runs as well: values and gradients. It takes a hundred times as long,
and what autograd and the transforms do with a backend is the same code for all of them."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the interpreter's share of the other modules out."""
    shares: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        backend = getattr(item, "callspec", None) and item.callspec.params.get("backend")
        module = item.module.__name__ if backend else ""
        own = module in INTERPRETED or module.startswith("test_triton")
        shares[backend != "triton" or own].append(item)
    items[:] = shares[True]
    config.hook.pytest_deselected(items=shares[False])


@pytest.fixture(scope="module", params=["numba", "torch", "triton"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Whoever uses it runs on each backend; one asked for by name takes small logits, too.

    For a module, as Hypothesis draws many examples within one test.
    """
    if request.param == "triton" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip(
            "there is a GPU: the kernels are compiled for it, and these tensors are not there"
        )
    with xent.backend(request.param):
        yield request.param


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Four processes that talk to each other, started when a test first needs them."""
    from ranks import pool

    with pool(tmp_path_factory.mktemp("ranks")) as started:
        yield started


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for each worker, started when a test first needs it."""
    import browser

    if browser.found() is None:
        if os.environ.get("CI") == "true":
            pytest.fail(browser.MISSING)
        pytest.skip(browser.MISSING)
    with browser.started() as started:
        yield started


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Visit]]:
    """``open_page(html, **options of browser.visit)``; complaints are left to the test."""
    import browser

    visits: list[Visit] = []

    def opened(html: str, **options: Any) -> Visit:
        visits.append(browser.visit(chromium, html, **options))
        return visits[-1]

    yield opened
    for visit in visits:
        visit.context.close()


@pytest.fixture
def browser_page(open_page: Callable[..., Visit]) -> Iterator[Callable[..., Visit]]:
    """The same for pages that have nothing to complain about: the test fails if one does."""
    visits: list[Visit] = []

    def opened(html: str, **options: Any) -> Visit:
        visits.append(open_page(html, **options))
        return visits[-1]

    yield opened
    assert [visit.complaints for visit in visits] == [[] for _ in visits]
