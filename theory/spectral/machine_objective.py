r"""The objective of a deep kernel machine and its gradient, by JAX in float64.

Each Gram matrix is ``G_l = R_l V_l V_l^T R_l^T`` with ``R_l`` the Cholesky factor of the prior
``K(G_{l-1})`` at the same parameters: the KL term is then ``(|V|^2 - m) / 2 - log det V`` whatever
the conditioning of the kernels, and ``V = I`` is the Gaussian process.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.network import precision
from tangency.theory.spectral.gram_kernels import GRAM_KERNELS

__all__ = ["Objective"]

Array = np.ndarray[Any, np.dtype[np.float64]]


class Objective:
    """The negated objective as a function of the entries of the triangular factors V."""

    def __init__(
        self,
        x: Array,
        y: Array,
        inducing: Array | None,
        nu: Array,
        kernel: str,
        output: str,
        noise: float,
        jitter: float,
    ) -> None:
        import jax

        self.x, self.y, self.nu = x, y, nu
        self.noise, self.jitter = noise, jitter
        self.full = inducing is None
        self.scale = max(1.0, float(np.max(nu)))
        self.points = x if inducing is None else inducing
        self.kernel, self.output = kernel, output
        self._rows, self._columns = np.tril_indices(len(self.points))
        self._loss = jax.jit(jax.value_and_grad(self._negated))

    def start(self) -> Array:
        """Unit factors: the network Gaussian process."""
        unit = (self._rows == self._columns).astype(np.float64)
        return np.tile(unit, len(self.nu))

    def loss_and_gradient(self, flat: Array) -> tuple[float, Array]:
        """What the search minimises: the objective over ``scale``, so that curvatures are O(1)."""
        with precision("float64"):
            value, gradient = self._loss(np.asarray(flat, np.float64))
            return float(value) / self.scale, np.asarray(gradient, np.float64) / self.scale

    def grams(self, flat: Array) -> tuple[Array, ...]:
        """``G_1, ..., G_L`` at these factors."""
        with precision("float64"):
            found = self._walk(np.asarray(flat, np.float64), None)[0]
            return tuple(np.asarray(g, np.float64) for g in found)

    def predict(self, grams: tuple[Array, ...], x_test: Array) -> tuple[Array, Array]:
        """Mean and variance of the process at test inputs, with Gram matrices held."""
        with precision("float64"):
            inner, _, cross = self._outward(grams, self.x)
            _, test, test_cross = self._outward(grams, x_test)
            k, c, t = (np.asarray(a, np.float64) for a in (inner, cross, test_cross))
            diagonal = np.asarray(test, np.float64)
        factor = np.linalg.cholesky(k)
        b, a = np.linalg.solve(factor, c.T), np.linalg.solve(factor, t.T)
        # Titsias: q(f) of the inducing outputs is optimal for these kernels.
        inside = np.eye(len(k)) + b @ b.T / self.noise
        mean = a.T @ np.linalg.solve(inside, b @ self.y) / self.noise
        kept = np.einsum("ij,ij->j", a, a) - np.einsum("ij,ij->j", a, np.linalg.solve(inside, a))
        return mean, np.maximum(diagonal - kept, 0.0)

    def _negated(self, flat: Any) -> Any:
        import jax.numpy as jnp

        _, factors, inner, diagonal, cross = self._walk(flat, self.x)
        divergence = sum(
            nu * ((jnp.sum(v**2) - len(v)) / 2 - jnp.sum(jnp.log(jnp.abs(jnp.diag(v)))))
            for nu, v in zip(self.nu, factors, strict=True)
        )
        return divergence - self._likelihood(inner, diagonal, cross)

    def _likelihood(self, inner: Any, diagonal: Any, cross: Any) -> Any:
        """``log N(y; 0, Q + noise I) - tr(K - Q) / (2 noise)``, a mean over columns."""
        import jax.numpy as jnp
        from jax.scipy.linalg import solve_triangular

        n, columns = self.y.shape
        if self.full:
            whole = jnp.linalg.cholesky(inner + self.noise * jnp.eye(n))
            white = solve_triangular(whole, self.y, lower=True)
            determinant = 2 * jnp.sum(jnp.log(jnp.diag(whole)))
            missing, square = jnp.zeros(()), jnp.sum(white**2)
        else:
            m = len(self.points)
            b = solve_triangular(jnp.linalg.cholesky(inner), cross.T, lower=True)
            inside = jnp.linalg.cholesky(jnp.eye(m) + b @ b.T / self.noise)
            c = solve_triangular(inside, b @ self.y, lower=True) / self.noise
            square = jnp.sum(self.y**2) / self.noise - jnp.sum(c**2)
            determinant = 2 * jnp.sum(jnp.log(jnp.diag(inside))) + n * np.log(self.noise)
            missing = (jnp.sum(diagonal) - jnp.sum(b**2)) / self.noise
        constant = n * np.log(2 * np.pi)
        return -0.5 * (square / columns + determinant + constant + missing)

    def _walk(self, flat: Any, x: Array | None) -> Any:
        """Gram matrices and factors layer by layer; with x, also the last kernels."""
        import jax.numpy as jnp

        m, size = len(self.points), len(self._rows)
        gram = jnp.asarray(self.points @ self.points.T / self.points.shape[1])
        grams, factors = [], []
        for i in range(len(self.nu)):
            prior = self._own(gram, self.kernel)
            v = jnp.zeros((m, m)).at[self._rows, self._columns].set(flat[i * size : (i + 1) * size])
            half = jnp.linalg.cholesky(prior) @ v
            gram = half @ half.T
            grams.append(gram)
            factors.append(v)
        if x is None:
            return grams, factors, None, None, None
        if self.full:
            return grams, factors, self._own(gram, self.output), None, None
        return (grams, factors, *self._outward(grams, x))

    def _outward(self, grams: Any, x: Array) -> Any:
        """The last kernel: of the inducing inputs, x's diagonal, and x by inducing inputs.

        Given the inducing features, those of x are Gaussian: ``G_xi = K_xi K^-1 G`` and the
        diagonal is the conditional variance plus what the inducing features explain.
        """
        import jax.numpy as jnp
        from jax.scipy.linalg import cho_solve

        width = self.points.shape[1]
        gram = jnp.asarray(self.points @ self.points.T / width)
        cross, diagonal = jnp.asarray(x @ self.points.T / width), jnp.asarray((x**2).sum(1) / width)
        for following in (*grams, None):
            kernel = self.output if following is None else self.kernel
            prior = self._own(gram, kernel)
            rows = GRAM_KERNELS[kernel](diagonal, jnp.diag(gram), cross)
            variance = _diagonal(diagonal, kernel)
            if following is None:
                return prior, variance, rows
            solved = cho_solve((jnp.linalg.cholesky(prior), True), rows.T).T
            explained = jnp.sum(solved * rows, axis=1)
            cross = solved @ following
            diagonal = jnp.maximum(variance - explained, 0.0) + jnp.sum(cross * solved, axis=1)
            gram = following
        raise AssertionError

    def _own(self, gram: Any, name: str) -> Any:
        """The kernel of a Gram matrix, with its jitter."""
        import jax.numpy as jnp

        d, places = jnp.diag(gram), jnp.arange(len(self.points))
        exact = _diagonal(d, name)
        kernel = GRAM_KERNELS[name](d, d, gram).at[places, places].set(exact)
        return kernel + self.jitter * jnp.mean(exact) * jnp.eye(len(self.points))


def _diagonal(d: Any, name: str) -> Any:
    """``K`` of inputs with themselves: every kernel here has 1 or the input's own."""
    import jax.numpy as jnp

    return jnp.ones_like(d) if name == "squared exponential" else d
