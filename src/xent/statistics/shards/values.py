"""Are labels and factors the same on all ranks, value by value?"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from xent.contract.errors import mistake
from xent.contract.layout import Layout
from xent.contract.rows import LinearRows, Rows
from xent.statistics.shards.collectives import answered, gathered

_IGNORED = -(1 << 63)


def check_values(
    layout: Layout, rows: Rows | LinearRows, sample_weight: Tensor | None, group: dist.ProcessGroup
) -> None:
    """Labels, which positions count and how much are those of rank 0, or every rank raises."""
    here = (rows.hidden if isinstance(rows, LinearRows) else rows.logits).device
    counting = rows.valid
    if counting is None:
        size = layout.vectors(torch.empty(layout.positions, device="meta")).shape
        counting = torch.ones(size, dtype=torch.bool, device=here)
    if rows.target is None:
        _check_equal("valid", counting, layout, group)
    else:
        _check_equal("target", rows.target.masked_fill(~counting, _IGNORED), layout, group)
    if sample_weight is not None:
        _check_equal("sample_weight", sample_weight.detach(), layout, group)


def _check_equal(name: str, tensor: Tensor, layout: Layout, group: dist.ProcessGroup) -> None:
    first = tensor.clone(memory_format=torch.contiguous_format)
    with answered(f"its {name}"):
        dist.broadcast(first, group=group, group_src=0)
    both_nan = (tensor != tensor) & (first != first)
    different = layout.restore((tensor != first) & ~both_nan)
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
