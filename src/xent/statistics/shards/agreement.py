"""Do the ranks of a group mean the same call? Each says what it has; all come to one verdict.

Whoever finds a mistake in its own arguments says so before it raises: the others would wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from xent.contract.errors import mistake, plain
from xent.contract.groups import ClassShards, checked_group
from xent.contract.inspection import has_values, values_at_hand
from xent.contract.layout import Layout
from xent.contract.rows import LinearRows, Rows
from xent.contract.shards import UNKNOWN, Shard
from xent.contract.targets import ignored_values
from xent.statistics.shards.class_shards import in_rank_order
from xent.statistics.shards.collectives import first_line, gathered, replicated
from xent.statistics.shards.parts import Part, check_mode
from xent.statistics.shards.statements import (
    Statement,
    check_digests,
    check_labels,
    check_same,
    check_sizes,
    weights_are_whole,
)
from xent.statistics.shards.values import check_values


class Checked(Protocol):
    """A checked call, of any loss."""

    @property
    def layout(self) -> Layout:
        """Of the logits."""
        ...

    @property
    def rows(self) -> Rows | LinearRows:
        """The rows and their labels."""
        ...

    @property
    def sample_weight(self) -> Tensor | None:
        """One factor per position."""
        ...


C = TypeVar("C", bound=Checked)


def agreed(
    checked: Callable[[Shard, Tensor | None], C],
    group: Any,
    weight: Tensor | None,
    *,
    in_full: bool,
    **same: Any,
) -> tuple[C, Part]:
    """The checked call of this rank's part of the classes, if all ranks mean the same one.

    Args:
        checked: checks the arguments of a call whose classes are this shard's, given class weights.
        group: of ranks, or ``ClassShards``, of which nobody needs to be asked.
        weight: class weights as they were given.
        in_full: whether labels, and factors of positions, are compared by value.
        same: what else has to be the same on all ranks.
    """
    check_mode()
    if isinstance(group, ClassShards) and not in_full:
        part = Part(group.own, group.group)
        return _in_the_shard(checked, part, _own_weight(weight, group)), part
    ranks = group.group if isinstance(group, ClassShards) else checked_group("group", group)
    said = _exchanged(checked, ranks, weight, in_full, same)
    check_same(said)
    if isinstance(group, ClassShards):
        check_sizes(said, ranks.rank(), group.sizes)
        part = Part(group.own, ranks)
    else:
        sizes = [statement.classes for statement in said]
        part = Part(in_rank_order(sizes, ranks.rank()), ranks)
    in_bounds = check_labels(said, ranks.rank(), part.shard.classes)
    if in_bounds and not in_full:  # else the first that differs is going to be named
        check_digests(said)
    if weights_are_whole(said, part.shard.classes) and weight is not None:
        weight = replicated(weight, ranks)
    call = _in_the_shard(checked, part, weight)
    if in_full:
        check_values(call.layout, call.rows, call.sample_weight, ranks)
    return call, part


def announce(error: Exception, group: Any, *, in_full: bool) -> None:
    """Tells the ranks, which are about to exchange what they mean, that this one cannot."""
    if isinstance(group, ClassShards):
        if not in_full:
            return  # nobody asks
        group = group.group
    words = f"{type(error).__name__}: {first_line(error)}"
    gathered(Statement(error=words), checked_group("group", group), "its part in a loss")


def _in_the_shard(
    checked: Callable[[Shard, Tensor | None], C], part: Part, weight: Tensor | None
) -> C:
    call = checked(part.shard, weight)
    if call.layout.own_classes != part.shard.size:
        raise mistake(
            ValueError,
            "input",
            expected=f"logits of {part.shard.size} classes on rank {part.group.rank()}, which "
            f"begin at {part.shard.start} of {part.shard.classes}",
            got=f"{call.layout.own_classes}",
            remedy="They are what class_shards was told.",
        )
    return call


def _own_weight(weight: Any, shards: ClassShards) -> Any:
    """Class weights whose gradient is summed over the ranks, if all have all of them.

    Nobody is asked: every rank has to come to the same, from what it was given.
    """
    if not (isinstance(weight, Tensor) and weight.ndim == 1 and weight.requires_grad):
        return weight
    if len(shards.sizes) > 1 and shards.classes in shards.sizes:
        raise mistake(
            ValueError,
            "weight",
            expected="factors that are not differentiated, where one rank holds all classes",
            got="a tensor that requires grad",
            remedy="Pass the process group as group.",
        )
    whole = len(weight) == shards.classes != shards.own.size
    return replicated(weight, shards.group) if whole else weight


def _exchanged(
    checked: Callable[[Shard, Tensor | None], Checked],
    group: dist.ProcessGroup,
    weight: Any,
    in_full: bool,
    same: dict[str, Any],
) -> list[Statement]:
    """What all ranks say; raises what is wrong with this rank's arguments, when all know of it."""
    try:
        own = _statement(checked(UNKNOWN, weight), weight, in_full, same)
    except Exception as error:  # whatever it is, the others must not wait for this rank
        announce(error, group, in_full=in_full)
        raise
    return gathered(own, group, "its part in a loss")


def _statement(
    call: Checked, weight: Tensor | None, in_full: bool, same: dict[str, Any]
) -> Statement:
    rows = call.rows
    labels = "nothing"
    if rows.target is not None:
        labels = "class indices"
    elif rows.probabilities is not None:
        labels = f"{plain(rows.probabilities.dtype)} probabilities"
    shared = {
        "group": f"a call with {', '.join(same)}",  # of one function, that is
        "check": "'values'" if in_full else None,
        # the gradient at hidden states, and at factors that all have, is a matter of all ranks
        "input": _kind(rows.hidden) if isinstance(rows, LinearRows) else plain(rows.logits.dtype),
        "target": labels,
        "weight": _kind(weight),
        "sample_weight": _kind(call.sample_weight),
        **same,
        "ignore_index": sorted(ignored_values(same["ignore_index"])),  # of one form; checked before
    }
    return Statement(
        positions=call.layout.positions,
        classes=call.layout.own_classes,
        weights=None if weight is None else len(weight),
        labels=_span(rows.target, in_full),
        digest=_digest(rows.target, rows.valid),
        same={name: str(value) for name, value in shared.items()},
    )


def _kind(tensor: Tensor | None) -> str:
    if tensor is None:
        return "none"
    followed = tensor.requires_grad and torch.is_grad_enabled()
    return f"{plain(tensor.dtype)}, differentiated" if followed else plain(tensor.dtype)


def _span(index: Tensor | None, in_full: bool) -> tuple[int, int] | None:
    """Of all labels, also of those that do not count for other reasons; ignored ones are 0."""
    looked_at = index is not None and (values_at_hand(index) or (in_full and has_values(index)))
    if index is None or not looked_at or not index.numel():
        return None
    low, high = index.aminmax()
    return int(low), int(high)


def _digest(index: Tensor | None, valid: Tensor | None) -> int | None:
    if index is None or not values_at_hand(index):
        return None
    labels = (index if valid is None else index.masked_fill(~valid, -1)).flatten()
    factors = (2 * torch.arange(len(labels)) + 1) * 0x9E3779B97F4A7C1  # odd; products wrap around
    return int((labels * factors).sum())
