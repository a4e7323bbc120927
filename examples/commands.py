"""What the commands of the examples have in common: mistakes in one line, and a bar."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from xent.cli.console import progress_bar


class BadInput(click.ClickException):
    """What was given cannot be used; the message says where it is wrong."""

    exit_code = 2


class OneLineErrors(click.Command):
    """A command whose usage errors are one line and exit code 2."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Reads the arguments."""
        try:
            return super().make_context(*args, **options)
        except click.UsageError as error:
            message = " ".join(error.format_message().split())
            raise BadInput(f"{message} Try --help.") from error


threads_option = click.option(
    "--threads",
    type=click.IntRange(1, os.cpu_count() or 1),
    default=os.cpu_count() or 1,
    show_default="all cores",
    help="Threads for torch.",
)


def check_writable(path: Path) -> None:
    """Finds out now, and not after the training, whether a file can be written.

    Raises:
        BadInput: it can't.
    """
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}.") from error


@contextmanager
def training_bar(
    terminal: Console | None, total: int, quiet: bool
) -> Iterator[Callable[[], object]]:
    """A bar on the terminal that shows the lines, else on stderr's; each call is one step."""
    if terminal is not None and not terminal.is_terminal:
        terminal = None
    with progress_bar(quiet=quiet, terminal=terminal, redirect_stdout=False) as progress:
        task = progress.add_task("training", total=total)
        yield lambda: progress.advance(task)
