"""A chain of matrices and activations: what the Lipschitz methods work on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tangency.models.errors import InputError
from tangency.verify.certificate.layers import (
    Activation,
    GroupSort,
    Householder,
    Residual,
    Slopes,
    output_width,
)
from tangency.verify.certificate.matrix import Array, Matrix

__all__ = ["Chain", "Function", "constraint_named"]

Named: TypeAlias = str | tuple[float, float] | Slopes | GroupSort | Householder | Residual


@dataclass(frozen=True)
class Function:
    """The value and the derivative of an elementwise function, in NumPy.

    Parameters
    ----------
    value, derivative : callable, array -> array
        Of one shape, applied to the (n,) last axis, for the search for lower bounds.
    homogeneous : bool
        Whether value(t z) = t value(z) for t > 0.
    """

    value: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    homogeneous: bool = False


@dataclass(frozen=True, eq=False)
class Chain:
    """The map x -> W_l phi(... phi(W_1 x + b_1) ...) + b_l.

    Parameters
    ----------
    weights : tuple of l (n_k, n_{k-1}) Matrix
        W_1, ..., W_l; a radius encloses weights that float64 does not hold exactly.
    activations : tuple of l - 1 Slopes, GroupSort, Householder or Residual
        What the upper bounds use of the functions in between. Residual(phi, G) makes the layer
        x + G phi(W x + b) of its weight W.
    biases : tuple of l (n_k,) arrays or None, optional
        Zero where not given. Only the search for a lower bound reads them.
    functions : tuple of l - 1 Function or None, optional
        The functions themselves, for the lower bound; sorting needs none.
    """

    weights: tuple[Matrix, ...]
    activations: tuple[Activation, ...] = ()
    biases: tuple[Array | None, ...] = ()
    functions: tuple[Function | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.weights:
            raise InputError("a chain needs at least one weight matrix")
        weights = tuple(
            Matrix.of(w, name=f"the weight of layer {k + 1}") for k, w in enumerate(self.weights)
        )
        count = len(weights)
        biases = tuple(self.biases) or (None,) * count
        functions = tuple(self.functions) or (None,) * (count - 1)
        for name, part, wanted in (
            ("activations", self.activations, count - 1),
            ("functions", functions, count - 1),
            ("biases", biases, count),
        ):
            if len(part) != wanted:
                raise InputError(f"{count} layers take {wanted} {name}, not {len(part)}")
        for k, w in enumerate(weights):
            if 0 in w.shape:
                raise InputError(f"the weight of layer {k + 1} is empty: {w.shape}")
            if k and w.shape[1] != (given := output_width(self.activations[k - 1], weights[k - 1])):
                raise InputError(
                    f"layer {k + 1} takes {w.shape[1]} inputs, but layer {k} gives {given}"
                )
        for k, activation in enumerate(self.activations):
            _check_activation(activation, weights[k].shape[0], f"the activation of layer {k + 1}")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "activations", tuple(self.activations))
        object.__setattr__(self, "functions", functions)
        rows = (w.shape[0] for w in weights)
        read = (_bias(b, n, k) for k, (b, n) in enumerate(zip(biases, rows, strict=True)))
        object.__setattr__(self, "biases", tuple(read))

    @classmethod
    def from_matrices(
        cls,
        matrices: Sequence[Any],
        activation: Named | Sequence[Named] = "relu",
        *,
        biases: Sequence[Any] = (),
    ) -> "Chain":
        """Return the chain of a list of arrays.

        Parameters
        ----------
        matrices : sequence of (n_k, n_{k-1}) arrays or Matrix
        activation : str, (a, b), Slopes, GroupSort, Householder, Residual, or a list of them
            "relu", "maxmin", "identity", "abs"; a pair (a, b) is the function a z for z < 0 and
            b z for z > 0. A list gives one for each hidden layer. Slopes name no function, so that
            no lower bound can be found.
        biases : sequence of (n_k,) arrays or None, optional

        Raises
        ------
        InputError
            If shapes do not fit or a number is not finite; the message names the layer.

        Examples
        --------
        >>> chain = Chain.from_matrices([np.eye(2), np.ones((1, 2))], "maxmin")
        >>> chain.sizes
        (2, 2, 1)
        """
        hidden = max(len(matrices) - 1, 0)
        named = list(activation) if isinstance(activation, list) else [activation] * hidden
        if len(named) != hidden:
            raise InputError(f"{hidden} hidden layers take as many activations, not {len(named)}")
        pairs = [constraint_named(a) for a in named]
        weights = tuple(
            Matrix.of(w, name=f"the weight of layer {k + 1}") for k, w in enumerate(matrices)
        )
        return cls(weights, tuple(a for a, _ in pairs), tuple(biases), tuple(f for _, f in pairs))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Widths from the input to the output."""
        given = (output_width(a, w) for a, w in zip(self.activations, self.weights, strict=False))
        return (self.weights[0].shape[1], *given, self.weights[-1].shape[0])

    @property
    def hidden(self) -> int:
        """The number of hidden neurons."""
        return sum(self.sizes[1:-1])


def constraint_named(activation: Any) -> tuple[Activation, Function | None]:
    """Return the constraint of an activation as a user names it, and the function, if it is one.

    Raises
    ------
    InputError
        If it is no name, pair of slopes or constraint that `Chain.from_matrices` takes.
    """
    if isinstance(activation, Slopes | GroupSort | Householder | Residual):
        return activation, None
    names = {"relu": (0.0, 1.0), "identity": (1.0, 1.0), "abs": (-1.0, 1.0)}
    if activation == "maxmin":
        return GroupSort(2), None
    if isinstance(activation, str) and activation in names:
        activation = names[activation]
    try:
        a, b = (float(slope) for slope in activation)
    except (TypeError, ValueError):
        accepted = ", ".join(sorted([*names, "maxmin"]))
        raise InputError(
            f"unknown activation {activation!r}: give one of {accepted}, a pair (a, b) of slopes, "
            "Slopes or GroupSort"
        ) from None
    return Slopes(min(a, b), max(a, b)), Function(
        lambda z: np.where(z > 0, b * z, a * z),
        lambda z: np.where(z > 0, b, a),
        homogeneous=True,
    )


def _check_activation(activation: Any, width: int, name: str) -> None:
    if isinstance(activation, Residual):
        _check_activation(activation.inner, width, name)
    elif isinstance(activation, GroupSort | Householder):
        activation.groups(width, name=name)
    elif isinstance(activation, Slopes):
        activation.arrays(width, name=name)
    else:
        raise InputError(
            f"{name} must be Slopes, GroupSort, Householder or Residual, "
            f"not {type(activation).__name__}"
        )


def _bias(values: Any, width: int, layer: int) -> Array | None:
    if values is None:
        return None
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" or array.shape != (width,):
        raise InputError(
            f"the bias of layer {layer + 1} must be {width} numbers, not {array.shape}"
        )
    if not np.isfinite(array).all():
        raise InputError(f"the bias of layer {layer + 1} holds a NaN or an infinite number")
    return array.astype(np.float64)
