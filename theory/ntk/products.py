"""The full kernel as a linear operator: products J J^T v without the kernel.

One vector-Jacobian product sums ``J^T v`` over the samples, one Jacobian-vector product brings it
back, a chunk of samples at a time: memory is that of the weights and of one chunk.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.network import Network, precision
from tangency.models.ops import jax_backend
from tangency.models.structure import Structure
from tangency.theory.ntk.empirical import front_end
from tangency.theory.ntk.gains import parameters_of
from tangency.theory.ntk.jax_kernel import JaxModel

__all__ = ["JaxProducts", "NTKOperator"]


class NTKOperator:
    """The Gram matrix (n K, n K) of the empirical NTK, ``full``, as an operator: ``op @ v``.

    Row ``i K + a`` is output a of sample i, as in ``EmpiricalNTK.matrix``.

    Parameters
    ----------
    network : Network or torch.nn.Module
    x : (n, *input_shape) array or tensor
    batch_size : int
        Samples in a chunk.

    Raises
    ------
    InputError
        As :func:`tangency.theory.empirical_ntk`.

    References
    ----------
    Novak, Sohl-Dickstein, Schoenholz, arXiv 2206.08720, section 3.2 (NTK-vector products).
    """

    def __init__(self, network: Any, x: Any, *, batch_size: int = 128) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: at least one sample")
        model = front_end(network)
        self._x = model.inputs("x", x)
        self._products: Any
        if isinstance(model, JaxModel):
            self._products = JaxProducts(network)
        else:
            from tangency.theory.ntk.torch_products import TorchProducts

            self._products = TorchProducts(model)
        self._chunk = batch_size
        self.outputs = model.size
        self.dtype = model.dtype
        self.shape = (len(self._x) * model.size,) * 2

    def matvec(self, v: Any) -> np.ndarray:
        """Product with a vector (n K,)."""
        v = np.asarray(v, self.dtype).reshape(-1)
        if len(v) != self.shape[0]:
            raise InputError(f"a vector of {len(v)} entries: the operator takes {self.shape[0]}")
        n, total = len(self._x), None
        blocks = v.reshape(n, self.outputs)
        cuts = [slice(i, i + self._chunk) for i in range(0, n, self._chunk)]
        for cut in cuts:
            total = self._products.back(self._x[cut], blocks[cut], total)
        parts = [self._products.forth(self._x[cut], total) for cut in cuts]
        return np.concatenate(parts).reshape(-1)

    def __matmul__(self, v: Any) -> np.ndarray:
        v = np.asarray(v)
        if v.ndim == 1:
            return self.matvec(v)
        return np.stack([self.matvec(column) for column in v.T], axis=1)

    def as_scipy(self) -> Any:
        """A scipy.sparse.linalg.LinearOperator, for its conjugate gradients and eigensolvers."""
        from scipy.sparse.linalg import LinearOperator

        return LinearOperator(self.shape, matvec=self.matvec, rmatvec=self.matvec, dtype=self.dtype)


class JaxProducts:
    """J^T v and J u of a Network in its parameters, compiled once for each structure."""

    def __init__(self, network: Network) -> None:
        self._parameters = parameters_of(network.structure)
        self._shapes = network.structure.param_shapes
        trainable = set(network.structure.trainable)
        self._dtype = network.dtype
        self._wanted = {k: w for k, w in network.weights.items() if k in trainable}
        self._fixed = {k: w for k, w in network.weights.items() if k not in trainable}
        self._value, self._back, self._forth = _compiled(network.structure)

    def back(self, x: Any, v: np.ndarray, total: Any) -> Any:
        """``total + J(x)^T v``, by parameter."""
        import jax

        with precision(self._dtype):
            u = self._parameters.gathered(self._back(self._wanted, self._fixed, x, v))
            return u if total is None else jax.tree.map(lambda a, b: a + b, total, u)

    def forth(self, x: Any, u: Any) -> np.ndarray:
        """``J(x) u`` (n, K)."""
        with precision(self._dtype):
            moved = self._parameters.spread(u, self._shapes)
            return np.asarray(self._forth(self._wanted, self._fixed, x, moved))

    def tangent(self, moved: dict[str, np.ndarray]) -> Any:
        """A direction in the weights as one in the parameters, for :meth:`forth`."""
        return self._parameters.behind(moved)

    def value(self, x: Any, weights: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """Outputs (n, K), of other weights where given."""
        weights = {**self._fixed, **(self._wanted if weights is None else weights)}
        with precision(self._dtype):
            wanted = {k: weights[k] for k in self._wanted}
            return np.asarray(self._value(wanted, self._fixed, x))


@lru_cache(maxsize=32)
def _compiled(structure: Structure) -> Any:
    import jax

    backend = jax_backend()

    def outputs(wanted: Any, fixed: Any, x: Any) -> Any:
        return structure.apply(backend, {**wanted, **fixed}, [x]).reshape(x.shape[0], -1)

    def back(wanted: Any, fixed: Any, x: Any, v: Any) -> Any:
        return jax.vjp(lambda w: outputs(w, fixed, x), wanted)[1](v)[0]

    def forth(wanted: Any, fixed: Any, x: Any, u: Any) -> Any:
        return jax.jvp(lambda w: outputs(w, fixed, x), (wanted,), (u,))[1]

    return jax.jit(outputs), jax.jit(back), jax.jit(forth)
