"""Logits in JSON and in tables of comma-separated values."""

from __future__ import annotations

import csv
import io
import json
import re
import reprlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO

import torch

from xent.cli.arrays import class_index, class_names, number
from xent.cli.files import nested
from xent.cli.files.keys import KEYS, place, role, roles
from xent.cli.files.opening import decoded, loading
from xent.cli.mistakes import BadInput
from xent.contract.errors import mistake


def read_json(file: BinaryIO, name: str) -> dict[str, Any]:
    """Reads an object of arrays, or an array alone; NaN, Infinity and -Infinity are numbers."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise mistake(
                BadInput, name, expected="each key once", got=f"{reprlib.repr(twice)} twice"
            )
        return found

    def finite(text: str) -> float:
        value = number(text)
        if value is None:
            raise mistake(
                BadInput, name, expected="numbers that float64 holds", got=reprlib.repr(text)
            )
        return value

    text = decoded(file, name)
    with loading(name, "JSON: an object with logits, or lists of numbers"):
        try:
            document = json.loads(text, object_pairs_hook=unique, parse_float=finite)
        except RecursionError as error:
            raise mistake(
                BadInput, name, expected=f"at most {nested.DEEPEST} axes", got="far deeper lists"
            ) from error
    if not isinstance(document, dict):
        return {"logits": nested.tensor(document, f"{name}: logits")}
    return nested_entries(document, name)


def nested_entries(document: dict[Any, Any], name: str) -> dict[str, Any]:
    """Tensors and names out of the lists under the keys of an object."""
    entries: dict[str, Any] = {}
    for meaning, key in roles(document, name).items():
        if meaning == "names":
            entries[meaning] = nested.names(document[key], place(name, key))
        else:
            whole = meaning == "target"
            entries[meaning] = nested.tensor(document[key], place(name, key), whole=whole)
    return entries


@dataclass(frozen=True)
class _Columns:
    """What the columns of a table hold."""

    count: int
    names: tuple[str, ...] | None = None
    target: int | None = None


def read_csv(file: BinaryIO, name: str) -> dict[str, Any]:
    """Reads a row per prediction and a column per class, with or without a header.

    The first row is a header if one of its cells is no number. Its names are those of the classes,
    except for one of the target's: that column holds class indices or class names.
    """
    rows = _rows(decoded(file, name), name)
    start, first = next(rows, (0, []))
    if not first:
        raise mistake(BadInput, name, expected="rows of numbers", got="none")
    header = any(number(cell) is None for cell in first)
    columns = _columns(first, f"{name}: row {start}") if header else _Columns(len(first))
    logits, targets = array("d"), array("q")
    for row, cells in rows if header else chain([(start, first)], rows):
        _read_row(cells, columns, f"{name}: row {row}", logits, targets)
    if not logits:
        raise mistake(BadInput, name, expected="rows of numbers", got="only a header")
    classes = columns.count - (columns.target is not None)
    entries: dict[str, Any] = {
        "logits": torch.frombuffer(logits, dtype=torch.float64).reshape(-1, classes)
    }
    if columns.names is not None:
        entries["names"] = columns.names
    if targets:
        entries["target"] = torch.frombuffer(targets, dtype=torch.int64)
    return entries


def _rows(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the number of the line it ends on."""
    first = re.search(r"\S.*", text)
    unquoted = re.sub(r'"[^"]*"', "", first.group()) if first else ""
    delimiter = next((mark for mark in "\t;" if mark in unquoted), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise mistake(
                BadInput,
                f"{name}: row {reader.line_num}",
                expected="separated values",
                got=str(error).replace("\t", "\\t"),  # the delimiter that was expected
            ) from error
        if cells is None:
            return
        if len(cells) > 1 or "".join(cells).strip():
            yield reader.line_num, cells


def _columns(header: list[str], name: str) -> _Columns:
    targets = [column for column, cell in enumerate(header) if role(cell) == "target"]
    if len(targets) > 1:
        both = " and ".join(reprlib.repr(header[column]) for column in targets[:2])
        raise mistake(
            BadInput,
            name,
            expected=f"one column for the target ({'|'.join(KEYS['target'])})",
            got=both,
            remedy="Keep one of them; probabilities as a target are read from .json or .npz.",
        )
    target = targets[0] if targets else None
    others = [cell for column, cell in enumerate(header) if column != target]
    if not all(cell.strip() for cell in others):
        raise mistake(
            BadInput,
            name,
            expected="the name of a class above every column",
            got="a column without a name",
            remedy="Is it an index? Save the table without it.",
        )
    return _Columns(len(header), class_names(others, name), target)


def _read_row(
    cells: list[str], columns: _Columns, name: str, logits: array[float], targets: array[int]
) -> None:
    if len(cells) != columns.count:
        raise mistake(
            BadInput,
            name,
            expected=f"{columns.count} values, as in the first row",
            got=str(len(cells)),
        )
    for column, cell in enumerate(cells):
        if column == columns.target:
            targets.append(_target(cell.strip(), columns, f"{name}, column {column + 1}"))
            continue
        value = number(cell)
        if value is None:
            raise mistake(
                BadInput,
                f"{name}, column {column + 1}",
                expected="a number such as 1.5 or -inf",
                got=reprlib.repr(cell),
                remedy="Columns are separated by commas, semicolons or tabs.",
            )
        logits.append(value)


def _target(cell: str, columns: _Columns, name: str) -> int:
    index = class_index(cell, columns.names or (), name)
    if index is None:
        raise mistake(
            BadInput,
            name,
            expected="the index of a class, or its name in the header",
            got=reprlib.repr(cell) if cell else "nothing",
        )
    return index
