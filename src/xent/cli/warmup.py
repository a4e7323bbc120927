"""``xent warmup``: compiles the kernels of this machine ahead of their first use."""

from __future__ import annotations

import time

import click
import torch

DTYPES = ("float32", "bfloat16", "float16", "float64")


@click.command(short_help="Compile the CPU kernels ahead of their first use.")
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(DTYPES),
    multiple=True,
    default=("float32", "bfloat16"),
    show_default=True,
    help="Of the logits; may be repeated.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
def warmup(dtypes: tuple[str, ...], quiet: bool) -> None:
    """Compile the CPU kernels for the usual options, so that no first call has to wait.

    They are kept on disk, beside the package or in the user's cache folder (NUMBA_CACHE_DIR names
    another), for all later processes. What is compiled already takes no time.
    """
    from xent.backends.numba.compilation import announcement
    from xent.backends.numba.warmup import CASES, compile_kernels
    from xent.cli.console import progress_bar

    announcement.said = True  # the bar says it

    start = time.perf_counter()
    with progress_bar(quiet=quiet) as progress:
        task = progress.add_task("compiling", total=len(dtypes) * len(CASES))
        for dtype in dict.fromkeys(dtypes):
            for case in compile_kernels(getattr(torch, dtype)):
                progress.update(task, advance=1, description=case)
            _warm_small_batches(getattr(torch, dtype))
    seconds = time.perf_counter() - start
    click.echo(f"The kernels for {', '.join(dtypes)} are ready ({seconds:.0f} s).")


def _warm_small_batches(dtype: torch.dtype) -> None:
    """Small batches of a dtype that has kernels of their own for them."""
    import xent

    targets = (torch.zeros(2, dtype=torch.int64), torch.ones((2, 3), dtype=dtype))
    for target in targets:
        for weight in (None, torch.ones(3, dtype=dtype)):
            for smoothing in (0.0, 0.1):
                for learns in (False, True):
                    logits = torch.zeros((2, 3), dtype=dtype, requires_grad=learns)
                    loss = xent.cross_entropy(logits, target, weight, label_smoothing=smoothing)
                    if learns:
                        loss.backward()  # type: ignore[no-untyped-call]  # torch's
