"""The command ``xent``: a group, its errors in one line, and where to begin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from xent import __version__
from xent.cli.bench import bench
from xent.cli.demo import demo
from xent.cli.explain import explain
from xent.cli.warmup import warmup
from xent.cli.why import why

EXAMPLES = """\b
Examples:
  xent explain --probs 0.1,0.7,0.2 --target 0
                                  a loss and its gradient, number by number
  xent why negatives              why the wrong classes lose probability
  xent demo                       torch's loss and xent's on real digits
  xent demo --epochs 5 --seed 7   a shorter training, another split and start
  xent demo --json > demo.json    everything that was measured
  xent bench --quick              does the benchmark run here?
  xent bench --case 4096x32000    one shape, beside torch and JAX
  xent bench -o a.json --plots b  all shapes: minutes, with figures and plots
"""


@contextmanager
def _in_one_line(group: click.Context | None = None) -> Iterator[None]:
    """Usage errors without click's block of usage: what is wrong, and where to read on."""
    try:
        yield
    except click.UsageError as error:
        command = "xent"
        if error.ctx is not None:
            command = error.ctx.command_path
        elif group is not None and group.invoked_subcommand:  # click's parser forgets its context
            command = f"{group.command_path} {group.invoked_subcommand}"
        message = " ".join(error.format_message().split())
        raise click.UsageError(f"{message} Try '{command} --help'.") from error


class OneLineErrors(click.Group):
    """A group whose usage errors, and those of its commands, are one line and exit code 2."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Reads the arguments of the group itself."""
        with _in_one_line():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Reads the arguments of the command, and runs it."""
        with _in_one_line(ctx):
            return super().invoke(ctx)


@click.group("xent", cls=OneLineErrors, invoke_without_command=True, epilog=EXAMPLES)
@click.version_option(__version__, prog_name="xent")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Cross-entropy for PyTorch: exact, fast, and able to explain itself."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


main.add_command(explain)
main.add_command(why)
main.add_command(demo)
main.add_command(warmup)
main.add_command(bench)
