"""``xent bench``: how fast, and in how much memory, beside torch, torch.compile and JAX."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xent.cli.demo import threads_of_torch
from xent.cli.mistakes import MissingExtra

if TYPE_CHECKING:
    from xent.benchmark.measurement import Plan
    from xent.benchmark.trace import Report

OTHERS = ("torch", "compile", "jax")
ROW_SECONDS, QUICK_SECONDS = 4.0, 0.3


@click.command(short_help="Time and memory beside torch, torch.compile and JAX.")
@click.option("--quick", is_flag=True, help="A few small shapes: does it work at all?")
@click.option("--all", "everything", is_flag=True, help="Every shape with every kind of labels.")
@click.option(
    "--case",
    "names",
    multiple=True,
    metavar="SHAPE",
    help="Only this shape, 4096x32000 for example; may be repeated.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=click.Choice(("xent", *OTHERS)),
    help="Only this one, and xent; may be repeated.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, os.cpu_count() or 1),
    default=os.cpu_count() or 1,
    show_default="all cores",
    help="Cores for each of them.",
)
@click.option("--no-memory", is_flag=True, help="Times only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the JSON document to a file.",
)
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write plots, SVG, to a folder.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
def bench(
    quick: bool,
    everything: bool,
    names: tuple[str, ...],
    peers: tuple[str, ...],
    threads: int,
    no_memory: bool,
    as_json: bool,
    output: Path | None,
    plots: Path | None,
    quiet: bool,
) -> None:
    """Measure the cross-entropy of xent, torch, torch.compile and JAX in one run, in turn.

    Every answer is compared with float64 before it is timed. Times stand beside the floor: what
    reading the input and writing the gradient costs on this machine. Memory is measured in fresh
    processes.

    Exit code 1 if xent's own answer is wrong.
    """
    from xent.benchmark.measurement import WrongLossError, measured

    plan = _plan(quick, everything, names, peers, memory=not no_memory)
    _check_places(output, plots)
    try:
        with _cores(threads), threads_of_torch(threads), _progress(plan.steps, quiet) as on_step:
            report = measured(plan, _command(), on_step)
    except WrongLossError as error:
        raise click.ClickException(str(error)) from error
    _hand_over(report, as_json, output, plots)


def _plan(
    quick: bool, everything: bool, names: tuple[str, ...], peers: tuple[str, ...], memory: bool
) -> Plan:
    from xent.benchmark import cases
    from xent.benchmark.measurement import Plan

    if quick and everything:
        raise click.UsageError("--quick and --all exclude each other.")
    given = cases.QUICK if quick else cases.everything() if everything else cases.default()
    try:
        chosen = cases.chosen(given, names)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--case") from error
    seconds = QUICK_SECONDS if quick else ROW_SECONDS
    wanted = tuple(peer for peer in OTHERS if not peers or peer in peers)
    if memory:
        return Plan(chosen, ("xent", *wanted), seconds)
    return Plan(chosen, ("xent", *wanted), seconds, memory=lambda _: False)


def _check_places(output: Path | None, plots: Path | None) -> None:
    """What would fail at the end fails before the measurement."""
    if output is not None and not os.access(output.parent, os.W_OK):
        raise click.BadParameter(f"cannot write to {output.parent}", param_hint="--output")
    if plots is None:
        return
    try:
        from matplotlib.figure import Figure  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise MissingExtra("--plots needs matplotlib: pip install 'xent[bench]'") from error
    try:
        plots.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(f"cannot make {plots}", param_hint="--plots") from error


def _command() -> str:
    """The command as it was given, without the program's folder."""
    context = click.get_current_context()
    options = []
    for parameter in context.command.params:
        value = context.params[parameter.name or ""]
        source = context.get_parameter_source(parameter.name or "")
        if source is None or source.name != "COMMANDLINE":
            continue
        name = parameter.opts[0]
        values = value if parameter.multiple else (value,)
        options += [name] if value is True else [f for v in values for f in (name, str(v))]
    return shlex.join(["xent", "bench", *options])


@contextmanager
def _cores(threads: int) -> Iterator[None]:
    """Holds every library to as many cores, where the system can: JAX has no option of its own."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _progress(steps: int, quiet: bool) -> Iterator[Callable[[str], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    from xent.cli.console import progress_bar

    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with progress_bar(*columns, quiet=quiet, auto_refresh=False) as progress:
        task = progress.add_task("", total=steps, completed=-1)

        def on_step(what: str) -> None:
            progress.update(task, advance=1, description=what)
            progress.refresh()

        yield on_step


def _hand_over(report: Report, as_json: bool, output: Path | None, plots: Path | None) -> None:
    from xent.benchmark.files import write

    document = json.dumps(report.document(), allow_nan=False, indent=1)
    if output is not None:
        write(output, document + "\n")
    if plots is not None:
        from xent.benchmark.plots import plots as drawn

        for name, picture in drawn(report).items():
            write(plots / f"{name}.svg", picture)
    if as_json:
        click.echo(document)
        return
    from xent.benchmark.drawing import draw
    from xent.cli.console import console

    draw(report, console())
