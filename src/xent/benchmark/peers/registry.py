"""The peers by name."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F

import xent
from xent.benchmark.cases import Mode
from xent.benchmark.data import Data
from xent.benchmark.peers.contender import Contender
from xent.benchmark.peers.jax import JaxLoss
from xent.benchmark.peers.torch import TorchLoss, compiled
from xent.benchmark.trace import OURS

PEERS: dict[str, Callable[[Data, Mode], Contender]] = {
    OURS: lambda data, mode: TorchLoss(xent.cross_entropy, data, mode),
    "torch": lambda data, mode: TorchLoss(F.cross_entropy, data, mode),
    "compile": compiled,
    "jax": JaxLoss,
}
"""Each takes data and a mode; xent first, and the others as the columns of a table."""
