"""The memory that is kept for gradients."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor


def reused(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised tensor, large ones on a CPU in memory that is used again."""
    if device.type != "cpu" or torch._C._len_torch_dispatch_stack():
        return torch.empty(shape, dtype=dtype, device=device)
    from xent.backends.numba.memory import gradient_like  # needs numpy, and not numba

    return gradient_like(torch.empty((), dtype=dtype, device=device).expand(shape))


def empty_cache() -> int:
    """Gives the memory that is kept for coming gradients back to the system.

    Large gradients on CPUs come from buffers that are used again once autograd and you have let go
    of them. At most ``XENT_CACHE_BYTES`` bytes are kept idle (suffixes K, M, G; 0 keeps nothing);
    without that variable an eighth of the memory there is, at most 4 GiB. Gradients in use are
    not touched.

    Returns:
        The number of bytes that were given back.

    Example:
        >>> import xent
        >>> given_back = xent.empty_cache()
        >>> xent.empty_cache()  # nothing is left
        0
    """
    memory = sys.modules.get("xent.backends.numba.memory")  # nothing is kept before it is loaded
    return memory.empty_cache() if memory else 0
