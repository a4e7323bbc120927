"""Every renderer shows the numbers of the trace, within its bounds, and a user's text as text."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

import xent
from xent.explanation import QUESTIONS, Explanation
from xent.explanation.blocks import Bar, Table, number, short
from xent.explanation.html import as_fragment, as_page
from xent.explanation.terminal import as_text

NUMBER = re.compile(r"−?(?:\d[\d,]*\.?\d*(?:e[−+]?\d+)?|∞)|NaN")
HOSTILE = {
    "script": "</script><img src=x onerror=alert(1)>",
    "pipe": "a|b|c\\",
    "backticks": "`` `code` ```",
    "markup of rich": "[red]red[/red] [link=http://example.org]x[/link]",
    "ANSI": "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "newlines": "one\ntwo\r\nthree\x85\u2028\tfour",
    "right to left": "\u202egnp.exe\u2066x",
    "long": "x" * 500,
    "emoji": "🐈‍⬛👩‍👩‍👧 猫",
    "empty": "",
    "entities": "&lt;b&gt; \"quoted\" 'q' & <b>",
    "Markdown": "# **bold** _it_ [a](http://b) ![i](j) <http://c>",
    "lone surrogate": "\ud800",
    "number": "3.1416",
    "NUL": "\0",
}


def small(**options: object) -> Explanation:
    x = torch.tensor([[2.0, -1.5, 0.25], [0.0, 3.0, 1.0]], dtype=torch.float64)
    return xent.explain(x, torch.tensor([1, 0]), **options)


def explanations() -> dict[str, Explanation]:
    random = torch.Generator().manual_seed(4)
    many = torch.randn((30, 50), generator=random, dtype=torch.float64)
    labels = torch.randint(50, (30,), generator=random)
    labels[:3] = -100
    names = [f"a class with number {n}" for n in range(50)]
    images = torch.randn((2, 4, 3, 3), generator=random)
    soft = torch.rand((2, 4), generator=random).softmax(1)
    weight = torch.tensor([0.5, 1.0, 2.0, 40000.0])
    masked = torch.tensor([[1.0, -torch.inf, 1e30]])
    return {
        "small": small(),
        "named": small(class_names=["cat", "dog", "bird"], label_smoothing=0.1),
        "many": xent.explain(many, labels, row=5, class_names=names),
        "ignored": xent.explain(many, labels, row=0),
        "images": xent.explain(images, torch.randint(4, (2, 3, 3)), row=(1, 2, 2)),
        "soft": xent.explain(images[:, :, 0, 0], soft, weight, sample_weight=[1e-7, 3.0]),
        "masked": xent.explain(masked, torch.tensor([0])),
        "masked label": xent.explain(masked, torch.tensor([1])),
        "one class": xent.explain([[3.0]], [0]),
        "binary": xent.explain_binary([2.0, -1e-9, 3e7], [0, 1, 0], class_names=["ham", "spam"]),
        "no row": small(row=None),
        "none": small(reduction="none"),
    }


TOLD = explanations()


@pytest.fixture(params=TOLD, ids=str)
def told(request: pytest.FixtureRequest) -> Explanation:
    return TOLD[request.param]


@pytest.fixture(params=HOSTILE, ids=str)
def hostile(request: pytest.FixtureRequest) -> str:
    return HOSTILE[request.param]


def named(name: str) -> Explanation:
    return small(class_names=[name, f"{name}{name}", f"2{name}"])


def whole_numbers(told: Explanation) -> set[str]:
    """The numbers in the cells, sentences and formulas of a report, uncut."""
    seen: set[str] = set()
    for block in told.blocks():
        if isinstance(block, Table):
            cells = (cell for row in block.rows for cell in row.cells if isinstance(cell, str))
            texts = (*cells, *block.headers, block.caption)
        else:
            texts = (block.text,)
        for text in texts:
            seen |= set(NUMBER.findall(text))
    return seen


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_text_stays_within_its_width_and_loses_no_digit(told, width) -> None:
    drawn = told.to_text(width)
    assert max(map(cell_len, drawn.splitlines())) <= width
    assert set(NUMBER.findall(drawn)) <= whole_numbers(told)
    for table in (block for block in told.blocks() if isinstance(block, Table)):
        # The last column is never one that may be left out, but for the word of the descent.
        last = [row.cells[-1] for row in table.rows if isinstance(row.cells[-1], str)]
        assert all(cell in drawn for cell in last if NUMBER.fullmatch(cell))


@pytest.mark.parametrize("width", [40, 100])
def test_hostile_names_neither_widen_nor_cut_it(hostile, width) -> None:
    told = named(hostile)
    drawn = told.to_text(width)
    assert max(map(cell_len, drawn.splitlines())) <= width
    for c in told.row.classes:
        assert number(c.p) in drawn
        assert number(c.gradient) in drawn


def test_a_terminal_is_given_no_control_character(hostile) -> None:
    told = named(hostile)
    for drawing in (told, told.why("multiply"), told.why("index-vs-dense")):
        drawn = drawing.to_text()
        assert drawn.replace("\n", "").isprintable()


def printed(told: object, **options: object) -> str:
    stream = io.StringIO()
    Console(file=stream, width=100, **options).print(told)  # type: ignore[arg-type]  # options of any kind
    return stream.getvalue()


def test_a_terminal_has_colour_and_nothing_else_has(told, monkeypatch) -> None:
    assert "\x1b[" in printed(told, force_terminal=True, color_system="standard")
    assert "\x1b" not in printed(told)
    assert "\x1b" not in printed(told, color_system=None, force_terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[\d;]*3\d", printed(told, force_terminal=True))


def test_what_prints_is_the_text(told) -> None:
    lines = [line.rstrip() for line in printed(told).splitlines()]
    assert "\n".join(lines) + "\n" == told.to_text(100)
    assert str(told) == told.to_text()


def test_markdown_tables_are_tables(told) -> None:
    check_markdown(told.to_markdown())


def test_hostile_names_are_text_in_markdown(hostile) -> None:
    told = named(hostile)
    for drawing in (told, told.why("gradient"), told.why("multiply")):
        text = drawing.to_markdown()
        check_markdown(text)
        assert text.replace("\n", "").isprintable()
        outside = re.sub(r"(?m)^(`{3,}).*\n(?:.*\n)*?\1$", "", text)
        bare = re.sub(r"\\[\\`*_{}\[\]<>#|~&!]", "", outside)
        assert not re.search(r"[<>`\[\]]|&[a-z]+;", bare)


def check_markdown(text: str) -> None:
    fenced = False
    size = None
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if fenced or not line.startswith("|"):
            size = None
            continue
        pipes = len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))
        assert size in (None, pipes), line
        assert line.endswith("|")
        size = pipes
    assert not fenced


class Page(HTMLParser):
    """Tags in balance, tables as lists of cells."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


