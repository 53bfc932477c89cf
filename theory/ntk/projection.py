"""Random features of the empirical kernel: projected parameter gradients, (n, K, k).

A site held as inputs and cotangents is projected as such: with random signs u and v the feature
``sum_p (A_p . u) (B_p . v)`` is ``u^T G v`` of a gradient G that is never formed. Elsewhere the
gradient meets a matrix of signs, made in pieces from the seed. Sites are independent, so the mean
of the products of two samples' features is the kernel without bias. Signs err less than Gaussians
do, and a hash makes the same ones on every machine and device.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np

from tangency.gpu.empirical import signs
from tangency.models.errors import InputError
from tangency.theory.ntk.device import placed
from tangency.theory.ntk.empirical import front_end
from tangency.theory.ntk.tiles import MEMORY, Model, chunk_size

__all__ = ["ProjectedNTK", "project_ntk"]

#: Rows of a matrix of signs that exist at a time.
PIECE = 4096


@dataclass(frozen=True)
class ProjectedNTK:
    """Random features of the empirical NTK.

    Attributes
    ----------
    features : (n, K', k) array
        ``features[i, a] . features[j, b]`` estimates ``Theta[i, j, a, b]`` without bias; K' is the
        number of outputs, or one for ``sum``.
    outputs : {"full", "sum"}
    seed : int
    seconds : float
    """

    features: np.ndarray
    outputs: str
    seed: int
    seconds: float

    @property
    def flat(self) -> np.ndarray:
        """Features as a matrix (n K', k), for linear models."""
        return self.features.reshape(-1, self.features.shape[2])

    @cached_property
    def matrix(self) -> np.ndarray:
        """The estimated Gram matrix (n K', n K')."""
        return np.asarray(self.flat @ self.flat.T)

    @cached_property
    def error(self) -> float:
        """Estimated relative Frobenius error of :attr:`matrix`, from the spread of the features."""
        flat = self.flat.astype(np.float64)
        k = flat.shape[1]
        # Entry = mean of k independent products, each k phi_i phi_j: its variance is theirs / k.
        second = k * (flat**2) @ (flat**2).T
        variance = np.maximum(second - (flat @ flat.T) ** 2, 0) / max(k - 1, 1)
        norm = float(np.linalg.norm(flat @ flat.T))
        return float(np.sqrt(variance.sum())) / norm if norm else 0.0


def project_ntk(
    network: Any,
    x: Any,
    *,
    features: int = 1024,
    outputs: str = "full",
    seed: int = 0,
    memory: int = MEMORY,
    device: str | None = None,
) -> ProjectedNTK:
    """Random features whose inner products estimate the empirical NTK.

    Parameters
    ----------
    network : Network or torch.nn.Module
    x : (n, *input_shape) array or tensor
    features : int
        k; the error falls as ``1 / sqrt(k)`` and is estimated in ``error``.
    outputs : {"full", "sum"}
        Features of every output, or of ``sum_a f_a / sqrt(K)``.
    seed : int
        The same seed gives the same projection, so that features of other samples of the same
        model belong to these when ``memory``, ``features`` and ``outputs`` are the same.
    memory : int
        Bytes that the sites of a chunk of samples and the passes may take.
    device : {"cpu", "cuda"}, optional
        Where the projections are taken, as of :func:`tangency.theory.empirical_ntk`.

    Raises
    ------
    InputError, MissingPackageError
        As :func:`tangency.theory.empirical_ntk`.

    References
    ----------
    Johnson and Lindenstrauss (1984); Achlioptas, "Database-friendly random projections", JCSS 2003
    (signs); Park et al., "TRAK", arXiv 2303.14186 (projected gradients); Choe et al., "LoGra",
    arXiv 2405.13954 (projections in Kronecker form).
    """
    start = time.perf_counter()
    if outputs not in ("full", "sum"):
        raise InputError(f"outputs={outputs!r}: full or sum")
    if features < 1 or memory < 1:
        raise InputError(f"features={features}, memory={memory}: positive numbers are accepted")
    model = placed(front_end(network), device)
    x = model.inputs("x", x)
    k = model.size
    directions = np.eye(k, dtype=model.dtype)
    if outputs == "sum":
        directions = np.full((1, k), k**-0.5, model.dtype)
    chunk = chunk_size(model, "full", len(x), len(directions), memory)
    rows = []
    for i in range(0, len(x), chunk):
        part = x[i : i + chunk]
        # How a site is held must not depend on the number of samples: n=1 here.
        sites, held = model.sites(
            part, directions, outputs="project", n=1, chunk=len(part), features=features
        )
        with model.scope():
            rows.append(_project(model, sites, held, seed, features))
    found = np.concatenate(rows).astype(model.dtype, copy=False)
    return ProjectedNTK(found, outputs, seed, time.perf_counter() - start)


def _project(model: Model, sites: Any, held: Any, seed: int, features: int) -> np.ndarray:
    """Features (n, K, k) of a chunk of samples, summed over the sites."""
    algebra = model.algebra
    draws = count()  # the same matrices for every chunk

    def drawn(rows: int) -> Any:
        key = (seed, next(draws))
        return algebra.array(signs(rows, features, key, dtype=model.dtype, xp=algebra.xp))

    def plain(gradient: Any) -> Any:
        total: Any = 0
        for i in range(0, gradient.shape[2], PIECE):
            piece = gradient[:, :, i : i + PIECE]
            total = total + algebra.einsum("nap,pk->nak", piece, drawn(piece.shape[2]))
        return total

    total: Any = 0
    for site, arrays in zip(sites, held, strict=True):
        if site.kind == "gradient":
            total = total + plain(arrays[0])
            continue
        a, b = arrays
        inward = algebra.einsum("npi,ik->npk", a, drawn(a.shape[2]))
        outward = algebra.einsum("napo,ok->napk", b, drawn(b.shape[3]))
        total = total + algebra.einsum("npk,napk->nak", inward, outward)
        if site.bias:
            total = total + plain(b.sum(2))
    return np.asarray(algebra.host(total) / np.sqrt(features))
