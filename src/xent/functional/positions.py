"""What a position costs: the formula of cross-entropy on the statistics of its row."""

from __future__ import annotations

from torch import Tensor

from xent.backends.torch.limits import cost
from xent.contract.call import Call
from xent.contract.denominator import label_weight
from xent.contract.rows import Vectors
from xent.statistics.masses import Mass, Masses, weighed


def position_losses(vectors: Vectors, call: Call) -> Tensor:
    """s · [(1 − ε) · (v_y · nll, or cross) + (ε/C) · uniform], all ``[outer, inner]``."""
    of_label = _weight_of_label(call)
    if of_label is not None and vectors.nll is not None:
        # first of the factors, as in cross: one-hot labels are indices, to the bit
        vectors = vectors._replace(nll=cost(of_label, vectors.nll))
    return weighed(vectors, _masses(call))


def position_masses(call: Call) -> Masses:
    """The same as one factor for each statistic."""
    masses, of_label = _masses(call), _weight_of_label(call)
    return masses if of_label is None else masses._replace(labels=of_label * masses.labels)


def _masses(call: Call) -> Masses:
    """s · (1 − ε) of what the label costs, s · (ε/C) of all classes alike."""
    smoothing, classes = call.label_smoothing, call.layout.classes
    labels: Mass = 1 - smoothing
    even: Mass = smoothing / classes if classes else 0.0
    if call.sample_weight is not None:
        labels, even = labels * call.sample_weight, even * call.sample_weight
    return Masses(labels, even if smoothing else None)


def _weight_of_label(call: Call) -> Tensor | None:
    """v_y for class indices with class weights."""
    return None if call.rows.target is None else label_weight(call.targets, call.rows.weight)
