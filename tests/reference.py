"""The loss and its gradients from the formulas, in extended precision: the truth of the tests.

Independent of the library and of torch's autograd: numpy's longdouble (64 bits of mantissa on
x86) and derivatives written out by hand. Every loss here is Σ_c M_c (lse − x_c) per position, for
a mass M that does not depend on the logits, so that its gradient is (Σ M) p − M.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exactness import grad_output_for


@dataclass(frozen=True)
class Truth:
    loss: Tensor
    logits_gradient: Tensor
    target_gradient: Tensor | None
    weight_gradient: Tensor | None


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Truth:
    """The truth for torch's contract, at the ``grad_output`` of ``exactness.grad_output_for``."""
    axis = 1 if logits.ndim > 1 else 0
    x = np.moveaxis(wide(logits), axis, -1)
    classes = x.shape[-1]
    v = np.ones(classes, np.longdouble) if weight is None else wide(weight)
    indices = target.shape != logits.shape
    if indices:
        y = target.numpy().reshape(x.shape[:-1])
        valid = y != ignore_index
        q = np.eye(classes, dtype=np.longdouble)[np.where(valid, y, 0)]
        counted = (v * q).sum(-1) * valid
    else:
        q = np.moveaxis(wide(target), axis, -1)
        valid = np.ones(x.shape[:-1], bool)
        counted = valid.astype(np.longdouble)
    smooth = np.longdouble(label_smoothing)
    mass = v * ((1 - smooth) * q + smooth / classes) * valid[..., None]

    x = np.where(valid[..., None], x, 0)
    maximum = x.max(-1, keepdims=True)
    exp = np.exp(x - maximum)
    surprise = np.log(exp.sum(-1, keepdims=True)) - (x - maximum)
    losses = (mass * surprise).sum(-1)
    total = counted.sum() if reduction == "mean" else np.longdouble(1)
    with np.errstate(invalid="ignore"):  # the mean of nothing is NaN
        loss = losses if reduction == "none" else losses.sum() / total
    factor = 1 / total if total else np.longdouble(0)  # and has no gradient
    scale = wide(grad_output_for(narrow(loss)))[..., None] * factor
    gradient = scale * (mass.sum(-1, keepdims=True) * exp / exp.sum(-1, keepdims=True) - mass)
    weighted = ((1 - smooth) * q + smooth / classes) * scale * surprise
    return Truth(
        narrow(loss),
        narrow(np.moveaxis(gradient, -1, axis)),
        None if indices else narrow(np.moveaxis(scale * (1 - smooth) * v * surprise, -1, axis)),
        None if indices else narrow(weighted.reshape(-1, classes).sum(0)),
    )


def wide(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy().astype(np.longdouble)


def narrow(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float64).copy())
