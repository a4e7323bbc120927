"""Floor 6: one call of a loss, taken apart: one typed trace, many renderers.

- ``explaining``: the functions; ``tracing``: from arguments to an ``explanation``;
- ``source``, ``row``, ``batch``: the numbers, read off the library's own statistics;
- ``trace``: what they are, frozen; ``document``: the same as JSON; ``code``: as plain torch;
- ``report``, ``reduced``, ``words``: the report as ``blocks``;
- ``terminal``, ``markdown``, ``html``: which only draw blocks;
- ``why``, ``answers``: the questions people ask;
- ``options``, ``names``: what is accepted in the place of options, names and rows.
"""

from xent.explanation.answers.answer import Answer
from xent.explanation.explaining import explain, explain_binary
from xent.explanation.explanation import Explanation
from xent.explanation.why import QUESTIONS

__all__ = ["QUESTIONS", "Answer", "Explanation", "explain", "explain_binary"]
