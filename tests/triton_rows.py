"""Rows for the triton kernels, tiles small enough to have ends, and the truth on a CPU in float64.

With the environment variable XENT_TEST_DEVICE the tensors are there, and the kernels are compiled;
without it triton's interpreter runs them, on a CPU. Tests on devices run where not all of the
usual packages are: nothing but torch, triton, pytest and this library is imported here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from xent.backends.torch import rows as definition
from xent.contract.rows import Coefficients, Rows, Vectors

pytest.importorskip("triton", reason="the kernels are triton's")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
FOUND = "cpu" if INTERPRETED else "xpu" if torch.xpu.is_available() else "cuda"
DEVICE = torch.device(os.environ.get("XENT_TEST_DEVICE") or FOUND)
if DEVICE.type == "cpu" and not INTERPRETED:
    pytest.skip("on a CPU the kernels need TRITON_INTERPRET=1", allow_module_level=True)

from xent.backends.triton import launch, tiles  # noqa: E402  # after the look at triton

INF, NAN = math.inf, math.nan
IGNORED = -100
FLOATS = [torch.float16, torch.bfloat16, torch.float32]
EPS = torch.finfo(torch.float32).eps

# What tiles are made of, and how many programs a device wants.
FOUR: dict[str, Any] = {"FOLD": 4, "HEAVY_FOLD": 4, "ROWS": (4, 1)}
TWO: dict[str, Any] = FOUR | {"FOLD": 2, "HEAVY_FOLD": 2}
SPANS = {"THREADS": 2, "LIGHT": 16, "HEAVY": 16, **FOUR}, 64
LOOPS = {"THREADS": 2, "LIGHT": 16, "HEAVY": 16, **TWO}, 1
SPANS_OF_LOOPS = {"THREADS": 2, "LIGHT": 8, "HEAVY": 8, **FOUR}, 4
POSITIONS = {"THREADS": 2, "LIGHT": 64, "HEAVY": 64, **FOUR}, 64
AS_THEY_ARE: tuple[dict[str, Any], int | None] = {}, None
SIZES = {
    "spans": SPANS,
    "loops": LOOPS,
    "spans of loops": SPANS_OF_LOOPS,
    "positions": POSITIONS,
    "as they are": AS_THEY_ARE,
}


def use_tiles(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    """Tiles of another size, from now on in this test."""
    constants, wanted = SIZES[size]
    for name, value in constants.items():
        monkeypatch.setattr(tiles, name, value)
    if wanted is not None:
        monkeypatch.setattr(tiles, "programs_wanted", lambda device: wanted)


def plan(rows: Rows, heavy: bool = False) -> tuple[tiles.Walk, tiles.Tile, tiles.Grid]:
    """How the statistics' kernel will go through these rows."""
    return launch._plan(rows.logits, rows.probabilities, heavy=heavy)


@contextmanager
def poisoned() -> Iterator[None]:
    """New memory holds NaN, or the largest integer, so that what is not written is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


# ---- memory layouts of [outer, C, inner] ----


def positions_first(x: Tensor) -> Tensor:
    """Classes are neighbours, though positions come after them: channels last."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def in_a_room(x: Tensor, axis: int, before: int = 1) -> Tensor:
    """A slice of a larger tensor, NaN all around; it begins at no multiple of 16 bytes."""
    shape = list(x.shape)
    shape[axis] += 5
    return x.new_full(shape, NAN).narrow(axis, before, x.shape[axis]).copy_(x)


def apart(x: Tensor) -> Tensor:
    """Every other element of each axis."""
    room = x.new_full([2 * size for size in x.shape], NAN)
    return room[(slice(None, None, 2),) * x.ndim].copy_(x)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": torch.Tensor.contiguous,
    "channels last": positions_first,
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "batch innermost": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "room for classes": lambda x: in_a_room(x, 1),
    "room for positions": lambda x: in_a_room(x, 2),
    "channels last with room": lambda x: in_a_room(x.movedim(1, -1), -1).movedim(-1, 1),
    "apart": apart,
    "one row for all": lambda x: x[:1].contiguous().expand_as(x),
    "one class for all": lambda x: x[:, :1].contiguous().expand_as(x),
    "negative bit": lambda x: torch._neg_view(-x),
}


# ---- problems ----


def problem(
    shape: tuple[int, int, int],
    kind: str = "index",
    *,
    dtype: torch.dtype = torch.float32,
    weighted: bool = False,
    ignored: bool = False,
    q_dtype: torch.dtype | None = None,
    scale: float = 3.0,
) -> Rows:
    """Canonical rows on the device; some of them do not count, if wanted."""
    outer, classes, inner = shape
    logits = (scale * torch.randn(shape)).to(dtype)
    target = q = None
    if kind == "index":
        target = torch.randint(classes, (outer, inner))
    if kind == "probabilities":
        q = torch.randn(shape).softmax(1).to(q_dtype or dtype)
    weight = (torch.rand(classes) + 0.5).to(dtype) if weighted else None
    valid = None
    if ignored:
        valid = torch.arange(outer * inner).view(outer, inner) % 3 != 1
    return moved(Rows(logits, target, q, weight, valid), DEVICE)


