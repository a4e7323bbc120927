"""Plain torch that computes what an explanation shows."""

from __future__ import annotations

from textwrap import fill, indent
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xent.explanation.source import RowSource

if TYPE_CHECKING:
    from xent.explanation.explanation import Explanation

LINE = 56
"""Characters of a line of numbers."""
WHOLE = 400
"""Logits up to which a call is written down whole, and not only its row."""
IMPORTS = "import torch\nimport torch.nn.functional as F"


def row_lines(source: RowSource, *, weight: bool = True) -> str:
    """The row as tensors: ``logits``, ``label`` and, if there are, ``weight``, each ``[C]``."""
    lines = [f"logits = {literal(source.logits)}", f"label = {literal(source.label)}"]
    if weight and source.weight is not None:
        lines.append(f"weight = {literal(source.weight)}")
    return "\n".join(lines)


def log_softmax_of(source: RowSource, factor: str) -> str:
    """The call; where a masked class meets a factor of 0, torch's 0 · ∞ would be NaN."""
    call = "F.log_softmax(logits, dim=-1)"
    masked = bool((source.logits == -torch.inf).any())
    return f"{call}.masked_fill({factor} == 0, 0)" if masked else call


def literal(tensor: Tensor) -> str:
    """A tensor as Python reads it, exactly; floats become float64, integers int64."""
    if not tensor.is_floating_point():
        return f"torch.tensor({_nested(tensor.long().tolist())})"
    exact = tensor.double()
    decimals = _nested(exact.tolist())
    if torch.equal(exact.float().double().nan_to_num(), exact.nan_to_num()):
        # What was float32 has a short decimal that is read as the same float32.
        short = _nested(np.asarray(exact.float().cpu()))
        if short == decimals:
            return f"torch.tensor({decimals}, dtype=torch.float64)"
        return f"torch.tensor({short}).double()"
    return f"torch.tensor({decimals}, dtype=torch.float64)"


def as_python(told: Explanation) -> str:
    """The row step by step; and the whole call, if it is small enough to write down."""
    parts = [IMPORTS]
    if told.source is not None:
        parts.append(_row(told.source))
    if told.inputs.logits.numel() <= WHOLE and not _beyond_torch(told):
        parts.append(_call(told))
    return "\n\n".join(parts) + "\n"


def _row(source: RowSource) -> str:
    masked = source.ignored or bool((source.logits == -torch.inf).any())
    times = "weight * target" if source.weight is not None else "target"
    surprise = "-log_p.masked_fill(mass == 0, 0)" if masked else "-log_p"
    factor = f"{number(source.sample_weight)} * " if source.sample_weight != 1 else ""
    smoothing = f"{source.label_smoothing!r}"
    target = "label"
    if source.label_smoothing and not source.ignored:
        target = f"(1 - {smoothing}) * label + {smoothing} / {len(source.label)}"
    gradient = "mass.sum() * p - mass"
    gradient = f"{factor}({gradient})" if factor else gradient
    gradient = "torch.zeros_like(p)" if source.ignored else gradient
    where = f"position {source.position}: " if source.position else ""
    return f"""# {where}from the logits of one row to its loss and gradient
{row_lines(source)}
shifted = logits - logits.max()
exp = shifted.exp()
p = exp / exp.sum()  # softmax
log_p = shifted - exp.sum().log()  # log_softmax
target = {target}
mass = {times}
terms = mass * {surprise}
row_loss = {factor}terms.sum()  # nats
row_gradient = {gradient}  # at the logits"""


