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


def raise_noted() -> None:
    """Raises what was noted since the last call, and waits for the devices to know it."""
    for (device, classes), note in _notes.items():
        noted = int(note.item())
        if noted:
            note.zero_()
            position, label = (noted >> 32) - 1, noted & 0xFFFFFFFF
            label -= (1 << 32) if label >> 31 else 0
            raise IndexError(
                f"target is {label} at position {position} of the flattened labels, in a loss on "
                f"{device}; expected 0..{classes - 1} or ignore_index. That loss and its gradient "
                'are NaN. To see which call it is, pass check="values".'
            )
