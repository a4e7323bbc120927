"""How kernels are compiled: without the interpreter's lock, and once for all processes."""

from __future__ import annotations

from numba import njit

kernel = njit(nogil=True, cache=True)
