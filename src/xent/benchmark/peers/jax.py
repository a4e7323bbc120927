"""JAX's loss: optax under ``jax.jit``, on the same numbers and the same cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from xent.benchmark.cases import Labels, Mode
from xent.benchmark.data import Data
from xent.benchmark.peers.contender import UnavailableError
from xent.benchmark.truth import Answer

CLASS_AXIS = 1


class JaxLoss:
    """The jitted loss, or loss and gradient, with arrays that JAX holds."""

    def __init__(self, data: Data, mode: Mode) -> None:
        """Compiles.

        Raises:
            UnavailableError: jax or optax is not installed.
        """
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA tells when it compiles for long
        try:
            import jax
            import optax  # noqa: F401  # only whether it is there
        except ImportError as error:
            raise UnavailableError("needs jax and optax: pip install 'xent[bench]'") from error
        jax.config.update("jax_platforms", "cpu")  # the others run there
        loss = _loss(data)
        self._backward = mode is Mode.BOTH
        self._function = jax.jit(jax.value_and_grad(loss) if self._backward else loss)
        self._arguments = tuple(map(_array, (data.logits, data.target, data.weight)))
        self._block_until_ready = jax.block_until_ready
        self._result: Any = None

    def run(self) -> None:
        """One call, to its end: JAX returns before it has finished."""
        self._result = None
        self._result = self._block_until_ready(self._function(*self._arguments))

    def answer(self, rows: Tensor) -> Answer:
        """The loss and the gradient of the last run."""
        import numpy as np

        if not self._backward:
            return Answer(float(self._result), None)
        value, gradient = self._result
        sample = np.asarray(gradient)[rows.numpy()].astype(np.float64)
        return Answer(float(value), torch.from_numpy(sample))

    def release(self) -> None:
        """Lets go of the gradient."""
        self._result = None


def _array(tensor: Tensor | None) -> Any:
    """The tensor's numbers as a JAX array."""
    import jax.numpy as jnp
    import ml_dtypes

    if tensor is None:
        return None
    if tensor.dtype == torch.bfloat16:  # numpy has none of its own
        return jnp.asarray(tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return jnp.asarray(tensor.numpy() if tensor.is_floating_point() else tensor.int().numpy())


def _loss(data: Data) -> Callable[[Any, Any, Any], Any]:
    """The mean as optax's users write it for these labels."""
    import jax
    import jax.numpy as jnp
    import optax

    def index(logits: Any, labels: Any, weight: None) -> Any:
        del weight
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels, axis=CLASS_AXIS)
        return losses.mean()

    def probabilities(logits: Any, labels: Any, weight: None) -> Any:
        del weight
        return optax.softmax_cross_entropy(logits, labels, axis=CLASS_AXIS).mean()

    def ignored(logits: Any, labels: Any, weight: None) -> Any:
        del weight
        valid = labels != data.ignore_index
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.where(valid, labels, 0), axis=CLASS_AXIS
        )
        return jnp.where(valid, losses, 0).sum() / valid.sum()

    def smoothed(logits: Any, labels: Any, weight: Any) -> Any:
        classes = logits.shape[CLASS_AXIS]
        one_hot = jax.nn.one_hot(labels, classes, dtype=logits.dtype, axis=CLASS_AXIS)
        # optax.smooth_labels, which takes the last axis for that of the classes
        soft = (1 - data.label_smoothing) * one_hot + data.label_smoothing / classes
        along = weight.reshape(classes, *[1] * (logits.ndim - CLASS_AXIS - 1))
        losses = optax.softmax_cross_entropy(logits, soft * along, axis=CLASS_AXIS)
        return losses.sum() / weight[labels].sum()

    return {
        Labels.INDEX: index,
        Labels.PROBABILITIES: probabilities,
        Labels.IGNORED: ignored,
        Labels.SMOOTHED: smoothed,
    }[data.case.labels]
