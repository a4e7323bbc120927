"""Hidden states and a classifier: logits that are known by shape, dtype and device alone."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xent.contract.call import Call, call_of
from xent.contract.dtypes import (
    accumulation,
    autocast_enabled,
    is_supported_float,
    under_autocast,
)
from xent.contract.errors import (
    described,
    mistake,
    plain,
    require_same_device,
    require_tensor,
    shape,
)
from xent.contract.inspection import is_distributed
from xent.contract.layout import Layout
from xent.contract.rows import LinearRows
from xent.contract.shards import Shard
from xent.contract.targets import Check

MOST_ROWS, MOST_ROWS_ON_A_DEVICE = 1024, 2048
"""Chunks of logits are as large as the classifier's gradient, which is needed anyway, but have no
more float32 rows than this. Products on a CPU are not faster with more. On a GPU the sum of the
classifier's gradient is read and written for each chunk, which takes as long as the products of
some 250 rows: a twentieth of what 4096 rows take, as many as half types have here."""
LEAST_CHUNK_BYTES = 64 << 20
"""And they are no smaller than this: products of small matrices are slower."""


class LinearCall(NamedTuple):
    """A checked call: what a position costs, and the rows that it is computed from."""

    call: Call
    """Its ``rows.logits`` have a shape and no values."""
    rows: LinearRows

    @property
    def layout(self) -> Layout:
        """That of the logits."""
        return self.call.layout

    @property
    def sample_weight(self) -> Tensor | None:
        """That of the call."""
        return self.call.sample_weight


def checked_linear_call(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    ignore_index: int | Sequence[int] | None = -100,
    label_smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
    chunk_bytes: int | None = None,
    check: Check | None = None,
    shard: Shard | None = None,
) -> LinearCall:
    """Checks all arguments of a loss on hidden states."""
    logits, layout = logits_in_name(input, linear_weight, linear_bias)
    layout = replace(layout, shard=shard)
    call = call_of(
        logits, layout, target, weight, label_smoothing=label_smoothing,
        ignore_index=-100 if ignore_index is None else ignore_index, sample_weight=sample_weight,
        check=check,
    )  # fmt: skip
    rows = linear_rows(input, linear_weight, linear_bias, layout, call.working, chunk_bytes)
    _, index, probabilities, factors, valid = call.rows
    return LinearCall(
        call,
        rows._replace(target=index, probabilities=probabilities, weight=factors, valid=valid),
    )


def logits_in_name(
    input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None
) -> tuple[Tensor, Layout]:
    """A tensor with shape, dtype and device of the logits, one number long, and its layout."""
    dtype = _checked_product(input, linear_weight, linear_bias)
    *lead, _ = input.shape
    logits_shape = (*lead, *linear_weight.shape[:-1])
    logits = torch.zeros((), dtype=dtype, device=input.device).expand(logits_shape)
    return logits, Layout(logits_shape, len(lead), len(lead), "the logits")


def linear_rows(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    layout: Layout,
    working: torch.dtype,
    chunk_bytes: int | None,
) -> LinearRows:
    """Checked hidden states and classifier as matrices, without labels."""
    hidden, classifier, bias = input, linear_weight, linear_bias
    if working == torch.float64:  # a float64 weight or label asks for it, as it does of logits
        hidden, classifier = hidden.to(working), classifier.to(working)
        bias = None if bias is None else bias.to(working)
    features = input.shape[-1]
    kind = working if input.device.type == "cpu" else _product_dtype(hidden)
    # A half type is only how a CPU stores numbers: it multiplies float32 faster, and exactly.
    return LinearRows(
        hidden.reshape(layout.outer, features),
        classifier.reshape(math.prod(classifier.shape[:-1]), features),
        None if bias is None else bias.reshape(-1),
        None, None, None, None,
        math.prod(linear_weight.shape[1:-1]),
        kind,
        _budget(chunk_bytes, linear_weight),
    )  # fmt: skip


def _checked_product(
    input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None
) -> torch.dtype:
    """Checks the three, and returns the dtype that logits of theirs have."""
    tensors = {"input": input, "linear_weight": linear_weight}
    if linear_bias is not None:
        tensors["linear_bias"] = linear_bias
    for name, tensor in tensors.items():
        require_tensor(name, tensor)
        _check_kind(name, tensor)
        if is_distributed(tensor):
            raise mistake(
                TypeError,
                name,
                expected="what this rank has, as a plain tensor",
                got="a DTensor",
                remedy=f"Pass {name}.to_local(), and group= if the classes are sharded.",
            )
    if input.ndim == 0:
        raise mistake(
            RuntimeError,
            "input",
            expected="hidden states of shape (D), (N, D) or (…, D)",
            got="a tensor with no axes",
        )
    if linear_weight.ndim < 2:
        raise mistake(
            RuntimeError,
            "linear_weight",
            expected="a classifier of shape (C, D), or (C, d1, …, dK, D)",
            got=f"shape {shape(linear_weight)}",
        )
    if input.shape[-1] != linear_weight.shape[-1]:
        raise mistake(
            RuntimeError,
            "linear_weight",
            expected=f"a last axis of {input.shape[-1]} features, as that of input",
            got=f"shape {shape(linear_weight)}",
            remedy=_for_features(input, linear_weight),
        )
    if linear_bias is not None and linear_bias.shape != linear_weight.shape[:-1]:
        raise mistake(
            RuntimeError,
            "linear_bias",
            expected=f"one number per output, shape {shape(linear_weight.shape[:-1])}",
            got=f"shape {shape(linear_bias)}",
        )
    return _common_dtype(tensors)


def _check_kind(name: str, tensor: Tensor) -> None:
    if is_supported_float(tensor.dtype) and tensor.layout == torch.strided:
        return
    integers = not tensor.is_floating_point() and not tensor.is_complex()
    raise mistake(
        NotImplementedError,
        name,
        expected="a dense tensor in one of float16, bfloat16, float32, float64",
        got=described(tensor) + ("" if tensor.layout == torch.strided else ", sparse"),
        remedy="Are these token ids? Embed them first." if integers and name == "input" else "",
    )


def _common_dtype(tensors: dict[str, Tensor]) -> torch.dtype:
    """What the tensors promote to; without autocast they must have one dtype, as in torch."""
    hidden = tensors["input"]
    dtype = hidden.dtype
    for name, tensor in tensors.items():
        require_same_device(name, tensor, hidden, "Move the model and its input to one device.")
        if under_autocast(tensor) != under_autocast(hidden):
            raise mistake(
                RuntimeError,
                name,
                expected=f"{plain(hidden.dtype)}, the dtype of input",
                got=plain(tensor.dtype),
                remedy="Cast one of them, or compute under torch.autocast.",
            )
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _product_dtype(input: Tensor) -> torch.dtype:
    """What the device multiplies in: autocast's dtype where that is on, else that of input."""
    device = input.device.type
    if input.dtype != torch.float64 and autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return input.dtype


