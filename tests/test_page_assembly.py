"""The page as a document: how modules become one script, and what data may not do to it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import xent
from xent.explanation.html import as_body
from xent.explanation.page import assembled, policy
from xent.explanation.page.bundle import BadModuleError, bundled

TEMPLATE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><!-- policy -->
<title><!-- title --></title><!-- style --></head>
<body><div id="static"><!-- static --></div><!-- state --><!-- script --></body></html>
"""
EVIL = '</script><img src=x onerror="window.pwned=1">&<!-- script -->\u2028\u2029\ud800\''


def bundle(**modules: str) -> str:
    return bundled("main.js", {f"{name}.js": text for name, text in modules.items()}.__getitem__)


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    (tmp_path / "page.html").write_text(TEMPLATE)
    (tmp_path / "style.css").write_text("body { margin: 0 }\n")
    (tmp_path / "main.js").write_text("document.title = 'ran';\n")
    return tmp_path


def test_a_module_is_evaluated_before_those_that_import_it() -> None:
    script = bundle(
        main='import { a } from "./a.js";\nimport { b } from "./b.js";\n',
        a='import { b } from "./b.js";\nexport const a = b;\n',
        b="export const b = 1;\n",
    )
    order = re.findall(r"// (\w\.js|main\.js)$", script, re.MULTILINE)
    assert order == ["b.js", "a.js", "main.js"]


def test_modules_are_scopes_that_share_only_what_they_export(browser_page) -> None:
    script = bundle(
        main="""// The first line may be a comment.
/* So may
   the next ones. */
import {
  twice,
  Thing as Other,
  LIST,
} from "./folder/a.js";
import { later, steps } from "./b.js";
const hidden = "main";
window.seen = [twice(4), new Other().name(), LIST, [...steps()], hidden];
later().then((value) => window.seen.push(value));
""",
        **{
            "folder/a": 'import { two } from "../b.js";\nconst hidden = "a";\n'
            "export function twice(x) {\n  return two * x;\n}\n"
            "export class Thing {\n  name() { return hidden; }\n}\n"
            "export const LIST = [1, 2]; // comment\n",
            "b": "export const two = 2;\nexport async function later() { return 'late'; }\n"
            "export function* steps() { yield 1; yield 2; }\n",
        },
    )
    page = browser_page(f'<script type="module">{script}</script>').page
    assert page.evaluate("window.seen") == [8, "a", [1, 2], [1, 2], "main", "late"]
    assert page.evaluate("typeof two + typeof twice + typeof hidden") == "undefined" * 3


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ({"main": '\nimport { a } from "./none.js";'}, "main.js:2: there is no none.js"),
        ({"main": 'import { a } from "./a.js";', "a": ""}, "main.js:1: a.js does not export a"),
        (
            {"main": 'import { a } from "./a.js";', "a": 'import { b } from "./main.js";'},
            "a.js:1: an import cycle: main.js → a.js → main.js",
        ),
        ({"main": "\n\nexport default 3;"}, "main.js:3: expected export function, const or class"),
        ({"main": "export { a };"}, "main.js:1: expected export"),
        ({"main": "export let a = 1;"}, "main.js:1: expected export"),
        ({"main": "export const { a } = b;"}, "main.js:1: expected export"),
        ({"main": 'export * from "./a.js";'}, "main.js:1: expected export"),
        ({"main": 'import a from "./a.js";'}, "main.js:1: expected import {"),
        ({"main": 'import * as a from "./a.js";'}, "main.js:1: expected import {"),
        ({"main": 'import "./a.js";'}, "main.js:1: expected import {"),
        ({"main": 'f();\nimport { a } from "./a.js";', "a": ""}, "main.js:2: expected import {"),
        ({"main": 'import { a b } from "./a.js";'}, "main.js:1: an import of 'a b'"),
        ({"main": 'import { a } from "a";'}, "main.js:1: an import from 'a'"),
        ({"main": 'import { a } from "https://a.test/a.js";'}, "main.js:1: an import from"),
        ({"main": '\nconst a = await import("./a.js");'}, "main.js:2: a dynamic import"),
        ({"main": "f(import.meta.url);"}, "main.js:1: a dynamic import"),
        ({"main": 'const a = "</SCRIPT>";'}, "main.js:1: the end of a script"),
        ({"main": 'const a = "<!--";'}, "main.js:1: the end of a script"),
    ],
)
def test_a_module_that_breaks_the_rules_is_named_with_its_line(modules, said) -> None:
    with pytest.raises(BadModuleError) as caught:
        bundle(**modules)
    assert str(caught.value).startswith(said)