TAGS = {
    "html", "head", "meta", "title", "body", "div", "style", "h1", "h2", "p", "pre", "table",
    "caption", "thead", "tbody", "tr", "th", "td", "br", "svg", "rect", "line",
}  # fmt: skip


def check_html(text: str) -> Page:
    page = Page(text)
    assert page.tags <= TAGS
    assert not re.search(r"<script|https?:|//", text.replace("&", ""), re.IGNORECASE)
    assert {name for name, _ in page.attributes} <= {
        "lang", "charset", "name", "content", "http-equiv", "class", "scope", "aria-hidden",
        "viewbox", "preserveaspectratio", "width", "height", "x", "y", "x1", "x2", "y1", "y2",
    }  # fmt: skip
    return page


def test_html_stands_alone(told) -> None:
    text = as_page(told.blocks())
    page = check_html(text)
    assert text.startswith("<!doctype html>")
    assert ("http-equiv", "Content-Security-Policy") in page.attributes
    policies = [value for name, value in page.attributes if name == "content" and "src" in value]
    assert len(policies) == 1
    assert re.fullmatch(r"default-src 'none'; style-src 'sha256-[\w+/=]+'", policies[0])
    assert check_html(as_fragment(told.blocks())).tables == page.tables


def test_the_tables_of_html_are_the_trace(told) -> None:
    page = Page(as_page(told.blocks()))
    tables = [block for block in told.blocks() if isinstance(block, Table)]
    for drawn, table in zip(page.tables, tables, strict=True):
        for cells, row in zip(drawn[1:], table.rows, strict=True):
            assert cells == ["" if isinstance(c, Bar) else c for c in row.cells]
    if told.row is not None:
        stages = page.tables[0][1:]
        for cells, c in zip(stages, told.row.classes, strict=False):
            shown = [cells[n] for n in (1, 2, 3, 4, 6, 7, -1)]
            values = (c.logit, c.shifted, c.exp, c.p, c.log_p, c.target, c.term)
            assert shown == [number(v) for v in values]
        if not told.row.ignored:
            assert f"= {short(told.row.loss)} nats" in page.text


def test_hostile_names_are_text_in_html(hostile) -> None:
    told = named(hostile)
    for drawing in (told, told.why("gradient"), told.why("multiply")):
        page = Page(as_page(drawing.blocks()))
        assert page.tags <= TAGS
        assert not any(value and "alert" in value for _, value in page.attributes)
        drawing.to_html().encode()
    if hostile.isprintable():
        drawn = Page(as_page(told.blocks()))
        assert [row[0] for row in drawn.tables[0][1:4]] == [
            hostile, f"{hostile}{hostile}", f"2{hostile}",
        ]  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS)
def test_answers_are_drawn_by_the_same_rules(question) -> None:
    for name in ("named", "many", "soft"):
        answer = TOLD[name].why(question)
        check_markdown(answer.to_markdown())
        check_html(answer.to_html())
        for width in (40, 100):
            drawn = as_text(answer.blocks(), width)
            assert max(map(cell_len, drawn.splitlines())) <= width
            for table in (block for block in answer.body if isinstance(block, Table)):
                assert all(row.cells[-1] in drawn for row in table.rows)
