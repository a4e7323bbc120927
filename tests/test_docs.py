"""The pages say what was measured: their tables are the committed results, links lead somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import tables  # noqa: E402  # the folder of the benchmarks is no package

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]


@pytest.mark.parametrize("page", tables.PAGES)
def test_tables_are_the_committed_results(page) -> None:
    text = (ROOT / page).read_text()
    names = re.findall(r"<!-- (\w+) -->", text)
    assert names
    for name in names:
        assert f"<!-- {name} -->\n{tables.table(name)}<!-- /{name} -->" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(page) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_every_loss_has_its_page_and_its_file() -> None:
    import xent

    for name in xent.functional.__all__:
        if name.islower():
            assert (ROOT / "docs" / f"{name}.md").exists()
            assert inspect_file(getattr(xent.functional, name)).stem in (name, "rows")


def inspect_file(function) -> Path:
    return Path(sys.modules[function.__module__].__file__)
