"""One run: the data and the training prepared, trained, judged; printed as it goes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.text import Text

import plants_checkpoint as checkpoints
from commands import training_bar
from plants_data import Labels, Plants, read_images, read_labels
from plants_report import draw_result, epoch_line, explain_worst, result_of
from plants_training import Settings, Split, Training, stratified
from xent.benchmark.machine import machine
from xent.cli.console import console


@dataclass(frozen=True)
class Place:
    """Where a run reads from, prints and keeps what it does."""

    data: Path
    checkpoint: Path | None
    resume: bool
    as_json: bool
    quiet: bool
    explain: int
    """How many of the worst images are explained."""

    @property
    def terminal(self) -> Console | None:
        """Where lines go; nowhere if stdout is for JSON."""
        return None if self.as_json else console()


def run(place: Place, settings: Settings, explicit: list[str]) -> dict[str, Any]:
    """Trains from the start or from the checkpoint, and says what came of it.

    Draws from torch's global generator, and leaves it somewhere else.

    Args:
        place: where to read, print and keep.
        settings: of the training.
        explicit: those that were asked for by name: a checkpoint has to agree with them.

    Returns:
        Everything, as JSON can hold it.

    Raises:
        BadInput: the data or the checkpoint cannot be used.
        FloatingPointError: a training loss is not finite.
    """
    plants, training = _prepared(place, settings, explicit)
    _train(training, plants, place)
    return _finished(training, plants, place)


def _prepared(place: Place, settings: Settings, explicit: list[str]) -> tuple[Plants, Training]:
    """The data, and the training at its start or where the checkpoint left it."""
    table = read_labels(place.data)
    if table.warning:
        click.echo(f"Warning: {table.warning}", err=True)
    if not place.resume or place.checkpoint is None:
        split = stratified(table, settings.val_share, settings.seed)
        return _begun(place.data, table, split, settings)
    kept = checkpoints.load(place.checkpoint)
    split = checkpoints.split_of(kept, table)
    settings = checkpoints.settings_of(kept, settings, explicit)
    plants, training = _begun(place.data, table, split, settings)
    checkpoints.restore(kept, training)
    return plants, training


def _begun(data: Path, table: Labels, split: Split, settings: Settings) -> tuple[Plants, Training]:
    plants = Plants(data, table, read_images(data, table.names, settings.size))
    torch.manual_seed(settings.seed)
    return plants, Training(plants.images, table.probabilities, split, settings)


def _train(training: Training, plants: Plants, place: Place) -> None:
    """Takes the epochs that are left, with a line and a checkpoint after each."""
    terminal, done, epochs = place.terminal, len(training.history), training.settings.epochs
    if terminal:
        terminal.print(_introduction(training, plants))
        if done:
            terminal.print(f"Resumed after epoch {done} of {epochs}.")
    with training_bar(terminal, (epochs - done) * training.batches, place.quiet) as on_batch:
        for _ in range(done, epochs):
            epoch = training.run_epoch(on_batch)
            if place.checkpoint:
                checkpoints.save(place.checkpoint, training, plants.table)
            if terminal:
                terminal.print(epoch_line(epoch, epochs))


def _introduction(training: Training, plants: Plants) -> Text:
    settings, split = training.settings, training.split
    return Text(
        f"{len(split.train)} images to train on, {len(split.validation)} held out, of "
        f"{settings.size}×{settings.size} pixels; {len(plants.table.classes)} classes: "
        f"{', '.join(plants.table.classes)}. {settings.model}, {_parameters(training):,} "
        f"parameters; {settings.epochs} epochs of {training.batches} batches."
    )


def _parameters(training: Training) -> int:
    return sum(parameter.numel() for parameter in training.model.parameters())


def _finished(training: Training, plants: Plants, place: Place) -> dict[str, Any]:
    """Judges the last model, shows it, and returns everything as JSON can hold it."""
    terminal, split = place.terminal, training.split
    judged = training.evaluate()
    result = result_of(judged, plants.table.classes)
    if terminal:
        draw_result(terminal, result)
    return {
        "machine": asdict(machine()),
        "settings": asdict(training.settings),
        "parameters": _parameters(training),
        "classes": plants.table.classes,
        "images": {"train": len(split.train), "validation": len(split.validation)},
        "epochs": [asdict(epoch) for epoch in training.history],
        "seconds": sum(epoch.seconds for epoch in training.history),
        "validation": asdict(result),
        "worst": explain_worst(terminal, plants, split.validation, judged, place.explain),
    }
