"""What the loss says to other ranks in a training step, in bytes and by a model in seconds.

The model: an all-reduce of S bytes over p ranks takes 2·ceil(log2 p)·α + 2·(p − 1)/p·S/B, the
messages of a tree and the bytes of a ring; an all-gather of S bytes of each rank takes
ceil(log2 p)·α + (p − 1)·S/B. α is the time of one message, which
``torchrun --nproc-per-node 2 benchmarks/distributed.py --constant`` measures; B, what a rank's link
carries in a second, is an assumption. Nothing overlaps, and no link is shared.
"""

from __future__ import annotations

from dataclasses import dataclass

ROWS, CLASSES, FEATURES = 8192, 128256, 4096
"""Of the step that is modelled: tokens, vocabulary, features of a hidden state."""
RANKS = (8, 16, 32, 64, 128, 256, 512, 1024)
FLOAT32, BFLOAT16 = 4, 2  # bytes
BANDWIDTH = 50e9
"""Bytes a second: a link of 400 Gb/s, assumed."""


@dataclass(frozen=True)
class Network:
    """How long a message takes, in seconds, and how many bytes a rank's link carries in one."""

    alpha: float
    bandwidth: float = BANDWIDTH


@dataclass(frozen=True)
class Traffic:
    """What one rank puts on the wire, in bytes, and for how long all wait, in seconds."""

    bytes: float
    seconds: float

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.bytes + other.bytes, self.seconds + other.seconds)


NOTHING = Traffic(0, 0)


def depth(ranks: int) -> int:
    """ceil(log2 p): how many messages lie between two leaves' news and the root of a tree.

    >>> [depth(ranks) for ranks in (1, 2, 3, 4, 8, 9, 1024)]
    [0, 1, 2, 2, 3, 4, 10]
    """
    return (ranks - 1).bit_length()


def all_reduce(size: float, ranks: int, network: Network) -> Traffic:
    """Of ``size`` bytes: up a tree and down again, the bytes as in a ring.

    >>> all_reduce(1000, 4, Network(alpha=1.0, bandwidth=100.0))
    Traffic(bytes=1500.0, seconds=19.0)
    >>> all_reduce(1000, 1, Network(alpha=1.0))
    Traffic(bytes=0.0, seconds=0.0)
    """
    sent = 2 * (ranks - 1) / ranks * size
    return Traffic(sent, 2 * depth(ranks) * network.alpha + sent / network.bandwidth)


def all_gather(own: float, ranks: int, network: Network) -> Traffic:
    """Of ``own`` bytes of each rank, which every other rank gets.

    >>> all_gather(1000, 4, Network(alpha=1.0, bandwidth=100.0))
    Traffic(bytes=3000.0, seconds=32.0)
    """
    sent = float((ranks - 1) * own)
    return Traffic(sent, depth(ranks) * network.alpha + sent / network.bandwidth)


def loss_sizes(rows: int, vectors: int) -> tuple[int, ...]:
    """Bytes of the all-reduces of xent's loss: the maxima, then so many vectors in one.

    >>> loss_sizes(rows=10, vectors=3)
    (40, 120)
    """
    return FLOAT32 * rows, FLOAT32 * vectors * rows


def three_sizes(rows: int) -> tuple[int, ...]:
    """Of a loss with an all-reduce each for maximum, predicted logit and sum of exponentials.

    >>> three_sizes(rows=10)
    (40, 40, 40)
    """
    return (FLOAT32 * rows,) * 3


def hidden_size(rows: int, features: int, itemsize: int) -> int:
    """Bytes of the gradient at the hidden states, which every rank has a part of.

    >>> hidden_size(rows=10, features=8, itemsize=BFLOAT16)
    160
    """
    return rows * features * itemsize


def own_logits_size(rows: int, classes: int, ranks: int, itemsize: int) -> float:
    """Bytes of the logits that one rank holds.

    >>> own_logits_size(rows=10, classes=8, ranks=4, itemsize=BFLOAT16)
    40.0
    """
    return rows * classes / ranks * itemsize


def reduced(sizes: tuple[int, ...], ranks: int, network: Network) -> Traffic:
    """All-reduces of these sizes, one after the other.

    >>> reduced((1000, 1000), 4, Network(alpha=1.0, bandwidth=100.0))
    Traffic(bytes=3000.0, seconds=38.0)
    """
    return sum((all_reduce(size, ranks, network) for size in sizes), NOTHING)


@dataclass(frozen=True)
class Step:
    """The traffic of a rank in one step, over so many ranks."""

    ranks: int
    loss: Traffic
    """xent's, forward; its backward says nothing."""
    three: Traffic
    """That of three all-reduces, forward."""
    hidden: Traffic
    """What ``linear_cross_entropy`` adds in the backward."""
    gathered: Traffic
    """What it takes to have all logits on every rank."""


def steps(network: Network, vectors: int) -> list[Step]:
    """The modelled step over each number of ranks."""
    return [
        Step(
            ranks,
            reduced(loss_sizes(ROWS, vectors), ranks, network),
            reduced(three_sizes(ROWS), ranks, network),
            all_reduce(hidden_size(ROWS, FEATURES, BFLOAT16), ranks, network),
            all_gather(own_logits_size(ROWS, CLASSES, ranks, BFLOAT16), ranks, network),
        )
        for ranks in RANKS
    ]
