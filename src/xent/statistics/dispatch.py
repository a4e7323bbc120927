"""Which backend computes the row statistics of a tensor, and why not another."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from xent.backends.torch import rows as torch_rows
from xent.contract.errors import mistake
from xent.contract.inspection import is_ordinary
from xent.contract.rows import Coefficients, Prediction, Rows, Vectors

LEAST = 64
"""Logits below which torch's operations are as quick as a kernel, or quicker."""

GPUS = ("cuda", "xpu")
"""Types of devices that triton has drivers for; ROCm's is cuda, too."""

_NAMES = ("numba", "torch", "triton")
log = logging.getLogger("xent")
_asked_for: ContextVar[str | None] = ContextVar("xent backend", default=None)


class RowBackend(Protocol):
    """What a backend offers; ``backends.torch.rows`` documents each function.

    Derivatives at labels and class weights, forward mode and second derivatives always run on
    the torch backend: they are rare, and one readable definition of them is enough.
    """

    def statistics(self, rows: Rows, with_uniform: bool) -> Vectors:
        """The statistics of rows; what was not asked for is None."""
        ...

    def logit_gradient(
        self, rows: Rows, vectors: Vectors, coefficients: Coefficients, *, inplace: bool = False
    ) -> Tensor:
        """The gradient at the logits, in their dtype; with ``inplace`` it overwrites them."""
        ...

    def prediction(self, rows: Rows, vectors: Vectors) -> Prediction:
        """Entropy and most probable class of rows whose statistics are known."""
        ...


class Dispatch(NamedTuple):
    """The backend that computes, and why each other one does not."""

    backend: str
    refusals: dict[str, str]

    def __str__(self) -> str:
        reasons = "; ".join(f"not {name}: {reason}" for name, reason in self.refusals.items())
        return f"{self.backend} ({reasons})" if reasons else self.backend


def backend_for(logits: Tensor, *others: Tensor | None) -> RowBackend:
    """The backend for these logits; the other tensors only have to be within its reach."""
    if torch.compiler.is_compiling():  # then the compiler gets the definition
        return torch_rows
    choice = dispatch_of(logits, *others)
    if log.isEnabledFor(logging.DEBUG):
        log.debug("row statistics of %s %s: %s", tuple(logits.shape), logits.dtype, choice)
    return torch_rows if choice.backend == "torch" else kernels(choice.backend)


def dispatch_of(logits: Tensor, *others: Tensor | None) -> Dispatch:
    """Numba for ordinary CPU tensors, triton for those on GPUs, the definition for all others."""
    refusals = {}
    for name in ("numba", "triton"):
        refusal = _refusal(name, logits, *others)
        if refusal is None:
            return _CHOSEN[name]
        refusals[name] = refusal
    return Dispatch("torch", refusals)


_SLOWER = "it is the slower one here"
_CHOSEN = {
    "numba": Dispatch("numba", {"torch": _SLOWER, "triton": "it computes on GPUs"}),
    "triton": Dispatch("triton", {"numba": "it computes on CPUs", "torch": _SLOWER}),
}


def compiles_to_an_operator(logits: Tensor) -> bool:
    """True if compiled code calls a backend of ours, false if the compiler gets the definition.

    Whatever the size: a condition on it would tie compiled code to a range of batches.
    """
    kind = logits.device.type
    return (kind == "cpu" or (kind in GPUS and logits.dtype != torch.float64)) and _has_kernels(
        kind
    )


def _has_kernels(kind: str) -> bool:
    name = "triton" if kind in GPUS or _interpreted() else "numba"
    return asked_backend() in (None, name) and failure(name) is None


# What torch.compiler.assume_constant_result does, which would import the compiler first: a second.
_has_kernels._dynamo_marked_constant = True  # type: ignore[attr-defined]  # dynamo's mark


def _refusal(name: str, logits: Tensor, *others: Tensor | None) -> str | None:
    """Why a backend with kernels does not compute these; None if it can."""
    asked_for = asked_backend()
    if asked_for not in (None, name):
        return f'backend("{asked_for}") or XENT_BACKEND asks for another'
    elsewhere = _elsewhere(name, logits)
    if elsewhere:
        return elsewhere
    if not all(tensor is None or is_ordinary(tensor) for tensor in (logits, *others)):
        return "it needs the values of an ordinary tensor, and torch is transforming or tracing"
    if not logits.numel():
        return "there are no logits"
    if name == "numba" and asked_for is None and logits.numel() < LEAST:
        return f"{logits.numel()} logits are fewer than {LEAST}"
    return failure(name)


