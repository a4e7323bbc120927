"""Rows whose classes are spread over ranks: every rank has the same statistics in the end.

- ``class_shards``: who holds which classes, asked once;
- ``agreement``: or at every call, and whether all ranks mean the same one (``statements``, and with
  ``check="values"`` ``values``);
- ``parts``: what of the labels and masses belongs to this rank's classes;
- ``joining``: the arithmetic, without a word to another rank;
- ``collectives``: the words;
- ``derivatives``: the backward, which needs none;
- ``rows``: logits, and hidden states with a part of a classifier.
"""

from xent.statistics.shards.agreement import agreed
from xent.statistics.shards.class_shards import class_shards
from xent.statistics.shards.rows import canonical_linear_statistics, canonical_statistics

__all__ = [
    "agreed",
    "canonical_linear_statistics",
    "canonical_statistics",
    "class_shards",
]
