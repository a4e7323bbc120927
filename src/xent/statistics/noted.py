"""Errors that were noted on a device, since to look for them at once would be to wait for it."""

from __future__ import annotations

from xent.contract.notes import raise_noted


def check_errors() -> None:
    """Raises if a label on a GPU was out of bounds in any loss since the last call.

    On a CPU such a label raises at once. To look at labels on a GPU is to wait for it, so there
    the kernel leaves a note, and makes the loss of that row NaN, and its gradient; the process
    goes on. This function waits for the devices and reads their notes: call it where you
    wait anyway, as when the loss is logged, or pass ``check="values"`` to a loss.

    Raises:
        IndexError: names a label and its position; of several, any one.

    Example:
        >>> import xent
        >>> xent.check_errors()  # nothing is wrong
    """
    raise_noted()
