"""Tiles of the tangent kernel of a Network, compiled once for each structure (JAX front end)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tangency.models.arrays import check_array
from tangency.models.errors import InputError
from tangency.models.network import Network, precision
from tangency.models.structure import Structure
from tangency.theory.ntk.contraction import contract, symmetric
from tangency.theory.ntk.jax_algebra import jax_algebra
from tangency.theory.ntk.jax_sites import Plan, extract, plan_sites

__all__ = ["JaxModel", "checked_inputs"]


def checked_inputs(name: str, network: Network, x: Any) -> np.ndarray:
    """Samples for a network of one input; InputError names what does not fit."""
    check_array(name, x, dtype=network.dtype, finite=True)
    x = np.asarray(x)
    if x.shape[1:] != network.input_shape or x.ndim == 0:
        want = ", ".join(map(str, network.input_shape))
        raise InputError(f"{name} has shape {x.shape}, the network takes (n, {want})")
    if len(x) == 0:
        raise InputError(f"{name} is empty: give at least one sample")
    return np.asarray(x, network.dtype)


class JaxModel:
    """A Network as the kernel engine sees it: see :class:`.tiles.Model`.

    Products in JAX are for JAX on a GPU, and on the CPU for few samples, where one compiled call
    is the fastest; else :class:`.device.DeviceModel` takes them by BLAS, in less time and memory.

    Parameters
    ----------
    network : Network
        One input and one output.

    Raises
    ------
    InputError
        For a network without trainable weights.
    """

    def __init__(self, network: Network) -> None:
        if not network.structure.trainable:
            raise InputError("the network has no trainable weights, so no tangent kernel")
        self.network = network
        self.size = int(np.prod(network.output_shape))
        self.dtype = np.dtype(network.dtype)
        self.algebra = jax_algebra()
        self._weights = dict(network.weights)

    @property
    def home(self) -> str:
        """JAX's default device."""
        import jax

        return "cuda" if jax.default_backend() == "gpu" else "cpu"

    def scope(self) -> Any:
        """Context of the arrays that :meth:`sites` returns."""
        return precision(self.network.dtype)

    def inputs(self, name: str, x: Any) -> np.ndarray:
        """Checked samples."""
        return checked_inputs(name, self.network, x)

    def numbers(self, outputs: str, n: int, k: int, features: int = 0) -> tuple[int, int]:
        """Numbers that the sites of one sample hold, and those of the passes besides."""
        plan = plan_sites(self.network.structure, outputs, n, k, features)
        return plan.numbers, plan.work

    def sites(
        self, x: Any, directions: Any, *, outputs: str, n: int, chunk: int, features: int = 0
    ) -> Any:
        """What the sites hold for the samples x, ``chunk`` of them at a time."""
        plan = plan_sites(self.network.structure, outputs, n, len(directions), features)
        call = _extract(self.network.structure, plan)
        with self.scope():
            # A loop here: XLA runs convolutions in a loop of its own several times slower. The
            # last chunk may overlap the one before, so that one shape is compiled.
            held: Any = None
            for i in range(0, len(x), chunk):
                start = max(0, min(i, len(x) - chunk))
                part = call(self._weights, x[start : start + chunk], directions)
                if len(x) <= chunk:
                    return plan.sites, part
                held = _buffers(len(x), part) if held is None else held
                held = _filled()(held, part, start)
            return plan.sites, held

    def product(self, left: Any, right: Any, outputs: str) -> np.ndarray:
        """Kernel of two tiles."""
        with self.scope():
            return np.asarray(_contract(left[0], outputs)(left[1], right[1]))

    def own(self, tile: Any, outputs: str) -> np.ndarray:
        """Kernel of a tile with itself."""
        with self.scope():
            return np.asarray(_symmetric(tile[0], outputs)(tile[1]))

    def whole(self, x: Any, directions: Any, *, outputs: str, chunk: int) -> np.ndarray:
        """Kernel of one tile with itself, in one compiled call where one chunk holds it."""
        if len(x) > chunk:
            held = self.sites(x, directions, outputs=outputs, n=len(x), chunk=chunk)
            return self.own(held, outputs)
        plan = plan_sites(self.network.structure, outputs, len(x), len(directions))
        with self.scope():
            call = _whole(self.network.structure, plan, outputs)
            return np.asarray(call(self._weights, x, directions))


def _buffers(n: int, part: Any) -> Any:
    """Room for what the sites hold of n samples."""
    import jax
    import jax.numpy as jnp

    return jax.tree.map(lambda array: jnp.zeros((n, *array.shape[1:]), array.dtype), part)


@lru_cache(maxsize=1)
def _filled() -> Any:
    """Compiled writing of a chunk into the buffers, in place."""
    import jax

    def write(held: Any, part: Any, start: Any) -> Any:
        return jax.tree.map(
            lambda whole, piece: jax.lax.dynamic_update_slice_in_dim(whole, piece, start, 0),
            held,
            part,
        )

    return jax.jit(write, donate_argnums=0)


@lru_cache(maxsize=64)
def _extract(structure: Structure, plan: Plan) -> Any:
    import jax

    return jax.jit(lambda weights, x, directions: extract(structure, plan, weights, x, directions))


@lru_cache(maxsize=64)
def _whole(structure: Structure, plan: Plan, outputs: str) -> Any:
    import jax

    def call(weights: Any, x: Any, directions: Any) -> Any:
        held = extract(structure, plan, weights, x, directions)
        return symmetric(jax_algebra(), plan.sites, held, outputs)

    return jax.jit(call)


@lru_cache(maxsize=64)
def _contract(sites: Any, outputs: str) -> Any:
    import jax

    return jax.jit(lambda left, right: contract(jax_algebra(), sites, left, right, outputs))


@lru_cache(maxsize=64)
def _symmetric(sites: Any, outputs: str) -> Any:
    import jax

    return jax.jit(lambda held: symmetric(jax_algebra(), sites, held, outputs))
