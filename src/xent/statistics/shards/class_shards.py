"""Who holds which classes, asked once."""

from __future__ import annotations

import numbers
from itertools import accumulate, pairwise
from typing import Any

from xent.contract.errors import described, mistake
from xent.contract.groups import ClassShards, checked_group
from xent.contract.shards import Shard, check_partition
from xent.statistics.shards.collectives import gathered


def class_shards(classes: int | tuple[int, int], group: Any) -> ClassShards:
    """Tells the ranks of a group, once, which classes each of them holds; pass it as ``group=``.

    A loss that is given a process group asks at every call: how many classes has each rank, and do
    all mean the same call? That is one ``all_gather_object``, for which a GPU has to be waited
    for. A loss that is given this object asks nobody, unless ``check="values"``: it costs two
    all-reduces and nothing else, and nobody notices if a rank means another call, has other rows or
    raises; the others wait. Every rank of the group has to call this function.

    Args:
        classes: how many this rank holds, where the ranks follow each other; or which,
            (start, stop), in any order of ranks.
        group: a ``ProcessGroup``, or a ``DeviceMesh`` of one axis.

    Returns:
        ClassShards, with ``ranges`` and ``classes``.

    Raises:
        TypeError: ``group`` or ``classes`` is of the wrong kind.
        ValueError: a class that no rank holds, or two; on every rank.
        RuntimeError: a rank did not answer, or was wrong.

    Example:
        >>> import torch.distributed as dist, xent
        >>> dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1, backend="gloo")
        >>> xent.class_shards(1000, dist.group.WORLD).ranges
        ((0, 1000),)
        >>> dist.destroy_process_group()
    """
    checked = checked_group("group", group)
    own, error = None, None
    try:
        own = _checked_classes(classes)
    except (TypeError, ValueError) as mistaken:  # to be raised when the others know of it
        error = mistaken
    said = gathered(own if error is None else str(error), checked, "which classes it holds")
    if error is not None:
        raise error
    for rank, words in enumerate(said):
        if isinstance(words, str):
            raise RuntimeError(f"group: rank {rank} could not take part; there: {words}")
    if len({type(words) for words in said}) > 1:
        raise mistake(
            ValueError,
            "classes",
            expected="on every rank a number of classes, or on every rank (start, stop)",
            got=", ".join(f"{words} on rank {rank}" for rank, words in enumerate(said)),
        )
    if isinstance(own, int):
        said = list(pairwise(accumulate(said, initial=0)))
    ranges = tuple(said)
    check_partition(ranges)
    return ClassShards(checked, ranges)


def in_rank_order(sizes: list[int], own: int) -> Shard:
    """This rank's classes, if the ranks' follow each other."""
    start = sum(sizes[:own])
    return Shard(start, start + sizes[own], sum(sizes))


def _checked_classes(classes: Any) -> int | tuple[int, int]:
    expected = "how many classes this rank holds, or which: (start, stop)"
    if _is_count(classes):
        if classes < 0:
            raise mistake(ValueError, "classes", expected=expected, got=str(classes))
        return int(classes)
    pair = isinstance(classes, tuple | list) and len(classes) == 2
    if pair and all(map(_is_count, classes)):
        return int(classes[0]), int(classes[1])
    raise mistake(TypeError, "classes", expected=expected, got=described(classes))


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
