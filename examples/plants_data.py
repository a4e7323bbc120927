"""The folder of the competition: ``train.csv`` and ``images/``, read whole or refused."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from commands import BadInput

SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Labels:
    """The table: an image a row, a class a column."""

    names: tuple[str, ...]
    """``image_id`` of each row."""
    classes: tuple[str, ...]
    probabilities: Tensor
    """``[N, C]``, float32, as they stand in the file."""
    warning: str | None
    """The first row that does not sum to 1."""


@dataclass(frozen=True)
class Plants:
    """What is trained on: the table and its images."""

    folder: Path
    table: Labels
    images: Tensor
    """``[N, 3, size, size]``, uint8."""

    def path(self, row: int) -> Path:
        """The file of the image in this row."""
        return image_path(self.folder, self.table.names[row])


def image_path(folder: Path, name: str) -> Path:
    """Where the competition keeps the image of this ``image_id``."""
    return folder / "images" / f"{name}.jpg"


def read_labels(folder: Path) -> Labels:
    """The labels in ``train.csv``.

    Raises:
        BadInput: the folder or the file is missing, or a line is not what the header promises.
    """
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}; expected one with train.csv and images/.")
    path = folder / "train.csv"
    header, lines = _lines(path)
    classes = _classes(path, header)
    where = header.index("image_id")
    names: dict[str, int] = {}  # with the line of each
    rows = []
    for number, cells in lines:
        at = f"{path}, line {number}"
        if len(cells) != len(header):
            raise BadInput(f"{at}: {len(cells)} cells; expected {len(header)}, as in the header.")
        name = cells[where]
        if name in names:
            raise BadInput(f"{at}: image_id {name} stands in line {names[name]} already.")
        names[name] = number
        rows.append(
            [_probability(at, c, v) for c, v in zip(header, cells, strict=True) if c != "image_id"]
        )
    if not rows:
        raise BadInput(f"{path} has no line below its header; expected one per image.")
    return Labels(tuple(names), classes, torch.tensor(rows), _sum_warning(path, names, rows))


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and every further line that is not empty, with its number in the file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except FileNotFoundError:
        raise BadInput(f"There is no {path}; expected image_id and one column per class.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read as CSV in UTF-8: {_in_a_line(error)}") from error
    lines = [line for line in lines if any(line[1])]
    return (lines[0][1] if lines else []), lines[1:]


def _classes(path: Path, header: list[str]) -> tuple[str, ...]:
    if "image_id" not in header:
        raise BadInput(
            f"{path} has no column image_id; its header is {','.join(header) or 'empty'}."
        )
    classes = tuple(column for column in header if column != "image_id")
    if len(classes) < 2 or len(classes) != len(header) - 1:
        raise BadInput(
            f"{path} has {len(classes)} class columns ({', '.join(classes) or 'none'}) in "
            f"{len(header)} columns; expected image_id once and two classes or more."
        )
    for column in classes:
        if not column or classes.count(column) > 1:
            raise BadInput(f"{path} has two columns named {column!r}, or one without a name.")
    return classes


def _probability(at: str, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInput(f"{at}: {column} is {cell!r}; expected a number from 0 to 1.")
    if value < 0:
        raise BadInput(f"{at}: {column} is {cell}; a probability is not negative.")
    return value


def _sum_warning(path: Path, names: dict[str, int], rows: Sequence[Sequence[float]]) -> str | None:
    sums = [math.fsum(row) for row in rows]
    off = [row for row, total in enumerate(sums) if abs(total - 1) > SUM_TOLERANCE]
    if not off:
        return None
    name = tuple(names)[off[0]]
    count = f"{len(off)} of {len(rows)} rows do" if len(off) > 1 else "one row does"
    return (
        f"{path}: {count} not sum to 1; the first is {name}, line {names[name]}, "
        f"with {sums[off[0]]:.6g}. The loss takes the labels as they are."
    )


def read_images(folder: Path, names: Sequence[str], size: int) -> Tensor:
    """The images, decoded once and resized to squares.

    Args:
        folder: of the competition.
        names: ``image_id`` of each.
        size: side in pixels.

    Returns:
        ``[N, 3, size, size]``, uint8: a fourth of what float32 would take.

    Raises:
        BadInput: pillow is not installed; a file is missing or broken.
    """
    try:
        import PIL.Image  # noqa: F401  # only whether it is there
    except ImportError:
        raise BadInput("Reading images needs pillow: pip install 'xent[examples]'") from None
    paths = [image_path(folder, name) for name in names]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise BadInput(
            f"There is no image {missing[0]}; {len(missing)} of {len(paths)} are missing."
        )
    return torch.stack([_decoded(path, size) for path in paths])


def _decoded(path: Path, size: int) -> Tensor:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.draft("RGB", (size, size))  # JPEG can decode to a half, fourth or eighth
            square = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    except Exception as error:  # a broken file raises whatever its decoder stumbles over
        raise BadInput(f"{path} is not an image that can be read: {_in_a_line(error)}") from error
    pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
    return pixels.view(size, size, 3).permute(2, 0, 1).contiguous()


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
