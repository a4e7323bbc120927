"""Numbers, names, targets and positions that are typed in: read, or refused in one line."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xent.cli.arrays import numbers, position, target_of, words
from xent.cli.mistakes import BadInput

NAMES = ("cat", "dog", "bird")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1.2, 3.1,-inf 1e-3", [1.2, 3.1, -math.inf, 1e-3]),
        ("1;2 ; 3\t4\n5", [1, 2, 3, 4, 5]),
        ("−1.5,−inf,+inf,.5", [-1.5, -math.inf, math.inf, 0.5]),
        ("  7  ", [7]),
    ],
)
def test_numbers_are_read(text: str, values: list[float]) -> None:
    assert numbers(text) == values
    assert math.isnan(numbers("nan")[0])


NUMBERS = "expected numbers such as 1.5, 1e-3 or -inf, separated by commas or spaces"


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "no value 1"),
        ("1,,2", "no value 2"),
        ("1,2,", "no value 3"),
        ("1, x", "'x' as value 2"),
        ("[1, 2]", "'[1' as value 1"),
        ("1e999", "'1e999' as value 1"),
        ("1_000", "'1_000' as value 1"),
        ("0x10", "'0x10' as value 1"),
        ("\x1b[2J", "'\\x1b[2J' as value 1"),
    ],
)
def test_what_is_no_number_is_named(text: str, got: str) -> None:
    with pytest.raises(BadInput) as caught:
        numbers(text, argument="logits")
    assert caught.value.message == f"logits: {NUMBERS}; got {got}."


def test_words_are_read() -> None:
    assert words("cat,dog,bird") == NAMES
    assert words(' cat , "a, b",  "say ""hi""", 🏳️‍🌈') == ("cat", "a, b", 'say "hi"', "🏳️‍🌈")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names: expected a name for each class; got none."),
        ("a,,b", "names: expected a different name for each class; got no name 2."),
        ("a,b,", "names: expected a different name for each class; got no name 3."),
        ("a, b,a ", "names: expected a different name for each class; got 'a' as names 1 and 3."),
        ("a,\x07", "got control characters in name 2, '\\x07'."),
        ('a,"b', "names: expected class names separated by commas; got 'a,\"b'. Is a double quote"
         ' left open? A name in quotes may hold commas: cat,"a, b".'),
        ("a\nb", "names: expected class names separated by commas; got 'a\\nb'."),
    ],
)  # fmt: skip
def test_words_that_are_no_names_are_refused(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        words(text)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "names", "classes", "target"),
    [
        ("0", None, 3, 0),
        (" 2 ", NAMES, 3, 2),
        ("-100", NAMES, 3, -100),
        ("−1", None, 3, -1),
        ("dog", NAMES, 3, 1),
        ("a, b", ("x", "a, b"), 2, 1),
        ("1", ("0", "1"), 2, 1),
        ("0.7,0.2,0.1", NAMES, 3, [0.7, 0.2, 0.1]),
        ("1 0 0", NAMES, 3, [1, 0, 0]),
        ("0.5", None, 1, [0.5]),
    ],
)
def test_targets_are_read(text: str, names, classes: int, target) -> None:
    found = target_of(text, names, classes)
    assert found.tolist() == target
    assert found.dtype is (torch.float64 if isinstance(target, list) else torch.int64)


EITHER = "target: expected an index 0..2, a negative value to ignore or 3 probabilities; got "


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("3", None, f"{EITHER}'3'."),
        ("0.7", None, f"{EITHER}'0.7'."),
        ("", None, f"{EITHER}''."),
        ("0.7,0.3", None, f"{EITHER}2 values."),
        ("0.7,nan,0.3", None, f"{EITHER}'0.7,nan,0.3'."),
        ("9" * 30, None, f"{EITHER}'999999999999...9999999999999'."),
        ("cow", NAMES, "target: expected an index 0..2, a negative value to ignore, a name ('cat',"
         " 'dog', 'bird') or 3 probabilities; got 'cow'."),
        ("0", ("1", "0", "2"), "target: expected one class; got 0, an index, and also the name of"
         " class 1. Give the names letters, or leave them away."),
    ],
)  # fmt: skip
def test_what_is_no_target_is_refused(text: str, names, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        target_of(text, names, 3)
    assert caught.value.message == message


def test_positions_are_read() -> None:
    assert position("3") == 3
    assert position(" 2, 5;7 ") == (2, 5, 7)
    assert position("-1") == -1


@pytest.mark.parametrize("text", ["", "x", "1.5", "1,", "9" * 30, "1,,2"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"position: expected a whole number, or one for each axis"):
        position(text)


@given(text=st.text(max_size=40))
def test_anything_typed_in_is_read_or_refused_in_one_line(text: str) -> None:
    for reader in (numbers, words, position, lambda typed: target_of(typed, NAMES, 3)):
        message = ""
        try:
            reader(text)
        except BadInput as error:
            message = error.message
        assert message.isprintable()
