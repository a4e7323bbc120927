"""Statistics of a row's parts as those of the row.

With a maximum m and Z = Σ exp(x − m) of each part, the larger m is the row's, and the other part's
sum counts exp(m' − m) times. A part without a finite logit adds nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xent.backends.torch.limits import cost
from xent.contract.rows import Prediction, Vectors


def merged(first: Vectors, second: Vectors) -> Vectors:
    """Maximum and rest of classes that come in two parts."""
    maximum = torch.maximum(first.maximum, second.maximum)
    ahead = first.maximum >= second.maximum
    low = torch.where(ahead, second.maximum, first.maximum)
    of_low = torch.where(ahead, second.rest, first.rest)
    beside = (1 + of_low) * torch.exp(low - maximum)
    rest = torch.where(ahead, first.rest, second.rest)
    return Vectors(maximum, rest + beside.masked_fill(low == -torch.inf, 0))


def merged_predictions(
    first: tuple[Vectors, Prediction], second: tuple[Vectors, Prediction], both: Vectors
) -> Prediction:
    """Entropy and argmax of classes that come in two parts, the first one first.

    A part that has the share P of the probability and the entropy H in itself adds P·(H − log P).
    """
    entropy = torch.zeros_like(both.rest)
    for vectors, prediction in (first, second):
        log_share = _log_share(vectors, both)
        surprise = (prediction.entropy - log_share).masked_fill(log_share == -torch.inf, torch.inf)
        entropy = entropy + cost(torch.exp(log_share), surprise)
    entropy = entropy.masked_fill(both.rest.isnan(), torch.nan)
    behind = second[0].maximum > first[0].maximum
    return Prediction(entropy, torch.where(behind, second[1].argmax, first[1].argmax))


def _log_share(part: Vectors, both: Vectors) -> Tensor:
    """log of the share of the whole sum that a part has, to the last digit."""
    share = (part.maximum - both.maximum) + (torch.log1p(part.rest) - torch.log1p(both.rest))
    return share.masked_fill(part.maximum == -torch.inf, -torch.inf)
