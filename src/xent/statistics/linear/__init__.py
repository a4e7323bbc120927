"""The primitive for hidden states and a classifier: logits a chunk at a time.

- ``rows``: ``linear_row_statistics``, and which way its derivatives are taken;
- ``products``: matrix products with a classifier that may be kept in fewer bits;
- ``chunks``: one way through the rows, by whichever backend;
- ``derivatives``: gradients and autograd;
- ``compiled``: the same under torch.compile;
- ``definition``: the same as plain torch operations.
"""

from xent.statistics.linear.rows import LinearRowStatistics, linear_row_statistics

__all__ = ["LinearRowStatistics", "linear_row_statistics"]
