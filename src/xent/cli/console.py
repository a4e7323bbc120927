"""Where the commands print: with colour where it is welcome, and never too wide to read."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

WIDEST = 100


def console(*, stderr: bool = False) -> Console:
    """A console that leaves colour to terminals, and to none if NO_COLOR is set."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # a terminal without block characters shows "?"
    terminal = Console(
        stderr=stderr,
        highlight=False,
        # Without a color system there is no bold either: not one escape sequence in the text.
        color_system=None if os.environ.get("NO_COLOR") else "auto",
    )
    terminal.width = min(terminal.width, WIDEST)
    return terminal


def progress_bar(
    *columns: ProgressColumn, quiet: bool, terminal: Console | None = None, **options: Any
) -> Progress:
    """A bar on stderr, or on ``terminal``, that is gone when it is done.

    There is none if ``quiet``, or where nobody watches. ``auto_refresh=False`` leaves it to the
    caller to refresh: rich's own thread would wake up in the middle of what is timed.
    """
    from rich.progress import Progress  # takes a while to import

    terminal = terminal or console(stderr=True)
    disable = quiet or not terminal.is_terminal
    return Progress(*columns, console=terminal, transient=True, disable=disable, **options)
