"""The pages say what was measured: their tables are the committed results, links lead somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import tables
import write_answers

ROOT = Path(__file__).parent.parent

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


@pytest.mark.parametrize("path", write_answers.pages(), ids=lambda path: path.name)
def test_pages_of_questions_say_what_the_library_answers(path) -> None:
    assert path.read_text() == write_answers.pages()[path]


def test_no_page_of_a_question_is_left_over() -> None:
    assert set((ROOT / "docs" / "why").iterdir()) == set(write_answers.pages())


@pytest.mark.parametrize("path", write_answers.pages(), ids=lambda path: path.name)
def test_the_python_of_a_question_runs(path) -> None:
    for code in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
        space: dict[str, object] = {}
        exec(code, space)
        assert "result" in space


def test_every_loss_has_its_page_and_its_file() -> None:
    import xent

    for name in xent.functional.__all__:
        if name.islower():
            assert (ROOT / "docs" / f"{name}.md").exists()
            assert inspect_file(getattr(xent.functional, name)).stem in (name, "rows")


def inspect_file(function) -> Path:
    return Path(sys.modules[function.__module__].__file__)


def run_blocks(rank, blocks: list[str]) -> int:
    """Runs the programs of a page, where ranks talk to each other already."""
    for code in blocks:
        exec(compile(code, "docs/distributed.md", "exec"), {})
    return len(blocks)


def test_the_programs_about_ranks_run(ranks) -> None:
    page = (ROOT / "docs" / "distributed.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert ranks.run(4, run_blocks, blocks) == [4] * 4
