"""The interactive page as one file: template, style, script, numbers, and the static rendering."""

from __future__ import annotations

import json
import re
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from xent.explanation.html import STYLE, digest
from xent.explanation.page.bundle import bundled

TITLE = "Cross-entropy, explained"
_PLACES = ("title", "policy", "style", "state", "static", "script")
_PLACE = re.compile(f"<!-- ({'|'.join(_PLACES)}) -->")
_ENDS_A_STYLE = re.compile(r"</style|<!--", re.IGNORECASE)


def assembled(
    state: dict[str, Any] | None,
    static: str,
    title: str = TITLE,
    *,
    assets: Traversable | None = None,
) -> str:
    """The page: one document that asks nothing of the network.

    The template's places are comments. Those of policy, style, state and script are replaced by
    whole elements; ``<!-- title -->`` by its text, ``<!-- static -->`` by the markup.

    Args:
        state: what the page opens on, as ``state_of`` makes it; None leaves the choice to the page.
        static: what is seen where scripts are blocked: markup without styles or scripts of its
            own, as ``xent.explanation.html.as_body`` makes it.
        title: of the document, as text.
        assets: the folder of ``page.html``, ``style.css``, ``main.js`` and its modules; None is
            the one that comes with the library.

    Raises:
        ValueError: an asset that breaks the rules of ``bundle``, or a template without a place.
    """
    folder = _folder(assets)
    style, script = _style(folder), _script(folder)
    parts = {
        "title": escape(title),
        "policy": _meta(_policy(style, script)),
        "style": f"<style>{style}</style>",
        "state": f'<script type="application/json" id="state">{_json(state)}</script>',
        "static": static,
        "script": f'<script type="module">{script}</script>',
    }
    template = _checked(folder.joinpath("page.html").read_text(encoding="utf-8"))
    # In one pass: what replaces a place is not looked at again.
    return _PLACE.sub(lambda place: parts[place[1]], template)


def policy(assets: Traversable | None = None) -> str:
    """What the page may load and run, for a header: its own script and its own style, no more."""
    folder = _folder(assets)
    return f"{_policy(_style(folder), _script(folder))}; frame-ancestors 'none'"


def _folder(assets: Traversable | None) -> Traversable:
    return files("xent.explanation.page").joinpath("assets") if assets is None else assets


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; script-src {digest(script)}; style-src {digest(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _meta(content: str) -> str:
    return f'<meta http-equiv="Content-Security-Policy" content="{content}">'


def _style(folder: Traversable) -> str:
    """The style of the static rendering, and the page's own behind it."""
    own = folder.joinpath("style.css").read_text(encoding="utf-8")
    found = _ENDS_A_STYLE.search(own)
    if found is not None:
        line = own.count("\n", 0, found.start()) + 1
        raise ValueError(f"style.css:{line}: the end of a style, {found[0]}")
    return STYLE + own


def _script(folder: Traversable) -> str:
    return bundled("main.js", lambda file: folder.joinpath(file).read_text(encoding="utf-8"))


def _json(state: dict[str, Any] | None) -> str:
    """JSON that is ASCII and has no character that ends or begins markup."""
    text = json.dumps(state, allow_nan=False)
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _checked(template: str) -> str:
    found = sorted(_PLACE.findall(template))
    if found != sorted(_PLACES):
        expected = ", ".join(f"<!-- {place} -->" for place in _PLACES)
        raise ValueError(f"page.html: expected each of {expected} once, got {', '.join(found)}")
    return template
