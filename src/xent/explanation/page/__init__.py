"""The interactive page: one document without a network, on the numbers of an explanation.

- ``state``: an explanation as what the page opens on;
- ``assembly``: template, style, script, state and the static rendering as one document;
- ``bundle``: the modules of ``assets`` as one script;
- ``frame``: the page of an explanation, and the same within a notebook.
"""

from xent.explanation.page.assembly import assembled, policy
from xent.explanation.page.frame import framed, page_of
from xent.explanation.page.state import state_of

__all__ = ["assembled", "framed", "page_of", "policy", "state_of"]
