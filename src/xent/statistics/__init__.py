"""Floor 3: the primitive that every loss stands on.

- ``rows``: ``row_statistics``, its derivatives in every mode, and torch.compile;
- ``dispatch``: which backend computes them.
"""

from xent.statistics.rows import RowStatistics, row_statistics

__all__ = ["RowStatistics", "row_statistics"]
