"""What is going on around a call: may values be looked at, which derivatives are wanted."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

_OWN_TYPES = (Tensor, torch.nn.Parameter)


def values_at_hand(tensor: Tensor) -> bool:
    """True for an ordinary CPU tensor outside of compilation, tracing and ``torch.func``.

    Elsewhere a look at the values would wait for a device, break a graph, or be impossible.
    """
    return (
        not torch.compiler.is_compiling()
        and type(tensor) in _OWN_TYPES
        and tensor.device.type == "cpu"
        and not _tracing()
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def is_differentiated(tensor: Tensor) -> bool:
    """True if a derivative with respect to this tensor may be asked for, in either mode."""
    return tensor.requires_grad or forward_mode()


def forward_mode() -> bool:
    """True inside ``torch.autograd.forward_ad.dual_level``, ``torch.func.jvp`` and the like."""
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def plain_operations_only() -> bool:
    """True where a custom autograd function would be wrong (forward mode) or lost (a trace)."""
    return not torch.compiler.is_compiling() and (forward_mode() or _tracing())


def _tracing() -> bool:
    """True inside ``torch.jit.trace``."""
    return torch._C._get_tracing_state() is not None
