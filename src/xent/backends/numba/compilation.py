"""How kernels are compiled: without the interpreter's lock, and once for all processes."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import config, njit, types
from numba.core import event
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set, and the kernels make no sense uncompiled")

PATIENCE = 1.0  # seconds of silence


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles a function when it is first called, for each combination of argument types.

    What was compiled is kept on disk, beside this file or, if that can't be written, in the
    user's cache folder. Numba would compile again when the function's own file changes; what
    counts is any change in this room, for one kernel is made of several files.
    """
    compiled = njit(nogil=True, boundscheck=False)(function)
    try:
        compiled.enable_caching()
    except RuntimeError:  # neither can be written: each process compiles its own
        announcement.kept = False
    else:
        compiled._cache._cache_file._source_stamp = _sources()
    return compiled


@cache
def _sources() -> str:
    """A fingerprint of the room."""
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(text).hexdigest()


# Numba leaves out what stands under `if x is not None` when the argument x is None, but a function
# that returns None in one branch and a number in another makes both possible. These don't.


@intrinsic
def given(_typing: Any, argument: Any, value: Any) -> Any:
    """The value, or None if the argument is None."""
    if isinstance(argument, types.NoneType):
        return types.none(argument, value), lambda context, *_: context.get_dummy_value()
    return value(argument, value), lambda _context, _builder, _sig, args: args[1]


@intrinsic
def or_zero(_typing: Any, number: Any) -> Any:
    """The number, or 0 if it is None."""
    if isinstance(number, types.NoneType):
        return types.float64(number), lambda *_: ir.Constant(ir.DoubleType(), 0.0)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.cast(builder, args[0], sig.args[0], types.float64)

    return types.float64(number), codegen


class _Announcement(event.Listener):  # type: ignore[misc]  # numba ships no type hints
    """Says once per process what is going on, when kernels take long to compile."""

    def __init__(self) -> None:
        self.depth = 0
        self.said = False
        self.kept = True
        self.timer: threading.Timer | None = None

    def on_start(self, event: Any) -> None:
        """A kernel begins to compile; those that it calls may follow within."""
        if not event.data["dispatcher"].py_func.__module__.startswith(__package__):
            return
        self.depth += 1
        if self.depth == 1 and not self.said:
            self.timer = threading.Timer(PATIENCE, self.say)
            self.timer.daemon = True
            self.timer.start()

    def on_end(self, event: Any) -> None:
        """A kernel is compiled."""
        if not event.data["dispatcher"].py_func.__module__.startswith(__package__):
            return
        self.depth -= 1
        if self.depth == 0 and self.timer is not None:
            self.timer.cancel()

    def say(self) -> None:
        """Tells whoever is waiting."""
        if self.said:
            return
        self.said = True
        kept = "they are kept for the next time. `xent warmup` compiles them ahead."
        nowhere = "there is no folder to keep them in (NUMBA_CACHE_DIR names one)."
        message = f"xent: compiling kernels for this machine; {kept if self.kept else nowhere}"
        print(message, file=sys.stderr)


announcement = _Announcement()
event.register("numba:compile", announcement)

if hasattr(os, "register_at_fork"):  # a child of a thread that compiles would wait for ever
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )
