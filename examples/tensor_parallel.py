"""A language model whose classifier is sharded by vocabulary over ranks, trained with xent.

Its body is data-parallel, in FSDP2 or DDP. The same training runs in one process as well: the loss
of every step is to be the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import torch

from commands import BadInput
from lm_options import (
    check_options,
    json_option,
    quiet_option,
    seed_option,
    size_options,
    source_options,
)
from lm_run import Source
from lm_training import Settings
from tp_ranks import FirstRankSpeaks, all_ranks, place
from tp_run import agrees, run, verdict
from xent.cli.demo import threads_of_torch

EXAMPLES = """\b
Examples:
  torchrun --nproc-per-node 2 examples/tensor_parallel.py
  torchrun --nproc-per-node 2 examples/tensor_parallel.py --wrap ddp --json run.json
  torchrun --nproc-per-node 4 examples/tensor_parallel.py --bytes --steps 20
  python examples/tensor_parallel.py --steps 5
"""


@click.command(cls=FirstRankSpeaks, epilog=EXAMPLES, context_settings={"show_default": True})
@size_options(steps=40, context=128, width=128, layers=2, heads=4, batch_size=8)
@source_options(vocabulary=4096)
@click.option("--wrap", type=click.Choice(["fsdp", "ddp"]), default="fsdp", help="Of the body.")
@seed_option
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
    wrap: str,
    json_file: Path | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a small transformer on ranks that share its classifier, and compare with one process.

    Started by torchrun, each rank with one thread; without it there is one rank. Shown are the loss
    in nats of both trainings, and by how much they differ; more than 1e-5 nats in any step is
    exit code 1.

    Bad input is exit code 2, Ctrl-C is 130; torchrun makes 1 of all of them.
    """
    try:
        check_options(ctx)
        _check_ranks(settings["batch_size"])
        source = Source(text, suffix, vocabulary, as_bytes)
        of_run = Settings(**settings, micro_batches=1, loss="linear")
        with threads_of_torch(1), torch.random.fork_rng(devices=[]), all_ranks() as group:
            document = run(source, of_run, wrap, group, quiet)
        if document is None:  # rank 0 has it
            return
        if json_file is not None:
            json_file.write_text(json.dumps(document, allow_nan=False, indent=1) + "\n")
        if not agrees(document):
            raise click.ClickException("These are two curves. " + verdict(document))
    except (FloatingPointError, OSError) as error:  # diverged; the disk is full
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        if place()[0] == 0:
            click.echo("Interrupted; nothing was kept.", err=True)
        ctx.exit(130)


def _check_ranks(batch_size: int) -> None:
    ranks = place()[1]
    if batch_size % ranks:
        raise BadInput(
            f"--batch-size {batch_size} cannot be shared by {ranks} ranks; "
            "expected a multiple of that."
        )


if __name__ == "__main__":
    main()
