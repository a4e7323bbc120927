"""A vocabulary-parallel loss with three all-reduces, in the manner of Megatron-LM.

Maximum, predicted logit and sum of exponentials are each a vector that is reduced by itself, and
the softmax is kept for the backward, which overwrites it with the gradient. Unlike Megatron-LM's it
leaves the logits as they are. Shoeybi et al., Megatron-LM (2019), section 3.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def three_all_reduces(logits: Tensor, target: Tensor, start: int) -> Tensor:
    """Losses ``[N]`` in nats of logits ``[N, C / p]``, whose first class is ``start``."""
    return _Loss.apply(logits, target, start)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, start: int) -> Tensor:
        maximum = logits.amax(1)
        dist.all_reduce(maximum, dist.ReduceOp.MAX)
        shifted = logits - maximum[:, None]
        elsewhere = (target < start) | (target >= start + logits.shape[1])
        place = (target - start).masked_fill(elsewhere, 0)[:, None]
        predicted = shifted.gather(1, place).squeeze(1).masked_fill(elsewhere, 0)
        dist.all_reduce(predicted)
        exponentials = shifted.exp_()
        total = exponentials.sum(1)
        dist.all_reduce(total)
        ctx.save_for_backward(exponentials.div_(total[:, None]), place, elsewhere)
        return total.log() - predicted

    @staticmethod
    def backward(ctx: Any, at_losses: Tensor) -> tuple[Tensor, None, None]:
        gradient, place, elsewhere = ctx.saved_tensors
        here = (~elsewhere).to(gradient.dtype)[:, None]
        gradient.scatter_add_(1, place, -here)  # its second backward would be wrong
        return gradient.mul_(at_losses[:, None]), None, None
