"""What ranks say to each other, and what autograd makes of it.

Every sum is the same to the bit on all ranks: the backends add up once and hand the result round.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def answered(what: str) -> Iterator[None]:
    """Says in one line what it means when a collective fails."""
    try:
        yield
    except RuntimeError as error:  # those of torch.distributed are RuntimeErrors
        raise RuntimeError(
            f"group: expected {what} from every rank. Has a rank ended, or raised, or stopped for "
            "longer than the group's timeout? Are all ranks in the same call? The backend says: "
            f"{first_line(error)}"
        ) from error


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return (str(error).strip().splitlines() or [""])[0]


def all_max(vector: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The largest of each element over the ranks; overwrites a vector of one's own."""
    with answered("the largest logit of each row"):
        dist.all_reduce(vector, dist.ReduceOp.MAX, group=group)
    return vector


def all_sum(vector: Tensor, group: dist.ProcessGroup, what: str = "its sums") -> Tensor:
    """The sum of each element over the ranks; overwrites a vector of one's own."""
    with answered(what):
        dist.all_reduce(vector, group=group)
    return vector


def gathered(item: Any, group: dist.ProcessGroup, what: str) -> list[Any]:
    """What each rank has to say, in the order of ranks."""
    items: list[Any] = [None] * group.size()
    with answered(what):
        dist.all_gather_object(items, item, group=group)
    return items


def replicated(tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
    """A tensor that all ranks have and each uses a part of: its gradient is summed over them."""
    if not (tensor.requires_grad and torch.is_grad_enabled()):
        return tensor
    found: Tensor = _Replicated.apply(tensor, group)  # type: ignore[no-untyped-call]  # torch's
    return found


def summed_over(value: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The sum over the ranks of a number that each has for its own positions.

    All ranks use the sum in the same way: its gradient is the gradient at each part.
    """
    found: Tensor = _Summed.apply(value, group)  # type: ignore[no-untyped-call]  # torch's
    return found


def averaged_over(value: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The average over the ranks, each of which has a loss of its own.

    The gradient at a part is that of all ranks' losses, again one sum.
    """
    found: Tensor = _SummedForOthers.apply(value, group)  # type: ignore[no-untyped-call]  # torch's
    return found / group.size()


class _Replicated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        own = grad.clone(memory_format=torch.contiguous_format)
        return all_sum(own, ctx.group, "its part of a gradient"), None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: dist.ProcessGroup) -> Tensor:
        del ctx  # nothing is needed later
        return all_sum(value.clone(), group, "its part of the loss")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        del ctx
        return grad, None


class _SummedForOthers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return all_sum(value.clone(), group, "its part of the divisor")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return all_sum(grad.clone(), ctx.group, "its gradient at the divisor"), None
