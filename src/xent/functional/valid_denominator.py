"""What a mean over several micro-batches, and several ranks, divides by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from xent.contract.errors import described, mistake, require_tensor
from xent.contract.groups import RankGroup, checked_group
from xent.contract.inspection import eager, is_distributed
from xent.contract.targets import equal_to_any, ignored_values


def valid_denominator(
    target: Tensor | Iterable[Tensor],
    *,
    ignore_index: int | Sequence[int] | None = -100,
    dp_group: RankGroup | None = None,
) -> Tensor:
    """The ``denominator`` with which micro-batches, and ranks, add up to the mean over all of them.

    Let rank r of W have the losses l_rmi at the labels that count in its micro-batch m, and let N
    be the number of all these labels. The mean is (1/N) Σ_r Σ_m Σ_i l_rmi. ``backward()`` adds the
    gradients of micro-batches; DDP and FSDP add those of ranks and divide by W. So each
    micro-batch's share is Σ_i l_rmi / (N/W), and this function returns N/W. Had each divided by its
    own count, a token would weigh more where there is more padding.

    Args:
        target: class indices of any integer dtype and shape; of all micro-batches of a step, as
            tensors.
        ignore_index: label, or labels, that do not count; None is −100. Sample weights of 0 are not
            looked at: set the labels of such positions to one that is ignored.
        dp_group: the ranks that average their gradients, as a ``ProcessGroup`` or a ``DeviceMesh``
            of one axis: one all-reduce of one number. None: there is one rank.

    Returns:
        0-d float64 (float32 where a device has no other), on the device of the labels; no waiting
        for it. Pass it as ``denominator=`` to each loss of the step.

    Raises:
        TypeError: what are no tensors, or no group.
        ValueError: no labels at all.
        RuntimeError: labels that are no integers; a rank that does not answer.

    Example:
        >>> import torch, xent
        >>> labels = torch.tensor([[1, 2, -100], [0, -100, -100]])
        >>> n = xent.valid_denominator(labels)
        >>> logits = torch.randn(2, 3, 4)
        >>> shares = [xent.cross_entropy(x, y, denominator=n) for x, y in zip(logits, labels)]
        >>> whole = xent.cross_entropy(logits.flatten(0, 1), labels.flatten())
        >>> bool(torch.isclose(sum(shares), whole))
        True
    """
    group = None if dp_group is None else checked_group("dp_group", dp_group)
    ignored = ignored_values(-100 if ignore_index is None else ignore_index)
    several = [target] if isinstance(target, Tensor) else list(target)
    if not several:
        raise mistake(ValueError, "target", expected="labels", got="no tensor at all")
    for labels in several:
        _check_labels(labels)
    count = torch.stack([_count(labels, ignored) for labels in several]).sum()
    count = count.to(torch.float32 if count.device.type == "mps" else torch.float64)
    return count if group is None else eager(_averaged)(count, group)


def _check_labels(labels: Any) -> None:
    require_tensor("target", labels)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise mistake(
            RuntimeError,
            "target",
            expected="class indices of an integer dtype",
            got=described(labels),
            remedy="Of probabilities each position counts: pass their number as denominator.",
        )


def _count(labels: Tensor, ignored: tuple[int, ...]) -> Tensor:
    count = (~equal_to_any(labels, ignored)).sum()
    return count.full_tensor() if is_distributed(count) else count


def _averaged(count: Tensor, group: Any) -> Tensor:
    from xent.statistics.shards.collectives import averaged_over

    return averaged_over(count, group)