def moved(rows: Rows, device: torch.device | str) -> Rows:
    return Rows(*(t if t is None else t.to(device) for t in rows))


def exact(rows: Rows) -> Rows:
    """The same on a CPU in float64."""
    here = moved(rows, "cpu")
    return Rows(*(t.double() if t is not None and t.is_floating_point() else t for t in here))


def statistics(rows: Rows, uniform: bool = False) -> Vectors:
    with poisoned():
        return launch.statistics(rows, uniform)


def gradient(rows: Rows, vectors: Vectors, coefficients: Coefficients, **options: bool) -> Tensor:
    with poisoned():
        return launch.logit_gradient(rows, vectors, coefficients, **options)


def ramp(like: Tensor) -> Tensor:
    """Coefficients that are neither 1 nor constant, and exact in every dtype."""
    values = 0.75 + torch.arange(like.numel()) % 7 / 8
    return values.reshape(like.shape).to(like)


def coefficients_of(vectors: Vectors, lse: bool = False) -> Coefficients:
    """One at every statistic that there is."""
    of_lse = ramp(vectors.rest).flip(0) if lse else None
    return Coefficients(
        of_lse, *(None if v is None else ramp(v) for v in (vectors[2], vectors[3], vectors[4]))
    )


# ---- comparison ----


def assert_near(ours: Tensor, truth: Tensor, *, of: float = 0.0, margin: float = 0.0) -> None:
    """Relative to each number, or to a size: eight roundings, and those of the margin.

    A device's exp(x) is 2^(x·log₂e), where the exponent is rounded: a relative error of about
    2e-7 + 1e-7·|x|, x being the margin at most. Infinities and NaN are where they are in the truth.
    """
    ours = ours.detach().cpu().double()
    truth = truth.double()
    rtol = (8 + margin) * EPS
    torch.testing.assert_close(
        ours, truth, rtol=rtol, atol=max(rtol * of, 1e-37), equal_nan=True, check_layout=False
    )


def assert_right(rows: Rows, uniform: bool = False, lse: bool = False, margin: float = 0) -> None:
    """Statistics and gradient are those of the definition in float64."""
    true_rows = exact(rows)
    ours, truth = statistics(rows, uniform), definition.statistics(true_rows, uniform)
    margin = max(margin, spread_of(true_rows))
    assert_near(ours.lse, truth.lse, of=1.0, margin=margin)
    assert_near(ours.maximum, truth.maximum)
    for mine, true in zip(ours[2:5], truth[2:5], strict=True):
        assert (mine is None) == (true is None)
        if mine is not None:
            assert mine.dtype == torch.float32
            assert_near(mine, true, margin=margin)
    slopes = gradient(rows, ours, coefficients_of(ours, lse))
    true = definition.logit_gradient(true_rows, truth, coefficients_of(truth, lse))
    assert slopes.dtype == rows.logits.dtype
    assert slopes.shape == rows.logits.shape
    assert_near_in(slopes, true, margin=margin, sharp=not uniform and rows.probabilities is None)


def spread_of(rows: Rows) -> float:
    """How far logits that count lie behind the largest, at most: what exp is given."""
    x = rows.logits if rows.valid is None else rows.logits.masked_fill(~rows.valid[:, None], 0)
    low = x.masked_fill(~x.isfinite(), INF).amin(1)
    high = x.masked_fill(~x.isfinite(), -INF).amax(1)
    far = (high - low).clamp(0, 104)
    return float(far[far.isfinite()].max()) if far.isfinite().any() else 0.0


def assert_near_in(slopes: Tensor, true: Tensor, *, margin: float, sharp: bool) -> None:
    """Gradients: sharp ones number by number; a difference of sums relative to the largest.

    In half types half a unit of the result comes on top, of subnormal numbers a fixed one.
    """
    finite = true[true.isfinite()]
    size = float(finite.abs().max()) if finite.numel() else 0.0
    rtol, atol = (8 + margin) * EPS, 1e-37
    if not sharp:
        atol = rtol * size
    if slopes.dtype != torch.float32:
        info = torch.finfo(slopes.dtype)
        rtol += 0.51 * info.eps
        atol += 0.51 * info.smallest_normal * info.eps
    torch.testing.assert_close(
        slopes.detach().cpu().double(), true, rtol=rtol, atol=atol, equal_nan=True,
        check_layout=False,
    )  # fmt: skip
