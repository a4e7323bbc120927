"""Puts the committed results into the pages that quote them: no figure is typed in.

A page marks the place with a pair of comments, `<!-- NAME -->` and `<!-- /NAME -->`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from machine import RESULTS

ROOT = RESULTS.parent.parent
PAGES = ("README.md", "docs/exactness.md")


def main() -> None:
    """Rewrites the marked tables of every page."""
    for page in PAGES:
        path = ROOT / page
        text = path.read_text()
        for result in sorted(RESULTS.glob("*.json")):
            text = filled(text, result.stem, json.loads(result.read_text()))
        path.write_text(text)


def filled(text: str, name: str, result: dict[str, Any]) -> str:
    """The text with the table of this result between its marks."""
    marks = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    return re.sub(marks, lambda m: m[1] + table(result) + m[2], text, flags=re.DOTALL)


def table(result: dict[str, Any]) -> str:
    """A Markdown table of a result's rows, and its machine below."""
    header = [column.replace("_", " ") for column in result["rows"][0]]
    lines = [header, ["---:"] * len(header)]
    lines += [[shown(value) for value in row.values()] for row in result["rows"]]
    machine = result["machine"]
    below = f"{machine['cpu']}, {machine['torch_threads']} threads, torch {machine['torch']}."
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"\n{rows}\n\n{below}\n\n"


def shown(value: float | int | str) -> str:
    """A cell: two digits of what is tiny, three of what is not."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.3g}"


if __name__ == "__main__":
    main()
