"""A small language model on the sources of Python's standard library, trained with xent.

Its loss, ``xent.linear_cross_entropy``, never holds the logits of a step, and a step's gradient is
that of one big batch, however many micro-batches it is taken in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import torch
from click.core import ParameterSource

from commands import BadInput, OneLineErrors, check_writable, threads_option
from lm_run import Source, run
from lm_tokens import BYTES, SPECIAL
from lm_training import LOSSES, Settings
from xent.cli.demo import threads_of_torch

EXAMPLES = """\b
Examples:
  python examples/language_model.py
  python examples/language_model.py --json run.json
  python examples/language_model.py --loss two-step --steps 20
  python examples/language_model.py --bytes --width 128 --layers 2
  python examples/language_model.py --text DIR --suffix .txt
"""


POSITIVE = click.IntRange(min=1)


@click.command(cls=OneLineErrors, epilog=EXAMPLES, context_settings={"show_default": True})
@click.option("--steps", type=POSITIVE, default=120, help="Updates of the weights.")
@click.option("--context", type=POSITIVE, default=256, help="Tokens of a sequence.")
@click.option("--width", type=POSITIVE, default=256, help="Features of a hidden state.")
@click.option("--layers", type=POSITIVE, default=4, help="Blocks of attention and two layers.")
@click.option("--heads", type=POSITIVE, default=4, help="Of each attention.")
@click.option("--batch-size", type=POSITIVE, default=8, help="Sequences of a micro-batch.")
@click.option("--micro-batches", type=POSITIVE, default=4, help="Whose gradients make a step.")
@click.option(
    "--vocabulary",
    type=click.IntRange(min=BYTES + SPECIAL),
    default=16384,
    help="Tokens that bytes are merged into.",
)
@click.option("--bytes", "as_bytes", is_flag=True, help="Tokens are bytes; nothing is merged.")
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of other texts; without it, the standard library's sources.",
)
@click.option("--suffix", default=".py", help="How the names of the files in DIR end.")
@click.option("--loss", type=click.Choice(list(LOSSES)), default="linear", help="What trains.")
@click.option(
    "--compare-steps",
    type=click.IntRange(min=0),
    default=5,
    metavar="K",
    help="Take the first K steps with the other loss as well; 0 does not.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    help="Of what is held out, the start, and the order of the sequences.",
)
@threads_option
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the run there as one JSON document.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
@click.pass_context
def main(
    ctx: click.Context,
    /,
    text: Path | None,
    suffix: str,
    vocabulary: int,
    as_bytes: bool,
    compare_steps: int,
    threads: int,
    json_file: Path | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a small transformer on the sources of Python's standard library.

    Shown are the loss in nats as it falls; loss, perplexity, bits per byte, accuracy and entropy on
    files that were held out; that both losses draw the same curve; and the time and memory that
    each takes on the hidden states of this model.

    Bad input is exit code 2, Ctrl-C is 130.
    """
    try:
        _check_options(ctx)
        with threads_of_torch(threads), torch.random.fork_rng(devices=[]):
            source = Source(text, suffix, vocabulary, as_bytes)
            document = run(source, Settings(**settings), compare_steps, quiet)
        if json_file is not None:
            json_file.write_text(json.dumps(document, allow_nan=False, indent=1) + "\n")
    except (FloatingPointError, OSError) as error:  # diverged; the disk is full
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("Interrupted; nothing was kept.", err=True)
        ctx.exit(130)


def _check_options(ctx: click.Context) -> None:
    """Says now, and not after the training, what does not fit."""
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


if __name__ == "__main__":
    main()
