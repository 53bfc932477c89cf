"""From a chain to the engine's layers: bases, scales and a starting point."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tangency.verify.certificate.layers import (
    Activation,
    GroupSort,
    Householder,
    Residual,
    Slopes,
)
from tangency.verify.certificate.matrix import Array
from tangency.verify.lipschitz.engine.layers import Layer
from tangency.verify.lipschitz.engine.recursion import eliminate
from tangency.verify.lipschitz.spectra import top_eigenvalue

__all__ = ["Assembly", "assemble", "helmert"]

_MARGIN = 0.05  # the first multipliers lie above the closed form by this


@dataclass(frozen=True, eq=False)
class Assembly:
    """A chain in the engine's form.

    Parameters
    ----------
    layers : tuple of Layer
    last : (m, n) array
    exponents : tuple of int
        Weight k is divided by 2**exponents[k], so that the storages are of order one.
    start : (d,) array
        Logarithms of multipliers for which every pivot is positive.
    bases : tuple of (n_k, n_k) arrays or None
        U_k: the chain's activation k is U_k y, y the layer's output.
    """

    layers: tuple[Layer, ...]
    last: Array
    exponents: tuple[int, ...]
    start: Array
    bases: tuple[Array | None, ...]


def helmert(size: int) -> Array:
    """Return the (size, size) orthogonal matrix with the constant vector as first column.

    Examples
    --------
    >>> np.round(helmert(2), 3)
    array([[ 0.707,  0.707],
           [ 0.707, -0.707]])
    """
    basis = np.zeros((size, size))
    basis[:, 0] = 1.0
    for j in range(1, size):
        basis[:j, j] = 1.0
        basis[j, j] = -float(j)
    return np.asarray(basis / np.linalg.norm(basis, axis=0))


def assemble(
    weights: Sequence[Array],
    activations: Sequence[Activation],
    exponents: Sequence[int],
    check: Callable[[], None] = lambda: None,
) -> Assembly | None:
    """Return the engine's form of a chain of plain matrices already divided by 2**exponents.

    Parameters
    ----------
    weights : sequence of l (n_k, n_{k-1}) arrays
    activations : sequence of l - 1 Activation
    exponents : sequence of int
        The engine changes them further.
    check : callable
        Called before each layer: what it raises ends the work.

    Returns
    -------
    Assembly or None
        None where the storages leave the range of float64.
    """
    layers: list[Layer] = []
    bases: list[Array | None] = []
    basis: Array | None = None
    for k, activation in enumerate(activations):
        given = weights[k] if basis is None else weights[k] @ basis
        if isinstance(activation, Residual):
            layers.append(_block(given, activation, basis, exponents[k]))
            basis = None
        else:
            layer, basis = _layer(given, activation)
            layers.append(layer)
        bases.append(basis)
    last = weights[-1] if basis is None else weights[-1] @ basis
    fixed = [isinstance(a, Residual) for a in activations]
    with np.errstate(all="ignore"):
        return _started(layers, last, list(exponents), bases, fixed, check)


def _layer(weight: Array, activation: Activation) -> tuple[Layer, Array | None]:
    """Return a layer in its own basis, and the basis."""
    n = weight.shape[0]
    if isinstance(activation, Slopes):
        lower, upper = activation.arrays(n)
        free = np.flatnonzero(lower != upper)
        if free.size == n:
            return Layer(weight, lower, upper, count=n), None
        linear = lower[:, None] * weight
        linear[free] = 0.0
        given = weight[free], lower[free], upper[free]
        return Layer(*given, linear=linear, free=free, count=free.size), None
    assert isinstance(activation, GroupSort | Householder)
    size, groups = activation.size, activation.groups(n)
    if isinstance(activation, GroupSort):
        basis: Array = np.kron(np.eye(groups), helmert(size)).astype(np.float64)
        kept = np.arange(n) % size == 0
    else:
        basis = np.zeros((n, n))
        for j, normal in enumerate(activation.normals):
            where = slice(j * size, (j + 1) * size)
            scaled = normal / np.abs(normal).max()
            basis[where, where] = np.linalg.qr(scaled[:, None], mode="complete")[0]
        kept = np.arange(n) % size != 0
    turned = basis.T @ weight
    free = np.flatnonzero(~kept)
    ones = np.ones(free.size)
    return (
        Layer(
            turned[free],
            -ones,
            ones,
            linear=np.where(kept[:, None], turned, 0.0),
            free=free,
            group=free // size,
            count=groups,
        ),
        basis,
    )


def _block(weight: Array, activation: Residual, turn: Array | None, exponent: int) -> Layer:
    """Return the layer of x + G phi(W x), where x = turn y and W is given for y."""
    inner, basis = _layer(weight, activation.inner)
    output = np.eye(weight.shape[0]) if activation.output is None else activation.output.midpoint
    output = np.ldexp(output, exponent)
    if basis is not None:
        output = output @ basis
    linear = np.eye(weight.shape[1]) if turn is None else turn
    if inner.linear is not None:
        linear = linear + output @ inner.linear
    spread = output if inner.free is None else output[:, inner.free]
    return replace(inner, linear=linear, spread=np.ascontiguousarray(spread), free=None)


def _started(
    layers: list[Layer],
    last: Array,
    exponents: list[int],
    bases: list[Array | None],
    fixed: Sequence[bool],
    check: Callable[[], None],
) -> Assembly | None:
    """Choose multipliers by the closed form and scales that make every storage of order one."""
    shift = _exponent(last)
    last = np.ldexp(last, -shift)
    exponents[-1] += shift
    storage = last.T @ last
    start: list[Array] = []
    for k in range(len(layers) - 1, -1, -1):
        check()
        layer, shift = layers[k], 0
        if not fixed[k]:  # slopes of 1e200 would square to infinity before they are divided out
            shift = _steepest(layer)
            layer = _divided(layer, shift)
        level = top_eigenvalue(layer.inner(storage)) if layer.width else 0.0
        level = max(level, 1e-12 * float(np.trace(storage)), 1e-290)
        spread = layer.upper - layer.lower
        ratio = (1.0 + np.abs(layer.lower + layer.upper) / spread) / 2.0
        if (
            layer.linear is not None and layer.width
        ):  # what is coupled to the linear part needs a larger pivot
            ratio = np.maximum(ratio, 1.0)
        strength = level * (1.0 + _MARGIN) * ratio
        if layer.group is not None:
            strength = np.full(layer.count, level * (1.0 + _MARGIN) * float(ratio.max(initial=1.0)))
        found = eliminate(layer, layer.expand(strength), storage)
        if found is None:
            return None
        storage = (found[1] + found[1].T) / 2
        top = top_eigenvalue(storage)
        if not math.isfinite(top):
            return None
        if top > 0 and not fixed[k]:
            more = round(math.log2(top) / 2)
            storage, shift = np.ldexp(storage, -2 * more), shift + more
        exponents[k] += shift
        layers[k] = _divided(layers[k], shift)
        start.append(np.log(strength))
    theta = np.concatenate(start[::-1]) if start else np.zeros(0)
    return Assembly(tuple(layers), last, tuple(exponents), theta, tuple(bases))


def _divided(layer: Layer, shift: int) -> Layer:
    linear = None if layer.linear is None else np.ldexp(layer.linear, -shift)
    return replace(layer, weight=np.ldexp(layer.weight, -shift), linear=linear)


def _steepest(layer: Layer) -> int:
    """Return the exponent of the largest entry of what a layer may multiply its input by."""
    slope = np.maximum(np.abs(layer.lower), np.abs(layer.upper))
    largest = float((slope[:, None] * np.abs(layer.weight)).max(initial=0.0))
    if layer.linear is not None:
        largest = max(largest, float(np.abs(layer.linear).max(initial=0.0)))
    return math.frexp(largest)[1]


def _exponent(values: Array) -> int:
    norm = float(np.linalg.norm(values))
    return math.frexp(norm)[1] if norm > 0 else 0