def test_the_policy_allows_exactly_the_script_and_the_style(assets: Path) -> None:
    page = assembled(None, "", assets=assets)
    said = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)[1]
    for kind, element in (
        ("script", r'<script type="module">(.*?)</script>'),
        ("style", "<style>(.*?)</style>"),
    ):
        (text,) = re.findall(element, page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in said
    assert said.startswith("default-src 'none';")
    assert said.endswith("img-src data:; base-uri 'none'; form-action 'none'")
    assert "unsafe" not in said
    assert policy(assets) == f"{said}; frame-ancestors 'none'"


def test_the_browser_runs_the_script_and_nothing_else(assets: Path, open_page) -> None:
    smuggled = "<p onclick='f()'>a</p><p style='color:red'>b</p><script>window.pwned=1</script>"
    visit = open_page(assembled(None, smuggled, assets=assets))
    assert visit.page.title() == "ran"
    assert len(visit.complaints) == 3
    assert all("Content Security Policy" in said for said in visit.complaints)
    assert visit.page.evaluate("window.pwned === undefined")


def test_data_cannot_end_its_element_nor_stand_for_another_part(assets: Path) -> None:
    told = xent.explain([[2.0, 1.0]], [0], class_names=[EVIL, EVIL + "2"])
    page = assembled({"names": [EVIL]}, as_body(told.blocks()), EVIL, assets=assets)
    assert page.count("<script") == page.count("</script") == 2
    assert page.count("document.title = 'ran'") == 1
    assert "<img" not in page
    (state,) = re.findall(r'id="state">(.*?)</script>', page)
    assert not set("<>&\u2028\u2029") & set(state)
    assert state.isascii()
    assert json.loads(state) == {"names": [EVIL]}
    page.replace("\ud800", "").encode()


def test_static_markup_needs_no_style_of_its_own(assets: Path, browser_page) -> None:
    told = xent.explain([[2.0, 1.0, 0.0]], [0])
    page = browser_page(assembled(None, as_body(told.blocks()), assets=assets)).page
    widths = page.eval_on_selector_all(
        "svg.xent-bar rect", "all => all.map(bar => bar.getBoundingClientRect().width)"
    )
    whole = page.eval_on_selector("svg.xent-bar", "bar => bar.getBoundingClientRect().width")
    shares = [c.p for c in told.row.classes]
    assert [width / whole for width in widths[:3]] == pytest.approx(shares, abs=0.002)
    assert "style=" not in as_body(told.blocks())


@pytest.mark.parametrize(
    "change", [lambda t: t.replace("<!-- state -->", ""), lambda t: t + "<!-- script -->"]
)
def test_a_template_has_each_place_once(assets: Path, change: Callable[[str], str]) -> None:
    (assets / "page.html").write_text(change(TEMPLATE))
    with pytest.raises(ValueError, match=r"page\.html: expected each of"):
        assembled(None, "", assets=assets)


def test_a_style_does_not_end_itself(assets: Path) -> None:
    (assets / "style.css").write_text("a{}\nb{content:'</style>'}")
    with pytest.raises(ValueError, match=r"style\.css:2"):
        assembled(None, "", assets=assets)


def test_an_explanation_is_a_page_and_in_a_notebook_a_frame_with_it(browser_page) -> None:
    told = xent.explain([[2.0, 1.0, 0.0]], [0], class_names=["cat", "dog", EVIL[:-2]])
    page = told.to_html()
    frame = told._repr_html_()
    assert re.match(r'<iframe srcdoc="[^"]*" sandbox="allow-scripts" loading="lazy" title="', frame)
    assert html.unescape(re.search('srcdoc="([^"]*)"', frame)[1]) == page
    inside = browser_page(frame).page.frame_locator("iframe")
    inside.locator("#page").wait_for()
    assert inside.locator("#static").is_hidden()


def test_without_scripts_the_report_is_seen(browser_page) -> None:
    told = xent.explain([[2.0, 1.0, 0.0]], [0], class_names=["cat", "dog", "bird"])
    page = browser_page(told.to_html(), scripts=False).page
    assert page.locator("#static").is_visible()
    assert page.locator("#page").is_hidden()
    assert "the label is cat" in page.inner_text("#static")


def test_an_answer_and_what_cannot_be_played_with_stay_still(browser_page) -> None:
    ignored = xent.explain([[2.0, 1.0]], [-100], row=None)
    answer = xent.explain([[2.0, 1.0]], [0]).why("gradient")
    for still in (ignored, answer):
        assert "<script" not in still.to_html() + still._repr_html_()
        assert "iframe" not in still._repr_html_()
        browser_page(still.to_html())
