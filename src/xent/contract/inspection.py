"""What is going on around a call: may values be looked at, which derivatives are wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

F = TypeVar("F", bound=Callable[..., Any])

# Before torch 2.13 a transform inside of another one does not compile, nor for any custom function.
_COMPILER_SEES_TRANSFORMS = torch.__version__ >= (2, 13)  # type: ignore[operator]  # typed as str


def values_at_hand(tensor: Tensor) -> bool:
    """True for an ordinary CPU tensor outside of compilation, tracing and ``torch.func``.

    Elsewhere a look at the values would wait for a device, break a graph, or be impossible.
    """
    return not torch.compiler.is_compiling() and tensor.is_cpu and has_values(tensor)


def has_values(tensor: Tensor) -> bool:
    """True for a tensor with values on some device, outside of tracing and transforms."""
    return (
        type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__  # not fake, not sharded
        and not tracing()
        and not is_transformed(tensor)
    )


def is_ordinary(tensor: Tensor) -> bool:
    """True where a kernel of our own may read the memory behind a tensor, on its device.

    Not where torch only pretends to compute, or wants to see every operation.
    """
    return (
        not torch.compiler.is_compiling()
        and has_values(tensor)
        and has_memory(tensor)
        and not torch._C._len_torch_dispatch_stack()
    )


def has_memory(tensor: Tensor) -> bool:
    """True if there are bytes behind the tensor: it is neither sparse nor zeros in name only."""
    return tensor.layout is torch.strided and not tensor._is_zerotensor()


def holds_its_values(tensor: Tensor) -> bool:
    """True if the bytes behind a CPU tensor are its values, not to be negated on reading."""
    return has_memory(tensor) and tensor.is_cpu and not tensor.is_neg()


def is_distributed(value: object) -> TypeGuard[DTensor]:
    """True for a ``DTensor``; without importing what most programs never load."""
    return hasattr(value, "device_mesh") and hasattr(value, "placements")


def is_differentiated(tensor: Tensor) -> bool:
    """True if a derivative with respect to this tensor may be asked for, in either mode.

    In doubt it is true: inside ``torch.func.jvp`` a constant and an input look alike.
    """
    if torch.compiler.is_compiling():
        return tensor.requires_grad and torch.is_grad_enabled()
    if forward_mode() and (is_transformed(tensor) or _tangent(tensor) is not None):
        return True
    while is_transformed(tensor) and not tensor.requires_grad:  # a layer for each transform
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.requires_grad and torch.is_grad_enabled()


def forward_mode() -> bool:
    """True inside ``torch.autograd.forward_ad.dual_level``, ``torch.func.jvp`` and the like."""
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def plain_operations_only() -> bool:
    """True where a custom autograd function is wrong (forward mode), lost (a trace) or refused.

    The compiler refuses it inside nested ``torch.func`` transforms.
    """
    if torch.compiler.is_compiling():
        return _COMPILER_SEES_TRANSFORMS and torch._C._functorch.get_dynamic_layer_stack_depth() > 0
    return forward_mode() or tracing()


def tracing() -> bool:
    """True inside ``torch.jit.trace``."""
    return torch._C._get_tracing_state() is not None


def is_transformed(tensor: Tensor) -> bool:
    """True for what ``torch.func``, or autograd's batched gradients, hand to a function."""
    functorch = torch._C._functorch
    return functorch.is_functorch_wrapped_tensor(tensor) or functorch.is_legacy_batchedtensor(
        tensor
    )


def _tangent(tensor: Tensor) -> Tensor | None:
    dual = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]  # torch's
    tangent: Tensor | None = dual.tangent
    return tangent


def eager(function: F) -> F:
    """The function as the compiler leaves it alone: it talks to other ranks, and hears of them."""
    if not torch.compiler.is_compiling():  # then nobody has loaded the compiler, perhaps
        return function
    found: F = torch.compiler.disable(function)  # type: ignore[no-untyped-call]  # torch's
    return found
