"""The part of other ranks in a loss: what is summed over them, and what a mean divides by."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from xent.contract.call import Call
from xent.contract.errors import as_number
from xent.contract.groups import checked_group
from xent.contract.reduction import Reduction, as_scalar, summed


class Ranks(NamedTuple):
    """Ranks with other positions."""

    positions: tuple[ProcessGroup, ...] = ()
    """Of the same loss: sums run over them."""
    averaged: ProcessGroup | None = None
    """Of losses of their own, whose gradients will be averaged."""
    batch: int | None = None
    """Size of the batch axis over ``positions``, which may share another axis."""

    def total(self, own: Tensor) -> Tensor:
        """Sums over all positions of a loss, of those over this rank's."""
        if not self.positions:
            return own
        from xent.statistics.shards.collectives import summed_over

        for group in self.positions:
            own = summed_over(own, group)
        return own

    def fraction(self, total: Tensor, call: Call, rule: Any) -> tuple[Tensor, Tensor | float]:
        """A total and what it is divided by, of all ranks: in one sum, if both are summed."""
        if self == ALONE:
            return total, call.divisor(rule)
        if rule == "batch" and self.batch is not None:
            total, divisor = self.total(total), as_scalar(self.batch, total)
        else:
            divisor = as_scalar(call.divisor(rule), total)
            if self.positions:
                total, divisor = self.total(torch.stack((total, divisor))).unbind()
        if self.averaged is not None:
            from xent.statistics.shards.collectives import averaged_over

            divisor = averaged_over(divisor, self.averaged)
        return total, divisor


ALONE = Ranks()


def averaging(ranks: Ranks, dp_group: Any, reduction: Reduction) -> Ranks:
    """The same with ranks that average their gradients, checked.

    Raises:
        ValueError: there is no mean, or a number to divide by.
    """
    if dp_group is None:
        return ranks
    reduction.check_counted()
    return ranks._replace(averaged=checked_group("dp_group", dp_group))


def announce(error: Exception, group: Any, check: Any) -> None:
    """Tells the ranks of a group that this one fails before they ask each other what they mean."""
    if group is not None:
        from xent.statistics.shards import agreement

        agreement.announce(error, group, in_full=check is not None)


def to_be_the_same(
    reduction: Reduction, ignore_index: Any, label_smoothing: Any, in_full: bool
) -> dict[str, Any]:
    """The options that ranks which share the classes of the same rows have to give alike."""
    number, smoothing = reduction.denominator, as_number(label_smoothing)
    if isinstance(number, Tensor):
        number = number.item() if in_full else "a tensor"
    return {
        "reduction": reduction.mode,
        "denominator": number,
        "ignore_index": -100 if ignore_index is None else ignore_index,
        "label_smoothing": label_smoothing if smoothing is None else float(smoothing),
    }


def reduced(losses: Tensor, call: Call, reduction: Reduction, ranks: Ranks) -> Tensor:
    """The losses of positions, ``[outer, inner]``, as the value that is returned."""
    if reduction.mode == "none":
        return losses
    return reduced_total(summed(losses), call, reduction, ranks)


def reduced_total(total: Tensor, call: Call, reduction: Reduction, ranks: Ranks) -> Tensor:
    """The same of their sum."""
    if reduction.mode == "sum":
        return ranks.total(total)
    if not reduction.counts:
        return reduction.mean(ranks.total(total), reduction.denominator)
    return reduction.mean(*ranks.fraction(total, call, reduction.denominator))
