"""What the Modules have in common: how they show their options, and TorchScript."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh


def warn_of_script(module: torch.nn.Module) -> None:
    """Says that a scripted model computes with torch's loss."""
    warnings.warn(
        f"TorchScript puts torch.nn.{type(module).__name__} in the place of this one, "
        "in the model that is scripted too: the same options, torch's precision.",
        stacklevel=2,
    )


def not_scriptable(module: torch.nn.Module) -> NotImplementedError:
    """The error for a Module whose options TorchScript does not have."""
    return NotImplementedError(
        f"{module} cannot be scripted: TorchScript has no counterpart of its options. "
        "Script the model without its loss, or use torch.compile."
    )


def _group(value: Any) -> str | None:
    """A group of ranks by its size; None for what is none."""
    if isinstance(value, DeviceMesh):
        value = value.get_group()
    value = getattr(value, "group", value)  # that of ClassShards
    if not isinstance(value, torch.distributed.ProcessGroup):
        return None
    return f"<{value.size()} ranks>"


def named(**options: tuple[Any, Any]) -> str:
    """The options that differ from their defaults; tensors by shape."""
    shown = []
    for name, (value, default) in options.items():
        if isinstance(value, Tensor):
            shown.append(
                f"{name}=<{tuple(value.shape)}>" if value.ndim else f"{name}={value.item()}"
            )
        elif value != default:
            shown.append(f"{name}={_group(value) or repr(value)}")
    return ", ".join(shown)
