"""A lower bound: the norm of a Jacobian at a point, by power iteration through the layers."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from tangency.models.namespace import numpy_namespace
from tangency.models.network import Network
from tangency.models.ops import (
    Activate,
    AveragePool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    GroupSort,
    Prelu,
    Reshape,
    Transpose,
    numpy_backend,
)
from tangency.models.structure import Node
from tangency.verify.chain.conv_pieces import path_of

__all__ = ["jacobian_norm"]

Map = Callable[[np.ndarray], np.ndarray]


def jacobian_norm(
    network: Network, *, points: int = 4, iterations: int = 12, seed: int = 0
) -> float:
    """Return the largest norm of a Jacobian found at random points, from below.

    Parameters
    ----------
    network : Network
        A path of layers that `pieces_of` takes.
    points, iterations : int
    seed : int

    Returns
    -------
    float
        Computed in float64 and rounded down by 1e-10 relative, not proved.
    """
    with np.errstate(all="ignore"):  # what leaves the range of float64 does not count
        return _climbed(network, points, iterations, np.random.default_rng(seed))


def _climbed(network: Network, points: int, iterations: int, rng: np.random.Generator) -> float:
    x = rng.standard_normal((points, *network.input_shape))
    maps: list[tuple[Map, Map]] = []
    path = path_of(network)
    for before, node in pairwise(path):
        params = {p.role: np.asarray(network.weights[p.key], np.float64) for p in node.params}
        maps.append(_linearised(node, before, params, x))
        x = np.asarray(node.op.apply(numpy_backend(), params, x), np.float64)
    v = _ranged(rng.standard_normal((points, *network.input_shape)))[0]
    best = 0.0
    for _ in range(iterations):
        w, shift = v, np.zeros(points, dtype=np.int64)
        for forward, _back in maps:
            w, more = _ranged(forward(w))
            shift = shift + more
        values = np.ldexp(_norms(w) / _norms(v), shift)
        best = max(best, float(values[np.isfinite(values)].max(initial=0.0)))
        v = w
        for _forward, back in reversed(maps):
            v = _ranged(back(v))[0]
    return best * (1.0 - 1e-10)


def _ranged(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each point's values over 2**e, of order one, and e; not finite ones as zero."""
    flat = np.abs(values.reshape(len(values), -1))
    finite = np.isfinite(flat).all(axis=1)
    exponents = np.where(finite, np.frexp(flat.max(axis=1))[1], 0)
    column = [-1, *[1] * (values.ndim - 1)]
    scaled = np.ldexp(values, -exponents.reshape(column))
    return np.where(finite.reshape(column), scaled, 0.0), exponents


def _norms(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt((values.reshape(len(values), -1) ** 2).sum(axis=1)))


def _linearised(
    node: Node, before: Node, params: dict[str, np.ndarray], x: np.ndarray
) -> tuple[Map, Map]:
    """Return a layer's derivative at x and its transpose."""
    op, xp = node.op, numpy_backend()
    shape = (len(x), *before.shape)
    if isinstance(op, Activate):
        with np.errstate(all="ignore"):
            slope = np.asarray(op.activation.derivative(numpy_namespace, x), np.float64)
        return (lambda v: slope * v), (lambda v: slope * v)
    if isinstance(op, Prelu):
        kink = np.where(x > 0, 1.0, op.slopes(params["slope"], x.ndim - 1))
        return (lambda v: kink * v), (lambda v: kink * v)
    if isinstance(op, GroupSort):
        return _sorted(op, x)
    if isinstance(op, Dense):
        weight = params["weight"]
        return (lambda v: v @ weight.T), (lambda v: v @ weight)
    if isinstance(op, Conv):
        plain = {"weight": params["weight"]}
        back = _transposed(op, before.shape, node.shape, params["weight"].shape[2:])
        return (
            lambda v: np.asarray(op.apply(xp, plain, v)),
            lambda v: np.asarray(back.apply(xp, plain, v)),
        )
    if isinstance(op, AveragePool):
        channels, n = before.shape[-len(op.size) - 1], len(op.size)
        ones = {"weight": np.ones((channels, 1, *op.size))}
        total = Conv(op.stride, op.padding, (1,) * n, channels)
        back = _transposed(total, before.shape, node.shape, op.size)
        counts = op.counts(before.shape[-n:])
        return (
            lambda v: np.asarray(total.apply(xp, ones, v)) / counts,
            lambda v: np.asarray(back.apply(xp, ones, v / counts)),
        )
    if isinstance(op, BatchNorm):
        gain = params.get("weight", 1.0) / np.sqrt(params["var"] + op.eps)
        column = [1] * x.ndim
        column[op.axis % (x.ndim - 1) + 1] = len(params["var"])
        factor = np.broadcast_to(gain, params["var"].shape).reshape(column)
        return (lambda v: factor * v), (lambda v: factor * v)
    if isinstance(op, Transpose):
        order = (0, *(p + 1 for p in op.permutation))
        inverse = np.argsort(order)
        return (lambda v: v.transpose(order)), (lambda v: v.transpose(inverse))
    assert isinstance(op, Reshape)
    return (lambda v: v.reshape(len(v), *node.shape)), (lambda v: v.reshape(shape))


def _sorted(op: GroupSort, x: np.ndarray) -> tuple[Map, Map]:
    """Return the permutation that sorts x, and its inverse."""
    axis = op.axis % (x.ndim - 1) + 1
    split = (*x.shape[:axis], -1, op.size, *x.shape[axis + 1 :])
    order = np.argsort(x.reshape(split), axis=axis + 1, kind="stable")
    if op.descending:
        order = np.flip(order, axis=axis + 1)
    inverse = np.argsort(order, axis=axis + 1)

    def moved(v: np.ndarray, places: np.ndarray) -> np.ndarray:
        taken = np.take_along_axis(v.reshape(split), places, axis=axis + 1)
        return np.asarray(taken.reshape(v.shape))

    return (lambda v: moved(v, order)), (lambda v: moved(v, inverse))


def _transposed(
    op: Conv, before: tuple[int, ...], after: tuple[int, ...], kernel: tuple[int, ...]
) -> ConvTranspose:
    n = len(op.stride)
    left = tuple(
        size + sum(p) - d * (k - 1) - 1 - (out - 1) * s
        for size, p, d, k, out, s in zip(
            before[-n:], op.padding, op.dilation, kernel, after[-n:], op.stride, strict=True
        )
    )
    return ConvTranspose(op.stride, op.padding, op.dilation, op.groups, left)
