"""Logits in a ``DTensor``: what is here, who holds the rest, and the loss as a ``DTensor`` again.

Each axis of the mesh shards the classes (one axis at most), shards some positions, or repeats. The
first is ``group=`` with a known split; over the second kind sums run on. Nothing of torch is
patched.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from xent.contract.errors import described, mistake, require_tensor, shape
from xent.contract.groups import ClassShards
from xent.contract.layout import layout_of
from xent.functional.ranks import Ranks

Placements = tuple[Placement, ...]


def dtensor_loss(
    general: Callable[..., Tensor],
    input: DTensor,
    target: Tensor,
    weight: Tensor | None,
    *,
    group: Any,
    sample_weight: Tensor | None,
    dim: int | None,
    **options: Any,
) -> Tensor:
    """The loss of logits that lie on a mesh, by ``general``, the loss of what lies here."""
    if group is not None:
        raise mistake(
            ValueError,
            "group",
            expected="None, since the logits are a DTensor, which knows its ranks",
            got=type(group).__name__,
        )
    placed = _Placed(input, dim)
    loss = general(
        input.to_local(),
        placed.labels(target),
        placed.class_weight(weight),
        sample_weight=placed.positions_of("sample_weight", sample_weight),
        dim=placed.dim, group=placed.group, ranks=placed.ranks, **options,
    )  # fmt: skip
    return placed.result(loss)


class _Placed:
    """How logits lie on their mesh, and so what belongs to them."""

    def __init__(self, input: DTensor, dim: int | None) -> None:
        self.mesh, self.shape = input.device_mesh, tuple(input.shape)
        self.placements: Placements = input.placements
        self.dim = layout_of(input, dim).dim
        for placement in self.placements:
            if not (type(placement) is Shard or placement.is_replicate()):
                raise mistake(
                    ValueError,
                    "input",
                    expected="a DTensor that is sharded or replicated along each axis of its mesh",
                    got=str(placement),
                    remedy="Redistribute it first: input.redistribute(placements=…).",
                )
        over_classes = [i for i, p in enumerate(self.placements) if p.is_shard(self.dim)]
        if len(over_classes) > 1:
            raise mistake(
                ValueError,
                "input",
                expected="classes that are sharded along one axis of the mesh",
                got=f"placements {self.placements} with the classes on axis {self.dim}",
                remedy="Redistribute it first: input.redistribute(placements=…).",
            )
        self.group = None
        if over_classes:
            ranks = self.mesh.get_group(over_classes[0])
            self.group = ClassShards(ranks, _chunks(self.shape[self.dim], ranks.size()))
            self._check_split(input.to_local().shape[self.dim], self.group.own.size)
        along = (
            self.mesh.get_group(i)
            for i, placement in enumerate(self.placements)
            if placement.is_shard() and i not in over_classes
        )
        self.ranks = Ranks(tuple(along), batch=layout_of(input, dim).batch)

    def _check_split(self, size: int, expected: int) -> None:
        if size != expected:
            raise mistake(
                ValueError,
                "input",
                expected=f"classes that are cut as Shard cuts them, {expected} on this rank",
                got=str(size),
                remedy="Redistribute it, or pass the local logits and group=.",
            )

    def labels(self, target: Tensor) -> Tensor:
        """Those of the logits that are here."""
        require_tensor("target", target)
        if tuple(target.shape) == self.shape:
            return self._local("target", target, self.placements, self.shape)
        found = self.positions_of("target", target)
        assert found is not None  # a target is there
        return found

    def positions_of(self, name: str, vector: Tensor | None) -> Tensor | None:
        """One value for each position that is here."""
        if vector is None:
            return None
        require_tensor(name, vector)
        positions = self.shape[: self.dim] + self.shape[self.dim + 1 :]
        return self._local(name, vector, self._placements_of_positions, positions)

    def class_weight(self, weight: Tensor | None) -> Tensor | None:
        """The factors of the classes that are here; their gradients are sums over positions."""
        if weight is None:
            return None
        require_tensor("weight", weight)
        kinds = [(p.is_shard(self.dim), p.is_shard()) for p in self.placements]
        wanted = tuple(Shard(0) if own else Replicate() for own, _ in kinds)
        partial = tuple(
            Shard(0) if own else Partial() if sharded else Replicate() for own, sharded in kinds
        )
        return self._local("weight", weight, wanted, (self.shape[self.dim],), partial)

    def result(self, loss: Tensor) -> Tensor:
        """A loss as a ``DTensor``: one for all, or one for each position."""
        if loss.ndim == 0 and len(self.shape) > 1:
            everywhere = [Replicate()] * self.mesh.ndim
            return DTensor.from_local(loss, self.mesh, everywhere, run_check=False)
        positions = torch.Size(self.shape[: self.dim] + self.shape[self.dim + 1 :])
        return DTensor.from_local(
            loss.contiguous(), self.mesh, self._placements_of_positions, run_check=False,
            shape=positions, stride=torch.empty(positions, device="meta").stride(),
        )  # fmt: skip

    @property
    def _placements_of_positions(self) -> Placements:
        """Those of a tensor without the class axis."""

        def without_classes(placement: Placement) -> Placement:
            if not isinstance(placement, Shard) or placement.dim == self.dim:
                return Replicate()
            return Shard(placement.dim - (placement.dim > self.dim))

        return tuple(map(without_classes, self.placements))

    def _local(
        self,
        name: str,
        tensor: Tensor,
        placements: Placements,
        whole: tuple[int, ...],
        gradients: Placements | None = None,
    ) -> Tensor:
        """What is here of a DTensor, or of a plain tensor that all ranks have all of."""
        if not isinstance(tensor, DTensor):
            if tuple(tensor.shape) != whole and any(p.is_shard() for p in placements):
                raise mistake(
                    ValueError,
                    name,
                    expected=f"a DTensor, or all of it on every rank, shape {shape(whole)}",
                    got=described(tensor),
                    remedy="Is this the part of one rank? DTensor.from_local(part, mesh, …).",
                )
            everywhere = [Replicate()] * self.mesh.ndim
            tensor = DTensor.from_local(tensor, self.mesh, everywhere, run_check=False)
        elif tensor.device_mesh != self.mesh:
            raise mistake(
                ValueError, name, expected=f"a DTensor on the mesh of input, {self.mesh}",
                got=f"one on {tensor.device_mesh}",
            )  # fmt: skip
        if tuple(tensor.shape) == whole:
            tensor = tensor.redistribute(self.mesh, placements)
        return tensor.to_local(grad_placements=gradients)


def _chunks(size: int, ranks: int) -> tuple[tuple[int, int], ...]:
    """The ranges that ``Shard`` cuts an axis into: like ``torch.chunk``, the last ones short."""
    length = -(-size // ranks)
    ends = [min(size, rank * length) for rank in range(ranks + 1)]
    return tuple(pairwise(ends))
