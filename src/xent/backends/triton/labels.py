"""Labels out of bounds, noted on the device: to look at them at once would be to wait for it."""

from __future__ import annotations

import torch
from torch import Tensor

_notes: dict[tuple[torch.device, int], Tensor] = {}


def note_of(device: torch.device, classes: int) -> Tensor:
    """One number in which a kernel notes a position and its label; 0 while all is well."""
    key = (device, classes)
    if key not in _notes:
        _notes[key] = torch.zeros(1, dtype=torch.int64, device=device)
    return _notes[key]


def note_labels(target: Tensor, valid: Tensor | None, classes: int) -> None:
    """Notes what the kernels do, for labels that no kernel is given."""
    outside = (target < 0) | (target >= classes)
    if valid is not None:
        outside = outside & valid
    position = outside.flatten().to(torch.int8).argmax()
    label = target.flatten()[position].clamp(-(1 << 31) + 1, (1 << 31) - 1)
    note = note_of(target.device, classes)
    noted = ((position + 1) << 32) | (label & 0xFFFFFFFF)
    note.copy_(torch.where(outside.any(), noted, note))


def raise_noted() -> None:
    """Raises what was noted since the last call, and waits for the devices to know it."""
    for (device, classes), note in _notes.items():
        noted = int(note.item())
        if noted:
            note.zero_()
            position, label = (noted >> 32) - 1, noted & 0xFFFFFFFF
            label -= (1 << 32) if label >> 31 else 0
            raise IndexError(
                f"target is {label} at position {position} of the flattened labels (of a chunk, "
                f"in a linear loss), in a loss on {device}; expected 0..{classes - 1} or "
                "ignore_index. That loss and its gradient are NaN. To see which call it is, pass "
                'check="values".'
            )
