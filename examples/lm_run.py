"""One run: text to tokens, trained, judged, measured; printed as it goes."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from commands import training_bar
from lm_measure import hidden_of, measure
from lm_report import draw_comparison, draw_measured, draw_validation, is_shown, step_line
from lm_sequences import Sequences, sequences_of
from lm_text import Corpus, read_corpus
from lm_tokens import Vocabulary, byte_vocabulary, has_tokenizers, merged_vocabulary
from lm_training import LOSSES, Settings, Step, Training
from lm_validation import Validation, validate
from xent.benchmark.machine import machine
from xent.cli.console import console


@dataclass(frozen=True)
class Source:
    """Where the tokens come from."""

    text: Path | None
    """A folder, or None for the standard library."""
    suffix: str
    vocabulary: int
    bytes: bool


@dataclass(frozen=True)
class Data:
    """What is trained on, and what is held out."""

    corpus: Corpus
    vocabulary: Vocabulary
    train: Sequences
    held_out: Sequences


def run(source: Source, settings: Settings, compared: int, quiet: bool) -> dict[str, Any]:
    """Trains, judges and measures, and prints all of it.

    Draws from torch's global generator, and leaves it somewhere else.

    Args:
        source: of the tokens.
        settings: of the training.
        compared: steps that are taken with the other loss as well.
        quiet: whether to leave out the progress bar.

    Returns:
        Everything, as JSON can hold it.

    Raises:
        BadInput: the text cannot be used.
        FloatingPointError: a loss is not finite, or wrong.
    """
    began = time.perf_counter()
    terminal = console()
    data = prepared(source, settings)
    training = Training(data.train, data.vocabulary.size, settings)
    introduction = _introduction(data, training)
    terminal.print(introduction + "\n")
    before = _validation(training, data)
    steps = _train(training, terminal, quiet)
    after = _validation(training, data)
    draw_validation(terminal, before, after, data.vocabulary.size)
    comparison = _comparison(data, settings, steps[:compared])
    if comparison:
        draw_comparison(terminal, comparison)
    measured = _measured(training, terminal)
    return {
        "machine": asdict(machine()),
        "settings": asdict(settings),
        "introduction": introduction,
        **_described(source, data, training),
        "steps": [asdict(step) for step in steps],
        "validation": {"before": asdict(before), "after": asdict(after)},
        "comparison": comparison,
        **measured,
        "seconds": time.perf_counter() - began,
    }


def prepared(source: Source, settings: Settings) -> Data:
    """The text as sequences of tokens; merges are learned from what is not held out."""
    corpus = read_corpus(source.text, source.suffix, settings.seed)
    if corpus.skipped:
        click.echo(f"Warning: files that are not UTF-8 were left out: {corpus.skipped}.", err=True)
    if source.bytes or not has_tokenizers():
        vocabulary = byte_vocabulary()
    else:
        vocabulary = merged_vocabulary(corpus.train, source.vocabulary)
    if not source.bytes and vocabulary.tokenizer is None:
        click.echo(
            "Warning: tokens are bytes, since tokenizers is not there to merge them: "
            "pip install 'xent[examples]'.",
            err=True,
        )
    train, held_out = (
        sequences_of(
            vocabulary.encoded(documents), settings.context, vocabulary.start, vocabulary.padding
        )
        for documents in (corpus.train, corpus.held_out)
    )
    return Data(corpus, vocabulary, train, held_out)


def _introduction(data: Data, training: Training) -> str:
    settings, train = training.settings, data.train.valid()
    return (
        f"{len(data.corpus.train)} files to train on, {len(data.corpus.held_out)} held out: "
        f"{train:,} and {data.held_out.valid():,} tokens of {data.vocabulary.size:,} kinds. "
        f"{_parameters(training):,} parameters; {settings.steps} steps of "
        f"{settings.micro_batches} × {settings.batch_size} sequences of {settings.context}; "
        f"{settings.loss} loss."
    )


def _parameters(training: Training) -> int:
    return sum(parameter.numel() for parameter in training.model.parameters())


def _validation(training: Training, data: Data) -> Validation:
    counts, size = data.vocabulary.byte_counts, training.settings.batch_size
    return validate(training.model, data.held_out, counts, size)


def _train(training: Training, terminal: Console, quiet: bool) -> list[Step]:
    """Takes all steps, with a line for some."""
    total = training.settings.steps
    steps = []
    with training_bar(terminal, total, quiet) as on_step:
        for step in training.run(total):
            steps.append(step)
            on_step()
            if is_shown(step.step, total):
                terminal.print(step_line(step, total))
    return steps


def _comparison(data: Data, settings: Settings, steps: list[Step]) -> dict[str, Any] | None:
    """The same steps with the other loss, from the same start, on the same batches."""
    if not steps:
        return None
    (other,) = LOSSES.keys() - {settings.loss}
    again = Training(data.train, data.vocabulary.size, replace(settings, loss=other))
    losses = [step.loss for step in again.run(len(steps))]
    differences = [abs(a.loss - b) for a, b in zip(steps, losses, strict=True)]
    return {
        "loss": other,
        "steps": len(steps),
        "losses": losses,
        "largest_difference": max(differences),
    }


def _measured(training: Training, terminal: Console) -> dict[str, Any]:
    """Both losses on the hidden states of what would be the next step."""
    micro_batches = next(training.batches).split(training.settings.batch_size)
    hidden = hidden_of(training.model, micro_batches)
    found = measure(hidden)
    draw_measured(terminal, found, len(hidden.labels))
    return {"positions": len(hidden.labels), "losses": [asdict(loss) for loss in found]}


def _described(source: Source, data: Data, training: Training) -> dict[str, Any]:
    merged = data.vocabulary.tokenizer is not None
    corpus = data.corpus
    return {
        "text": "the standard library" if source.text is None else str(source.text),
        "digest": corpus.digest,
        "files": {"train": len(corpus.train), "held_out": len(corpus.held_out)},
        "tokens": {"train": data.train.valid(), "held_out": data.held_out.valid()},
        "tokenizers": version("tokenizers") if merged else None,
        "vocabulary": data.vocabulary.size,
        "parameters": _parameters(training),
    }
