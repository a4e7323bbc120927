"""Compiles kernels ahead of their first use."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch

from xent.backends.numba.launch import logit_gradient, prediction, statistics
from xent.contract.dtypes import accumulation
from xent.contract.rows import Coefficients, Rows

CASES = tuple(
    product(
        ("rows", "positions"),
        ("index", "probabilities"),
        ("plain", "smoothed", "weighted", "smoothed and weighted"),
    )
)
"""What a combination of options decides which kernel on."""


def compile_kernels(dtype: torch.dtype) -> Iterator[str]:
    """Compiles the kernels for logits of a dtype one after another; says before each which."""
    for layout, labels, options in CASES:
        if (labels, options) == ("index", "weighted"):  # the kernel of plain indices
            continue
        yield f"{str(dtype).removeprefix('torch.')} {layout}, {labels}, {options}"
        _run(dtype, layout, labels, options)


def _run(dtype: torch.dtype, layout: str, labels: str, options: str) -> None:
    logits = torch.zeros((2, 3, 1 if layout == "rows" else 2), dtype=dtype)
    if layout == "rows":
        logits = logits.transpose(1, 2).contiguous().transpose(1, 2)
    positions = (logits.shape[0], logits.shape[2])
    rows = Rows(
        logits,
        target=torch.zeros(positions, dtype=torch.int64) if labels == "index" else None,
        probabilities=torch.ones_like(logits) if labels == "probabilities" else None,
        weight=torch.ones(3, dtype=accumulation(dtype)) if "weighted" in options else None,
    )
    vectors = statistics(rows, "smoothed" in options)
    coefficients = Coefficients(None, *vectors.statistics[2:])
    logit_gradient(rows, vectors, coefficients)
    if (layout, labels, options) == CASES[0]:
        prediction(rows, vectors)
