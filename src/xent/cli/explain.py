"""``xent explain``: one call of a loss, taken apart, in every format."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from xent.cli.arrays import shown
from xent.cli.inputs import Typed, of_a_call
from xent.explanation import Explanation

FORMATS = ("terminal", "text", "markdown", "html", "json", "python")
_SUFFIXES = {
    ".html": "html", ".htm": "html", ".md": "markdown", ".json": "json", ".py": "python",
}  # fmt: skip

EXAMPLES = """\b
Examples:
  xent explain --probs 0.1,0.7,0.2 --target 0
  xent explain --logits 1.2,3.1,1.9 --target cat --names cat,dog,bird
  xent explain --logits 1.2,3.1,1.9 --target 0.7,0.2,0.1 --label-smoothing 0.1
  xent explain --example dense      log-softmax times labels, summed
  xent explain --example 4x27       four rows of 27 classes
  xent explain --file batch.npz --row 3 -o row.html
"""


@click.command(short_help="Take one call of the loss apart, with your numbers.", epilog=EXAMPLES)
@of_a_call
@click.option(
    "--format", "form", type=click.Choice(FORMATS),
    help="[default: by the suffix of --output, else terminal]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False),
    help="File to write instead of printing.",
)  # fmt: skip
def explain(typed: Typed, form: str | None, as_json: bool, output: Path | None) -> None:
    """Take one call of the cross-entropy apart: from the logits to the loss and its gradient.

    Logits come from the command line, a file or an example. Shown are the softmax, what each
    class adds to the loss, what each class feels (p − y), what a few steps of descent do, and how
    the losses of all positions became one value. xent why answers questions.
    """
    if as_json:
        if form not in (None, "json"):
            raise click.UsageError(f"--json: expected alone; got it beside --format {form}.")
        form = "json"
    told = typed.explanation()
    if form is None:
        form = _SUFFIXES.get(output.suffix.lower(), "text") if output else "terminal"
    if output is None:
        show(told, form)
    else:
        _write(output, _drawn(told, "text" if form == "terminal" else form))


def show(told: Explanation, form: str) -> None:
    """Prints it to stdout."""
    if form == "terminal":
        from xent.cli.console import console

        console().print(told)
    else:
        _print(_drawn(told, form))


def _drawn(told: Explanation, form: str) -> str:
    if form == "json":
        return told.to_json(indent=2) + "\n"
    if form == "python":
        return told.to_python()
    return str(getattr(told, f"to_{form}")())


def _print(text: str) -> None:
    """Text to stdout; what its encoding lacks is escaped, not fatal."""
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), nl=False)


def _write(output: Path, text: str) -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise click.UsageError(f"{shown(output)}: cannot be written: {reason}.") from error
    click.echo(f"Wrote {shown(output)}.", err=True)
