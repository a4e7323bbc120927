"""Cross-entropy for PyTorch, closer to the mathematics than torch's own."""

from xent import functional, nn
from xent.functional import (
    RowStatistics,
    binary_cross_entropy_with_logits,
    cross_entropy,
    dense_cross_entropy,
    row_statistics,
)
from xent.statistics import backend, explain_dispatch
from xent.nn import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    DenseCrossEntropy,
    DenseCrossEntropyLoss,
)

__version__ = "0.1.0"

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "DenseCrossEntropy",
    "DenseCrossEntropyLoss",
    "RowStatistics",
    "__version__",
    "backend",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "dense_cross_entropy",
    "explain_dispatch",
    "functional",
    "nn",
    "row_statistics",
]
