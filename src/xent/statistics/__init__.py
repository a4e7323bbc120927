"""Floor 3: the primitive that every loss stands on.

- ``rows``: ``row_statistics``, and which way its derivatives are taken;
- ``derivatives``: the gradient written by hand, and autograd;
- ``compiled``: the same under torch.compile;
- ``batches``: small batches in the usual form, by a shorter way;
- ``linear/``: the same for hidden states and a classifier, a chunk of logits at a time;
- ``masses``: losses that are linear in the statistics;
- ``dispatch``: which backend computes;
- ``memory``: what is kept for gradients;
- ``noted``: what went wrong on a device.
"""

from xent.statistics.dispatch import backend, explain_dispatch
from xent.statistics.linear import LinearRowStatistics, linear_row_statistics
from xent.statistics.memory import empty_cache
from xent.statistics.noted import check_errors
from xent.statistics.rows import RowStatistics, row_statistics

__all__ = [
    "LinearRowStatistics",
    "RowStatistics",
    "backend",
    "check_errors",
    "empty_cache",
    "explain_dispatch",
    "linear_row_statistics",
    "row_statistics",
]
