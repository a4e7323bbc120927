"""Groups of processes, as arguments, and which classes each of a group holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from xent.contract.errors import described, mistake
from xent.contract.shards import Shard


@dataclass(frozen=True)
class ClassShards:
    """Which classes each rank of a group holds; made by ``class_shards``.

    Copies of a Module that holds one share it.

    Example:
        >>> import xent
        >>> shards = xent.ClassShards(group=None, ranges=((0, 500), (500, 1000)))
        >>> shards.classes
        1000
    """

    group: dist.ProcessGroup
    ranges: tuple[tuple[int, int], ...]
    """[start, stop) of each rank."""

    @property
    def own(self) -> Shard:
        """This rank's."""
        return Shard(*self.ranges[self.group.rank()], self.classes)

    @property
    def classes(self) -> int:
        """How many there are over all ranks."""
        return sum(self.sizes)

    @property
    def sizes(self) -> list[int]:
        """How many each rank holds."""
        return [stop - start for start, stop in self.ranges]


RankGroup: TypeAlias = dist.ProcessGroup | DeviceMesh
"""What ``dp_group=`` takes."""
Group: TypeAlias = RankGroup | ClassShards
"""What ``group=`` takes."""


class Groups:
    """The groups that a Module keeps. Its copies share them: a group of ranks cannot be copied.

    Nor can it be pickled, unless it is given as a ``DeviceMesh``.
    """

    def __init__(self, group: Any, dp_group: Any) -> None:
        """Raises what ``checked_group`` raises."""
        for name, given in (("group", group), ("dp_group", dp_group)):
            if given is not None and not (name == "group" and isinstance(given, ClassShards)):
                checked_group(name, given)
        self.group: Group | None = group
        self.dp_group: RankGroup | None = dp_group

    def __deepcopy__(self, memo: dict[int, Any]) -> Groups:
        return self


def checked_group(argument: str, group: Any) -> dist.ProcessGroup:
    """The process group that is given as itself or as a device mesh of one axis.

    Raises:
        TypeError: it is neither, or this rank is not in it.
        ValueError: a mesh with more than one axis.
    """
    if isinstance(group, DeviceMesh):
        if group.ndim != 1:
            raise mistake(
                ValueError,
                argument,
                expected="a device mesh of one axis",
                got=f"one of {group.ndim}",
                remedy="Name the axis: mesh['dp']." if argument == "dp_group" else _NAME_IT,
            )
        group = group.get_group()
    if isinstance(group, dist.ProcessGroup):
        return group
    outside = group is dist.GroupMember.NON_GROUP_MEMBER
    shards = " or class_shards(…)" if argument == "group" else ""
    remedy = "All ranks are torch.distributed.group.WORLD, some are new_group([0, 1])."
    if not dist.is_initialized():
        remedy = "Call torch.distributed.init_process_group() first."
    raise mistake(
        TypeError,
        argument,
        expected=f"a ProcessGroup or DeviceMesh that this rank belongs to{shards}",
        got="a group without it" if outside else described(group),
        remedy=remedy,
    )


_NAME_IT = "Name the axis: mesh['tp']."
