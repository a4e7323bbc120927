"""The page of an explanation, and the same within a notebook."""

from __future__ import annotations

from html import escape

from xent.explanation.explanation import Explanation
from xent.explanation.html import as_body
from xent.explanation.page.assembly import TITLE, assembled
from xent.explanation.page.state import state_of

HEIGHT = "760px"


def page_of(told: Explanation) -> str | None:
    """The page on the numbers of an explanation, or None if there is nothing to play with."""
    state = state_of(told)
    return None if state is None else assembled(state, as_body(told.blocks()))


def framed(page: str, title: str = TITLE) -> str:
    """An ``<iframe>`` that holds the page: a script without an origin, apart from the notebook."""
    return (
        f'<iframe srcdoc="{escape(page)}" sandbox="allow-scripts" loading="lazy" '
        f'title="{escape(title)}" style="width:100%;height:{HEIGHT};border:0"></iframe>'
    )
