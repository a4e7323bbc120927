"""An explanation as Python that runs, and as JSON of the documented schema."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from typing import Any

import jsonschema
import pytest
import torch

import xent
from explained import Asked, column, grid, named, near
from xent.explanation import document, trace

INF, NAN = math.inf, math.nan


def executed(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(code, "to_python", "exec"), names)
    return names


def check_python(case: Asked) -> None:
    told = case.explained(steps=0)
    row, code = told.row, told.to_python()
    found = executed(code)
    if row.rest is None:
        logits = [NAN if c.logit != c.logit else c.logit for c in row.classes]
        assert found["logits"].tolist() == pytest.approx(logits, rel=0, abs=0, nan_ok=True)
        assert found["p"].tolist() == near(column(row, "p"), 1e-6)
        assert found["log_p"].tolist() == near(column(row, "log_p"), 1e-6)
        assert found["terms"].tolist() == near(column(row, "term"), 1e-6)
        assert found["row_gradient"].tolist() == near(column(row, "gradient"), 1e-6, 1e-9)
    assert found["row_loss"].item() == near(row.loss, 1e-6)
    if "loss" in found:
        half = case.input.dtype in (torch.float16, torch.bfloat16)
        digits = torch.finfo(case.input.dtype).eps if half else 1e-6
        expected = case.returned().double().flatten().tolist()
        if told.batch.reduction == "none" and case.options.get("dim") is None and row.position:
            assert tuple(found["loss"].shape) == told.batch.shape
        assert found["loss"].flatten().tolist() == near(expected, digits)


LIMITS = {
    "NaN in an ignored row": (
        [[1.0, 2.0], [NAN, 0.0], [0.5, 0.0]], [0, -100, 1], {"label_smoothing": 0.1},
    ),
    "the ignored row itself": ([[1.0, 2.0], [NAN, 0.0]], [0, -100], {"row": 1}),
    "several ignored": (
        [[1.0, 2.0], [3.0, 0.0], [NAN, 1.0]], [0, 1, -1], {"ignore_index": [1, -1]},
    ),
    "another ignored": ([[1.0, 2.0], [3.0, 0.0]], [0, 1], {"ignore_index": 1}),
    "all ignored": ([[1.0, 2.0]], [-100], {}),
    "all ignored, zero": ([[1.0, 2.0]], [-100], {"on_empty": "zero"}),
    "masked": ([[1.0, -INF, 0.5]], [0], {}),
    "masked, dense": ([[1.0, -INF, 0.5]], [[0.25, 0.0, 0.75]], {}),
    "masked label": ([[1.0, -INF, 0.5]], [1], {}),
    "masked and smoothed": ([[1.0, -INF, 0.5]], [0], {"label_smoothing": 0.1}),
    "masked without weight": (
        [[1.0, -INF, 0.5]], [0], {"label_smoothing": 0.1, "weight": [1.0, 0.0, 2.0]},
    ),
    "NaN without sample weight": (
        [[1.0, 2.0], [NAN, 0.0]], [0, 1], {"sample_weight": [2.0, 0.0]},
    ),
    "one class": ([[1.0], [2.0]], [0, 0], {}),
    "huge": ([[1e30, -1e30, 0.0]], [1], {}),
    "NaN that counts": ([[NAN, 0.0]], [0], {}),
    "an even label": ([[0.0, 0.0]], [[0.5, 0.5]], {"weight": [1.0, 3.0]}),
    "no position": ([[1.0, 2.0]], [0], {"denominator": 0.0, "on_empty": "zero"}),
}  # fmt: skip


def limit(name: str) -> Asked:
    logits, target, options = LIMITS[name]
    tensors = {
        key: torch.tensor(options[key], dtype=torch.float64)
        for key in ("weight", "sample_weight")
        if key in options
    }
    labels = torch.tensor(target)
    labels = labels.double() if labels.is_floating_point() else labels
    x = torch.tensor(logits, dtype=torch.float64)
    return Asked(name, x, labels, {**options, **tensors})


@pytest.mark.parametrize("case", grid(torch.float32), ids=named)
def test_its_python_computes_the_same(case) -> None:
    check_python(case)


@pytest.mark.parametrize("name", LIMITS)
def test_its_python_computes_the_same_at_the_limits(name) -> None:
    check_python(limit(name))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("x", [-INF, -50.0, 0.1, 50.0, INF])
@pytest.mark.parametrize("y", [0, 1])
def test_its_python_computes_the_binary_limits(x, y, dtype) -> None:
    check_python(
        Asked("binary", torch.tensor([x], dtype=dtype), torch.tensor([y]), {}, binary=True)
    )


@pytest.mark.parametrize("ignore_index", [-1, [-1, 1]], ids=str)
def test_its_python_leaves_out_ignored_elements(ignore_index) -> None:
    x, y = torch.tensor([1.0, NAN, 0.5, -2.0]), torch.tensor([0.0, -1.0, 1.0, 0.0])
    options = {"ignore_index": ignore_index, "label_smoothing": 0.1}
    check_python(Asked("binary", x, y, options, binary=True))
    check_python(Asked("binary", x, y, {**options, "row": 1}, binary=True))


def test_its_python_of_a_long_row_is_the_row() -> None:
    random = torch.Generator().manual_seed(1)
    x = torch.randn((2, 3000), generator=random)
    found = executed(xent.explain(x, torch.tensor([5, 6]), row=1).to_python())
    assert torch.equal(found["logits"], x[1].double())
    expected = torch.nn.functional.cross_entropy(x[1].double(), torch.tensor(6))
    torch.testing.assert_close(found["row_loss"], expected)
    assert "loss" not in found


def strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


VALIDATOR = jsonschema.Draft202012Validator(document.schema())


def check_json(case: Asked) -> None:
    told = case.explained(steps=1)
    for indent in (None, 2):
        read = strictly(told.to_json(indent))
        VALIDATOR.validate(read)
        assert read == told.to_dict()


@pytest.mark.parametrize("case", grid(torch.float32), ids=named)
def test_its_json_is_of_the_schema(case) -> None:
    check_json(case)


@pytest.mark.parametrize("name", LIMITS)
def test_its_json_is_of_the_schema_at_the_limits(name) -> None:
    check_json(limit(name))


def test_without_a_row_and_with_a_rest_it_is_of_the_schema_too() -> None:
    x, y = torch.randn(3, 40), torch.tensor([1, 2, 3])
    check_json(Asked("rest", x, y, {"top": 3, "class_names": [f"«{n}»\n" for n in range(40)]}))
    check_json(Asked("no row", x, y, {"row": None}))
    empty = torch.zeros(0, dtype=torch.long)
    check_json(Asked("empty", x[:0], empty, {"row": None}))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(document.schema())


RECORDS = [
    record for record in vars(trace).values()
    if dataclasses.is_dataclass(record) and record.__module__ == trace.__name__
]  # fmt: skip


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_the_schema_has_every_field_and_no_other(record) -> None:
    described = document.schema()["$defs"][record.__name__]
    fields = [field.name for field in dataclasses.fields(record)]
    assert list(described["properties"]) == fields
    assert described["required"] == fields
    assert described["additionalProperties"] is False


def test_the_schema_describes_every_record_and_every_property() -> None:
    schema = document.schema()
    assert set(schema["$defs"]) == {record.__name__ for record in RECORDS} | {"number"}
    told = xent.explain([1.0, 2.0], 0)
    assert list(schema["properties"]) == schema["required"] == list(told.to_dict())
    for described in (schema, *schema["$defs"].values()):
        assert described["description"]
        assert all(
            p.keys() & {"description", "$ref"} for p in described.get("properties", {}).values()
        )


def test_the_schema_refuses_what_is_not_of_it() -> None:
    good = xent.explain([1.0, 2.0], 0).to_dict()
    wrong = [
        {**good, "kind": "other"},
        {**good, "more": 1},
        {name: value for name, value in good.items() if name != "batch"},
        {**good, "row": {**good["row"], "loss": "inf"}},
        {**good, "row": {**good["row"], "classes": [{}]}},
    ]
    for document_ in wrong:
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(document_)


def test_what_json_has_no_numeral_for_is_a_string() -> None:
    read = strictly(limit("masked label").explained().to_json())
    assert read["row"]["classes"][1]["logit"] == "-Infinity"
    assert (read["row"]["loss"], read["batch"]["value"]) == ("Infinity", "Infinity")
    assert strictly(limit("NaN that counts").explained().to_json())["row"]["loss"] == "NaN"
    assert strictly(limit("all ignored").explained().to_json())["batch"]["value"] == "NaN"


def test_names_are_written_as_they_are() -> None:
    told = xent.explain([1.0, 2.0], 0, class_names=["naïve\n</script>", "🐈"])
    names = [c["name"] for c in strictly(told.to_json())["row"]["classes"]]
    assert names == ["naïve\n</script>", "🐈"]