def _elsewhere(name: str, logits: Tensor) -> str | None:
    """Why a backend has no way to these logits by their device, or by their dtype there."""
    if name == "numba":
        here = logits.is_cpu
    else:
        here = logits.device.type in GPUS or (logits.is_cpu and _interpreted())
    if not here:
        where = "CPUs" if name == "numba" else "GPUs"
        return f"it computes on {where}, and the logits are on {logits.device}"
    if name == "triton" and logits.dtype == torch.float64:
        return "it computes in float32, and the logits are float64"
    return None


def _interpreted() -> bool:
    """Triton's interpreter computes on CPUs, slowly, where one asks for both by name."""
    return asked_backend() == "triton" and os.environ.get("TRITON_INTERPRET") == "1"


@cache
def failure(name: str) -> str | None:
    """Why a backend can't be used at all: it is missing, or has no support for this machine."""
    try:
        backend = kernels(name)
    except (ImportError, OSError) as error:
        return f"it can't be imported: {error}"
    for kind in GPUS if name == "triton" else ():
        device = getattr(torch, kind)
        if device.is_available():
            try:
                backend.probe(torch.device(kind, device.current_device()))  # type: ignore[attr-defined]  # triton's
            except (
                Exception
            ) as error:  # of a driver or a compiler: of any type, and the definition runs
                return f"it can't run here: {error}"
    return None


@cache
def kernels(name: str) -> RowBackend:
    """A backend with kernels; its compiler is imported when it is first needed."""
    return cast(RowBackend, import_module(f"xent.backends.{name}.launch"))


def asked_backend() -> str | None:
    """The backend that is asked for by name: in the code around this call, or the environment."""
    return _asked_for.get() or _from_environment()


@cache
def _from_environment() -> str | None:
    name = os.environ.get("XENT_BACKEND")
    return _checked(name, "XENT_BACKEND") if name else None


def _checked(name: str, argument: str) -> str:
    if name not in _NAMES:
        *some, last = map(repr, _NAMES)
        expected = f"{', '.join(some)} or {last}"
        raise mistake(ValueError, argument, expected=expected, got=repr(name))
    return name


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Chooses the backend by hand, within a ``with`` block and this thread.

    The environment variable ``XENT_BACKEND`` does the same for a whole process. Where the backend
    can't run (numba on a GPU, triton on a CPU, either inside ``torch.func.vmap``) the definition in
    torch operations does, and ``explain_dispatch`` says why. Code is compiled for the backend that
    is asked for then; whether its kernels compute is decided again when it runs.

    Args:
        name: ``"numba"``, ``"triton"`` or ``"torch"``. With the environment variable
            ``TRITON_INTERPRET=1`` triton runs on CPUs, to be tested.

    Raises:
        ValueError: another name.

    Example:
        >>> import torch, xent
        >>> with xent.backend("torch"):
        ...     print(xent.explain_dispatch(torch.randn(4, 1000)).refusals["numba"])
        backend("torch") or XENT_BACKEND asks for another
    """
    token = _asked_for.set(_checked(name, "name"))
    try:
        yield
    finally:
        _asked_for.reset(token)


def explain_dispatch(input: Tensor) -> Dispatch:
    """Which backend computes the losses of these logits, and why the others don't.

    The same goes to the log, level DEBUG, logger ``"xent"``, with each call that asks.

    Args:
        input: logits, as a loss takes them.

    Returns:
        Dispatch with ``backend``, a name, and ``refusals``, a reason for each other name; as a
        string it is one line.

    Example:
        >>> import torch, xent
        >>> print(xent.explain_dispatch(torch.randn(4, 1000)))
        numba (not torch: it is the slower one here; not triton: it computes on GPUs)
        >>> xent.explain_dispatch(torch.randn(4, 1000, device="meta")).refusals["numba"]
        'it computes on CPUs, and the logits are on meta'
    """
    return dispatch_of(input)
