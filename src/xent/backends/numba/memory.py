"""Memory for large gradients: huge pages, mapped once and used again.

To map fresh memory page by page costs more than to compute a gradient, and an allocator gives
large blocks back to the system as soon as they are free. So large gradients lie in buffers of
huge pages that return to a pool when the last tensor, view, array or storage that sees them is
gone. ``XENT_CACHE_BYTES`` bounds what the pool holds; 0 turns it off.

The pool has no lock. A buffer may return in any thread and at any moment, within a garbage
collection, too; ``append``, ``pop`` and ``remove`` of a list are atomic, and enough.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xent.contract.errors import mistake

SMALLEST = 4 << 20  # bytes; below, the C library keeps its blocks and is as fast
HUGE_PAGE = 2 << 20  # bytes
MOST_SLACK = 1.5  # a buffer may be this many times larger than what is asked for

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def gradient_like(logits: Tensor) -> Tensor:
    """An uninitialised tensor of the shape and dtype of the logits, for their gradient.

    Its memory is used again once nothing sees it. It cannot grow in place: where ``resize_`` needs
    more memory, torch raises RuntimeError.

    Args:
        logits: a tensor of any shape and dtype.

    Returns:
        A tensor with the strides of the logits if they fill their memory without gaps, in any
        order of axes; else contiguous.
    """
    strides = _strides(logits)
    size = logits.numel() * logits.element_size()
    lease = _lease(size) if logits.is_cpu and size >= SMALLEST else None
    if lease is None:
        return torch.empty_strided(logits.shape, strides, dtype=logits.dtype, device=logits.device)
    # `set_` rather than views of the lease: every dtype is the same path, bfloat16 included, and
    # autograd sees a tensor in its own right
    storage = torch.from_numpy(lease).untyped_storage()
    gradient = torch.empty(0, dtype=logits.dtype, device="cpu")
    return gradient.set_(storage, 0, logits.shape, strides)


def empty_cache() -> int:
    """Gives idle buffers back to the system, and returns how many bytes they had."""
    freed = 0
    while _idle:
        try:
            freed += len(_idle.pop())
        except IndexError:  # another thread was faster
            break
    return freed


def cached_bytes() -> int:
    """How many bytes idle buffers have."""
    return sum(map(len, tuple(_idle)))


def _strides(logits: Tensor) -> tuple[int, ...]:
    """The logits' own strides if they fill their memory, else those of a contiguous tensor."""
    if logits.is_contiguous():
        return logits.stride()
    expected = 1
    for stride, size in sorted(zip(logits.stride(), logits.shape, strict=True)):
        if size != 1 and stride != expected:
            return torch.empty(logits.shape, device="meta").stride()
        expected *= size
    return logits.stride()


def _lease(size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]] | None:
    """An array whose death returns its buffer; None where there is no such memory.

    A storage that is made from an array keeps it alive: the array dies after the last tensor.
    """
    buffer = _reused(size) or _mapped(size)
    if buffer is None:
        return None
    lease = np.frombuffer(buffer, dtype=np.uint8, count=size)
    returning = weakref.finalize(lease, _give_back, buffer, _idle)
    returning.atexit = False  # the system takes it all back then
    return lease


def _reused(size: int) -> mmap.mmap | None:
    """Takes the smallest idle buffer that fits, the last one used if there are several."""
    while True:
        idle = _idle
        fits = [b for b in reversed(tuple(idle)) if size <= len(b) <= MOST_SLACK * size]
        if not fits:
            return None
        buffer = min(fits, key=len)
        try:
            idle.remove(buffer)
        except ValueError:  # another thread was faster
            continue
        return buffer


def _mapped(size: int) -> mmap.mmap | None:
    """Maps a new buffer. Private: what a forked process writes stays its own."""
    flags = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
    if not flags:  # Windows
        return None
    rounded = -(-size // HUGE_PAGE) * HUGE_PAGE
    try:
        buffer = mmap.mmap(-1, rounded, flags=flags)
    except (OSError, MemoryError, OverflowError):
        # torch then tries with what the pool held, and words the error if that is not enough
        return _mapped(size) if empty_cache() else None
    with suppress(AttributeError, OSError):  # not every system, not every kernel has huge pages
        buffer.madvise(mmap.MADV_HUGEPAGE)
    return buffer


def _give_back(buffer: mmap.mmap, home: list[mmap.mmap]) -> None:
    """Keeps a buffer for the next gradient, and drops the oldest while there are too many bytes."""
    if home is not _idle or len(buffer) > _limit:  # leased before a fork, or too large
        return
    if _on_return is not None:
        _on_return(buffer)
    home.append(buffer)
    while cached_bytes() > _limit:
        try:
            home.pop(0)
        except IndexError:  # another thread was faster
            return


def _forget() -> None:
    """In a forked process, to write into the parent's buffers would copy them page by page."""
    global _idle
    _idle = []


def _configured_limit() -> int:
    """``XENT_CACHE_BYTES``, or the default. A malformed one raises: it must not be passed over.

    Whoever sets a limit has little memory; an error at the first gradient is cheaper than a
    process that is killed in the middle of a training.
    """
    text = os.environ.get("XENT_CACHE_BYTES")
    if text is None:
        return min(4 << 30, _physical_memory() // 8)
    match = re.fullmatch(r"([0-9]+)([KMG]?)", text.strip().upper())
    if match is None:
        raise mistake(
            ValueError,
            "the environment variable XENT_CACHE_BYTES",
            expected="a number of bytes such as 536870912, 512M or 0 (K, M, G: powers of 1024)",
            got=repr(text),
        )
    return int(match[1]) * _UNITS[match[2]]


def _physical_memory() -> int:
    """Bytes of memory of this machine, or of the container if that has less."""
    try:
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        most = sys.maxsize
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroups, versions 2 and 1
        try:
            most = min(most, int(Path("/sys/fs/cgroup", name).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return most


_idle: list[mmap.mmap] = []  # in the order of their return
_limit = _configured_limit()
_on_return: Callable[[mmap.mmap], None] | None = None  # tests poison what comes back

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
