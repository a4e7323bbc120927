"""Nothing that a user, a file or an address says is ever run, loaded or taken for markup."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from urllib.parse import quote

import pytest

import xent
from browser import Visit
from xent.explanation.html import as_body
from xent.explanation.page import assembled, assembly, policy, state_of

ATTACKS = {
    "script": "</script><img src=x onerror=window.pwned=1>",
    "closed twice": "</script></style></title></textarea><svg onload=window.pwned=1>",
    "comment": "<!--<script>window.pwned=1//",
    "placeholder": "<!-- script --><!-- state --><!-- static -->",
    "quotes": "\" onmouseover=window.pwned=1 style=color:red ' x=`${window.pwned=1}`",
    "address": "javascript:window.pwned=1",
    "data": "data:text/html,<script>parent.pwned=1</script>",
    "frame": "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "remote": "<link rel=stylesheet href=https://evil.test/a.css><base href=https://evil.test>",
    "lines": "\u2028window.pwned=1\u2029\n\r\0\x0b;window.pwned=1//",
    "entities": "&lt;img src=x onerror=window.pwned=1&gt;&#60;script&#62;window.pwned=1",
    "prototype": "__proto__",
    "math": "<math><mtext></mtext><mglyph><style><img src=x onerror=window.pwned=1>",
    "tokens": "\u202e\U0001f600{{constructor.constructor('window.pwned=1')()}}",
}


def explained(name: str) -> xent.explanation.Explanation:
    names = [name, f"{name} 2", f"{name} 3"]
    return xent.explain([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]], [0, 1], class_names=names)


def harm(visit: Visit) -> list[str]:
    """What went wrong on a page, after everything on it was pointed at."""
    page = visit.page
    page.evaluate(POINT)
    visit.settle()
    found = list(visit.complaints)
    if page.evaluate("window.pwned !== undefined || {}.pwned !== undefined"):
        found.append("it ran")
    tags = page.eval_on_selector_all(STRANGE, "all => all.map(e => e.tagName)")
    names = page.eval_on_selector_all("*", "all => all.flatMap(e => e.getAttributeNames())")
    found += [f"element: {tag}" for tag in tags]
    found += [f"handler: {name}" for name in names if name.startswith("on")]
    if page.evaluate("document.scripts.length") != 2:
        found.append("a script more")
    return found


STRANGE = "img, iframe, object, embed, base, link:not([href^='data:']), a[href^='javascript:' i]"
POINT = """() => {
    for (const element of document.querySelectorAll("[data-class], button, input, select"))
        for (const kind of ["pointerover", "mouseover", "focusin"])
            element.dispatchEvent(new Event(kind, { bubbles: true }));
}"""
# One after the other, as a reader would, with a frame between: the page draws once a frame.
PRESS = """async () => {
    const frame = () => new Promise(requestAnimationFrame);
    const pressed = new Set();
    for (let next; (next = [...document.querySelectorAll("button, [type=checkbox], [type=radio]")]
            .find((e) => !pressed.has(e) && e.checkVisibility())); ) {
        pressed.add(next);
        if (pressed.size > 150) break;
        if (!next.disabled) next.click();
        await frame();
    }
    return pressed.size;
}"""


@pytest.mark.parametrize("attack", ATTACKS)
def test_names_are_text(attack: str, open_page) -> None:
    visit = open_page(explained(ATTACKS[attack]).to_html())
    assert visit.page.is_visible("#page")
    assert harm(visit) == []


def test_names_stay_text_when_everything_is_pressed(open_page) -> None:
    visit = open_page(explained(ATTACKS["script"] + ATTACKS["quotes"]).to_html())
    assert visit.page.evaluate(PRESS) > 10
    assert harm(visit) == []


@pytest.mark.parametrize("attack", ["script", "quotes", "lines"])
def test_names_are_text_where_scripts_are_blocked_and_in_a_notebook(attack: str, open_page) -> None:
    told = explained(ATTACKS[attack])
    still = open_page(told.to_html(), scripts=False)
    assert still.page.is_visible("#static")
    assert still.page.locator("img, iframe").count() == 0
    framed = open_page(told._repr_html_())
    framed.page.frame_locator("iframe").locator("#page").wait_for()
    assert framed.page.evaluate("window.pwned === undefined")
    assert framed.page.frames[1].evaluate("window.pwned === undefined")
    assert still.complaints == framed.complaints == []


def strings(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Where a state has strings, and where it has numbers that might come as strings."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from strings(item, (*path, key))
    elif isinstance(value, str | float):
        yield path


PATHS = list(strings(state_of(explained("cat"))))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_every_string_and_number_of_the_state_is_data(path, open_page) -> None:
    state = state_of(explained("cat"))
    place = state
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = ATTACKS["script"] + ATTACKS["quotes"]
    visit = open_page(assembled(state, ""))
    # A page may refuse such a state, by an error of its own; it may not do what the state says.
    assert [said for said in harm(visit) if not said.startswith("error: ")] == []


def linked(**changes: object) -> str:
    """A state as the page itself writes it into an address."""
    row = {"logits": [2, 1, 0], "label": [1, 0, 0], "index": 0, "ignored": False}
    state = {
        "v": 1, "kind": "index", "names": ["a", "b", "c"], "classCount": 3,
        "rows": [{**row, "sampleWeight": 1, "rest": None}], "current": 0, "weight": None,
        "smoothing": 0, "reduction": "mean", "denominator": None, "stepSize": 1, **changes,
    }  # fmt: skip
    return "#" + quote(json.dumps(state), safe="")


def test_an_address_opens_the_page_on_its_numbers(browser_page) -> None:
    page = browser_page(explained("cat").to_html(), fragment=linked(names=["x1", "y", "z"])).page
    assert page.locator(".name").evaluate_all("all => all.map(e => e.value)") == ["x1", "y", "z"]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_address_is_data(attack: str, browser_page) -> None:
    evil = ATTACKS[attack]
    html = explained("cat").to_html()
    fragments = [
        f"#{evil}",
        f"#{quote(evil)}",
        linked(names=[evil, evil, evil]),
        linked(names=[{"toString": evil}, [evil], None]),
        linked(kind=evil, reduction=evil, __proto__={"pwned": 1}),
        linked(current=evil, smoothing=evil, weight=[evil] * 3),
        linked(current="__proto__", constructor={"prototype": {"pwned": 1}}),
    ]
    visit = browser_page(html)
    for fragment in fragments:
        visit.page.evaluate("fragment => { location.hash = fragment; }", fragment)
        visit.settle()
        assert harm(visit) == [], fragment


@pytest.mark.parametrize(
    "fragment", [f"#{ATTACKS['script']}", linked(names=[*ATTACKS.values()][:3])]
)
def test_an_address_is_data_from_the_start(fragment: str, browser_page) -> None:
    assert harm(browser_page(explained("cat").to_html(), fragment=fragment)) == []


def test_nothing_is_fetched(browser_page) -> None:
    html = explained("cat").to_html()
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", html)
    harm(browser_page(html))


# That these tests can fail: outputs without their escapes.


@contextmanager
def planted(monkeypatch, name: str, replacement: object) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(assembly, name, replacement)
        yield


def test_a_state_without_escapes_is_noticed(monkeypatch, open_page) -> None:
    with planted(monkeypatch, "_json", json.dumps):
        visit = open_page(explained(ATTACKS["script"]).to_html())
    assert harm(visit)


def test_a_state_without_escapes_and_without_a_policy_runs(monkeypatch, open_page) -> None:
    with planted(monkeypatch, "_json", json.dumps), planted(monkeypatch, "_meta", lambda _: ""):
        visit = open_page(explained(ATTACKS["script"]).to_html())
    visit.settle()
    assert {"it ran", "element: IMG", "request: https://page.test/x"} <= set(harm(visit))


@pytest.mark.parametrize("guarded", [True, False])
def test_a_name_taken_for_markup_by_the_script_is_noticed(
    guarded: bool, tmp_path, monkeypatch, open_page
) -> None:
    copy_assets(files("xent.explanation.page").joinpath("assets"), tmp_path)
    main = tmp_path / "main.js"
    line = "\ndocument.body.insertAdjacentHTML('beforeend', start.names[0]);\n"
    main.write_text(main.read_text(encoding="utf-8") + line, encoding="utf-8")
    if not guarded:
        monkeypatch.setattr(assembly, "_meta", lambda _: "")
    told = explained("<img src=x onerror=window.pwned=1>")
    visit = open_page(assembled(state_of(told), as_body(told.blocks()), assets=tmp_path))
    visit.settle()
    found = harm(visit)
    assert "element: IMG" in found
    assert ("it ran" in found) is not guarded


def test_the_header_of_a_server_allows_what_the_page_needs(browser_page) -> None:
    visit = browser_page(explained("cat").to_html(), policy=policy())
    assert visit.page.is_visible("#page")


def copy_assets(source, target) -> None:
    for item in source.iterdir():
        if item.is_dir():
            (target / item.name).mkdir()
            copy_assets(item, target / item.name)
        else:
            (target / item.name).write_bytes(item.read_bytes())
