"""A file of logits: which format it has, and what may stand in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from xent.cli.arrays import shown
from xent.cli.files.binaries import read_npy, read_npz, read_pt, read_safetensors
from xent.cli.files.opening import opened, require_size
from xent.cli.files.texts import read_csv, read_json
from xent.cli.mistakes import BadInput
from xent.contract.errors import mistake, plain, shape

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)
TEXTS: dict[str, Callable[[BinaryIO, str], dict[str, Any]]] = {
    ".csv": read_csv,
    ".json": read_json,
}
READERS = {
    ".npy": read_npy,
    ".npz": read_npz,
    **TEXTS,
    ".pt": read_pt,
    ".pth": read_pt,
    ".safetensors": read_safetensors,
}


@dataclass(frozen=True)
class LabelledLogits:
    """What a file holds.

    Attributes:
        logits: Floating point: ``(C)``, ``(N, C)``, ``(N, C, d1, …)`` or, for the binary loss, any
            shape. float64 out of text, float32 where integers stood in a binary file.
        target: Integers, or floating-point probabilities, as they were found; all are finite.
        weight: A weight for each class, floating point.
        names: Class names, no two the same.
    """

    logits: Tensor
    target: Tensor | None = None
    weight: Tensor | None = None
    names: tuple[str, ...] | None = None


def read_labelled_logits(path: Path) -> LabelledLogits:
    """Reads logits and, where the format has names for them, target, weight and class names.

    The suffix says the format: ``.npy`` (logits alone), ``.npz``, ``.csv``, ``.json``, ``.pt``,
    ``.pth`` and ``.safetensors``. Keys are ``logits|input``, ``target|targets|label|labels``,
    ``weight|weights`` and ``names|class_names|classes``; a single array of any other name is the
    logits. Whether shapes and the number of names match is for the caller to say: only it knows
    the axis of the classes.

    Args:
        path: A regular file of at most 4 GiB, unpacked as well as packed; text of a sixteenth.

    Returns:
        Tensors on the CPU.

    Raises:
        BadInput: If there is no such file or it holds something else; the line says what.
        MissingExtra: If the package that reads the format is not installed.
    """
    name = shown(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise mistake(
            BadInput,
            name,
            expected=f"a file whose name ends in {', '.join(READERS)}",
            got=shown(suffix) if suffix else "no suffix",
        )
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise mistake(BadInput, name, expected="logits", got="an empty file")
        require_size(size, name, text=suffix in TEXTS)
        entries = READERS[suffix](file, name)
    return LabelledLogits(
        logits=_floating(entries["logits"], f"{name}: logits"),
        target=_labels(entries.get("target"), f"{name}: target"),
        weight=None if "weight" not in entries else _floating(entries["weight"], f"{name}: weight"),
        names=entries.get("names"),
    )


def _floating(found: Tensor, name: str) -> Tensor:
    _require_numbers(found, name)
    return found.float() if found.dtype in INTEGERS else found


def _labels(found: Tensor | None, name: str) -> Tensor | None:
    if found is None:
        return None
    _require_numbers(found, name)
    if found.dtype in FLOATS and not found.isfinite().all():
        place = (~found.isfinite()).nonzero()[0].tolist()
        raise mistake(
            BadInput,
            f"{name}{place if place else ''}",
            expected="class indices, or finite probabilities",
            got=str(found[tuple(place)].item()),
        )
    return found


def _require_numbers(found: Tensor, name: str) -> None:
    if found.dtype not in FLOATS + INTEGERS:
        raise mistake(
            BadInput,
            name,
            expected="float16, bfloat16, float32, float64 or integers",
            got=plain(found.dtype),
        )
    if not found.numel():
        raise mistake(BadInput, name, expected="at least one number", got=f"shape {shape(found)}")
