"""``xent why``: questions about cross-entropy, answered with numbers."""

from __future__ import annotations

import json

import click

from xent.cli.inputs import Typed, of_a_call
from xent.cli.mistakes import BadInput
from xent.explanation import QUESTIONS
from xent.explanation.document import plain

FITTING = {
    "dense": "dense",
    "multiply": "dense",
    "sum": "dense",
    "ignore": "padded",
    "mean": "padded",
    "log-softmax": "apart",
}
"""The example that suits a question, if nothing was typed in; ``gradient`` suits the others."""

EXAMPLES = """\b
Examples:
  xent why                                     the questions
  xent why gradient                            where p − y comes from
  xent why negatives --logits 2,1,0 --target 2
"""


@click.command(short_help="Answer a question about the loss, with your numbers.", epilog=EXAMPLES)
@click.argument("question", required=False, type=click.Choice(tuple(QUESTIONS)), metavar="QUESTION")
@of_a_call
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def why(typed: Typed, question: str | None, as_json: bool) -> None:
    """Answer a question about cross-entropy: in words, with numbers, a formula and its Python.

    Without a question, list them. Without logits, the answer has an example that suits it.
    """
    if question is None:
        _list(as_json)
        return
    told = typed.explanation(FITTING.get(question, "gradient"))
    try:
        answer = told.why(question)
    except ValueError as error:  # a row that has no answer
        raise BadInput(str(error)) from error
    if as_json:
        click.echo(json.dumps(plain(answer.to_dict()), indent=2, allow_nan=False))
    else:
        from xent.cli.console import console

        console().print(answer)


def _list(as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(QUESTIONS, indent=2, ensure_ascii=False))
        return
    from rich.table import Table
    from rich.text import Text

    from xent.cli.console import console

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, title in QUESTIONS.items():
        table.add_row(Text(name, style="bold"), title)
    console().print(table)
