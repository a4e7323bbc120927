"""``xent demo``: torch's loss and xent's train on real digits, side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import torch

from xent.cli.mistakes import MissingExtra


@click.command(short_help="Train on real digits: torch's loss and xent's, side by side.")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Passes over the training images.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Of the split, the start and the batches.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, os.cpu_count() or 1),
    default=1,  # the model is too small for more, and a second busy program would disturb two
    show_default=True,
    help="Threads for torch.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print what was measured as one JSON document."
)
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
@click.pass_context
def demo(
    ctx: click.Context, epochs: int, seed: int, threads: int, as_json: bool, quiet: bool
) -> None:
    """Train on handwritten digits with torch's loss and with xent's, side by side.

    The same small classifier is trained three times, from the same start and on the same batches:
    with torch's loss, with xent's, and with xent's on soft labels. Shown are the loss curves,
    the accuracy on held-out digits, the time spent in the loss, and the gradient of the digit
    that was hardest to read.

    Exit code 1 if the curves of torch and xent differ by more than is promised.
    """
    _require_extra()
    from xent.cli.drawing import draw
    from xent.cli.training import experiment

    try:
        with threads_of_torch(threads), _progress(epochs, quiet) as on_epoch:
            outcome = experiment(epochs, seed, on_epoch)
    except FloatingPointError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(outcome.document(), allow_nan=False))
    else:
        draw(outcome)
    if not outcome.agrees:
        ctx.exit(1)


def _require_extra() -> None:
    missing = []
    try:
        from sklearn.datasets import load_digits  # noqa: F401  # only whether it is there
    except ImportError:
        missing.append("scikit-learn")
    try:
        from plotext import figure  # noqa: F401  # plotext has it since version 6
    except ImportError:
        missing.append("plotext")
    if missing:
        needed = " and ".join(missing)
        raise MissingExtra(f"xent demo needs {needed}: pip install 'xent[demo]'")


@contextmanager
def threads_of_torch(threads: int) -> Iterator[None]:
    """Lets torch use so many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _progress(epochs: int, quiet: bool) -> Iterator[Callable[[], None]]:
    from xent.cli.console import progress_bar

    with progress_bar(quiet=quiet, auto_refresh=False) as progress:
        task = progress.add_task("training", total=epochs)

        def on_epoch() -> None:
            progress.advance(task)
            progress.refresh()

        yield on_epoch
