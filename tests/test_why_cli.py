"""``xent why``: what it prints, and how it answers mistakes."""

from __future__ import annotations

import json

import pytest

import xent
from test_explain_cli import MISTAKES, assert_one_line, run
from xent.explanation import QUESTIONS


def test_why_lists_its_questions() -> None:
    listed = run("why")
    assert listed.exit_code == 0
    assert all(question in listed.stdout for question in QUESTIONS)
    assert all(title in " ".join(listed.stdout.split()) for title in QUESTIONS.values())
    assert json.loads(run("why", "--json").stdout) == QUESTIONS


@pytest.mark.parametrize("question", QUESTIONS)
def test_why_answers_without_further_options(question) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    result = run("why", question)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(QUESTIONS[question])
    assert max(map(len, result.stdout.splitlines())) <= 100
    answer = json.loads(run("why", question, "--json").stdout, parse_constant=refuse)
    assert (answer["question"], answer["title"]) == (question, QUESTIONS[question])


def test_why_takes_ones_own_numbers() -> None:
    result = run("why", "negatives", "--logits", "2,1,0", "--target", "2", "--json")
    told = xent.explain([2.0, 1.0, 0.0], 2)
    assert json.loads(result.stdout)["numbers"] == told.why("negatives").numbers


@pytest.mark.parametrize(("arguments", "said"), MISTAKES[1:10], ids=str)
def test_why_refuses_the_same(arguments, said) -> None:
    assert_one_line(run("why", "gradient", *arguments), "why", said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "nonsense"),
        (("gradient", "surplus"), "surplus"),
        (("gradient", "--target", "0"), "--logits"),
        (("gradient", "--logits", "1,2", "--target", "-100"), "ignored"),
        (("gradient", "--logits", "1,2", "--target", "0", "--row", "all"), "row"),
    ],
    ids=str,
)
def test_a_question_that_has_no_answer_is_one_line(arguments, said) -> None:
    assert_one_line(run("why", *arguments), "why", said)
