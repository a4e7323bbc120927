"""Mistakes of whoever typed the command: one line, and exit code 2."""

from __future__ import annotations

import click


class BadInput(click.UsageError):
    """Something typed in, or a file, that cannot be read."""


class MissingExtra(click.ClickException):
    """A package that is not installed; the message names the command that installs it."""

    exit_code = 2
