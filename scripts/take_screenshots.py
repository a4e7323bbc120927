"""Takes pictures of the page: each panel in light and dark, and the whole page narrow and wide.

Run it with ``make screenshots``; the pictures are in docs/images/page. Few of them are committed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Browser

import xent
from xent.cli.examples import EXAMPLES

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))

import browser  # noqa: E402  # the folder of the tests is no package

FOLDER = ROOT / "docs" / "images" / "page"
WIDE, NARROW = 1280, 360
PANELS = "section[data-panel]"


def page() -> str:
    """The page on the example of the gradient."""
    inputs = EXAMPLES["gradient"].inputs
    return xent.explain(inputs.logits, inputs.target, class_names=inputs.names).to_html()


def take_panels(chromium: Browser, html: str) -> None:
    """One picture of each panel in each of the two colour schemes."""
    for scheme in ("light", "dark"):
        visit = browser.visit(chromium, html, dark=scheme == "dark", reduced_motion=True)
        visit.settle()
        for panel in visit.page.locator(PANELS).all():
            name = panel.get_attribute("data-panel")
            panel.screenshot(path=FOLDER / f"{name}-{scheme}.png")
        visit.context.close()


def take_first(chromium: Browser, html: str) -> None:
    """What a reader sees first, in each of the two colour schemes: these two are committed."""
    for scheme in ("light", "dark"):
        visit = browser.visit(chromium, html, dark=scheme == "dark", height=960)
        visit.page.click(".guess .quiet")
        visit.page.evaluate("scrollTo(0, 0)")
        visit.settle()
        visit.page.screenshot(path=FOLDER / f"page-{scheme}.png")
        visit.context.close()


def take_whole(chromium: Browser, html: str) -> None:
    """The page from top to bottom, as a phone and as a desk show it."""
    for width in (NARROW, WIDE):
        visit = browser.visit(chromium, html, width=width, reduced_motion=True)
        visit.settle()
        visit.page.screenshot(path=FOLDER / f"whole-{width}.png", full_page=True)
        visit.context.close()


def main() -> None:
    """Takes them all."""
    if browser.found() is None:
        sys.exit(browser.MISSING)
    FOLDER.mkdir(parents=True, exist_ok=True)
    html = page()
    with browser.started() as chromium:
        take_first(chromium, html)
        take_panels(chromium, html)
        take_whole(chromium, html)
    pictures = sorted(FOLDER.glob("*.png"))
    size = sum(picture.stat().st_size for picture in pictures) / 1e6
    print(f"{len(pictures)} pictures, {size:.1f} MB, in {FOLDER.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
