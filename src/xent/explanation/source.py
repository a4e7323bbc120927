"""What is explained: the arguments of a call, and one row of it in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xent.contract.call import Call
from xent.contract.inspection import is_distributed


@dataclass(frozen=True, eq=False)
class Inputs:
    """The arguments of a call of a loss: tensors, and the options by name."""

    logits: Tensor
    target: Tensor
    options: dict[str, Any]
    class_names: tuple[str, ...] | None = None


def logits_of(value: Any) -> Tensor:
    """Logits as a tensor that no gradient follows; numbers typed in are float64."""
    if isinstance(value, Tensor):
        return _whole(value.detach())
    tensor = torch.as_tensor(value)
    typed_in = isinstance(value, int | float | list | tuple)
    exact = typed_in and not tensor.is_complex()  # a tensor made of a list is float32
    return torch.as_tensor(value, dtype=torch.float64) if exact else tensor


def labels_of(value: Any) -> Tensor:
    """Class indices or probabilities as a tensor; typed-in probabilities are float64."""
    tensor = _whole(value.detach()) if isinstance(value, Tensor) else torch.as_tensor(value)
    typed_in = isinstance(value, float | list | tuple) and tensor.is_floating_point()
    return torch.as_tensor(value, dtype=torch.float64) if typed_in else tensor


def _whole(tensor: Tensor) -> Tensor:
    """All of a DTensor, on every rank; they explain it together."""
    return tensor.full_tensor() if is_distributed(tensor) else tensor


def factors_of(value: Any) -> Tensor | None:
    """Weights as a tensor, or None."""
    return None if value is None else logits_of(value)


@dataclass(frozen=True, eq=False)
class RowSource:
    """One row as it came, all that its trace depends on; may be traced again with a change."""

    logits: Tensor
    """``[C]``, float64."""
    label: Tensor
    """``[C]``, float64: one-hot for an index; zeros where ignored."""
    names: tuple[str, ...] | None
    """Of the classes; None numbers them."""
    position: tuple[int, ...] = ()
    label_index: int | None = None
    weight: Tensor | None = None
    """Class weights ``[C]``, float64."""
    label_smoothing: float = 0.0
    sample_weight: float = 1.0
    ignored: bool = False
    free: Tensor | None = None
    """``[C]``, 1 where a logit can move and 0 where it is fixed; None is 1 everywhere."""

    @property
    def target(self) -> Tensor:
        """The label after smoothing, ``[C]``; zeros where ignored."""
        if self.ignored:
            return self.label
        even = self.label_smoothing / len(self.label)
        return (1 - self.label_smoothing) * self.label + even

    @property
    def mass(self) -> Tensor:
        """weight · target, ``[C]``."""
        return self.target if self.weight is None else self.weight * self.target

    def called(self, index: int) -> str:
        """The class in a sentence: by its name, or as "class 3"."""
        return f"class {index}" if self.names is None else self.names[index]

    def name(self, index: int) -> str:
        """The name of a class; its number if it has none."""
        return str(index) if self.names is None else self.names[index]


def row_of(call: Call, place: int, names: tuple[str, ...] | None) -> RowSource:
    """The row of the position that is ``place``-th in memory order of the positions' shape."""
    rows, layout, factors = call.rows, call.layout, call.sample_weight
    outer, inner = divmod(place, rows.logits.shape[2])
    ignored = rows.valid is not None and not bool(rows.valid[outer, inner])
    label = torch.zeros(layout.classes, dtype=torch.float64)
    index = None
    if not ignored and rows.target is not None:
        index = int(rows.target[outer, inner])
        label[index] = 1
    elif not ignored and rows.probabilities is not None:
        label = _exact(rows.probabilities[outer, :, inner])
    return RowSource(
        logits=_exact(rows.logits[outer, :, inner]),
        label=label,
        names=names,
        position=position_of(place, layout.positions),
        label_index=index,
        weight=None if rows.weight is None else _exact(rows.weight),
        label_smoothing=call.label_smoothing,
        sample_weight=float(factors[outer, inner]) if factors is not None else 1.0,
        ignored=ignored,
    )


def position_of(place: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A number in memory order as an index into this shape."""
    position = []
    for size in reversed(shape):
        place, index = divmod(place, size)
        position.append(index)
    return tuple(reversed(position))


def _exact(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64, copy=True)
