"""The arguments of ``cross_entropy`` that say what a position costs, checked and canonical."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from xent.contract.denominator import divisor, divisor_shares
from xent.contract.dtypes import accumulation, promoted
from xent.contract.layout import Layout, check_logits, layout_of
from xent.contract.reduction import Denominator
from xent.contract.rows import Rows
from xent.contract.shards import Shard
from xent.contract.targets import Check, Targets, canonical_targets
from xent.contract.weights import (
    canonical_sample_weight,
    checked_class_weight,
    checked_label_smoothing,
    jointly_valid,
    weighty_positions,
    zeroed,
)


class Call(NamedTuple):
    """What the formula and a reduction need to know, and no more."""

    layout: Layout
    rows: Rows
    targets: Targets
    sample_weight: Tensor | None
    """``[outer, inner]``, zero where a position does not count."""
    label_smoothing: float
    natural: torch.dtype
    """What torch would return."""

    @property
    def working(self) -> torch.dtype:
        """What is accumulated in."""
        return accumulation(self.natural)

    def divisor(self, rule: Denominator | None) -> Tensor | float:
        """What ``mean`` divides by when ``denominator=rule``."""
        return divisor(rule, self.layout, self.targets, self.rows.weight, self.sample_weight)

    def with_weights_of_labels(self, known: Tensor | None) -> Call:
        """The same where other ranks have told the class weights of the labels."""
        return self._replace(targets=replace(self.targets, weights=known))

    def divisor_shares(self, rule: str | None) -> Tensor | None:
        """What each position adds to that divisor, if it is a sum; None: all add 1."""
        return divisor_shares(rule, self.targets, self.rows.weight, self.sample_weight)


def checked_call(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int | Sequence[int] = -100,
    label_smoothing: float = 0.0,
    dim: int | None = None,
    sample_weight: Tensor | None = None,
    check: Check | None = None,
    shard: Shard | None = None,
) -> Call:
    """Checks them all, in torch's order where two are wrong at once."""
    check_logits(input, target)
    layout = layout_of(input, dim, shard)
    call = call_of(
        input, layout, target, weight, ignore_index=ignore_index,
        label_smoothing=label_smoothing, sample_weight=sample_weight, check=check,
    )  # fmt: skip
    if call.working == torch.float64 and input.dtype != torch.float64:
        wide = layout.rows(input.to(torch.float64))
        call = call._replace(rows=call.rows._replace(logits=wide))
    return call


def call_of(
    logits: Tensor,
    layout: Layout,
    target: Tensor,
    weight: Tensor | None,
    *,
    ignore_index: int | Sequence[int],
    label_smoothing: float,
    sample_weight: Tensor | None,
    check: Check | None,
) -> Call:
    """What is asked of checked logits; of these only shape, dtype and device are looked at."""
    targets = canonical_targets(target, logits, layout, ignore_index, check)
    weight = checked_class_weight(weight, logits, layout, same_dtype=targets.index is not None)
    label_smoothing = checked_label_smoothing(label_smoothing)
    factors = canonical_sample_weight(sample_weight, logits, layout)
    valid = jointly_valid(targets.valid, weighty_positions(sample_weight, layout))
    targets = replace(targets, valid=valid)

    natural = promoted(logits, weight, target if targets.index is None else None)
    working = accumulation(natural)
    weight = None if weight is None else weight.to(working)
    if factors is not None:
        factors = zeroed(factors.to(working), valid)
    rows = Rows(layout.rows(logits), targets.index, targets.probabilities, weight, valid)
    return Call(layout, rows, targets, factors, label_smoothing, natural)