def _for_features(input: Tensor, linear_weight: Tensor) -> str:
    if input.shape[-1] == linear_weight.shape[0]:
        return (
            "Are these logits already? Then use cross_entropy. "
            "Is the classifier transposed? linear_weight.T."
        )
    return "linear_weight is laid out as that of torch.nn.Linear: outputs first."


def checked_chunk_bytes(chunk_bytes: Any) -> int | None:
    """A budget for the logits that are held at a time, or None for the default."""
    if chunk_bytes is None:
        return None
    expected, remedy = "a positive number of bytes, or None", "It bounds the logits held at a time."
    if isinstance(chunk_bytes, bool) or not isinstance(chunk_bytes, numbers.Integral):
        got = described(chunk_bytes)
        raise mistake(TypeError, "chunk_bytes", expected=expected, got=got, remedy=remedy)
    if chunk_bytes < 1:
        got = str(chunk_bytes)
        raise mistake(ValueError, "chunk_bytes", expected=expected, got=got, remedy=remedy)
    return int(chunk_bytes)


def _budget(chunk_bytes: int | None, linear_weight: Tensor) -> int:
    outputs, features = math.prod(linear_weight.shape[:-1]), linear_weight.shape[-1]
    most = MOST_ROWS if linear_weight.is_cpu else MOST_ROWS_ON_A_DEVICE
    usual = outputs * min(features, most) * accumulation(linear_weight.dtype).itemsize
    usual = max(LEAST_CHUNK_BYTES, usual)
    return checked_chunk_bytes(chunk_bytes) or usual
