"""The options of the programs that train a language model, and whether they fit each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from commands import BadInput, check_writable
from lm_tokens import BYTES, SPECIAL

F = TypeVar("F", bound=Callable[..., Any])

POSITIVE = click.IntRange(min=1)
SIZES = {
    "steps": "Updates of the weights.",
    "context": "Tokens of a sequence.",
    "width": "Features of a hidden state.",
    "layers": "Blocks of attention and two layers.",
    "heads": "Of each attention.",
    "batch_size": "Sequences at once.",
    "micro_batches": "Whose gradients make a step.",
}


def size_options(**defaults: int) -> Callable[[F], F]:
    """One option for each of ``SIZES`` that has a default."""

    def decorated(command: F) -> F:
        for name, default in reversed(defaults.items()):  # the last decorator is shown first
            flag = "--" + name.replace("_", "-")
            command = click.option(flag, type=POSITIVE, default=default, help=SIZES[name])(command)
        return command

    return decorated


def source_options(vocabulary: int) -> Callable[[F], F]:
    """Where the tokens come from; so many, unless another number is asked for."""
    options = (
        click.option(
            "--vocabulary",
            type=click.IntRange(min=BYTES + SPECIAL),
            default=vocabulary,
            help="Tokens that bytes are merged into.",
        ),
        click.option(
            "--bytes", "as_bytes", is_flag=True, help="Tokens are bytes; nothing is merged."
        ),
        click.option(
            "--text",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Folder of other texts; without it, the standard library's sources.",
        ),
        click.option("--suffix", default=".py", help="How the names of the files in DIR end."),
    )

    def decorated(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    help="Of what is held out, the start, and the order of the sequences.",
)
json_option = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the run there as one JSON document.",
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress bar.")


def check_options(ctx: click.Context) -> None:
    """Says now, and not after the training, what does not fit.

    Raises:
        BadInput: something does not.
    """
    given = ctx.params
    asked = ctx.get_parameter_source("vocabulary") is not ParameterSource.DEFAULT
    if given["as_bytes"] and asked:
        raise BadInput("--bytes has no vocabulary to choose; leave one of the two out.")
    asked = ctx.get_parameter_source("suffix") is not ParameterSource.DEFAULT
    if given["text"] is None and asked:
        raise BadInput("--suffix is for the files of --text DIR; it needs that.")
    if given["width"] % given["heads"]:
        raise BadInput(
            f"--width {given['width']} cannot be shared by --heads {given['heads']}; "
            "expected a multiple of it."
        )
    if given["json_file"] is not None:
        check_writable(given["json_file"])
