"""Calls to explain, and every number of them from plain torch in float64.

Independent of the library: log_softmax, the formulas of torch's documentation, and autograd.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import xent
from xent.explanation import Explanation

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OF_A_LOSS = frozenset({"class_names", "row", "top", "steps", "step_size", "loss"})


@dataclass(frozen=True, eq=False)
class Asked:
    """The arguments of one call of ``explain`` or ``explain_binary``."""

    name: str
    input: Tensor
    target: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    binary: bool = False

    def explained(self, **options: Any) -> Explanation:
        function = xent.explain_binary if self.binary else xent.explain
        return function(self.input, self.target, **{**self.options, **options})

    def returned(self, **options: Any) -> Tensor:
        """What the loss itself returns."""
        function = xent.binary_cross_entropy_with_logits if self.binary else xent.cross_entropy
        options = {**self.options, **options}
        of_loss = {name: value for name, value in options.items() if name not in OF_A_LOSS}
        return function(self.input, self.target, **of_loss)

    @property
    def place(self) -> int:
        """The explained position, its number."""
        return self.options.get("row", 0)


class Truth:
    """All positions as rows ``[P, C]``, their losses and the value, followed by autograd."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        options, binary = asked.options, asked.binary
        self.options = options
        x, y = asked.input.double(), asked.target
        if binary:
            pairs = torch.stack([torch.zeros_like(x), x], dim=-1).reshape(-1, 2)
            self.shape, self.batch = tuple(x.shape), x.numel()
            given = y.double().flatten()
            label = torch.stack([1 - given, given], dim=1)
            self.counts = ~_any_of(y.flatten(), options.get("ignore_index"))
            weight = torch.ones_like(pairs)
            if options.get("pos_weight") is not None:
                weight[:, 1] = options["pos_weight"].double().broadcast_to(x.shape).flatten()
            factor = options.get("weight")
        else:
            axis = options.get("dim", 1 if x.ndim > 1 else 0)
            moved = x.movedim(axis, -1)
            pairs = moved.reshape(-1, moved.shape[-1])
            self.shape = tuple(moved.shape[:-1])
            self.batch = self.shape[0] if self.shape else 1
            if y.shape == asked.input.shape:
                label = y.double().movedim(axis, -1).reshape(pairs.shape)
                self.counts = torch.ones(len(pairs), dtype=torch.bool)
                self.index = None
            else:
                self.index = y.long().flatten()
                self.counts = ~_any_of(self.index, options.get("ignore_index", -100))
                label = F.one_hot(self.index.masked_fill(~self.counts, 0), pairs.shape[1]).double()
            weight = options.get("weight")
            weight = torch.ones(pairs.shape[1]) if weight is None else weight
            weight = weight.double().expand_as(pairs)
            factor = options.get("sample_weight")
        self.factor = torch.ones(len(pairs), dtype=torch.float64)
        if factor is not None:
            self.factor = factor.double().broadcast_to(self.shape).flatten()
            if not binary:
                self.counts = self.counts & (self.factor != 0)
        counted = self.counts[:, None]
        self.label = label.masked_fill(~counted, 0)
        self.rows = pairs.masked_fill(~counted, 0).requires_grad_()
        epsilon = options.get("label_smoothing", 0.0)
        self.target = ((1 - epsilon) * label + epsilon / pairs.shape[1]).masked_fill(~counted, 0)
        self.weight, self.mass = weight, weight * self.target

    @cached_property
    def log_p(self) -> Tensor:
        return self.rows.log_softmax(1)

    @cached_property
    def terms(self) -> Tensor:
        return self.mass * -self.log_p.masked_fill(self.mass == 0, 0)

    @cached_property
    def losses(self) -> Tensor:
        return self.factor * self.terms.sum(1)

    @cached_property
    def shares(self) -> Tensor | None:
        """What positions add to the divisor; None where it is another number."""
        rule = self.options.get("denominator")
        ones = self.counts.double()
        if self.asked.binary or rule == "valid":
            return ones
        if rule == "weight" or (rule is None and self.index is not None):
            return self.factor * (self.weight * self.label).sum(1)
        return ones * self.factor if rule is None else None

    @cached_property
    def divisor(self) -> float:
        if self.shares is not None:
            return float(self.shares.sum())
        rule = self.options["denominator"]
        return float(self.batch if rule == "batch" else rule)

    @cached_property
    def value(self) -> Tensor:
        reduction = self.options.get("reduction", "mean")
        if reduction == "none":
            return self.losses.reshape(self.shape)
        return self.losses.sum() / (self.divisor if reduction == "mean" else 1)

    def gradient(self, of: Tensor) -> Tensor:
        """At the logits of the explained position."""
        (gradient,) = torch.autograd.grad(of.sum(), self.rows, retain_graph=True)
        return gradient[self.asked.place]

    def descent(self, steps: int, step_size: float) -> list[tuple[float, Tensor]]:
        """Loss and probabilities of the row, moved alone down its own gradient."""
        place, taken = self.asked.place, []
        x = self.rows.detach()[place]
        for _ in range(steps + 1):
            x = x.detach().requires_grad_()
            surprise = -x.log_softmax(0).masked_fill(self.mass[place] == 0, 0)
            loss = self.factor[place] * (self.mass[place] * surprise).sum()
            taken.append((loss.item(), x.detach().softmax(0)))
            (gradient,) = torch.autograd.grad(loss, x)
            if self.asked.binary:
                gradient[0] = 0  # the unspoken logit is no parameter
            x = x - step_size * gradient
        return taken

    def label_entropy(self) -> float:
        """Of the labels' frequencies: of the mean label over the positions that count."""
        shares = self.label[self.counts].mean(0).tolist()
        return -math.fsum(share * math.log(share) for share in shares if share)


