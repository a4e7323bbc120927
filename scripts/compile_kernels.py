"""Compiles the GPU kernels on a machine without a GPU, and reports what each of them takes.

Usage: python scripts/compile_kernels.py [--json] [--target NAME ...] [--only TEXT] [--keep FOLDER]

The kernels are those that ``xent`` would launch for some usual tensors: the launch itself is
caught and its arguments are handed to the compiler. Ends with 1 if one of them spills registers or
wants more shared memory than its target has.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

os.environ["TRITON_INTERPRET"] = "0"  # decided when kernels are imported
os.environ.setdefault("TRITON_CACHE_DIR", tempfile.mkdtemp())  # a cached kernel has no report

import click
import torch
import triton
from rich.console import Console
from rich.table import Table
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from xent.backends.triton import gradients, launch, predictions, sums, tiles
from xent.contract.rows import Coefficients, Rows

PROGRAMS = 4 * 132


class Target(NamedTuple):
    """A kind of device."""

    gpu: GPUTarget
    shared_bytes: int
    """What a program may have of shared memory."""


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 166_912),
    "sm_90": Target(GPUTarget("cuda", 90, 32), 232_448),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 65_536),
}
KERNELS = {
    "statistics": sums,
    "joined_statistics": sums,
    "gradient": gradients,
    "predictions": predictions,
}
_TYPES = {
    torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.float64: "*fp64",
    torch.int64: "*i64", torch.bool: "*i1",
}  # fmt: skip


class Launch(NamedTuple):
    """A kernel, and the arguments it is launched with."""

    kernel: str
    arguments: dict[str, Any]
    warps: int


class Compiled(NamedTuple):
    """What a compiled kernel takes."""

    case: str
    kernel: str
    target: str
    registers: int
    spills: int
    shared_bytes: int
    shared_limit: int
    widest_load: int
    """Bytes that a thread reads at once, at most; 0 where the assembly does not tell."""

    @property
    def fits(self) -> bool:
        """Whether nothing is spilled, and there is enough shared memory."""
        return self.spills == 0 and self.shared_bytes <= self.shared_limit


@contextmanager
def caught() -> Iterator[list[Launch]]:
    """What is launched within, instead of launching it; a device is pretended to be there."""
    launches: list[Launch] = []
    kept = {name: getattr(module, name) for name, module in KERNELS.items()}
    wanted = tiles.programs_wanted

    class Catcher:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: Any) -> Any:
            def launch_(*values: Any, num_warps: int = 4, **named: Any) -> None:
                names = kept[self.name].arg_names
                arguments = dict(zip(names, values, strict=False)) | named
                launches.append(Launch(self.name, arguments, num_warps))

            return launch_

    try:
        tiles.programs_wanted = lambda _: PROGRAMS
        for name, module in KERNELS.items():
            setattr(module, name, Catcher(name))
        yield launches
    finally:
        tiles.programs_wanted = wanted
        for name, module in KERNELS.items():
            setattr(module, name, kept[name])


def cases() -> Iterator[tuple[str, Rows, bool]]:
    """Tensors of the usual kinds, in name only; whether uniform is asked for."""
    for dtype in (torch.bfloat16, torch.float32):
        for shape in (
            (8192, 32000, 1), (4096, 50257, 1), (65536, 1000, 1), (65536, 10, 1), (4, 128256, 1),
            (8, 21, 1024 * 1024),
        ):  # fmt: skip
            yield from _cases_of(shape, dtype)
    yield from _cases_of((8192, 32000, 1), torch.float16)


def _cases_of(shape: tuple[int, int, int], dtype: torch.dtype) -> Iterator[tuple[str, Rows, bool]]:
    outer, classes, inner = shape
    logits = torch.empty(shape, dtype=dtype, device="meta")
    index = torch.empty((outer, inner), dtype=torch.int64, device="meta")
    valid = torch.empty((outer, inner), dtype=torch.bool, device="meta")
    weight = torch.empty(classes, device="meta")
    q = torch.empty_like(logits)
    name = f"{'×'.join(map(str, shape[: 2 if inner == 1 else 3]))} {str(dtype)[6:]}"
    yield f"{name}, labels", Rows(logits, index), False
    all_of_it = Rows(logits, index, None, weight, valid)
    yield f"{name}, labels, ignored, smoothed, weighed", all_of_it, True
    yield f"{name}, probabilities", Rows(logits, None, q, None, valid), False
    yield f"{name}, probabilities, smoothed, weighed", Rows(logits, None, q, weight, valid), True


def launches_of(rows: Rows, with_uniform: bool) -> list[Launch]:
    """All that a loss of these rows launches."""
    with caught() as launches:
        vectors = launch.statistics(rows, with_uniform)
        of_label = None if rows.target is None else vectors.rest
        of_cross = None if rows.probabilities is None else vectors.rest
        even = vectors.rest if with_uniform else None
        launch.logit_gradient(rows, vectors, Coefficients(None, of_label, even, of_cross))
        launch.prediction(rows, vectors)
    return launches


def compiled(case: str, launched: Launch, target: str, keep: Path | None = None) -> Compiled:
    """Compiles a kernel for a target."""
    kernel = getattr(KERNELS[launched.kernel], launched.kernel)
    signature, constants, attributes = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        value = launched.arguments[name]
        if kernel.params[i].is_constexpr or value is None or (type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = _TYPES[value.dtype]
            attributes[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32" if -(1 << 31) <= value < 1 << 31 else "i64"
            if value % 16 == 0:
                attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    gpu, limit = TARGETS[target]
    made = triton.compile(source, target=gpu, options={"num_warps": launched.warps})
    if keep:
        for kind in ("ttgir", "ptx", "amdgcn"):
            if kind in made.asm:
                (keep / f"{launched.kernel}.{target}.{case}.{kind}").write_text(made.asm[kind])
    registers, spills = _nvidia(made) if gpu.backend == "cuda" else _amd(made)
    return Compiled(
        case, launched.kernel, target, registers, spills, made.metadata.shared, limit,
        _widest_load(made.asm.get("ptx", "")),
    )  # fmt: skip


def _nvidia(made: Any) -> tuple[int, int]:
    """Registers of a thread, and bytes of its stack: what did not fit into them."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    assert found, said
    return int(found[1]), int(found[2])


