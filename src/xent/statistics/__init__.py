"""Floor 3: the primitive that every loss stands on.

- ``rows``: ``row_statistics``, and which way its derivatives are taken;
- ``derivatives``: the gradient written by hand, and autograd;
- ``compiled``: the same under torch.compile;
- ``dispatch``: which backend computes.
"""

from xent.statistics.dispatch import backend, explain_dispatch
from xent.statistics.rows import RowStatistics, row_statistics

__all__ = ["RowStatistics", "backend", "explain_dispatch", "row_statistics"]