def _call(told: Explanation) -> str:
    if told.kind == "binary":
        return _binary_call(told)
    given = told.inputs.options
    logits, target = _classes_first(told)
    options = []
    lines = [f"x = {literal(logits)}", f"y = {literal(target)}"]
    if given["weight"] is not None:
        lines.append(f"w = {literal(given['weight'])}")
        options.append("weight=w")
    ignored = given["ignore_index"]
    several = not isinstance(ignored, int)
    if not several and ignored != -100:
        options.append(f"ignore_index={ignored}")
    if several and target.shape != logits.shape:
        lines += [f"for ignored in {list(ignored)}:", "    y = y.masked_fill(y == ignored, -100)"]
    if given["label_smoothing"]:
        options.append(f"label_smoothing={float(given['label_smoothing'])!r}")
    factor, batch = given.get("sample_weight"), told.batch
    plain = factor is None and given["denominator"] is None
    if plain and batch.divisor != 0:
        reduction = f'reduction="{batch.reduction}"'
        options += [reduction] if batch.reduction != "mean" else []
        lines.append(f"loss = F.cross_entropy({', '.join(['x', 'y', *options])})")
    else:
        call = ", ".join(["x", "y", *options, 'reduction="none"'])
        lines.append(f"losses = F.cross_entropy({call})")
        if factor is not None:
            lines.append(f"losses = losses * {literal(factor)}")
        lines.append(f"loss = {_reduced(told)}")
    return "\n".join(["# the whole call", *lines])


def _beyond_torch(told: Explanation) -> bool:
    """True where torch multiplies infinity or NaN by a mass of 0, and has NaN for it."""
    logits, given = told.inputs.logits, told.inputs.options
    if told.kind == "binary":
        return bool(logits.isinf().any())
    if logits.isfinite().all():
        return False
    weightless = given["weight"] is not None and bool((given["weight"] == 0).any())
    dense = told.kind == "probabilities"
    return dense or weightless or given.get("sample_weight") is not None


def _reduced(told: Explanation) -> str:
    batch = told.batch
    if batch.reduction == "none":
        return "losses"
    if batch.reduction == "sum":
        return "losses.sum()"
    if not batch.divisor:
        return f"torch.tensor({number(batch.value or 0.0)})  # nothing counts"
    return f"losses.sum() / {number(batch.divisor)}  # {batch.denominator}"


def _binary_call(told: Explanation) -> str:
    given, x = told.inputs.options, told.inputs.logits
    y = told.inputs.target.to(x.dtype)
    lines = [f"x = {literal(x)}", f"y = {literal(y)}"]
    if given["ignore_index"] is not None:
        ignored = given["ignore_index"]
        values = [ignored] if isinstance(ignored, int) else list(ignored)
        lines.append(f"counts = ~torch.isin(y, torch.tensor({values}, dtype=y.dtype))")
        lines.append("x, y = x.masked_fill(~counts, 0), y.masked_fill(~counts, 0)")
    if given["label_smoothing"]:
        smoothing = float(given["label_smoothing"])
        lines.append(f"y = (1 - {smoothing!r}) * y + {smoothing!r} / 2")
    options = ['reduction="none"']
    for name in ("weight", "pos_weight"):
        if given[name] is not None:
            options.append(f"{name}={literal(given[name])}")
    lines.append(f"losses = F.binary_cross_entropy_with_logits(x, y, {', '.join(options)})")
    if given["ignore_index"] is not None:
        lines.append("losses = losses * counts")
    return "\n".join(["# the whole call", *lines, f"loss = {_reduced(told)}"])


def _classes_first(told: Explanation) -> tuple[Tensor, Tensor]:
    """The call with its classes where torch looks for them."""
    logits, target = told.inputs.logits, told.inputs.target
    dim = told.inputs.options["dim"]
    torchs = 1 if logits.ndim > 1 else 0
    if dim is None or dim % logits.ndim == torchs:
        return logits, target
    dense = target.shape == logits.shape
    return logits.movedim(dim, torchs), target.movedim(dim, torchs) if dense else target


def _nested(values: Any) -> str:
    """Lists within lists, with breaks where a line would be long."""
    if isinstance(values, list | np.ndarray) and np.ndim(values):
        items = [_nested(value) for value in values]
        line = f"[{', '.join(items)}]"
        if len(line) < LINE and "\n" not in line:
            return line
        return f"[\n{indent(_filled(items), '    ')}\n]"
    return number(values)


def _filled(items: list[str]) -> str:
    if any("\n" in item or len(item) > LINE // 2 for item in items):
        return "".join(f"{item},\n" for item in items).rstrip()
    return fill(", ".join(items) + ",", LINE, break_long_words=False, break_on_hyphens=False)


def number(value: Any) -> str:
    """A number as Python reads it: ``float("-inf")`` where there is no other way."""
    if value != value or value in (float("inf"), float("-inf")):
        return f'float("{float(value)}")'
    return str(value)