def _amd(made: Any) -> tuple[int, int]:
    text = made.asm["amdgcn"]
    count, spilled = (
        re.search(rf"\.{name}:\s+(\d+)", text) for name in ("vgpr_count", "vgpr_spill_count")
    )
    assert count, text
    assert spilled, text
    return int(count[1]), int(spilled[1])


def _widest_load(ptx: str) -> int:
    loads = re.findall(r"ld\.global(?:\.[a-zA-Z0-9_:]+)*?(?:\.v(\d))?\.b(\d+)", ptx)
    return max((int(count or 1) * int(bits) // 8 for count, bits in loads), default=0)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.option("--target", "names", multiple=True, type=click.Choice(list(TARGETS)))
@click.option("--only", default="", help="Cases whose name holds this text.")
@click.option("--keep", type=click.Path(path_type=Path), help="A folder for the assembly.")
def main(as_json: bool, names: tuple[str, ...], only: str, keep: Path | None) -> None:
    """Compile the GPU kernels for some targets, and report registers, memory and spills."""
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
    results = [
        compiled(case, launched, target, keep)
        for case, rows, with_uniform in cases()
        if only in case
        for launched in launches_of(rows, with_uniform)
        for target in names or TARGETS
    ]
    if as_json:
        click.echo(json.dumps([result._asdict() | {"fits": result.fits} for result in results]))
    else:
        console = Console()
        for case in dict.fromkeys(result.case for result in results):
            table = Table(
                "kernel", "target", "registers", "spills", "shared", "widest load", title=case
            )
            for r in (r for r in results if r.case == case):
                shared = f"{r.shared_bytes} of {r.shared_limit}"
                table.add_row(*map(str, (*r[1:5], shared, r.widest_load or "?")))
            console.print(table)
    sys.exit(not all(result.fits for result in results))


if __name__ == "__main__":
    main()
