"""Do the ranks of a group mean the same call? Each says what it has; all come to one verdict.

Whoever finds a mistake in its own arguments says so before it raises: the others would wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from xent.contract.errors import mistake, plain
from xent.contract.groups import ClassShards, checked_group
from xent.contract.inspection import values_at_hand
from xent.contract.layout import Layout
from xent.contract.rows import LinearRows, Rows
from xent.contract.shards import UNKNOWN, Shard
from xent.statistics.shards.class_shards import in_rank_order
from xent.statistics.shards.collectives import answered, gathered, replicated
from xent.statistics.shards.parts import Part, check_mode


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


C = TypeVar("C", bound=Checked)


@dataclass(frozen=True)
class Card:
    """What a rank says of its call."""

    error: str | None = None
    positions: tuple[int, ...] = ()
    classes: int = 0
    """Its own."""
    weights: int | None = None
    """How many class weights it was given."""
    labels: tuple[int, int] | None = None
    """The least and the largest that counts, where they can be looked at."""
    same: tuple[tuple[str, str], ...] = ()
    """What has to be the same on every rank, by name."""


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
    if isinstance(group, ClassShards):
        part = Part(group.own, group.group)
        if not in_full:
            return _in_the_shard(checked, part, weight), part
    else:
        part = Part(UNKNOWN, checked_group("group", group))
    cards, error = _exchanged(checked, part.group, weight, in_full, same)
    if error is not None:
        raise error
    _check_same(cards)
    own = part.group.rank()
    if not part.shard.is_known:
        part = Part(in_rank_order([card.classes for card in cards], own), part.group)
    _check_others(cards, own, part.shard.classes)
    call = _in_the_shard(checked, part, weight)
    if in_full:
        _check_values(call, part.group)
    return call, part


def _in_the_shard(
    checked: Callable[[Shard, Tensor | None], C], part: Part, weight: Tensor | None
) -> C:
    if weight is not None and part.group.size() > 1 and len(weight) == part.shard.classes:
        weight = replicated(weight, part.group)  # all ranks have all of it
    call = checked(part.shard, weight)
    if call.layout.own_classes != part.shard.size:
        raise mistake(
            ValueError,
            "input",
            expected=f"logits of {part.shard.size} classes, {part.shard.start}.."
            f"{part.shard.stop - 1} of {part.shard.classes}, on rank {part.group.rank()}",
            got=f"{call.layout.own_classes}",
            remedy="They are what class_shards was told.",
        )
    return call


def _exchanged(
    checked: Callable[[Shard, Tensor | None], Checked],
    group: dist.ProcessGroup,
    weight: Any,
    in_full: bool,
    same: dict[str, Any],
) -> tuple[list[Card], Exception | None]:
    """The cards of all ranks, and what is wrong with this rank's arguments."""
    error = None
    try:
        card = _card_of(checked(UNKNOWN, weight), weight, in_full, same)
    except Exception as mistaken:  # whatever it is, the others must not wait for this rank
        error = mistaken
        card = Card(error=f"{type(error).__name__}: {str(error).splitlines()[0]}")
    return gathered(card, group, "its part in a loss"), error


def _card_of(call: Checked, weight: Tensor | None, in_full: bool, same: dict[str, Any]) -> Card:
    rows = call.rows
    kind = "nothing"
    if rows.target is not None:
        kind = "class indices"
    elif rows.probabilities is not None:
        kind = f"{plain(rows.probabilities.dtype)} probabilities"
    first = rows.hidden if isinstance(rows, LinearRows) else rows.logits
    weighed = "none" if weight is None else f"a {plain(weight.dtype)} tensor"
    shared = {
        "group": f"a call with {' '.join(same)}",  # of one function, that is
        "check": "'values'" if in_full else None,
        "input": f"a {plain(first.dtype)} tensor", "target": kind, "weight": weighed, **same,
    }  # fmt: skip
    return Card(
        positions=call.layout.positions,
        classes=call.layout.own_classes,
        weights=None if weight is None else len(weight),
        labels=_span(rows.target, rows.valid, in_full),
        same=tuple((name, str(value)) for name, value in shared.items()),
    )


