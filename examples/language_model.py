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

from commands import OneLineErrors, threads_option
from lm_options import (
    check_options,
    json_option,
    quiet_option,
    seed_option,
    size_options,
    source_options,
)
from lm_run import Source, run
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


@click.command(cls=OneLineErrors, epilog=EXAMPLES, context_settings={"show_default": True})
@size_options(steps=120, context=256, width=256, layers=4, heads=4, batch_size=8, micro_batches=4)
@source_options(vocabulary=16384)
@click.option("--loss", type=click.Choice(list(LOSSES)), default="linear", help="What trains.")
@click.option(
    "--compare-steps",
    type=click.IntRange(min=0),
    default=5,
    metavar="K",
    help="Take the first K steps with the other loss as well; 0 does not.",
)
@seed_option
@threads_option
@json_option
@quiet_option
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
        check_options(ctx)
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


if __name__ == "__main__":
    main()
