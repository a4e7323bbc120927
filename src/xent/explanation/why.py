"""The questions people ask about cross-entropy, and who answers them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xent.contract.errors import mistake
from xent.explanation.answers import gradient, labels, options, softmax
from xent.explanation.answers.answer import Answer

if TYPE_CHECKING:
    from xent.explanation.explanation import Explanation

ANSWERS: dict[str, tuple[str, Callable[..., Answer]]] = {
    "dense": ("What does DenseCrossEntropy do, line by line?", labels.dense),
    "multiply": ("Why multiply log-softmax by the labels?", labels.multiply),
    "sum": ("Why sum over the last axis, sum(-1)?", labels.over_classes),
    "negatives": (
        "Why do the wrong classes fall, when the loss looks only at the right one?",
        gradient.negatives,
    ),
    "gradient": ("Where does p − y come from?", gradient.derivation),
    "index-vs-dense": (
        "What is the relation of class indices to dense labels?",
        labels.index_dense,
    ),
    "sigmoid-vs-softmax": ("Sigmoid or softmax?", softmax.sigmoid),
    "smoothing": ("What does label smoothing do?", options.smoothing),
    "weights": ("What do class weights do?", options.weights),
    "ignore": ("What does ignore_index do?", options.ignore),
    "mean": ("What does the mean divide by?", options.mean),
    "log-softmax": ("Why log-softmax, and not the logarithm of softmax?", softmax.log_softmax),
}

QUESTIONS: dict[str, str] = {name: title for name, (title, _) in ANSWERS.items()}
"""Every question that ``Explanation.why`` answers, in a few words, and in full."""


def answer(told: Explanation, question: str) -> Answer:
    """Answers one of QUESTIONS with the numbers of an explanation."""
    if question not in ANSWERS:
        raise mistake(
            ValueError, "question", expected=f"one of {', '.join(QUESTIONS)}", got=repr(question)
        )
    if told.row is None or told.row.ignored:
        whole = told.row is None
        raise mistake(
            ValueError,
            "why",
            expected="an explanation of a row that counts",
            got="one of the batch alone" if whole else "an ignored row",
            remedy="Choose one: explain(…, row=0)." if whole else "Choose another with row=….",
        )
    title, speak = ANSWERS[question]
    return speak(told, question, title)
