"""Labels out of bounds on a device, noted there: to look at them at once would be to wait."""

from __future__ import annotations

import torch
from torch import Tensor

_notes: dict[torch.device, Tensor] = {}


def note_of(device: torch.device) -> Tensor | None:
    """Two numbers for a device: a position with its label, 0 while all is well; and C.

    None where none was made yet and none can be: it must not lie in the memory of a CUDA graph.
    """
    if device not in _notes:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return None
        with torch.inference_mode(False):
            note = torch.zeros(2, dtype=torch.int64, device=device)
        if type(note) is not Tensor:  # something pretends to compute
            return None
        _notes[device] = note
    return _notes[device]


def note_labels(target: Tensor, valid: Tensor | None, classes: int) -> None:
    """Notes what the kernels do, for labels that no kernel is given. Nothing waits."""
    note = note_of(target.device)
    if note is None or not target.numel():
        return
    outside = (target < 0) | (target >= classes)
    if valid is not None:
        outside = outside & valid
    position = outside.flatten().to(torch.int8).argmax(0, keepdim=True)
    label = target.flatten().gather(0, position).clamp(-(1 << 31) + 1, (1 << 31) - 1)
    noted = ((position + 1) << 32) | (label & 0xFFFFFFFF)
    new = torch.cat((noted, torch.full_like(noted, classes)))
    note.copy_(torch.where(outside.any(), new, note))


def raise_noted() -> None:
    """Raises what was noted since the last call, and waits for the devices to know it."""
    for device, note in list(_notes.items()):
        if device.type != "cpu":
            getattr(torch, device.type).synchronize(device)  # whatever stream a loss was on
        noted, classes = note.tolist()
        if not noted:
            continue
        note.zero_()
        position, label = (noted >> 32) - 1, noted & 0xFFFFFFFF
        label -= (1 << 32) if label >> 31 else 0
        raise IndexError(
            f"target is {label} at position {position} of the flattened labels (of a chunk, in a "
            f"linear loss), in a loss on {device}; expected 0..{classes - 1} or ignore_index. That "
            'loss and its gradient are NaN. To see which call it is, pass check="values".'
        )
