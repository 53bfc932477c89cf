"""The layer-wise form of the tangent kernel: sums of (A A^T) o (B B^T) over parameter sites.

At a dense site the gradient of output a of sample i in the weight is ``sum_p A_ip B_iap^T``, A the
inputs of the layer and B the cotangents of its output at the positions p. The product of two such
gradients needs no gradient: it is ``sum_pq (A_i A_j^T)_pq (B_ia B_jb^T)_pq``. Which way is cheaper
depends on the sizes; :func:`cheaper` counts, and :func:`contract` does either in any array library
that has ``einsum``: JAX and torch where the model runs, NumPy and CuPy by
:class:`tangency.gpu.empirical.DeviceAlgebra`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

__all__ = ["Algebra", "Site", "cheaper", "contract", "footprint", "site_gradient", "symmetric"]

Array = Any
#: Least number of samples in a block of rows where one triangle is wanted.
LEAST = 16


class Algebra(Protocol):
    """What contraction asks of an array library."""

    #: Blocks of rows in which one triangle is computed: what the library's products gain from.
    blocks: int

    @property
    def xp(self) -> Any:
        """NumPy, or a module like it whose arrays :meth:`array` takes as they are."""

    def array(self, x: Any) -> Array:
        """A NumPy array as one of the library's, where the contraction runs."""

    def host(self, x: Array) -> np.ndarray:
        """The library's array as one of NumPy."""

    def einsum(self, path: str, *arrays: Array) -> Array:
        """Einstein summation in full precision."""

    def each(self, function: Callable[..., Array], *arrays: Array) -> Array:
        """``function`` of the entries along the first axis, stacked."""

    def same(self, left: Array, right: Array) -> Array:
        """``left[:, None, None] == right[None]`` as floating-point numbers."""

    def concatenate(self, arrays: Sequence[Array], axis: int) -> Array:
        """Arrays joined along an axis."""


@dataclass(frozen=True)
class Site:
    """How the parameters of one site are held.

    Attributes
    ----------
    kind : {"gradient", "pair", "index", "channel"}
        ``gradient``: one array (n, K, p), the gradients themselves. ``pair``: inputs (n, P, I) and
        cotangents (n, K, P, O). ``index``: rows of a table taken, integers (n, P), negative for
        those that train nothing, and cotangents (n, K, P, O). ``channel``: where every channel's
        cotangents are the same for all outputs but for a factor, ``B_iapc = V_iac M_ipc``, as
        behind a convolution that only activations and a global pooling follow: the gradients
        (n, C, I) that M gives, and the factors V (n, K, C).
    bias : bool
        Whether a pair has a bias as well as a weight: a column of ones beside the inputs.
    """

    kind: str
    bias: bool = False


def cheaper(outputs: str, n: int, k: int, sizes: tuple[int, int, int], features: int = 0) -> str:
    """The kind, ``"pair"`` or ``"gradient"``, that takes fewer multiplications.

    Parameters
    ----------
    outputs : {"full", "diagonal", "trace", "project"}
    n, k : int
        Samples against which each is taken, and outputs.
    sizes : (P, I, O)
        Positions, inputs and outputs of the site.
    features : int
        Features of a projection.
    """
    p, i, o = sizes
    forming = k * p * i * o
    if outputs == "project":
        return (
            "pair" if features * p * (i + k * o) <= forming + features * k * i * o else "gradient"
        )
    blocks = k * k if outputs == "full" else k
    gradient = forming + n * blocks * i * o
    if p == 1:
        return "pair" if n * (i + blocks * o) <= gradient else "gradient"
    pair = n * (p * p * i + k * p * p * o + blocks * p * o)
    return "pair" if pair <= gradient else "gradient"


def footprint(kind: str, k: int, sizes: tuple[int, int, int]) -> int:
    """Numbers that a site holds for one sample."""
    p, i, o = sizes
    return k * i * o if kind == "gradient" else p * i + k * p * o


def site_gradient(algebra: Algebra, a: Array, b: Array) -> Array:
    """Gradients (n, K, O I), in row-major order of a weight (O, I), of a pair."""
    g = algebra.einsum("npi,nkpo->nkoi", a, b)
    return g.reshape((g.shape[0], g.shape[1], g.shape[2] * g.shape[3]))


def contract(
    algebra: Algebra,
    sites: Sequence[Site],
    left: Sequence[Sequence[Array]],
    right: Sequence[Sequence[Array]],
    outputs: str,
) -> Array:
    """Kernel between two sets of samples, summed over the sites.

    Returns
    -------
    (n1, n2) array for ``trace`` (the sum over outputs), (n1, n2, K) for ``diagonal``,
    (n1, K, n2, K) for ``full``.
    """
    total: Array = 0
    for site, one, other in zip(sites, left, right, strict=True):
        if site.kind == "gradient":
            term = _products(algebra, outputs, one[0], other[0])
        elif site.kind == "channel":
            term = _channels(algebra, outputs, one, other)
        elif site.kind == "pair" and one[0].shape[1] == 1:
            term = _points(algebra, site, outputs, one, other)
        else:
            term = _positions(algebra, site, outputs, one, other)
        total = total + term
    return total


