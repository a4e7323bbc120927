"""What is asked of the derivatives of any loss: that of logits, that of hidden states.

A case is a name, a function of float64 tensors, and those: each of them is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, func
from torch.autograd import forward_ad

from exactness import grad_output_for

Function = Callable[..., Tensor]
Case = tuple[str, Function, tuple[Tensor, ...]]
Second = Callable[[Function, tuple[int, ...]], Callable[..., Any]]
"""Second derivatives of a function, at the arguments of these numbers."""

# second derivatives multiply up to three factors, each with its rounding
SECOND = {"rtol": 1e-12, "atol": 1e-13}

MARKS = [
    pytest.mark.usefixtures("backend"),
    # torch's own forward mode runs decompositions that it made with torch.jit.script
    pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning"),
    # torch.compile makes an instance of every autograd.Function that it meets
    pytest.mark.filterwarnings(
        r"ignore:.*Function'> should not be instantiated:DeprecationWarning"
    ),
]

# Transforms, traces and derivatives of derivatives run the definition whichever backend is asked
# for. There numba is asked for, which shows that it steps aside; to ask for torch as well would
# compute the same again.
stepping_aside = pytest.mark.parametrize("backend", ["numba"], indirect=True, scope="module")


def each(cases: Sequence[Case]) -> pytest.MarkDecorator:
    """Runs a test of ``function`` and ``tensors`` for every case."""
    return pytest.mark.parametrize(
        ("function", "tensors"), [case[1:] for case in cases], ids=[case[0] for case in cases]
    )


def leaves(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Copies that autograd follows."""
    return tuple(t.clone().requires_grad_() for t in tensors)


def numerical_in_every_mode(function: Function, tensors: tuple[Tensor, ...]) -> bool:
    """Whether first derivatives are numerical ones: backwards, forwards, and batches of them."""
    return torch.autograd.gradcheck(
        function,
        leaves(tensors),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


def nested(outer: Callable[..., Any], inner: Callable[..., Any]) -> Second:
    """One mode over another."""
    return lambda function, argnums: outer(inner(function, argnums), argnums)


def assert_second_derivatives_agree(
    function: Function, tensors: tuple[Tensor, ...], ways: Sequence[Second]
) -> None:
    """Asserts that they are those of reverse over reverse mode."""
    argnums = tuple(range(len(tensors)))

    def total(*args: Tensor) -> Tensor:
        value = function(*args)
        return (value * grad_output_for(value)).sum()

    expected = nested(func.jacrev, func.jacrev)(total, argnums)(*tensors)
    for way in ways:
        torch.testing.assert_close(way(total, argnums)(*tensors), expected, **SECOND)


def autograds_vjp(
    function: Function, *tensors: Tensor
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
    """``func.vjp`` without a transform."""
    inputs = leaves(tensors)
    value = function(*inputs)
    return value.detach(), lambda cotangent: torch.autograd.grad(value, inputs, cotangent)


def assert_dual_tensors_carry_the_directional_derivative(
    function: Function,
    tensors: tuple[Tensor, ...],
    vjp: Callable[..., Any],
    close: dict[str, float],
    close_along: dict[str, float],
) -> None:
    """Asserts that forward mode gives the value, and the gradient's product with a direction."""
    tangents = [torch.full_like(t, 0.5).cumsum(-1) if t.ndim else 0.5 * t for t in tensors]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, d) for t, d in zip(tensors, tangents, strict=True)]
        primal, tangent = forward_ad.unpack_dual(function(*duals))
    value, pull = vjp(function, *tensors)
    torch.testing.assert_close(primal, value, **close)
    cotangent = grad_output_for(value)
    back = sum((g * d).sum() for g, d in zip(pull(cotangent), tangents, strict=True))
    torch.testing.assert_close((tangent * cotangent).sum(), back, **close_along)
