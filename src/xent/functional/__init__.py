"""Floor 4: one file a loss — contract, statistics, formula, reduction.

Each function stands in the file of its name. Modules with the same options are in ``xent.nn``.
"""

from xent.functional.binary_cross_entropy_with_logits import binary_cross_entropy_with_logits
from xent.functional.cross_entropy import cross_entropy
from xent.functional.dense_cross_entropy import dense_cross_entropy
from xent.functional.linear_cross_entropy import linear_cross_entropy
from xent.functional.valid_denominator import valid_denominator
from xent.statistics import (
    LinearRowStatistics,
    RowStatistics,
    linear_row_statistics,
    row_statistics,
)

__all__ = [
    "LinearRowStatistics",
    "RowStatistics",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "dense_cross_entropy",
    "linear_cross_entropy",
    "linear_row_statistics",
    "row_statistics",
    "valid_denominator",
]
