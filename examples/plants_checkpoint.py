"""Checkpoints: written whole or not at all, read without running anything that is in them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from commands import BadInput
from plants_data import Labels
from plants_training import Epoch, Settings, Split, Training

KIND = "xent plant pathology 1"
"""Stands in every checkpoint; the number changes when its layout does."""


KEYS = {"settings", "classes", "split", "history", "model", "optimizer", "scheduler", "random"}
"""What going on needs."""


def save(path: Path, training: Training, table: Labels) -> None:
    """Replaces the file in one step: whatever interrupts this leaves the old one."""
    document = {
        "kind": KIND,
        "settings": asdict(training.settings),
        "classes": list(table.classes),
        "split": {
            "train": _names(table, training.split.train),
            "validation": _names(table, training.split.validation),
        },
        "epoch": len(training.history),
        "history": [asdict(epoch) for epoch in training.history],
        "model": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scheduler": training.scheduler.state_dict(),
        "random": torch.get_rng_state(),
    }
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            torch.save(document, file)
        mask = os.umask(0)  # a temporary file is private; this one has the usual permissions
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: Path) -> dict[str, Any]:
    """The checkpoint in this file.

    Raises:
        BadInput: there is none, or it is of something else.
    """
    if not path.is_file():
        raise BadInput(
            f"There is no checkpoint {path} to resume; the first run goes without --resume."
        )
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is not a checkpoint fails in more than ten ways
        raise BadInput(f"{path} is not a checkpoint, or a broken one.") from error
    if not isinstance(document, dict) or document.get("kind") != KIND or KEYS - document.keys():
        raise BadInput(f"{path} is not a checkpoint of this program ({KIND!r}).")
    return document


def settings_of(document: dict[str, Any], asked: Settings, explicit: Iterable[str]) -> Settings:
    """The settings that the checkpoint was trained with.

    Args:
        document: from ``load``.
        asked: all settings of this call.
        explicit: those that were asked for and are no defaults.

    Raises:
        BadInput: one of these is another one in the checkpoint.
    """
    kept = Settings(**{field.name: document["settings"][field.name] for field in fields(Settings)})
    for name in explicit:
        before, now = getattr(kept, name), getattr(asked, name)
        if before != now:
            option = "--" + name.replace("_", "-")
            raise BadInput(
                f"The checkpoint was trained with {option} {before}, not {now}; leave {option} "
                "out to go on with it, or begin another one."
            )
    return kept


def split_of(document: dict[str, Any], table: Labels) -> Split:
    """The split of the checkpoint, in the rows of this table.

    Raises:
        BadInput: the table has other classes, or other images.
    """
    if document["classes"] != list(table.classes):
        raise BadInput(
            f"The checkpoint knows the classes {', '.join(document['classes'])}; "
            f"the data has {', '.join(table.classes)}."
        )
    rows = {name: row for row, name in enumerate(table.names)}
    names = document["split"]
    if rows.keys() != {*names["train"], *names["validation"]}:
        raise BadInput("The checkpoint was trained on other images than the data has.")
    return Split(_rows(rows, names["train"]), _rows(rows, names["validation"]))


def restore(document: dict[str, Any], training: Training) -> None:
    """Puts the training, and torch's global generator, where they were."""
    training.model.load_state_dict(document["model"])
    training.optimizer.load_state_dict(document["optimizer"])
    training.scheduler.load_state_dict(document["scheduler"])
    training.history = [Epoch(**epoch) for epoch in document["history"]]
    torch.set_rng_state(document["random"])


def _names(table: Labels, rows: Tensor) -> list[str]:
    return [table.names[row] for row in rows.tolist()]


def _rows(rows: dict[str, int], names: list[str]) -> Tensor:
    return torch.tensor([rows[name] for name in names])
