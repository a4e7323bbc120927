"""What a run found: one document, drawn in a terminal, printed as JSON or put into a page."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

import xent
from plants_data import Plants
from plants_training import Epoch, Evaluation


@dataclass(frozen=True)
class ClassResult:
    """Held-out images of one class, and how many of them were read rightly."""

    name: str
    images: int
    right: int

    @property
    def accuracy(self) -> str:
        """In percent, or a dash where the class has no image."""
        return f"{self.right / self.images:.1%}" if self.images else "–"


@dataclass(frozen=True)
class Result:
    """What the trained model says about the held-out images."""

    loss: float
    """Nats."""
    accuracy: float
    classes: tuple[ClassResult, ...]


def result_of(judged: Evaluation, classes: tuple[str, ...]) -> Result:
    """The evaluation by class; an image is of the class with its highest probability."""
    kinds = judged.labels.argmax(1)
    return Result(
        loss=judged.losses.mean().item(),
        accuracy=judged.right.double().mean().item(),
        classes=tuple(
            ClassResult(name, int((kinds == kind).sum()), int(judged.right[kinds == kind].sum()))
            for kind, name in enumerate(classes)
        ),
    )


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """One epoch in one line."""
    return (
        f"epoch {epoch.epoch:>{len(str(epochs))}}/{epochs}   "
        f"training {epoch.training_loss:.3f}   validation {epoch.validation_loss:.3f} nats   "
        f"accuracy {epoch.accuracy:6.1%}"
    )


def draw_result(terminal: Console, result: Result) -> None:
    """Prints the classes and what they come to."""
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for column in ("held-out images", "right", "accuracy"):
        table.add_column(column, justify="right")
    for row in result.classes:
        table.add_row(Text(row.name), str(row.images), str(row.right), row.accuracy)
    terminal.print()
    terminal.print(table)
    terminal.print(
        f"\nValidation loss {result.loss:.4f} nats, accuracy {result.accuracy:.1%}.", style="bold"
    )


def explain_worst(
    terminal: Console | None, plants: Plants, rows: Tensor, judged: Evaluation, count: int
) -> list[dict[str, Any]]:
    """Says of the held-out images with the highest losses where these come from.

    Args:
        terminal: where to print, or None.
        plants: the data.
        rows: the row of each held-out image in it.
        judged: what the model says about them.
        count: how many images.

    Returns:
        What was said, worst first, as JSON can hold it.
    """
    worst = judged.losses.argsort(descending=True, stable=True)[:count].tolist()
    documents = []
    for place, row in enumerate(worst, start=1):
        entry = _entry(plants, int(rows[row]), judged, row)
        explanation = xent.explain(
            judged.logits, judged.labels, row=row, class_names=list(plants.table.classes)
        )
        if terminal is not None:
            path = plants.folder / entry["path"]
            terminal.print(Text("\n" + _heading(place, entry, str(path)), style="bold"))
            terminal.print(explanation)
        documents.append(
            {**entry, "explanation": explanation.to_dict(), "text": explanation.to_text()}
        )
    return documents


def _entry(plants: Plants, image: int, judged: Evaluation, row: int) -> dict[str, Any]:
    probabilities = judged.logits[row].softmax(0)
    return {
        "image_id": plants.table.names[image],
        "path": plants.path(image).relative_to(plants.folder).as_posix(),
        "label": _named(plants.table.classes, judged.labels[row], least=0.0),
        "prediction": _named(plants.table.classes, probabilities, least=probabilities.max().item()),
        "loss": judged.losses[row].item(),
    }


def _named(classes: tuple[str, ...], probabilities: Tensor, least: float) -> str:
    """The classes with more than nothing, and ``least`` or more, likeliest first."""
    pairs = sorted(zip(probabilities.tolist(), classes, strict=True), reverse=True)
    kept = [(p, name) for p, name in pairs if p > 0 and p >= least]
    return ", ".join(name if p == 1 else f"{name} ({p:.1%})" for p, name in kept)


def _heading(place: int, entry: dict[str, Any], path: str) -> str:
    return (
        f"Worst image {place}: {entry['image_id']}, {path}\n"
        f"label {entry['label']}, prediction {entry['prediction']}, loss {entry['loss']:.4f} nats"
    )


def page_text(document: dict[str, Any]) -> str:
    """What the terminal showed in the run of this document, in the length of a page.

    Of the epochs the first and every tenth, of the explanations the first.
    """
    terminal = Console(file=io.StringIO(), width=88, highlight=False, color_system=None)
    for epoch in document["epochs"]:
        if epoch["epoch"] == 1 or epoch["epoch"] % 10 == 0:
            terminal.print(epoch_line(Epoch(**epoch), document["settings"]["epochs"]))
    kept = document["validation"]
    classes = tuple(ClassResult(**row) for row in kept["classes"])
    draw_result(terminal, Result(kept["loss"], kept["accuracy"], classes))
    for place, entry in enumerate(document["worst"], start=1):
        terminal.print(Text("\n" + _heading(place, entry, f"DIR/{entry['path']}")))
        if place == 1:
            terminal.print(Text(entry["text"]))
    file = terminal.file
    assert isinstance(file, io.StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())
