"""The options of a loss that is handed over configured, torch's own included."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from xent.contract.errors import described, mistake
from xent.nn import BCEWithLogitsLoss, CrossEntropyLoss, DenseCrossEntropyLoss

_SHARED = ("weight", "reduction", "label_smoothing")
_OF_CLASSES = (*_SHARED, "ignore_index")
_BEYOND_TORCH = ("dim", "denominator", "on_empty", "dtype")


def options_of(loss: Any) -> dict[str, Any]:
    """The options of a configured cross-entropy over classes, by name."""
    if isinstance(loss, CrossEntropyLoss):
        _refuse_ranks(loss)
        return _read(loss, *_OF_CLASSES, *_BEYOND_TORCH)
    if isinstance(loss, DenseCrossEntropyLoss):
        return {**_read(loss, *_SHARED), "dim": -1}
    if isinstance(loss, nn.CrossEntropyLoss):
        return _read(loss, *_OF_CLASSES)
    raise _unreadable(loss, "a CrossEntropyLoss of torch or xent, or a DenseCrossEntropyLoss")


def binary_options_of(loss: Any) -> dict[str, Any]:
    """The options of a configured binary cross-entropy, by name."""
    if isinstance(loss, BCEWithLogitsLoss):
        return _read(loss, *_OF_CLASSES, "pos_weight")
    if isinstance(loss, nn.BCEWithLogitsLoss):
        return _read(loss, "weight", "reduction", "pos_weight")
    raise _unreadable(loss, "a BCEWithLogitsLoss of torch or xent")


def is_binary(loss: Any) -> bool:
    """True for the binary losses that can be read."""
    return isinstance(loss, nn.BCEWithLogitsLoss)


def refuse_both(loss: Any, options: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Options come with the loss or one by one, not both: one of them would be lost."""
    for name, value in options.items():
        if isinstance(value, Tensor) or value != defaults[name]:
            raise mistake(
                ValueError,
                name,
                expected=f"no option beside loss={type(loss).__name__}(…), which has its own",
                got=described(value),
                remedy="Set it where the loss is constructed.",
            )


def _refuse_ranks(loss: CrossEntropyLoss) -> None:
    """An explanation is of what is here; a loss that other ranks take part in is not."""
    for name in ("group", "dp_group"):
        if getattr(loss.groups, name) is not None:
            raise mistake(
                ValueError,
                "loss",
                expected=f"a loss without {name}",
                got=repr(loss),
                remedy="Gather the logits and labels of all ranks, and explain the loss of those.",
            )


def _read(loss: nn.Module, *names: str) -> dict[str, Any]:
    return {name: getattr(loss, name) for name in names}


def _unreadable(loss: Any, expected: str) -> TypeError:
    remedy = "Give its options by name: weight=, label_smoothing=, …"
    if isinstance(loss, nn.NLLLoss):
        remedy = (
            "NLLLoss takes log-probabilities. Explain the logits before log_softmax, with "
            "weight=, ignore_index= and reduction= of the NLLLoss."
        )
    elif isinstance(loss, nn.BCELoss):
        remedy = "BCELoss takes probabilities. Explain the logits before the sigmoid."
    got = "the class itself; construct it first" if isinstance(loss, type) else described(loss)
    return mistake(TypeError, "loss", expected=expected, got=got, remedy=remedy)
