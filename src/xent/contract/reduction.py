"""None, mean, sum — and what a mean divides by."""

from __future__ import annotations

import reprlib
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from xent.contract.errors import as_number, described, mistake
from xent.contract.inspection import is_distributed, values_at_hand

Denominator = Literal["valid", "weight", "batch"] | float | Tensor
OnEmpty = Literal["nan", "zero"]

_REDUCTIONS = ("none", "mean", "sum")
_RULES = ("valid", "weight", "batch")
_ON_EMPTY = ("nan", "zero")
_SERIAL = 1 << 14  # torch sums up to twice as many elements in one thread


@dataclass(frozen=True)
class Reduction:
    """How losses per position become the value that is returned."""

    mode: str
    denominator: Any = None
    on_empty: str = "nan"

    @property
    def counts(self) -> bool:
        """Whether the divisor is counted from a call, and not a number that is given."""
        return self.denominator is None or isinstance(self.denominator, str)

    def check_counted(self) -> None:
        """Raises where other ranks' counts, by ``dp_group``, would have nothing to say."""
        if self.mode != "mean":
            raise mistake(
                ValueError,
                "dp_group",
                expected=f"None, since reduction={self.mode!r} divides by nothing",
                got="a group",
            )
        if not self.counts:
            raise mistake(
                ValueError,
                "dp_group",
                expected="None, since denominator is a number, which is divided by as it is",
                got="a group",
                remedy="valid_denominator(labels, dp_group=…) counts over micro-batches and ranks.",
            )

    def of(self, losses: Tensor, divisor: Tensor | float) -> Tensor:
        """Reduces ``losses [outer, inner]``; ``divisor`` is what a mean divides the sum by."""
        if self.mode == "none":
            return losses
        total = summed(losses)
        return total if self.mode == "sum" else self.mean(total, divisor)

    def mean(self, total: Tensor, divisor: Tensor | float) -> Tensor:
        """The total over the divisor, or what ``on_empty`` says of nothing."""
        if not isinstance(divisor, Tensor) and divisor:
            return total / divisor
        divisor = as_scalar(divisor, total)
        empty = divisor == 0
        # The division must be harmless in the branch that is not taken: its gradient counts too.
        mean = total / divisor.masked_fill(empty, 1)
        return mean.masked_fill(empty, 0.0 if self.on_empty == "zero" else torch.nan)


def as_scalar(number: Tensor | float, like: Tensor) -> Tensor:
    """A number as a 0-d tensor beside another, without a copy from the host, which would wait."""
    if isinstance(number, Tensor):
        return number.to(like.device, like.dtype)
    return like.new_full((), number)


def summed(vector: Tensor) -> Tensor:
    """The sum of all elements, the same to the bit for any number of threads.

    A CPU's sum is cut into a part per thread where it is long. Rows of a fixed length are not.
    Compiled code sums in its own order, and a look at the length would tie it to a size.
    """
    if torch.compiler.is_compiling() or not vector.is_cpu:
        return vector.sum()
    flat = vector.flatten()
    while flat.numel() > _SERIAL:
        rows = torch.nn.functional.pad(flat, (0, -flat.numel() % _SERIAL))
        flat = rows.reshape(-1, _SERIAL).sum(1)
    return flat.sum()


def checked_reduction(
    reduction: str,
    size_average: bool | None = None,
    reduce: bool | None = None,
    *,
    denominator: Any = None,
    on_empty: Any = "nan",
    depth: int = 1,
) -> Reduction:
    """The options of a reduction, deprecated ones included, checked and in one place.

    ``depth`` is how many calls lie between here and the user, to whom a warning points.
    """
    mode = reduction
    if size_average is not None or reduce is not None:
        mode = _from_deprecated(size_average, reduce, depth)
    if mode not in _REDUCTIONS:
        raise mistake(ValueError, "reduction", expected=_any_of(_REDUCTIONS), got=_shown(mode))
    if on_empty not in _ON_EMPTY:
        raise mistake(
            ValueError,
            "on_empty",
            expected=_any_of(_ON_EMPTY),
            got=_shown(on_empty),
            remedy="It is the mean over no position at all.",
        )
    if denominator is not None:
        denominator = _checked_denominator(denominator, mode)
    return Reduction(mode, denominator, on_empty)


def _from_deprecated(size_average: bool | None, reduce: bool | None, depth: int) -> str:
    """Torch's reading of its two deprecated arguments, with torch's warning."""
    for argument, value in (("size_average", size_average), ("reduce", reduce)):
        if isinstance(value, Tensor):
            raise mistake(
                RuntimeError,
                argument,
                expected="a bool or None",
                got=described(value),
                remedy="Are input and target in the constructor? Construct the loss first, then "
                "call it: Loss()(input, target). A sample weight goes by name, sample_weight=.",
            )
    average = True if size_average is None else size_average
    separate = reduce is not None and not reduce
    mode = "none" if separate else "mean" if average else "sum"
    if not torch.compiler.is_compiling():  # dynamo can't trace a warning
        warnings.warn(
            "size_average and reduce args will be deprecated, "
            f"please use reduction='{mode}' instead.",
            stacklevel=3 + depth,  # the caller of the loss
        )
    return mode


def _checked_denominator(denominator: Any, mode: str) -> Any:
    """A rule by name, a number that is not negative, or a tensor with one real number."""
    if mode != "mean":
        raise mistake(
            ValueError,
            "denominator",
            expected=f"None, since reduction={mode!r} divides by nothing",
            got=described(denominator),
            remedy="Use reduction='mean'.",
        )
    if is_distributed(denominator):
        denominator = denominator.full_tensor()
    number, remedy = as_number(denominator), ""
    kind: type[Exception] = TypeError
    if isinstance(denominator, Tensor):
        real = not denominator.is_complex() and denominator.dtype != torch.bool
        if real and denominator.ndim == 0 and not _is_known_negative(denominator):
            return denominator
        kind = ValueError
    elif isinstance(denominator, str):
        if denominator in _RULES:
            return denominator
        kind = ValueError
    elif number is not None:
        if number >= 0:  # not NaN
            return number
        kind, remedy = ValueError, "The sum is divided by it."
    raise mistake(
        kind,
        "denominator",
        expected=f"None, {_any_of(_RULES)}, a number that is not negative, or one in a 0-d tensor",
        got=described(denominator),
        remedy=remedy,
    )


def _is_known_negative(number: Tensor) -> bool:
    return values_at_hand(number) and not bool(number >= 0)  # NaN too


def _shown(value: Any) -> str:
    """An option as it was written; a tensor in its place by shape."""
    return described(value) if isinstance(value, Tensor) else reprlib.repr(value)


def _any_of(words: tuple[str, ...]) -> str:
    return " or ".join(map(repr, words))
