"""Cross-entropy for PyTorch: exact, and at the speed of memory."""

from xent import functional, nn
from xent.functional import (
    RowStatistics,
    binary_cross_entropy_with_logits,
    cross_entropy,
    dense_cross_entropy,
    row_statistics,
)
from xent.nn import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    DenseCrossEntropy,
    DenseCrossEntropyLoss,
)
from xent.statistics import backend, empty_cache, explain_dispatch

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
    "empty_cache",
    "explain_dispatch",
    "functional",
    "nn",
    "row_statistics",
]
