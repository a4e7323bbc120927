"""How rows lie in memory, and which tile of them a program of a kernel takes at a time."""

from __future__ import annotations

from functools import cache
from math import gcd
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from xent.backends.triton.functions import INTERPRETED

ACCESS_BYTES = 16
"""The most that one thread reads at once."""
LIGHT, HEAVY = 16, 8
"""How many logits of a tile belong to a thread: as many as it has registers for."""
THREADS = 256
"""Of a program, for long rows."""
FOLD, HEAVY_FOLD = 8, 2
"""Logits of a lane in a tile, where they are not what is read at once: threads share no lane."""
ROWS = (64, 8, 1)
"""Of a tile whose rows are short; few choices, since each is compiled for itself."""
WAVES = 4
"""Programs for each processor, below which the classes of a row are shared among several."""
MOST_SPANS = 256
"""Programs among which they are shared at most."""
if INTERPRETED.value:  # it takes its time by the tile, however large
    LIGHT = HEAVY = 1 << 10


class Walk(NamedTuple):
    """Logits ``[outer, C, inner]`` as the kernels go through them: batches of rows of classes."""

    batches: int
    rows: int
    classes: int
    swapped: tuple[int, int]
    """The two axes of [outer, C, inner] that changed places, so that it is [batches, C, rows]."""

    def strides(self, tensor: Tensor) -> tuple[int, int, int]:
        """How far apart batches, rows and classes of a tensor of the logits' shape are.

        0 where there is but one.
        """
        steps = tensor.transpose(*self.swapped).stride()
        batch, classes, row = (
            step if size > 1 else 0
            for step, size in zip(steps, (self.batches, self.classes, self.rows), strict=True)
        )
        return batch, row, classes


class Tile(NamedTuple):
    """What a program takes: some rows, and lanes of neighbouring logits."""

    rows: int
    lanes: int
    fold: int
    """Logits of a lane."""
    neighbours: bool
    """Whether they are neighbours, or ``lanes`` apart."""
    beside: bool
    """Whether the rows are neighbours: they are read together, whether they count or not."""
    aligned: int
    """Of what every row's offset is a multiple."""
    even: int
    """Of what the number of classes is one."""
    long: bool
    """Whether offsets within a row need 64 bits."""
    warps: int

    @property
    def width(self) -> int:
        """Classes of the tile."""
        return self.lanes * self.fold


class Grid(NamedTuple):
    """All programs: blocks of rows in each batch, times spans of classes."""

    blocks: int
    programs: int
    span: int
    spans: int


def walk_of(logits: Tensor) -> Walk:
    """Inner positions are the rows of a batch; where there is one each, the outer ones are."""
    outer, classes, inner = logits.shape
    if inner == 1:
        return Walk(1, outer, classes, (0, 2))
    return Walk(outer, inner, classes, (0, 0))


def tile_of(walk: Walk, *tensors: Tensor, heavy: bool) -> Tile:
    """The tile for logits, and for what else has their shape and is read or written with them."""
    of_thread = HEAVY if heavy else LIGHT
    logits, strides = tensors[0], [walk.strides(tensor) for tensor in tensors]
    itemsize = min(tensor.element_size() for tensor in tensors)
    _, row, step = strides[0]
    long = any(abs(classes) * walk.classes >= 1 << 31 for _, _, classes in strides)
    even = gcd(ACCESS_BYTES, walk.classes)
    at_once = ACCESS_BYTES // itemsize
    if row == 1 and step > 1:  # positions are neighbours, as in images: a thread has whole rows
        fold = min(max(1, of_thread // at_once), triton.next_power_of_2(walk.classes))
        rows = THREADS // 2 * at_once // (2 if heavy else 1)
        rows = min(rows, triton.next_power_of_2(walk.rows))
        return Tile(rows, 1, fold, True, True, 1, even, long, _warps(THREADS // 2))
    aligned = gcd(ACCESS_BYTES, *(step for of_one in strides for step in of_one[:2]))
    neighbours = step <= 1 and 2 * aligned >= at_once
    if not neighbours:  # each logit has an address of its own
        of_thread = HEAVY
    wanted = THREADS * of_thread
    width = min(wanted, triton.next_power_of_2(walk.classes))
    fold = min(width, min(at_once, aligned) if neighbours else HEAVY_FOLD if heavy else FOLD)
    shared = -(-walk.batches * walk.rows // programs_wanted(logits.device))
    most = min(wanted // width, triton.next_power_of_2(shared))
    rows = next(count for count in ROWS if count <= most)
    warps = _warps(max(rows, rows * width // of_thread))
    return Tile(rows, width // fold, fold, neighbours, False, aligned, even, long, warps)


def grid_of(walk: Walk, tile: Tile, device: torch.device) -> Grid:
    """A program for each block of rows; several where there are too few blocks for the device."""
    blocks = -(-walk.rows // tile.rows)
    programs = blocks * walk.batches
    tiles = -(-walk.classes // tile.width)
    wanted = min(tiles, MOST_SPANS, max(1, programs_wanted(device) // programs))
    span = -(-tiles // wanted) * tile.width
    return Grid(blocks, programs, span, -(-walk.classes // span))


def programs_wanted(device: torch.device) -> int:
    """So many keep a device busy."""
    return 1 if INTERPRETED.value else WAVES * _processors(device)


@cache
def _processors(device: torch.device) -> int:
    properties = getattr(torch, device.type).get_device_properties(device)
    for name in ("multi_processor_count", "gpu_subslice_count"):  # of CUDA and ROCm; of XPU
        if hasattr(properties, name):
            return int(getattr(properties, name))
    return 64  # a device that does not say


def _warps(threads: int) -> int:
    """Groups of 32 threads; a power of two."""
    return max(1, min(8, threads // 32))
