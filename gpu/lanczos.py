r"""Lanczos iteration, one product at a time, for any number of starting vectors beside each other.

Of a symmetric matrix K and a start b it makes an orthonormal basis of the Krylov space in which K
is tridiagonal, :math:`K Q_k = Q_k T_k + \beta_k q_{k+1} e_k^T`. Each vector is orthogonalised
against all before it, twice: in float arithmetic the recurrence of three terms alone loses
orthogonality as soon as an eigenvalue has converged. Each column has a Krylov space of its own.

References
----------
Saad, "Numerical Methods for Large Eigenvalue Problems", 2011, chapter 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Lanczos"]

Array = Any  # of NumPy or of CuPy
Host = np.ndarray[Any, Any]

_CHUNK = 32  # vectors that are stored, and projected upon, together


class Lanczos:
    """The state of an iteration; :meth:`step` makes one product.

    Parameters
    ----------
    product : callable (n, c) -> (n, c)
        ``v -> K v``.
    start : (n, c) array
        A column of zeros stays zero.
    xp : module
        NumPy or CuPy: where the vectors live, in float64.

    Attributes
    ----------
    norms : (c,) array
        Of the starts; the first basis vectors are the starts over them.
    diagonal, beside : lists of (c,) arrays
        Those of T; the last of ``beside`` is the size of what the last product leaves. It is zero,
        and so is every vector behind it, where that is rounding: the Krylov space is invariant.
    """

    def __init__(self, product: Callable[[Array], Array], start: Array, *, xp: Any = np) -> None:
        self.product, self.xp = product, xp
        start = xp.asarray(start, dtype=np.float64)
        self.norms = self._host(xp.sqrt((start * start).sum(axis=0)))
        self.diagonal: list[Host] = []
        self.beside: list[Host] = []
        self._chunks: list[Array] = []  # of shape (c, vectors, n)
        self._size = np.zeros(start.shape[1])
        self._append(start.T[:, :, None], self.norms)

    def __len__(self) -> int:
        return len(self.diagonal)

    def step(self) -> None:
        """One product, and the next basis vector."""
        q = self._last()
        w = self.product(q.T).T[:, :, None]
        self.diagonal.append(self._host((q * w[:, :, 0]).sum(axis=1)))
        self._size = np.maximum(self._size, self._norm(w))
        w = self._orthogonal(w)
        beta = self._norm(w)
        floor = w.shape[1] * np.finfo(np.float64).eps * self._size
        self.beside.append(np.where(beta > floor, beta, 0.0))
        self._append(w, self.beside[-1])

    def restart(self, vector: Array) -> None:
        """Go on from another vector (n, c) where the space is invariant, to find more of K."""
        w = self._orthogonal(self.xp.asarray(vector, dtype=np.float64).T[:, :, None])
        fresh = self.xp.asarray((self.beside[-1] == 0.0)[:, None])
        unit = w[:, :, 0] / self.xp.asarray(self._norm(w)[:, None])
        self._last()[...] = self.xp.where(fresh, unit, self._last())

    def combine(self, coordinates: Host) -> Array:
        """``Q y``, (t, n, c), for coordinates y (t, k, c), k at most the number of products."""
        xp, first = self.xp, 0
        total = None
        for chunk in self._chunks:
            part = coordinates[:, first : first + _CHUNK].transpose(2, 0, 1)  # (c, t, k)
            if part.shape[2]:
                here = xp.asarray(np.ascontiguousarray(part)) @ chunk[:, : part.shape[2]]
                total = here if total is None else total + here
            first += _CHUNK
        assert total is not None, "no coordinates"
        return total.transpose(1, 2, 0)

    def tridiagonal(self, column: int = 0) -> tuple[Host, Host]:
        """Diagonal (k,) and what is beside it (k - 1,) of one column's T."""
        return (
            np.array([a[column] for a in self.diagonal]),
            np.array([b[column] for b in self.beside[:-1]]),
        )

    def _append(self, columns: Array, sizes: Host) -> None:
        """Store ``columns / sizes``, zero where the size is."""
        place = len(self.beside) % _CHUNK
        if place == 0:
            c, n, _ = columns.shape
            self._chunks.append(self.xp.zeros((c, _CHUNK, n)))
        scale = np.where(sizes > 0.0, 1.0 / np.where(sizes > 0.0, sizes, 1.0), 0.0)
        self._chunks[-1][:, place] = columns[:, :, 0] * self.xp.asarray(scale[:, None])

    def _last(self) -> Array:
        """The last basis vectors, (c, n)."""
        return self._chunks[-1][:, len(self.beside) % _CHUNK]

    def _orthogonal(self, w: Array) -> Array:
        for _ in range(2):  # twice is enough
            for i, chunk in enumerate(self._chunks):
                basis = chunk[:, : len(self) - i * _CHUNK]
                w = w - basis.transpose(0, 2, 1) @ (basis @ w)
        return w

    def _norm(self, w: Array) -> Host:
        return self._host(self.xp.sqrt((w * w).sum(axis=(1, 2))))

    def _host(self, array: Array) -> Host:
        return np.asarray(array if self.xp is np else self.xp.asnumpy(array))
