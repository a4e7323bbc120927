"""A real browser for the tests of the page: without a network, its complaints collected."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ADDRESS = "https://page.test/"
"""Where a page seems to be: an origin that is secure, as that of a loopback address is."""
MISSING = (
    "no browser: set XENT_BROWSER to a Chromium or Chrome, or install one; "
    "on Debian: sudo apt-get install chromium"
)


def found() -> str | None:
    """The program of a browser: XENT_BROWSER, or the first of the usual names on the PATH."""
    given = os.environ.get("XENT_BROWSER")
    if given:
        return shutil.which(given)
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def started() -> Iterator[Browser]:
    """A browser, as long as it is needed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found(),
            # As root, in a container, Chromium refuses its own sandbox.
            args=["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"],
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page that is open, and whatever went wrong on it."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Errors of scripts, errors on the console, dialogs, and requests for anything else."""

    @property
    def context(self) -> BrowserContext:
        return self.page.context

    def settle(self) -> None:
        """Waits until two frames are drawn: the page answers changes once a frame."""
        self.page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def watch(self) -> None:
        """Listens from before the page is there."""
        page, add = self.page, self.complaints.append
        page.on("pageerror", lambda error: add(f"error: {error}"))
        page.on("console", lambda said: said.type == "error" and add(f"console: {said.text}"))
        page.on("websocket", lambda socket: add(f"request: {socket.url}"))
        page.on("popup", lambda popup: add(f"popup: {popup.url}"))

        def dismiss(dialog: Any) -> None:
            add(f"dialog: {dialog.message}")
            dialog.dismiss()

        page.on("dialog", dismiss)


def visit(
    browser: Browser,
    html: str,
    *,
    width: int = 1280,
    height: int = 800,
    dark: bool = False,
    reduced_motion: bool = False,
    scripts: bool = True,
    fragment: str = "",
    policy: str = "",
) -> Visit:
    """Opens HTML as a page of its own; the one request that is answered is that for the page.

    Args:
        browser: one that is started.
        html: the document.
        width: of the window, in CSS pixels.
        height: of the window.
        dark: the reader's wish for dark colours.
        reduced_motion: the reader's wish for no animation.
        scripts: whether scripts may run at all.
        fragment: of the address, with its ``#``.
        policy: a header beside the page's own policy.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce" if reduced_motion else "no-preference",
        java_script_enabled=scripts,
        service_workers="block",
        locale="en-GB",
    )
    seen = Visit(context.new_page())
    context.set_default_timeout(5000)

    def answer(route: Route) -> None:
        if route.request.url.partition("#")[0] == ADDRESS and route.request.method == "GET":
            headers = {"Content-Security-Policy": policy} if policy else {}
            route.fulfill(body=html, content_type="text/html; charset=utf-8", headers=headers)
        else:
            seen.complaints.append(f"request: {route.request.url}")
            route.abort()

    context.route("**/*", answer)
    seen.watch()
    seen.page.goto(ADDRESS + fragment)
    return seen
