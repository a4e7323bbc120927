"""Logits and labels for ``xent explain`` and ``xent why``: typed in, from a file, or an example."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import torch
from torch import Tensor

from xent.cli.arrays import numbers, position, target_of, words
from xent.cli.examples import EXAMPLES
from xent.cli.files import LabelledLogits, read_labelled_logits
from xent.cli.mistakes import BadInput
from xent.contract.errors import mistake
from xent.explanation import Explanation, explain, explain_binary

F = TypeVar("F", bound=Callable[..., Any])

# What the library raises for arguments that do not fit; its messages are one line.
_MISTAKES = (TypeError, ValueError, IndexError, RuntimeError, NotImplementedError, MemoryError)
_ROUNDING = 0.02
"""By which typed-in probabilities may miss 1: 0.33, 0.33, 0.33 are meant well."""


class Typed:
    """The options of a call as they were typed in."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given

    def explanation(self, otherwise: str | None = None) -> Explanation:
        """The call, explained; the example ``otherwise`` if nothing was typed in."""
        given = dict(self.given)
        if all(given[name] is None for name in ("logits", "probs", "path", "example", "target")):
            given["example"] = otherwise
        try:
            return _explanation(**given)
        except click.ClickException:
            raise
        except _MISTAKES as error:
            raise BadInput(" ".join(str(error).split())) from error


def of_a_call(command: F) -> F:
    """The options that say what is explained; the command gets them as ``typed``."""

    @functools.wraps(command)
    def with_call(**given: Any) -> Any:
        typed = Typed({name: given.pop(name) for name in _NAMES})
        return command(typed=typed, **given)

    for option in reversed(_OPTIONS):
        with_call = option(with_call)
    return with_call  # type: ignore[return-value]  # what click makes of a function


_OPTIONS = [
    click.option("--logits", metavar="NUMBERS", help="One row of logits, such as 1.2,3.1,1.9."),
    click.option("--probs", metavar="NUMBERS", help="Probabilities instead; logits are log p."),
    click.option(
        "--file", "path", type=click.Path(path_type=Path),
        help="Logits and labels: .npy .npz .csv .json .pt .safetensors.",
    ),
    click.option("--example", type=click.Choice(tuple(EXAMPLES)), help="Something to begin with."),
    click.option(
        "--target", metavar="LABEL", help="A class (number or name), or a probability per class."
    ),
    click.option("--names", metavar="WORDS", help="Names of the classes, such as cat,dog,bird."),
    click.option("--weight", metavar="NUMBERS", help="Class weights; with --binary a factor."),
    click.option("--label-smoothing", type=float, default=0.0, help="ε, from 0 to 1."),
    click.option("--ignore-index", type=int, help="Label that does not count.  [default: -100]"),
    click.option(
        "--reduction", type=click.Choice(("none", "mean", "sum")), default="mean",
        show_default=True, help="From the losses of all rows to one value.",
    ),
    click.option("--dim", type=int, help="The class axis, if it is not torch's."),
    click.option("--binary", is_flag=True, help="A yes or no for each logit: sigmoid."),
    click.option("--pos-weight", metavar="NUMBERS", help="With --binary: factor of the yes side."),
    click.option("--row", help="Position to take apart: 3, or 2,5,7; or all.  [default: 0]"),
    click.option(
        "--top", type=click.IntRange(min=1), default=10, show_default=True,
        help="Classes to show of a long row.",
    ),
    click.option(
        "--steps", type=click.IntRange(0, 1000), default=5, show_default=True,
        help="Steps of gradient descent to show.",
    ),
    click.option("--step-size", type=float, default=1.0, show_default=True, help="Of the descent."),
]  # fmt: skip

_NAMES = (
    *("logits", "probs", "path", "example", "target", "names", "weight", "label_smoothing"),
    *("ignore_index", "reduction", "dim", "binary", "pos_weight", "row", "top", "steps"),
    "step_size",
)


