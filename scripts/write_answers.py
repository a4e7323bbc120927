"""Writes the pages of docs/why, one for each question, and the picture of an explanation.

Run it after a change of the words: ``make docs``. A test compares the pages with its output.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

import xent
from xent.cli.examples import EXAMPLES
from xent.cli.why import FITTING
from xent.explanation import QUESTIONS, Explanation

DOCS = Path(__file__).parent.parent / "docs"


def pages() -> dict[Path, str]:
    """Every page by where it stands."""
    found = {DOCS / "why" / f"{question}.md": page(question) for question in QUESTIONS}
    found[DOCS / "why" / "README.md"] = contents()
    return found


def page(question: str) -> str:
    """An answer with the numbers of the example that suits the question."""
    example = FITTING.get(question, "gradient")
    answer = explained(example).why(question).to_markdown()
    return (
        f"{answer}\n---\n\n`xent why {question}` prints this page; with `--logits 1.2,3.1,1.9 "
        f"--target 0`, or a file, it speaks of your numbers. In Python: "
        f'`xent.explain(logits, target).why("{question}")`.\n\n'
        "[All questions](README.md) · [Tutorial](../tutorial.md)\n"
    )


def contents() -> str:
    """The list of the questions."""
    lines = [f"- [{title}]({question}.md)" for question, title in QUESTIONS.items()]
    return (
        "# Questions about cross-entropy\n\n"
        "Each answer is short, has numbers, and is derived, not asserted. `xent why` lists them, "
        "`xent why gradient` answers one.\n\n" + "\n".join(lines) + "\n"
    )


def explained(example: str) -> Explanation:
    """One of the examples of the command line, explained."""
    inputs, binary = EXAMPLES[example]
    explain = xent.explain_binary if binary else xent.explain
    return explain(inputs.logits, inputs.target, class_names=inputs.names)


def picture() -> str:
    """The explanation of the gradient, as it looks in a terminal; no font is loaded for it."""
    console = Console(record=True, width=92, file=io.StringIO(), force_terminal=True)
    console.print(explained("gradient"))
    svg = console.export_svg(title="xent explain --example gradient", unique_id="explain")
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def main() -> None:
    """Writes them all."""
    (DOCS / "why").mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    (DOCS / "images" / "explain.svg").write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
