"""Where the commands print: with colour where it is welcome, and never too wide to read."""

from __future__ import annotations

import io
import os
import sys

from rich.console import Console

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
