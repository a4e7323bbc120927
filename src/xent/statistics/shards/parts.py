"""Which of the classes this rank holds, with whom, and what of the labels is here."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from xent.contract.inspection import plain_operations_only, values_at_hand
from xent.contract.notes import note_labels
from xent.contract.rows import Coefficients, LinearRows, Rows, Vectors
from xent.contract.shards import Shard
from xent.contract.weights import zeroed
from xent.statistics.dispatch import GPUS
from xent.statistics.shards.collectives import all_max, all_sum
from xent.statistics.shards.joining import Joined, Own, addends, joined


class Part(NamedTuple):
    """A rank's part of the classes, and the ranks with the others."""

    shard: Shard
    group: dist.ProcessGroup


class Labels(NamedTuple):
    """Class indices as this rank sees them, ``[outer, inner]``."""

    place: Tensor
    """Among the own classes; 0 where the label is elsewhere."""
    here: Tensor
    """Whether it is one of them."""
    known: Tensor | None
    """Whether it is any rank's; None: somebody has looked, they all are."""


def check_mode() -> None:
    """Sums over ranks are told to autograd's reverse mode, once, and to nothing else.

    Raises:
        NotImplementedError: in forward mode, a trace, or a transform of ``torch.func``.
    """
    if plain_operations_only() or torch._C._are_functorch_transforms_active():
        raise NotImplementedError(
            "group: expected a call that is differentiated by backward(); got one in forward mode, "
            "torch.func or a trace. Gather the logits for those, and leave group out."
        )


def check_last_backward() -> None:
    """Raises where a gradient is to be differentiated again."""
    if torch.is_grad_enabled():
        raise NotImplementedError(
            "group: expected a backward without create_graph; got one that is to be differentiated "
            "again. For second derivatives gather the logits, and leave group out."
        )


def labels_of(rows: Rows | LinearRows, shard: Shard) -> Labels | None:
    """The labels of rows, which count from the first class of all ranks."""
    target = rows.target
    if target is None:
        return None
    known = None
    if not values_at_hand(target):  # there nobody has looked
        known = (target >= 0) & (target < shard.classes)
        if target.device.type in GPUS:
            note_labels(target, rows.valid, shard.classes)
    here = (target >= shard.start) & (target < shard.stop)
    if rows.valid is not None:
        here = here & rows.valid
    return Labels((target - shard.start).masked_fill(~here, 0), here, known)


def own_of(rows: Rows | LinearRows, vectors: Vectors, labels: Labels | None) -> Own:
    """What this rank knows of the rows, from the statistics of its classes."""
    kind, weight = vectors.rest.dtype, rows.weight
    here = weight_of_label = spread = mass = None
    if labels is not None:
        here = labels.here
        if weight is not None:
            weight_of_label = torch.zeros_like(vectors.rest)
            if len(weight):
                weight_of_label = weight.to(kind)[labels.place].masked_fill(~here, 0)
    if vectors.uniform is not None:
        spread = vectors.rest.new_full((), _own_classes(rows))
        if weight is not None:
            spread = weight.to(kind).sum()
    if rows.probabilities is not None:
        mass = _mass_of(rows.probabilities, weight, vectors)
        mass = zeroed(mass, rows.valid)
    return Own(vectors, here, weight_of_label, spread, mass)


def joined_over(own: Own, part: Part, valid: Tensor | None, labels: Labels | None) -> Joined:
    """What all ranks know together: two all-reduces."""
    maximum = all_max(own.maximum.contiguous(), part.group)
    sums = addends(own, maximum)
    total = sums.filled(all_sum(sums.flat(), part.group))
    known = None if labels is None else labels.known
    return joined(own, maximum, total, part.shard.classes, valid, known)


def own_coefficients(
    coefficients: Coefficients,
    here: Tensor | None,
    spread_elsewhere: Tensor | None,
    mass_elsewhere: Tensor | None,
) -> Coefficients:
    """For the kernels, which know this rank's classes only, the coefficients of all ranks'.

    A label elsewhere pulls at no class here: of its nll the softmax is left. What the masses of
    other ranks' classes add to the softmax is known as a number.
    """
    of_lse, of_nll, of_uniform, of_cross = coefficients
    if of_nll is not None and here is not None:
        of_lse = _plus(of_lse, of_nll.masked_fill(here, 0))
        of_nll = of_nll.masked_fill(~here, 0)
    if of_uniform is not None and spread_elsewhere is not None:
        of_lse = _plus(of_lse, of_uniform * spread_elsewhere)
    if of_cross is not None and mass_elsewhere is not None:
        of_lse = _plus(of_lse, of_cross * mass_elsewhere)
    return Coefficients(of_lse, of_nll, of_uniform, of_cross)


def _plus(first: Tensor | None, second: Tensor) -> Tensor:
    return second if first is None else first + second


def _own_classes(rows: Rows | LinearRows) -> int:
    return rows.classes if isinstance(rows, LinearRows) else rows.logits.shape[1]


def _mass_of(probabilities: Tensor, weight: Tensor | None, vectors: Vectors) -> Tensor:
    """Σ v_c q_c of the own classes, as the backend left it, or in another read."""
    if vectors.mass is not None:
        return vectors.mass[0]
    kind = vectors.rest.dtype
    if weight is None:
        return probabilities.sum(1, dtype=kind)
    return torch.einsum("ocl,c->ol", probabilities.to(kind), weight.to(kind))
