"""Which files are opened at all, how large they may be, and what a loader's failure becomes."""

from __future__ import annotations

import reprlib
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from xent.cli.arrays import shown
from xent.cli.mistakes import BadInput
from xent.contract.errors import mistake

LARGEST = 4 * 2**30
"""Bytes, of a file and of what it says to unpack to: float32 logits of 8,192 positions and 131,072
classes, far more than anyone reads about. A loader may hold them twice, and a laptop has 16 GiB."""

# "0," is two bytes of text; as an element of a Python list it is a pointer and a float, 32 bytes.
TEXT_GROWS = 16


def opened(path: Path) -> BinaryIO:
    """Opens a regular file; a pipe or a device would hang, or never end."""
    name = shown(path)
    with _reachable(name):
        mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise mistake(
            BadInput, name, expected="a file", got="a folder", remedy="Name a file in it."
        )
    if not stat.S_ISREG(mode):
        raise mistake(
            BadInput,
            name,
            expected="a regular file",
            got="a pipe, a device or a socket",
            remedy="Save what it gives to a file first.",
        )
    with _reachable(name):
        return path.open("rb")


@contextmanager
def _reachable(name: str) -> Iterator[None]:
    """What the system says of a path that leads nowhere, in one line."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        got, remedy = reason(error), "Check the path."
        if isinstance(error, FileNotFoundError):
            got = "none of this name"
        elif isinstance(error, PermissionError):
            got, remedy = "no permission", "Check its mode, and those of its folders."
        raise mistake(BadInput, name, expected="a file to read", got=got, remedy=remedy) from error


def require_size(size: int, name: str, *, text: bool = False) -> None:
    """Refuses what is larger than can be read with ease, before it is read."""
    most = LARGEST // TEXT_GROWS if text else LARGEST
    if size > most:
        raise mistake(
            BadInput,
            name,
            expected=f"at most {most // 2**20} MiB{' of text' if text else ''}",
            got=f"{-(-size // 2**20)} MiB",
            remedy="Cut the rows that are wanted out of the file, and save only these.",
        )


@contextmanager
def loading(name: str, expected: str, remedy: str = "") -> Iterator[None]:
    """Turns whatever a loader raises into one line.

    Loaders are fed bytes of any kind here, and no list of what they raise exists: decompression,
    unpickling and header parsing alone have a dozen exceptions, MemoryError among them.
    """
    with warnings.catch_warnings():
        # Loaders warn of old headers, deprecated storages and layouts. What is read is checked
        # afterwards, and whoever reads it here cannot change how it was written.
        warnings.simplefilter("ignore")
        try:
            yield
        except BadInput:
            raise
        except Exception as error:
            raise mistake(
                BadInput, name, expected=expected, got=reason(error), remedy=remedy
            ) from error


def reason(error: Exception) -> str:
    """What an exception says, cut to one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    words = shown(" ".join(said.split())).removesuffix(".")
    if not words or isinstance(error, KeyError | MemoryError | RecursionError):
        return f"a failure to load it ({type(error).__name__})"
    return words if len(words) <= 160 else f"{words[:159]}…"


def decoded(file: BinaryIO, name: str) -> str:
    """The text of a file, with or without a byte order mark."""
    data = file.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise mistake(
            BadInput,
            name,
            expected="text in UTF-8",
            got=f"the bytes {reprlib.repr(data[error.start : error.start + 4])}"
            f" at position {error.start}",
            remedy="Save it as UTF-8.",
        ) from error
