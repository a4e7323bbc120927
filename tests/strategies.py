"""Hypothesis strategies: what a loss may be called with, from ordinary to barely legal.

Structure (shapes, memory layouts, dtypes, options) is drawn by Hypothesis, so that failures shrink;
the values come from a drawn seed. Probabilities and weights are in the dtype of the logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGERS = (
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)
LAYOUTS = ("contiguous", "permuted", "channels last", "stepped")
KINDS = ("ordinary", "huge", "confident", "masked")
REDUCTIONS = ("none", "mean", "sum")
IGNORED = 100  # fits every integer dtype and is no class

floats = st.sampled_from(FLOATS)
integers = st.sampled_from(INTEGERS)
layouts = st.sampled_from(LAYOUTS)
kinds = st.sampled_from(KINDS)
reductions = st.sampled_from(REDUCTIONS)
smoothings = st.sampled_from((0.0, 0.1, 0.5, 1.0))
seeds = st.integers(0, 2**31 - 1)


@st.composite
def shapes(
    draw: st.DrawFn, *, classes: tuple[int, int] = (1, 6), batched: bool = False, empty: bool = True
) -> tuple[int, ...]:
    """``(C)``, ``(N, C)`` or ``(N, C, d1, …, dK)`` with up to three of the latter."""
    ndim = draw(st.integers(2 if batched else 1, 5))
    c = draw(st.integers(*classes))
    sizes = draw(st.lists(st.integers(0 if empty else 1, 4), min_size=ndim - 1, max_size=ndim - 1))
    return (*sizes[:1], c, *sizes[1:])


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values in another order or spacing in memory, with rubbish in the gaps."""
    if layout == "contiguous" or tensor.ndim == 0:
        return tensor.contiguous()
    axes = tuple(range(tensor.ndim))
    if layout == "permuted":
        return tensor.permute(axes[::-1]).contiguous().permute(axes[::-1])
    if layout == "channels last":
        return tensor.movedim(min(1, axes[-1]), -1).contiguous().movedim(-1, min(1, axes[-1]))
    if layout == "expanded":
        return tensor[:1].contiguous().expand(tensor.shape)
    room = torch.empty([2 * size + 1 for size in tensor.shape], dtype=tensor.dtype)
    room.fill_(math.nan if tensor.is_floating_point() else 99)
    steps = room[(slice(1, None, 2),) * tensor.ndim]
    return steps.copy_(tensor)


def logits_of(shape: tuple[int, ...], kind: str, dtype: torch.dtype, seed: int) -> Tensor:
    """Logits in steps of 1/16, so that differences of float32 and float64 logits are exact.

    A masked class is −inf; the last class never is, so that every row has a softmax.
    """
    random = torch.Generator().manual_seed(seed)
    axis = class_axis(shape)
    x = torch.randn(shape, generator=random, dtype=torch.float64)
    if kind == "huge":
        x = 2000 * x
    elif kind == "confident":
        leader = torch.randint(shape[axis], (1,), generator=random).item()
        x.select(axis, leader).add_(40)
    x = ((16 * x).round() / 16).to(dtype)
    if kind == "masked":
        off = torch.rand(shape, generator=random) < 0.4
        off.select(axis, -1).fill_(False)
        x = x.masked_fill(off, -math.inf)
    return x


def class_axis(shape: tuple[int, ...]) -> int:
    return 1 if len(shape) > 1 else 0


def positions_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    axis = class_axis(shape)
    return shape[:axis] + shape[axis + 1 :]


@dataclass(frozen=True)
class Problem:
    """The arguments of one call; ``options`` are those of torch's signature."""

    logits: Tensor
    target: Tensor
    weight: Tensor | None
    options: dict[str, Any]

    @property
    def axis(self) -> int:
        return class_axis(tuple(self.logits.shape))

    @property
    def indices(self) -> bool:
        return not self.target.is_floating_point()

    @property
    def valid(self) -> Tensor:
        """The positions that count."""
        if self.indices:
            return self.target.to(torch.int64) != self.options.get("ignore_index", -100)
        return torch.ones(positions_of(tuple(self.logits.shape)), dtype=torch.bool)

    def of(self, function: Any, **options: Any) -> Tensor:
        """The loss by this function, with some options replaced."""
        return function(self.logits, self.target, self.weight, **{**self.options, **options})

    def but(self, **changes: Any) -> Problem:
        """The problem with some parts replaced."""
        return replace(self, **changes)

    def as_double(self) -> Problem:
        """Every floating-point tensor in float64."""
        target = self.target.to(torch.int64) if self.indices else self.target.double()
        weight = None if self.weight is None else self.weight.double()
        return self.but(logits=self.logits.double(), target=target, weight=weight)


@st.composite
def problems(
    draw: st.DrawFn,
    *,
    shape: st.SearchStrategy[tuple[int, ...]] | None = None,
    dtypes: tuple[torch.dtype, ...] = FLOATS,
    index: bool | None = None,
    ignored: bool = True,
    smoothing: st.SearchStrategy[float] = smoothings,
    kinds: tuple[str, ...] = KINDS,
    weighted: bool | None = None,
) -> Problem:
    """A problem with index or probability targets; ``index`` and ``weighted`` None mean either."""
    size = draw(shapes() if shape is None else shape)
    dtype = draw(st.sampled_from(dtypes))
    seed = draw(seeds)
    random = torch.Generator().manual_seed(seed + 1)
    logits = laid_out(logits_of(size, draw(st.sampled_from(kinds)), dtype, seed), draw(layouts))
    options: dict[str, Any] = {"reduction": draw(reductions), "label_smoothing": draw(smoothing)}
    if draw(st.booleans()) if index is None else index:
        target = draw(index_targets(size, random, ignored))
        options["ignore_index"] = IGNORED
    else:
        target = torch.rand(size, generator=random, dtype=torch.float64)
        target = target.square() / target.square().sum(class_axis(size), keepdim=True)
        target = laid_out(target.to(dtype), draw(layouts))
    weight = None
    if draw(st.booleans()) if weighted is None else weighted:
        weight = torch.rand(size[class_axis(size)], generator=random, dtype=torch.float64)
        weight = (weight + 0.125).to(dtype)
    return Problem(logits, target, weight, options)


@st.composite
def index_targets(
    draw: st.DrawFn, shape: tuple[int, ...], random: torch.Generator, ignored: bool
) -> Tensor:
    """Labels of any integer dtype, a quarter of them ignored, some of stride 0."""
    positions = positions_of(shape)
    target = torch.randint(shape[class_axis(shape)], positions, generator=random)
    if ignored:
        target = target.masked_fill(torch.rand(positions, generator=random) < 0.25, IGNORED)
    return laid_out(target.to(draw(integers)), draw(st.sampled_from((*LAYOUTS, "expanded"))))
