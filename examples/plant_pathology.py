"""Plant Pathology 2020: a residual network on leaves, trained with ``xent.DenseCrossEntropy``.

The competition's data stands in one folder: ``train.csv`` with an ``image_id`` and a probability
per class in each line, and ``images/<image_id>.jpg``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import torch
from click.core import ParameterSource

from commands import BadInput, OneLineErrors, check_writable, threads_option
from plants_run import Place, run
from plants_training import Settings
from resnet import BLOCKS
from xent.cli.demo import threads_of_torch

EXAMPLES = """\b
Examples:
  python examples/plant_pathology.py --data DIR
  python examples/plant_pathology.py --data DIR --checkpoint plants.pt
  python examples/plant_pathology.py --data DIR --checkpoint plants.pt --resume
  python examples/plant_pathology.py --data DIR --model resnet34 --size 128
  python examples/plant_pathology.py --data DIR --json > run.json
"""


@click.command(cls=OneLineErrors, epilog=EXAMPLES, context_settings={"show_default": True})
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder with train.csv and images/.",
)
@click.option("--model", type=click.Choice(list(BLOCKS)), default="resnet18")
@click.option("--epochs", type=click.IntRange(min=1), default=80, help="Passes over the images.")
@click.option("--batch-size", type=click.IntRange(min=4), default=32, help="Images a step.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    help="Of the split, the start, and all that is drawn.",
)
@threads_option
@click.option("--size", type=click.IntRange(16, 1024), default=96, help="Side of an image, pixels.")
@click.option(
    "--mixup",
    type=click.FloatRange(0, 100),
    default=0.2,
    metavar="ALPHA",
    help="Mix images and labels with shares from Beta(ALPHA, ALPHA); 0 does not.",
)
@click.option(
    "--val-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    help="Share of each class that is held out.",
)
@click.option(
    "--explain",
    type=click.IntRange(min=0),
    default=3,
    metavar="K",
    help="Explain the K held-out images with the highest losses.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep the state of the run there after every epoch.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from FILE, with its settings: the same figures as without the interruption.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the run as one JSON document.")
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
@click.pass_context
def main(
    ctx: click.Context,
    /,
    data: Path,
    threads: int,
    explain: int,
    checkpoint: Path | None,
    resume: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a residual network on the leaves of Plant Pathology 2020, from scratch.

    The loss is xent.DenseCrossEntropy on the label columns, as in the Kaggle kernels; mixup makes
    the labels soft. Shown are the losses in nats and the accuracy after every epoch, the accuracy
    by class, and why the worst held-out images cost what they cost.

    Bad input is exit code 2, Ctrl-C is 130 and leaves the last checkpoint whole.
    """
    place = Place(data, checkpoint, resume, as_json, quiet, explain)
    try:
        _check_checkpoint(checkpoint, resume)
        with threads_of_torch(threads), torch.random.fork_rng(devices=[]):
            document = run(place, Settings(**settings), _explicit(ctx))
    except (FloatingPointError, OSError) as error:  # diverged; the disk is full
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo(_interrupted(checkpoint), err=True)
        ctx.exit(130)
    if as_json:
        click.echo(json.dumps(document, allow_nan=False, indent=1))


def _check_checkpoint(path: Path | None, resume: bool) -> None:
    """Says now, and not after the first epoch, that nothing can be written there."""
    if path is None:
        if resume:
            raise BadInput("--resume needs --checkpoint FILE, to go on from there.")
        return
    if path.exists() and not resume:
        raise BadInput(f"{path} exists; --resume goes on from it, another name begins another run.")
    check_writable(path)


def _explicit(ctx: click.Context) -> list[str]:
    """The settings that were asked for by name."""
    names = Settings.__dataclass_fields__
    return [n for n in names if ctx.get_parameter_source(n) is not ParameterSource.DEFAULT]


def _interrupted(checkpoint: Path | None) -> str:
    if checkpoint is None:
        return "Interrupted; without --checkpoint nothing was kept."
    if not checkpoint.exists():
        return f"Interrupted before the first epoch was kept in {checkpoint}."
    return f"Interrupted; {checkpoint} is whole, and --resume goes on from it."


if __name__ == "__main__":
    main()
