"""Losses of a network's outputs, with their gradients: what gradient flow follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError

__all__ = ["Loss", "loss_of"]


@dataclass(frozen=True)
class Loss:
    """A differentiable loss of all outputs, summed over samples.

    Attributes
    ----------
    name : str
    value : callable
        (f, y) -> float, with f and y of one shape (n, ...).
    gradient : callable
        (f, y) -> the derivative in f, an array of f's shape.
    """

    name: str
    value: Callable[[Any, Any], Any]
    gradient: Callable[[Any, Any], Any]

    def __post_init__(self) -> None:
        if not callable(self.value) or not callable(self.gradient):
            raise InputError(f"loss {self.name!r}: value and gradient are functions (f, y)")


def loss_of(loss: Any, y: np.ndarray) -> Loss:
    """The loss of a name, of a traceable function (f, y) -> scalar, or a Loss as it is.

    Raises
    ------
    InputError
        For an unknown name, or targets that the loss does not take.
    """
    if isinstance(loss, Loss):
        return loss
    if callable(loss):
        return _traced(loss)
    if loss not in LOSSES:
        raise InputError(
            f"loss={loss!r}: one of {', '.join(map(repr, LOSSES))}, a function (f, y) that JAX "
            "can trace, or a Loss"
        )
    made, check, accepts = LOSSES[loss]
    if not check(y):
        raise InputError(f"loss={loss!r}: y of shape {y.shape} is not {accepts}")
    return made


def _traced(function: Callable[[Any, Any], Any]) -> Loss:
    import jax

    from tangency.models.network import precision

    derivative = jax.jit(jax.grad(function))

    def gradient(f: Any, y: Any) -> np.ndarray:
        with precision("float64"):
            return np.asarray(derivative(f, y))

    def value(f: Any, y: Any) -> float:
        with precision("float64"):
            return float(function(f, y))

    return Loss(getattr(function, "__name__", "loss"), value, gradient)


def _softmax(f: np.ndarray) -> np.ndarray:
    e = np.exp(f - f.max(-1, keepdims=True))
    softmax: np.ndarray = e / e.sum(-1, keepdims=True)
    return softmax


def _cross_entropy(f: np.ndarray, y: np.ndarray) -> float:
    top = f.max(-1, keepdims=True)
    log_sum = top[..., 0] + np.log(np.exp(f - top).sum(-1))
    return float(np.sum(y.sum(-1) * log_sum) - np.sum(y * f))


def _cross_entropy_gradient(f: np.ndarray, y: np.ndarray) -> np.ndarray:
    gradient: np.ndarray = _softmax(f) * y.sum(-1, keepdims=True) - y
    return gradient


def _logistic_gradient(f: np.ndarray, y: np.ndarray) -> np.ndarray:
    # -y / (1 + exp(y f)) without overflow.
    return np.asarray(-y * np.exp(-np.logaddexp(0.0, y * f)))


def _probabilities(y: np.ndarray) -> bool:
    return bool(y.ndim == 2 and y.shape[1] > 1 and (y >= 0).all() and np.allclose(y.sum(1), 1))


#: Name -> (loss, whether it takes these targets, what it takes).
LOSSES: dict[str, tuple[Loss, Callable[[np.ndarray], bool], str]] = {
    "squared": (
        Loss("squared", lambda f, y: float(np.sum((f - y) ** 2) / 2), lambda f, y: f - y),
        lambda y: True,
        "an array of numbers",
    ),
    "cross_entropy": (
        Loss("cross_entropy", _cross_entropy, _cross_entropy_gradient),
        _probabilities,
        "(n, K) probabilities of K >= 2 classes (one-hot rows)",
    ),
    "logistic": (
        Loss("logistic", lambda f, y: float(np.logaddexp(0, -y * f).sum()), _logistic_gradient),
        lambda y: bool((np.abs(y) == 1).all()),
        "made of labels -1 and 1",
    ),
}
