"""Floor 5: the losses as Modules. Each holds options and forwards to the function of its name.

Each stands in the file of that function's name; ``showing`` is what they have in common.
"""

from xent.nn.binary_cross_entropy_with_logits import BCEWithLogitsLoss
from xent.nn.cross_entropy import CrossEntropyLoss
from xent.nn.dense_cross_entropy import DenseCrossEntropy, DenseCrossEntropyLoss
from xent.nn.linear_cross_entropy import LinearCrossEntropyLoss

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "DenseCrossEntropy",
    "DenseCrossEntropyLoss",
    "LinearCrossEntropyLoss",
]
