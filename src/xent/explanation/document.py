"""An explanation as JSON. ``schema.json`` beside this file describes it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xent.explanation.explanation import Explanation

VERSION = 1
"""Of the schema: a number that changes when a reader would have to."""


def as_dict(explanation: Explanation) -> dict[str, Any]:
    """Plain data: dicts, lists, strings, numbers, bools and None."""
    row = explanation.row
    document = {
        "schema_version": VERSION,
        "kind": explanation.kind,
        "class_count": explanation.class_count,
        "options": asdict(explanation.options),
        "batch": asdict(explanation.batch),
        "row": None if row is None else asdict(row),
    }
    data: dict[str, Any] = plain(document)
    return data


def as_json(explanation: Explanation, indent: int | None) -> str:
    """One document of the schema."""
    return json.dumps(as_dict(explanation), allow_nan=False, ensure_ascii=False, indent=indent)


def schema() -> dict[str, Any]:
    """The JSON Schema of ``as_dict``."""
    text = files("xent.explanation").joinpath("schema.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def plain(value: Any) -> Any:
    """The same with a string for each number that JSON has no numeral for."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