def symmetric(
    algebra: Algebra, sites: Sequence[Site], held: Sequence[Sequence[Array]], outputs: str
) -> Array:
    """Kernel of a set with itself in little more than half the work: one triangle, mirrored."""
    n = held[0][0].shape[0]
    step = min(n, max(LEAST, -(-n // algebra.blocks)))
    rows: list[Array] = []
    columns = 2 if outputs == "full" else 1
    for start in range(0, n, step):
        stop = min(start + step, n)
        one = [[array[start:stop] for array in arrays] for arrays in held]
        other = [[array[start:] for array in arrays] for arrays in held]
        block = contract(algebra, sites, one, other, outputs)
        before = []
        for done in range(0, start, step):
            # Row block `done` against these samples, turned round.
            piece = rows[done // step]
            cut = (slice(None),) * columns + (slice(start, stop),)
            if outputs == "full":
                before.append(algebra.einsum("iajb->jbia", piece[cut]))
            else:
                before.append(algebra.einsum("ij...->ji...", piece[cut]))
        rows.append(algebra.concatenate([*before, block], columns))
    return rows[0] if len(rows) == 1 else algebra.concatenate(rows, 0)


def _products(algebra: Algebra, outputs: str, one: Array, other: Array) -> Array:
    if outputs == "diagonal":
        return algebra.einsum("iap,jap->ija", one, other)
    n1, (n2, k, p) = one.shape[0], other.shape
    # One product of two matrices, said as such: libraries may copy for more axes.
    if outputs == "trace":
        return algebra.einsum("ip,jp->ij", one.reshape(n1, k * p), other.reshape(n2, k * p))
    flat = algebra.einsum("ip,jp->ij", one.reshape(n1 * k, p), other.reshape(n2 * k, p))
    return flat.reshape(n1, k, n2, k)


def _points(
    algebra: Algebra, site: Site, outputs: str, one: Sequence[Array], other: Sequence[Array]
) -> Array:
    """One position: the Hadamard product of two Gram matrices."""
    inner = algebra.einsum("ip,jp->ij", one[0][:, 0], other[0][:, 0])
    if site.bias:
        inner = inner + 1
    outer = _products(algebra, outputs, one[1][:, :, 0], other[1][:, :, 0])
    if outputs == "trace":
        return inner * outer
    if outputs == "diagonal":
        return inner[:, :, None] * outer
    return inner[:, None, :, None] * outer


def _channels(
    algebra: Algebra, outputs: str, one: Sequence[Array], other: Sequence[Array]
) -> Array:
    """``sum_c V_iac V_jbc Q_ijc`` with Q the Gram matrix of one channel's gradients."""
    inner = algebra.einsum("icw,jcw->ijc", one[0], other[0])
    factors = other[1]
    if outputs == "trace":
        both = algebra.einsum("iac,jac->ijc", one[1], factors)
        return algebra.einsum("ijc,ijc->ij", inner, both)

    def row(q: Array, v: Array) -> Array:
        if outputs == "diagonal":
            return algebra.einsum("jc,jac->ja", q, v * factors)
        return algebra.einsum("ac,jbc->ajb", v, q[:, None] * factors)

    return algebra.each(row, inner, one[1])


def _positions(
    algebra: Algebra, site: Site, outputs: str, one: Sequence[Array], other: Sequence[Array]
) -> Array:
    """Pairs of positions, a sample of the left at a time.

    ``T = (A_i A_j^T)^T B_i`` first and then its products with ``B_j``: K P^2 O + K^2 P O
    multiplications instead of the K^2 P^2 O of the Gram matrix of the cotangents.
    """
    inputs, cotangents = other

    def row(a: Array, b: Array) -> Array:
        if site.kind == "index":
            inner = algebra.same(a, inputs)
        else:
            inner = algebra.einsum("pc,jqc->pjq", a, inputs)
            if site.bias:
                inner = inner + 1
        if outputs == "trace":
            return algebra.einsum(
                "pjq,pjq->j", inner, algebra.einsum("apo,jaqo->pjq", b, cotangents)
            )
        moved = algebra.einsum("pjq,apo->jaqo", inner, b)
        path = "jaqo,jbqo->ajb" if outputs == "full" else "jaqo,jaqo->ja"
        return algebra.einsum(path, moved, cotangents)

    return algebra.each(row, *one)
