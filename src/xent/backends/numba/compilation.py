"""How kernels are compiled: without the interpreter's lock, and once for all processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles a function when it is first called, for each combination of argument types.

    What was compiled is kept on disk, beside this file or, if that can't be written, in the
    user's cache folder. Numba would compile again when the function's own file changes; what
    counts is any change in this room, for one kernel is made of several files.
    """
    compiled = njit(nogil=True, cache=True)(function)
    compiled._cache._cache_file._source_stamp = _sources()
    return compiled


@cache
def _sources() -> str:
    """A fingerprint of the room."""
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(text).hexdigest()
