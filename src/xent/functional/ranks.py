"""The part of other ranks in a loss: what is summed over them, and what a mean divides by."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from xent.contract.call import Call
from xent.contract.groups import checked_group
from xent.contract.reduction import Reduction, summed


class Ranks(NamedTuple):
    """Ranks with other positions."""

    positions: tuple[ProcessGroup, ...] = ()
    """Of the same loss: sums run over them."""
    averaged: ProcessGroup | None = None
    """Of losses of their own, whose gradients will be averaged."""

    def total(self, own: Tensor) -> Tensor:
        """Sums over all positions of a loss, of those over this rank's."""
        if not self.positions:
            return own
        from xent.statistics.shards.collectives import summed_over

        for group in self.positions:
            own = summed_over(own, group)
        return own

    def fraction(self, total: Tensor, divisor: Tensor | float) -> tuple[Tensor, Tensor | float]:
        """A total and what it is divided by, both of all ranks: in one sum, if both are summed."""
        if self == ALONE:
            return total, divisor
        divisor = torch.as_tensor(divisor, dtype=total.dtype, device=total.device)
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


def meaning(
    reduction: Reduction,
    *,
    ignore_index: Any,
    label_smoothing: Any,
    sample_weight: Any,
    **of_this_rank: Any,
) -> dict[str, Any]:
    """What ranks that share the classes of the same rows have to say alike."""
    del of_this_rank
    number = reduction.denominator
    return {
        "reduction": reduction.mode,
        "denominator": "a tensor" if isinstance(number, Tensor) else number,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "sample_weight": "none" if sample_weight is None else "there",
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
    divisor = call.divisor(reduction.denominator)
    if not reduction.counts:
        return reduction.mean(ranks.total(total), divisor)
    return reduction.mean(*ranks.fraction(total, divisor))
