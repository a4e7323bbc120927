"""Answers: each number in the words is one that the answer names, and plain torch's."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import xent
from explained import Asked, Truth, near
from xent.explanation import QUESTIONS, Answer
from xent.explanation.blocks import Formula, Paragraph, short
from xent.explanation.reduced import value_formula

NUMBER = re.compile(r"(?<![\w.])(?:−?(?:\d[\d,]*(?:\.\d+)?(?:e[−+]?\d+)?|∞)|NaN)(?![\w]*\])")
INF = math.inf


def case(name: str, x: Any, y: Any, binary: bool = False, **options: Any) -> Asked:
    x, y = torch.as_tensor(x, dtype=torch.float64), torch.as_tensor(y)
    y = y.double() if y.is_floating_point() else y
    for key in ("weight", "sample_weight", "pos_weight"):
        if key in options:
            options[key] = torch.tensor(options[key], dtype=torch.float64)
    return Asked(name, x, y, options, binary)


def cases() -> list[Asked]:
    random = torch.Generator().manual_seed(11)
    many = 2 * torch.randn((8, 50), generator=random)
    labels = torch.randint(50, (8,), generator=random)
    labels[2:4] = -100
    images = torch.randn((2, 3, 4), generator=random)
    three = [[2.0, 1.0, -0.5], [0.25, 0.0, 1.5], [-1.0, 3.0, 0.0]]
    return [
        case("hard label", three[0], 1),
        case("batch", three, [1, 0, 1], row=2),
        case("soft label", three, [[0.25, 0.0, 0.75], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]),
        case("weights", three, [1, 2, 0], weight=[0.5, 3.0, 1.25]),
        case("a weight of zero", three, [1, 2, 0], weight=[0.5, 0.0, 1.25], row=0),
        case("smoothing", three, [1, 2, 0], label_smoothing=0.3),
        case(
            "everything", three, [[0.25, 0.0, 0.75], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], row=2,
            weight=[0.5, 3.0, 1.25], label_smoothing=0.2, sample_weight=[1.0, 2.0, 0.25],
        ),
        case("one class", [[3.0]], [0]),
        case("two classes", [[3.0, 1.0], [0.0, 2.0]], [0, 1]),
        case("fifty classes", many, labels, row=5, top=50),
        case("fifty classes, ten shown", many, labels, row=5),
        case("in sum", three, [1, -100, 0], reduction="sum"),
        case("none", three, [1, -100, 0], reduction="none"),
        case("masked", [[1.0, -INF, 0.5], [0.0, 1.0, 2.0]], [0, 1]),
        case("positions", images, [[0, 1, 2, 0], [1, 1, 2, -100]], row=5),
        case("binary", [2.0, -1.0, 0.5], [0, 1, 1], True, row=1, pos_weight=[1.0, 2.0, 1.0]),
        case("binary, soft", [2.0, -1.0, 0.5], [0.25, 1.0, 0.5], True, label_smoothing=0.1),
    ]  # fmt: skip


CASES = {asked.name: asked for asked in cases()}
# Numbers that are no one's: of formulas, of float32, and of the example of a padded pair.
CONSTANTS = {
    "dense": {"1", "0"},
    "multiply": {"1", "0"},
    "sum": {"1", "0"},
    "negatives": {"1"},
    "gradient": {"1", "−1", "2", "3", "0"},
    "index-vs-dense": {"1", "0"},
    "sigmoid-vs-softmax": {"0", "1"},
    "smoothing": {"1"},
    "weights": set(),
    "ignore": {"0", "−∞", "NaN"},
    "mean": set(),
    "log-softmax": {"0", "1", "88", "−104", "−∞"},
}


@pytest.fixture(params=CASES)
def asked(request: pytest.FixtureRequest) -> Asked:
    return CASES[request.param]


def numbers_in(text: str) -> list[str]:
    return [found.rstrip(",") for found in NUMBER.findall(text.replace("float32", ""))]


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_number_in_words_is_one_of_its_numbers(asked, question) -> None:
    told = asked.explained()
    answer = told.why(question)
    allowed = {short(value) for value in answer.numbers.values()} | CONSTANTS[question]
    allowed |= {value.removeprefix("−") for value in allowed}  # "−log p" stands before some
    allowed |= set(numbers_in(value_formula(told.batch)))
    allowed |= {c.name for c in told.row.classes} | {str(n) for n in told.row.position}
    allowed |= {str(told.batch.count), str(told.class_count)}
    assert all(type(value) in (int, float) for value in answer.numbers.values())
    for block in answer.body:
        if isinstance(block, Paragraph | Formula):
            strange = [n for n in numbers_in(block.text) if n not in allowed]
            assert not strange, block.text


class Plain:
    """The numbers of the answers, from the row in plain torch."""

    def __init__(self, asked: Asked) -> None:
        self.asked, self.truth = asked, Truth(asked)
        place = asked.place
        self.x = self.truth.rows[place].detach()
        self.label, self.weight = self.truth.label[place], self.truth.weight[place]
        self.right = int(self.label.argmax())
        self.log_p = self.x.log_softmax(0)
        self.p = self.log_p.exp()
        self.epsilon = asked.options.get("label_smoothing", 0.0)
        self.pulled = self.p - F.one_hot(torch.tensor(self.right), len(self.x))
        others = self.p.clone()
        others[self.right] = -1
        self.rival = int(others.argmax())

    def cost(self, mass: Tensor) -> float:
        return -(mass * self.log_p.masked_fill(mass == 0, 0)).sum().item()

    def smoothed(self, epsilon: float) -> Tensor:
        return (1 - epsilon) * self.label + epsilon / len(self.x)

    def after(self, logits: Tensor) -> float:
        return -logits.log_softmax(0)[self.right].item()


def expected(question: str, plain: Plain) -> dict[str, float]:
    truth, right, p, log_p = plain.truth, plain.right, plain.p, plain.log_p
    losses = truth.losses.detach()[truth.counts].tolist()
    classes, counting = len(plain.x), len(losses)
    mode = plain.asked.options.get("reduction", "mean")
    surprise = -log_p[right].item()
    if question == "negatives":
        nudged = plain.x.clone()
        nudged[plain.rival] += 0.01
        free = torch.tensor([0, 1]) if plain.asked.binary else 1  # its first logit is fixed
        moved = plain.x - plain.pulled * free
        found = {
            "p": p[right], "loss": surprise, "nudge": 0.01,
            "growth": plain.after(nudged) - surprise, "p of the rival": p[plain.rival],
            "p before": p[right], "p after": moved.softmax(0)[right],
        }  # fmt: skip
        if classes == 1:
            for of_a_rival in ("nudge", "growth", "p of the rival"):
                del found[of_a_rival]
        return found
    if question == "gradient":
        return {"p": p[right], "gradient at p": -1 / p[right]}
    if question == "multiply":
        return {"label": plain.label[right], "p": p[right], "surprise": surprise}
    if question in ("sum", "dense"):
        count = {"positions": len(truth.rows)} if question == "sum" or len(truth.rows) > 1 else {}
        products = (plain.label * -plain.log_p.masked_fill(plain.label == 0, 0)).tolist()
        if question == "sum":  # of the classes that the label names
            products = [p for p in products if p][:6]
        elif classes > 12:
            products = []
        each = {f"product {n}": p for n, p in enumerate(products)}
        return {"loss": plain.cost(plain.label), **count, **each}
    if question == "index-vs-dense":
        soft = {"loss of the label": plain.cost(plain.label)} if plain.label[right] != 1 else {}
        return {"index": right, "loss of the index": surprise, **soft}
    if question == "sigmoid-vs-softmax":
        others = torch.cat([plain.x[:right], plain.x[right + 1 :]])
        lead = plain.x[right] - others.logsumexp(0)
        return {"sum of sigmoids": plain.x.sigmoid().sum(), "lead": lead, "p": p[right]}
    if question == "smoothing":
        epsilon = plain.epsilon or 0.1
        target = plain.smoothed(epsilon)
        return {
            "epsilon": epsilon, "classes": classes, "share": epsilon / classes,
            "sharp loss": plain.cost(plain.label), "smooth loss": plain.cost(target),
            "floor": torch.special.entr(target).sum(),
        }  # fmt: skip
    if question == "weights":
        weight = plain.weight.clone()
        if not {"weight", "pos_weight"} & set(plain.asked.options):
            weight[right] = 2
        mass = weight * plain.label
        heavy, light = mass.sum() * p - mass, p - plain.label
        found = {
            "weight": weight[right], "plain loss": plain.cost(plain.label),
            "weighted loss": plain.cost(mass), "plain gradient": light[right],
            "weighted gradient": heavy[right],
        }  # fmt: skip
        if mass.sum() and not plain.asked.binary and plain.label[right] == 1:
            found |= {"mass": mass.sum(), "cancelled": plain.cost(mass) / mass.sum()}
        return found
    if question == "ignore":
        found = {
            "classes": classes, "ignored": len(truth.rows) - counting, "counting": counting,
        }  # fmt: skip
        if mode == "mean" and counting > 1:
            place = plain.asked.place
            without = truth.losses.sum() - truth.losses[place]
            found["mean"] = truth.losses.sum() / truth.divisor
            found["mean of others"] = without / (truth.divisor - truth.shares[place])
        return found
    if question == "mean":
        divisor = truth.divisor if mode == "mean" else counting
        own = truth.gradient(truth.losses)[right]
        found = {"gradient": own, "gradient in the mean": own / divisor, "divisor": divisor}
        shares = truth.shares.detach()[truth.counts]
        if counting > 2 and (mode != "mean" or len(set(shares.tolist())) == 1):
            first, *rest = losses[:4]
            average = sum(rest) / len(rest)
            found["example count"] = 1 + len(rest)
            found["example mean"] = (first + sum(rest)) / (1 + len(rest))
            found["mean of means"] = (first + average) / 2
        return found
    assert question == "log-softmax"
    lowest = int(plain.x.argmin())
    found = {
        "logit": plain.x[right], "maximum": plain.x.max(), "log p": log_p[right],
        "exp sum": (plain.x - plain.x.max()).exp().sum(), "high": 1000.0, "naive": math.nan,
    }  # fmt: skip
    if plain.asked.options.get("top") or classes < 12:
        found |= {"lowest p": p[lowest], "lowest log p": log_p[lowest]}
    return found


@pytest.mark.parametrize("question", QUESTIONS)
def test_its_numbers_are_those_of_plain_torch(asked, question) -> None:
    answer = asked.explained().why(question)
    wanted = expected(question, Plain(asked))
    for name, value in wanted.items():
        value = value.item() if isinstance(value, Tensor) else value
        assert answer.numbers[name] == near(value, 1e-9, 1e-11), name


def result_of(answer: Answer) -> Tensor:
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(answer.python, answer.question, "exec"), names)
    return names["result"].detach()


RESULTS: dict[str, Callable[[Plain], Any]] = {
    "dense": lambda plain: plain.cost(plain.label),
    "multiply": lambda plain: (plain.label * -plain.log_p).tolist(),
    "sum": lambda plain: plain.cost(plain.label),
    "negatives": lambda plain: plain.pulled.tolist(),
    "gradient": lambda plain: plain.pulled.tolist(),
    "index-vs-dense": lambda plain: [-plain.log_p[plain.right].item()] * 2,
    "sigmoid-vs-softmax": lambda plain: [plain.p[plain.right].item()],
    "smoothing": lambda plain: plain.cost(plain.smoothed(plain.epsilon or 0.1)),
    "weights": lambda plain: expected("weights", plain)["weighted loss"],
    "ignore": lambda plain: -plain.log_p[plain.right].item(),
    "mean": lambda plain: (plain.pulled / 2).tolist(),
    "log-softmax": lambda plain: plain.log_p[plain.right].item(),
}  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS)
def test_its_python_runs_to_the_same_result(asked, question) -> None:
    found = result_of(asked.explained().why(question)).tolist()
    wanted = RESULTS[question](Plain(asked))
    wanted = torch.tensor(wanted, dtype=torch.float64)
    wanted = wanted.masked_fill(wanted.isnan(), 0).tolist()  # 0 · ∞
    assert found == near(wanted, 1e-6, 1e-9)


def test_every_question_has_an_answer_under_its_title() -> None:
    for question, title in QUESTIONS.items():
        answer = CASES["batch"].explained().why(question)
        assert (answer.question, answer.title) == (question, title)
        assert answer.to_text().startswith(title)
        assert set(answer.to_dict()) == {"question", "title", "text", "numbers", "python"}


@pytest.mark.parametrize(
    ("options", "question", "remedy"),
    [
        ({"row": None}, "gradient", "row=0"),
        ({"row": 1}, "gradient", "another with row="),
        ({}, "everything", "gradient, "),
        ({}, "", "gradient, "),
    ],
    ids=str,
)
def test_what_cannot_be_answered_is_refused_with_a_remedy(options, question, remedy) -> None:
    told = xent.explain([[1.0, 2.0], [0.0, 1.0]], [0, -100], **options)
    with pytest.raises(ValueError, match=remedy):
        told.why(question)
