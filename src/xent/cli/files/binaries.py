"""Logits as numpy, torch and safetensors write them; nothing is unpickled but tensors by torch."""

from __future__ import annotations

import math
import pickle
import reprlib
import zipfile
from typing import IO, Any, BinaryIO

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from xent.cli.arrays import class_names
from xent.cli.files import nested
from xent.cli.files.keys import place, roles
from xent.cli.files.opening import loading, require_size
from xent.cli.mistakes import BadInput, MissingExtra
from xent.contract.errors import mistake

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
NUMBERS = "float16, float32, float64 or integers"
FIRST_BYTES_OF_ZIP = b"PK\x03\x04"


def read_npy(file: BinaryIO, name: str) -> dict[str, Any]:
    """Reads one array as ``numpy.save`` writes it: the logits."""
    held = file.seek(0, 2)
    file.seek(0)
    with loading(name, "an array as numpy.save writes it"):
        return {"logits": _numbers(_array(file, held, name), name)}


def read_npz(file: BinaryIO, name: str) -> dict[str, Any]:
    """Reads arrays as ``numpy.savez`` and ``numpy.savez_compressed`` write them."""
    entries: dict[str, Any] = {}
    with loading(name, "arrays as numpy.savez writes them"), _archive(file, name) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise mistake(BadInput, name, expected="each array once", got="two of one name")
        for meaning, key in roles(members, name).items():
            member = members[str(key)]
            called = place(name, key)
            with loading(called, "an array of numpy"), archive.open(member) as stream:
                found = _array(stream, member.file_size, called)
            read = _strings if meaning == "names" else _numbers
            entries[meaning] = read(found, called)
    return entries


def read_pt(file: BinaryIO, name: str) -> dict[str, Any]:
    """Reads a tensor or a dict of tensors as ``torch.save`` writes them."""
    remedy = "Save tensors only: torch.save({'logits': logits, 'target': target}, path)."
    with loading(name, "tensors as torch.save writes them since torch 1.6", remedy):
        if file.read(4) != FIRST_BYTES_OF_ZIP:
            # What torch wrote before does not say how large it is before it is unpickled.
            raise ValueError("another format")
        _archive(file, name).close()
        file.seek(0)
        try:
            document = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError("a pickle that torch does not read as tensors alone") from error
        if not isinstance(document, dict):
            return {"logits": _tensor(document, name)}
        return _values(document, name)


def read_safetensors(file: BinaryIO, name: str) -> dict[str, Any]:
    """Reads tensors as ``safetensors.torch.save_file`` writes them."""
    try:
        from safetensors.torch import load
    except ImportError as error:
        raise MissingExtra(f"{name} needs safetensors: pip install 'xent[files]'") from error
    with loading(name, "tensors as safetensors writes them"):
        # Bytes and not a path: mapped memory would follow the file when someone writes to it.
        return _values(load(file.read()), name)


def _archive(file: BinaryIO, name: str) -> zipfile.ZipFile:
    """Opens a zip whose members fit into memory, by what its directory says of them."""
    archive = zipfile.ZipFile(file)
    require_size(sum(member.file_size for member in archive.infolist()), f"{name}, unpacked")
    return archive


def _array(stream: IO[bytes], held: int, name: str) -> Any:
    """Loads an array of numpy, if its header promises as many bytes as follow it."""
    start = stream.tell()
    version = npy.read_magic(stream)
    if version not in HEADERS:  # 3.0 has structured arrays only
        raise ValueError(f"version {version} of the format")
    shape, _, dtype = HEADERS[version](stream)
    if dtype.hasobject or dtype.kind not in "fiuU" or not dtype.itemsize:
        raise _unsupported(name, _dtype(dtype))
    promised, following = math.prod(shape) * dtype.itemsize, held - stream.tell()
    if promised != following:
        raise mistake(
            BadInput,
            name,
            expected=f"{promised} bytes for {_dtype(dtype)} of shape {shape}",
            got=str(following),
            remedy="Was it cut off? Save it again." if promised > following else "",
        )
    stream.seek(start)
    return np.load(stream, allow_pickle=False)


def _numbers(array: Any, name: str) -> Tensor:
    if array.dtype.kind == "U" or array.dtype.itemsize > 8:
        raise _unsupported(name, _dtype(array.dtype))
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _strings(array: Any, name: str) -> tuple[str, ...]:
    if array.dtype.kind != "U" or array.ndim != 1:
        raise mistake(
            BadInput,
            name,
            expected="strings in one row, such as numpy.array(['cat', 'dog'])",
            got=f"{_dtype(array.dtype)} of shape {array.shape}",
        )
    return class_names(array.tolist(), name)


def _dtype(dtype: Any) -> str:
    if dtype.hasobject:
        return "Python objects"
    if dtype.kind == "U":
        return "strings"
    return "structured values" if dtype.kind == "V" else str(dtype.newbyteorder("="))


def _unsupported(name: str, got: str) -> BadInput:
    remedy = {
        "Python objects": "Nothing is unpickled: make numbers or strings of them and save these.",
        "structured values": "Save bfloat16 with torch or safetensors, and fields one by one.",
    }
    return mistake(BadInput, name, expected=NUMBERS, got=got, remedy=remedy.get(got, ""))


def _values(document: dict[Any, Any], name: str) -> dict[str, Any]:
    """What stands under the keys of a dict: tensors, and lists of numbers or names beside them."""
    entries: dict[str, Any] = {}
    for meaning, key in roles(document, name).items():
        value, called = document[key], place(name, key)
        if meaning == "names":
            entries[meaning] = nested.names(value, called)
        elif isinstance(value, int | float | list | tuple):
            entries[meaning] = nested.tensor(value, called, whole=meaning == "target")
        else:
            entries[meaning] = _tensor(value, called)
    return entries


def _tensor(value: Any, name: str) -> Tensor:
    """A dense tensor, of a size that can be computed with."""
    if not isinstance(value, Tensor):
        raise mistake(
            BadInput, name, expected="a tensor", got=f"a {reprlib.repr(type(value).__name__)}"
        )
    if value.is_quantized or value.is_nested or value.layout != torch.strided or value.is_meta:
        raise mistake(
            BadInput,
            name,
            expected="a dense tensor",
            got="one that is sparse, nested, quantized or without values",
            remedy="Save tensor.to_dense(), or tensor.dequantize().",
        )
    require_size(value.numel() * value.element_size(), name)  # an expanded one is small in a file
    return value.detach()