def _any_of(labels: Tensor, ignored: Any) -> Tensor:
    values = [] if ignored is None else [ignored] if isinstance(ignored, int) else list(ignored)
    return torch.isin(labels, torch.tensor(values, dtype=labels.dtype))


KINDS = {
    "index": ((4, 5), "index", {"row": 2}),
    "index of positions": ((2, 5, 3, 2), "index", {"row": 4}),
    "index unbatched": ((5,), "index", {}),
    "index last axis": ((2, 3, 5), "index", {"row": 4, "dim": -1}),
    "dense": ((4, 5), "dense", {"row": 2}),
    "dense of positions": ((2, 5, 3), "dense", {"row": 4}),
    "dense unbatched": ((5,), "dense", {}),
    "dense last axis": ((2, 3, 5), "dense", {"row": 4, "dim": -1}),
    "binary": ((4, 3), "binary", {"row": 4}),
    "binary flat": ((6,), "binary", {"row": 2}),
}
OPTIONS = {
    "plain": {},
    "weight": {"weight": True},
    "smoothing": {"label_smoothing": 0.1},
    "ignored": {"ignored": (-100,)},
    "two ignored": {"ignored": (-1, -2)},
    "sample weight": {"factor": True},
    "everything": {
        "weight": True, "label_smoothing": 0.25, "ignored": (-100,), "factor": True,
    },
    "everything in sum": {
        "weight": True, "label_smoothing": 0.25, "ignored": (-100,), "factor": True,
        "reduction": "sum",
    },
    "none": {"weight": True, "label_smoothing": 0.1, "reduction": "none"},
    "sum": {"weight": True, "reduction": "sum"},
    "by valid": {"weight": True, "ignored": (-100,), "denominator": "valid"},
    "by weight": {"weight": True, "factor": True, "denominator": "weight"},
    "by batch": {"weight": True, "ignored": (-100,), "denominator": "batch"},
    "by number": {"weight": True, "denominator": 7.0},
}  # fmt: skip


def asked(kind: str, options: str, dtype: torch.dtype) -> Asked:
    """One of the grid: drawn from its name, so that each is the same in any order."""
    name = f"{kind}, {options}, {str(dtype).removeprefix('torch.')}"
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    shape, labels, given = KINDS[kind]
    wanted, given = dict(OPTIONS[options]), dict(given)
    axis = given.get("dim", 1 if len(shape) > 1 else 0) % len(shape)
    positions = shape if labels == "binary" else shape[:axis] + shape[axis + 1 :]
    logits = (2 * torch.randn(shape, generator=random, dtype=torch.float64)).to(dtype)
    if labels == "index":
        target = torch.randint(shape[axis], positions, generator=random)
    elif labels == "dense":
        target = torch.rand(shape, generator=random, dtype=torch.float64)
        target = (target / target.sum(axis, keepdim=True)).to(dtype)
    else:
        target = (torch.rand(shape, generator=random) * 4).round().div(4).to(dtype)
    ignored = wanted.pop("ignored", None)
    if ignored and labels != "dense" and positions:
        for place, value in enumerate(ignored):
            target.view(-1)[(-1, 1)[place]] = value
        given["ignore_index"] = ignored[0] if len(ignored) == 1 else list(ignored)
    if wanted.pop("weight", False):
        size = shape[-1:] if labels == "binary" else shape[axis : axis + 1]
        weight = (0.25 + torch.rand(size, generator=random, dtype=torch.float64)).to(dtype)
        given["pos_weight" if labels == "binary" else "weight"] = weight
    if wanted.pop("factor", False):
        # In steps of 1/4, which every dtype holds; the last position weighs nothing.
        factor = (torch.randint(1, 9, positions, generator=random) / 4).to(dtype)
        if positions and labels != "binary":
            factor.view(-1)[0] = 0
        given["weight" if labels == "binary" else "sample_weight"] = factor
    if labels == "binary":
        wanted.pop("denominator", None)
    return Asked(name, logits, target, {**given, **wanted}, labels == "binary")


def grid(*dtypes: torch.dtype) -> list[Asked]:
    """Every kind of call with every set of options."""
    return [asked(kind, options, d) for kind in KINDS for options in OPTIONS for d in dtypes]


def named(case: Any) -> str | None:
    """The name of a test's parameter."""
    return case.name if isinstance(case, Asked) else None


def near(value: Any, relative: float = 1e-9, absolute: float = 1e-12) -> Any:
    """Within so much of a value; NaN is near NaN."""
    return pytest.approx(value, rel=relative, abs=absolute, nan_ok=True)


def column(row: Any, name: str) -> list[float]:
    """One number of each class."""
    return [getattr(c, name) for c in row.classes]