def _span(target: Tensor | None, valid: Tensor | None, in_full: bool) -> tuple[int, int] | None:
    if target is None or not (in_full or values_at_hand(target)):
        return None
    counted = target if valid is None else target[valid]
    return (int(counted.min()), int(counted.max())) if counted.numel() else None


def _check_same(cards: list[Card]) -> None:
    """Raises the same error on every rank."""
    for rank, card in enumerate(cards):
        if card.error is not None:
            raise RuntimeError(f"group: rank {rank} could not take part; there: {card.error}")
    first = cards[0]
    for rank, card in enumerate(cards):
        if card.positions != first.positions:
            raise mistake(
                ValueError,
                "input",
                expected="the same positions on every rank of the group",
                got=f"{first.positions} on rank 0 and {card.positions} on rank {rank}",
                remedy="Ranks share the classes of the same rows; for shares of a batch see "
                "dp_group.",
            )
        for (name, here), (_, there) in zip(first.same, card.same, strict=True):
            if here != there:
                raise mistake(
                    ValueError,
                    name,
                    expected="the same on every rank of the group",
                    got=f"{here} on rank 0 and {there} on rank {rank}",
                )


def _check_others(cards: list[Card], own: int, classes: int) -> None:
    """Raises what another rank is about to raise of its own arguments; there it is said in full."""
    mistakes = {rank: _mistake_in(card, classes) for rank, card in enumerate(cards)}
    if mistakes[own] is None:
        for rank, found in mistakes.items():
            if found is not None:
                raise RuntimeError(f"group: rank {rank} could not take part; there: {found}")


def _mistake_in(card: Card, classes: int) -> str | None:
    if card.labels is not None and not 0 <= card.labels[0] <= card.labels[1] < classes:
        low, high = card.labels
        return f"target has labels from {low} to {high}; expected 0..{classes - 1}."
    if card.weights not in (None, card.classes, classes):
        return f"weight has {card.weights} factors; expected {card.classes} or {classes}."
    return None


def _check_values(call: Checked, group: dist.ProcessGroup) -> None:
    """Labels, which positions count and how much are those of rank 0, or every rank raises."""
    rows = call.rows
    first = rows.hidden if isinstance(rows, LinearRows) else rows.logits
    counting = rows.valid
    if counting is None:
        size = call.layout.vectors(torch.empty(call.layout.positions, device="meta")).shape
        counting = torch.ones(size, dtype=torch.bool, device=first.device)
    if rows.target is None:
        _check_equal("valid", counting, call.layout, group)
    else:
        labels = rows.target.masked_fill(~counting, _IGNORED)
        _check_equal("target", labels, call.layout, group)
    factors = getattr(getattr(call, "call", call), "sample_weight", None)  # statistics have none
    if factors is not None:
        _check_equal("sample_weight", factors.detach(), call.layout, group)


_IGNORED = -(1 << 63)


def _check_equal(name: str, tensor: Tensor, layout: Layout, group: dist.ProcessGroup) -> None:
    first = tensor.clone(memory_format=torch.contiguous_format)
    with answered(f"its {name}"):
        dist.broadcast(first, group=group, group_src=0)
    different = layout.restore((tensor != first) & ~((tensor != tensor) & (first != first)))
    found = None
    if bool(different.any()):
        place = tuple(different.nonzero()[0].tolist())
        found = place, *(_said(layout.restore(t)[place].item()) for t in (first, tensor))
    for rank, said in enumerate(gathered(found, group, f"its {name}")):
        if said is not None:
            place, of_first, there = said
            raise mistake(
                ValueError,
                f"{name}[{', '.join(map(str, place))}]",
                expected="the same on every rank of the group",
                got=f"{of_first} on rank 0 and {there} on rank {rank}",
                remedy="Ranks share the classes of the same rows: broadcast what belongs to these.",
            )


def _said(value: float) -> str:
    return "an ignored label" if value == _IGNORED else str(value)
