"""Cross-entropy for PyTorch: exact, at the speed of memory, and able to explain itself."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xent import functional, nn
from xent.functional import (
    LinearRowStatistics,
    RowStatistics,
    binary_cross_entropy_with_logits,
    cross_entropy,
    dense_cross_entropy,
    linear_cross_entropy,
    linear_row_statistics,
    row_statistics,
    valid_denominator,
)
from xent.nn import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    DenseCrossEntropy,
    DenseCrossEntropyLoss,
    LinearCrossEntropyLoss,
)
from xent.statistics import backend, check_errors, empty_cache, explain_dispatch

if TYPE_CHECKING:
    from xent.contract.groups import ClassShards as ClassShards
    from xent.explanation import Explanation as Explanation
    from xent.explanation import explain as explain
    from xent.explanation import explain_binary as explain_binary
    from xent.statistics.shards import class_shards as class_shards

__version__ = "0.1.0"

__all__ = [
    "BCEWithLogitsLoss",
    "ClassShards",
    "CrossEntropyLoss",
    "DenseCrossEntropy",
    "DenseCrossEntropyLoss",
    "Explanation",
    "LinearCrossEntropyLoss",
    "LinearRowStatistics",
    "RowStatistics",
    "__version__",
    "backend",
    "binary_cross_entropy_with_logits",
    "check_errors",
    "class_shards",
    "cross_entropy",
    "dense_cross_entropy",
    "empty_cache",
    "explain",
    "explain_binary",
    "explain_dispatch",
    "functional",
    "linear_cross_entropy",
    "linear_row_statistics",
    "nn",
    "row_statistics",
    "valid_denominator",
]

_LATER = {
    "ClassShards": "xent.contract.groups",
    "Explanation": "xent.explanation",
    "class_shards": "xent.statistics.shards",
    "explain": "xent.explanation",
    "explain_binary": "xent.explanation",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """What most programs never use is loaded when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module 'xent' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
