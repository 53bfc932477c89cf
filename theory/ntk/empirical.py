"""The empirical neural tangent kernel by Jacobian contraction.

Theta(x, x') = J(x) J(x')^T, where J(x) is the Jacobian of the outputs in the trainable weights at
x. The Jacobians of a tile of samples are held at a time, so memory is bounded by the tile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from tangency.models.arrays import check_array
from tangency.models.errors import InputError
from tangency.models.network import Network, precision
from tangency.models.ops import jax_backend
from tangency.models.structure import Structure
from tangency.theory.ntk.result import EmpiricalNTK

__all__ = ["empirical_ntk"]

OUTPUTS = ("trace", "full", "diagonal")
#: Memory that the Jacobians of one tile may take, in bytes.
MEMORY = 256 * 2**20


def empirical_ntk(
    network: Network,
    x1: np.ndarray,
    x2: np.ndarray | None = None,
    *,
    outputs: str = "trace",
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EmpiricalNTK:
    """Empirical NTK of a network's weights between two sets of inputs.

    ``Theta[i, j, a, b] = sum_p df_a(x1_i)/dw_p df_b(x2_j)/dw_p`` over all trainable weights.

    Parameters
    ----------
    network : Network
        One input and one output; its dtype is that of the computation (``astype("float64")``
        where the kernel is near degeneracy).
    x1 : (n1, *input_shape) array
    x2 : (n2, *input_shape) array, optional
        By default x1: the kernel is then symmetric and one triangle of tiles is computed.
    outputs : {"trace", "full", "diagonal"}
        ``trace``: mean over the K outputs of the blocks' diagonals, (n1, n2), as
        neural-tangents' ``trace_axes=(-1,)``; ``full``: (n1, n2, K, K); ``diagonal``:
        the kernel of each output on its own, (n1, n2, K).
    batch_size : int, optional
        Samples in a tile; by default what fits 256 MiB of Jacobians.
    progress : callable, optional
        Called with (tiles done, tiles in all).

    Returns
    -------
    EmpiricalNTK
        Frozen result with ``ntk``, a NumPy array of the network's dtype.

    Raises
    ------
    InputError
        For inputs that do not fit, an empty set, a network without trainable weights.

    References
    ----------
    Jacot, Gabriel, Hongler, "Neural Tangent Kernel", arXiv 1806.07572; Novak, Sohl-Dickstein,
    Schoenholz, "Fast finite width neural tangent kernel", arXiv 2206.08720 (Jacobian contraction).
    """
    start = time.perf_counter()
    if outputs not in OUTPUTS:
        raise InputError(f"outputs={outputs!r}: one of {', '.join(OUTPUTS)}")
    if not network.structure.trainable:
        raise InputError("the network has no trainable weights, so no tangent kernel")
    x1 = _inputs("x1", network, x1)
    other = x1 if x2 is None else _inputs("x2", network, x2)
    size = int(np.prod(network.output_shape))
    tile = batch_size if batch_size is not None else _tile(network, size)
    if tile < 1:
        raise InputError(f"batch_size={batch_size}: at least one sample")
    shape = {"trace": (), "diagonal": (size,), "full": (size, size)}[outputs]
    kernel = np.empty((len(x1), len(other), *shape), network.dtype)
    rows = [slice(i, i + tile) for i in range(0, len(x1), tile)]
    columns = [slice(j, j + tile) for j in range(0, len(other), tile)]
    pairs = [(r, c) for r in rows for c in columns if x2 is not None or c.start >= r.start]
    with precision(network.dtype):
        jacobian = _Jacobians(network)
        for done, (r, c) in enumerate(pairs, 1):
            left = jacobian(x1[r], keep=("left", r.start))
            right = left if x2 is None and r == c else jacobian(other[c])
            block = np.asarray(_contract(outputs)(left, right))
            kernel[r, c] = block
            if x2 is None and r != c:
                swapped = np.swapaxes(block, 0, 1)
                kernel[c, r] = np.swapaxes(swapped, 2, 3) if outputs == "full" else swapped
            if progress is not None:
                progress(done, len(pairs))
    return EmpiricalNTK(
        ntk=kernel, outputs=outputs, symmetric=x2 is None, seconds=time.perf_counter() - start
    )


def _inputs(name: str, network: Network, x: Any) -> np.ndarray:
    check_array(name, x, dtype=network.dtype, finite=True)
    x = np.asarray(x)
    if x.shape[1:] != network.input_shape or x.ndim == 0:
        want = ", ".join(map(str, network.input_shape))
        raise InputError(f"{name} has shape {x.shape}, the network takes (n, {want})")
    if len(x) == 0:
        raise InputError(f"{name} is empty: give at least one sample")
    return np.asarray(x, network.dtype)


def _tile(network: Network, size: int) -> int:
    bytes_each = network.size * size * np.dtype(network.dtype).itemsize
    return int(max(1, min(512, MEMORY // (2 * bytes_each))))


class _Jacobians:
    """Jacobians of tiles of samples; the tile of the current row is kept."""

    def __init__(self, network: Network) -> None:
        trainable = set(network.structure.trainable)
        self._wanted = {k: w for k, w in network.weights.items() if k in trainable}
        self._fixed = {k: w for k, w in network.weights.items() if k not in trainable}
        self._function = _jacobian(network.structure)
        self._kept: tuple[Any, Any] = (None, None)

    def __call__(self, x: np.ndarray, keep: Any = None) -> Any:
        if keep is not None and self._kept[0] == keep:
            return self._kept[1]
        value = self._function(self._wanted, self._fixed, x)
        if keep is not None:
            self._kept = (keep, value)
        return value


@lru_cache(maxsize=64)
def _jacobian(structure: Structure) -> Any:
    """Compiled (weights, fixed, x (t, ...)) -> pytree of (t, K, *weight shape)."""
    import jax

    backend = jax_backend()

    def one(wanted: Any, fixed: Any, x: Any) -> Any:
        return structure.apply(backend, {**wanted, **fixed}, [x[None]])[0].reshape(-1)

    return jax.jit(jax.vmap(jax.jacrev(one), in_axes=(None, None, 0)))


@lru_cache(maxsize=8)
def _contract(outputs: str) -> Any:
    """Compiled sum over the weights of the products of two tiles' Jacobians."""
    import jax
    import jax.numpy as jnp

    path = {"trace": "iap,jap->ij", "diagonal": "iap,jap->ija", "full": "iap,jbp->ijab"}[outputs]

    def terms(left: Any, right: Any) -> Iterator[Any]:
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
            a, b = (t.reshape(*t.shape[:2], -1) for t in (a, b))
            yield jnp.einsum(path, a, b, precision=jax.lax.Precision.HIGHEST)

    def contract(left: Any, right: Any) -> Any:
        total = sum(terms(left, right))
        size = jax.tree.leaves(left)[0].shape[1]
        return total / size if outputs == "trace" else total

    return jax.jit(contract)
