"""One run: both trainings in step, their curves side by side, and whether they are one curve."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any, NamedTuple

from rich.console import Console
from torch.distributed import ProcessGroup

from commands import training_bar
from lm_report import is_shown
from lm_run import Source, prepared
from lm_sequences import Sequences
from lm_training import Settings
from tp_ranks import from_first_rank
from tp_training import Sharded, Step, Whole
from xent.benchmark.machine import machine
from xent.cli.console import console

MOST_DIFFERENCE = 1e-5
"""In any step: nats between the losses, and relative between the norms of the gradients.

AdamW hardly notices a gradient that is W times too short; its norm does.
"""
HEADER = f"{'step':>8}{'sharded':>12}{'whole':>12}{'difference':>14}   nats per token"


class Text(NamedTuple):
    """What the training sees of the text."""

    files: int
    train: Sequences
    vocabulary: int


class Pair(NamedTuple):
    """One step of both."""

    sharded: Step
    whole: Step

    @property
    def difference(self) -> float:
        """Nats."""
        return abs(self.sharded.loss - self.whole.loss)

    @property
    def of_norm(self) -> float:
        """Relative."""
        return abs(self.sharded.norm - self.whole.norm) / self.whole.norm


def run(
    source: Source, settings: Settings, wrap: str, group: ProcessGroup, quiet: bool
) -> dict[str, Any] | None:
    """Trains on all ranks; rank 0 trains alone, too, and prints both.

    Draws from torch's global generator, and leaves it somewhere else.

    Returns:
        On rank 0 everything, as JSON can hold it.

    Raises:
        BadInput: the text cannot be used; on rank 0.
        FloatingPointError: a loss is not finite.
    """
    began = time.perf_counter()
    text = from_first_rank(lambda: _text(source, settings), group)
    if text is None:
        return None
    sharded = Sharded(text.train, text.vocabulary, settings, group, wrap)
    if group.rank() != 0:
        for _ in sharded.run(settings.steps):
            pass
        return None
    terminal = console()
    introduction = _introduction(text, settings, wrap, sharded)
    terminal.print(introduction + "\n")
    pairs = _pairs(sharded, Whole(text.train, text.vocabulary, settings), settings, terminal, quiet)
    document = {
        "machine": asdict(machine()),
        "settings": asdict(settings) | {"wrap": wrap, "ranks": group.size()},
        "introduction": introduction,
        "vocabulary": text.vocabulary,
        "shards": [list(classes) for classes in sharded.shards.ranges],
        "sharded": [pair.sharded._asdict() for pair in pairs],
        "whole": [pair.whole._asdict() for pair in pairs],
        "largest_difference": max(pair.difference for pair in pairs),
        "largest_of_norm": max(pair.of_norm for pair in pairs),
        "seconds": time.perf_counter() - began,
    }
    if agrees(document):
        terminal.print("\n" + verdict(document), style="bold")
    return document


def agrees(document: dict[str, Any]) -> bool:
    """Whether the two curves are one."""
    found = document["largest_difference"], document["largest_of_norm"]
    return all(difference <= MOST_DIFFERENCE for difference in found)  # NaN is not less


def verdict(document: dict[str, Any]) -> str:
    """By how much the two differ, in one sentence."""
    return (
        f"The losses differ by {document['largest_difference']:.1e} nats at most, the gradients' "
        f"norms by {document['largest_of_norm']:.1e} of theirs; expected: "
        f"{MOST_DIFFERENCE:.0e} or less."
    )


def page_text(document: dict[str, Any]) -> str:
    """What a run prints."""
    pairs = [
        Pair(Step(**sharded), Step(**whole))
        for sharded, whole in zip(document["sharded"], document["whole"], strict=True)
    ]
    lines = (
        step_line(number, pair)
        for number, pair in enumerate(pairs, 1)
        if is_shown(number, len(pairs))
    )
    return "\n".join((document["introduction"], "", HEADER, *lines, "", verdict(document)))


def step_line(number: int, pair: Pair) -> str:
    """Both losses of a step."""
    losses = "".join(f"{step.loss:>12.7f}" for step in pair)
    return f"{number:>8}{losses}{pair.difference:>14.1e}"


def _text(source: Source, settings: Settings) -> Text:
    data = prepared(source, settings)
    return Text(len(data.corpus.train), data.train, data.vocabulary.size)


def _introduction(text: Text, settings: Settings, wrap: str, sharded: Sharded) -> str:
    shares = " + ".join(f"{behind - first:,}" for first, behind in sharded.shards.ranges)
    return (
        f"{text.files} files, {text.train.valid():,} tokens of {text.vocabulary:,} kinds. "
        f"{settings.steps} steps of {settings.batch_size} sequences of {settings.context}.\n"
        f"Ranks: {sharded.ranks}, with {shares} classes; the body in {wrap.upper()}."
    )


def _pairs(
    sharded: Sharded, whole: Whole, settings: Settings, terminal: Console, quiet: bool
) -> list[Pair]:
    """Takes all steps, with a line for some."""
    pairs = []
    both = zip(sharded.run(settings.steps), whole.run(settings.steps), strict=True)
    terminal.print(HEADER)
    with training_bar(terminal, settings.steps, quiet) as on_step:
        for number, steps in enumerate(both, 1):
            pair = Pair(*steps)
            pairs.append(pair)
            on_step()
            if is_shown(number, settings.steps):
                terminal.print(step_line(number, pair))
    return pairs