def _explanation(
    *,
    logits: str | None,
    probs: str | None,
    path: Path | None,
    example: str | None,
    target: str | None,
    names: str | None,
    weight: str | None,
    binary: bool,
    pos_weight: str | None,
    row: str | None,
    top: int,
    ignore_index: int | None,
    dim: int | None,
    **options: Any,
) -> Explanation:
    binary = binary or (example is not None and EXAMPLES[example].binary)
    found = _source(logits, probs, path, example)
    classes = words(names, argument="--names") if names is not None else found.names
    options["row"] = None if row == "all" else position("0" if row is None else row)
    options["class_names"] = classes
    options["weight"] = (
        found.weight if weight is None else _vector(weight, "--weight", found.logits)
    )
    if ignore_index is not None:
        options["ignore_index"] = ignore_index
    if binary:
        if dim is not None:
            raise BadInput(
                "--dim: expected none with --binary, which has no class axis; leave it out"
            )
        if pos_weight is not None:
            options["pos_weight"] = _vector(pos_weight, "--pos-weight", found.logits)
        answers = found.target if target is None else _vector(target, "--target", found.logits)
        return explain_binary(found.logits, _required(answers), **options)
    if pos_weight is not None:
        raise BadInput("--pos-weight: expected only with --binary. For classes use --weight.")
    axis = (1 if found.logits.ndim > 1 else 0) if dim is None else dim
    if not -found.logits.ndim <= axis < max(found.logits.ndim, 1):
        raise BadInput(f"--dim: expected an axis of the {found.logits.ndim} there are; got {dim}.")
    count = found.logits.shape[axis] if found.logits.ndim else 0
    label = found.target
    if target is not None:
        label = _label(target, classes, count, found.logits)
    return explain(found.logits, _required(label), dim=dim, top=top, **options)


def _source(
    logits: str | None, probs: str | None, path: Path | None, example: str | None
) -> LabelledLogits:
    given = {"--logits": logits, "--probs": probs, "--file": path, "--example": example}
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        got = " and ".join(chosen) or "none of them"
        raise BadInput(f"logits: expected one of {', '.join(given)}; got {got}.")
    if path is not None:
        return read_labelled_logits(path)
    if example is not None:
        return EXAMPLES[example].inputs
    if probs is not None:
        return LabelledLogits(_log(numbers(probs, argument="--probs")))
    return LabelledLogits(_double(numbers(logits or "", argument="--logits")))


def _log(probabilities: list[float]) -> Tensor:
    total = sum(probabilities)
    if not all(0 <= p <= 1 for p in probabilities) or abs(total - 1) > _ROUNDING:
        raise mistake(
            BadInput, "--probs", expected="probabilities, from 0 to 1, that sum to 1",
            got=f"{', '.join(f'{p:g}' for p in probabilities)}, which sum to {total:g}",
            remedy="Logits, which may be any numbers, go into --logits.",
        )  # fmt: skip
    return (_double(probabilities) / total).log()


def _label(text: str, names: tuple[str, ...] | None, classes: int, logits: Tensor) -> Tensor:
    if names is not None and len(names) != classes:
        raise mistake(
            BadInput, "--names", expected=f"one name for each class, {classes} in all",
            got=f"{len(names)} names",
        )  # fmt: skip
    label = target_of(text, names, classes)
    if logits.ndim == 1:
        return label
    if label.is_floating_point() and logits.ndim == 2 and logits.shape[0] == 1:
        return label[None]
    positions = (logits.shape[0], *logits.shape[2:])
    if not label.is_floating_point() and positions.count(1) == len(positions):
        return label.reshape(positions)
    raise BadInput(
        f"--target: expected no label beside a file of {tuple(logits.shape)} logits, which needs "
        "one for each position; put them into the file, as target."
    )


def _vector(text: str, argument: str, logits: Tensor) -> Tensor:
    values = _double(numbers(text, argument=argument))
    return (
        values.reshape(()) if logits.ndim == 0 and values.numel() == 1 else values.to(logits.dtype)
    )


def _required(target: Tensor | None) -> Tensor:
    if target is None:
        raise BadInput("--target: expected the label; got none. It is a class, or probabilities.")
    return target


def _double(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
