r"""The differential of the tangent kernel, in networks of finite width drawn at random.

A step of gradient descent changes the tangent kernel by

.. math:: dH_{ijk} = \sum_{\mu \nu} \lambda_\mu \lambda_\nu
             \frac{\partial^2 z_i}{\partial\mu\,\partial\nu}
             \frac{\partial z_j}{\partial\mu} \frac{\partial z_k}{\partial\nu}:

along the gradient of ``z_k``, ``H_ij`` moves by ``dH_ijk + dH_jik``. By the symmetry of the last
layer its correlation with the preactivations has two numbers,

.. math:: E[dH_{ijk} z_l] = \frac1n (\delta_{il} \delta_{jk} P + \delta_{ij} \delta_{kl} Q
             + \delta_{ik} \delta_{jl} Q),

and two contractions give both: ``sum dH_ijj z_i`` has mean ``n P + 2 Q``, and ``sum dH_iij z_j``
has ``P + (n + 1) Q``. Each is a sum over ``n`` neurons of second derivatives along gradients: a
Jacobian-vector product of a Jacobian-vector product.

References
----------
Roberts, Yaida, Hanin, "The Principles of Deep Learning Theory", arXiv 2106.10165, chapter 11; Day,
Kahn, Roberts, arXiv 2310.07765.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.activations import Activation
from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.propagation.ensembles import Weights, orthogonal_weights
from tangency.theory.propagation.gauss import Array, slope_jumps
from tangency.theory.propagation.maps import DepthMap

__all__ = ["DifferentialEnsemble", "sample_dntk"]

_ENTRIES = 4_000_000  # of the weights in one batch of draws


@dataclass(frozen=True, eq=False)
class DifferentialEnsemble:
    """Statistics of the tangent kernel's differential; every array is ``(m,)``, an entry a depth.

    Attributes
    ----------
    width, draws : int
    depths : tuple of int
        Numbers of layers of preactivations.
    ntk : array
        Mean ``H`` of the diagonal of the tangent kernel.
    p, p_error, q, q_error : arrays
        Means of ``P`` and ``Q``, and their standard errors.
    """

    width: int
    draws: int
    depths: tuple[int, ...]
    ntk: Array
    p: Array
    p_error: Array
    q: Array
    q_error: Array


def sample_dntk(
    layer: DepthMap,
    width: int,
    depths: Sequence[int],
    *,
    weights: Weights = "gaussian",
    variance: float = 1.0,
    ntk_bias: float = 0.0,
    ntk_weight: float = 1.0,
    draws: int = 100,
    seed: int = 0,
) -> DifferentialEnsemble:
    """Draw networks and measure how their tangent kernel's differential goes with their outputs.

    The parameters are those of :func:`sample_ntk`, but for ``depths``: a network of the greatest
    depth is drawn, and its first layers are the shallower ones. In float64. A draw costs
    ``O(depth n^3)`` time and memory for each of the depths.

    Raises
    ------
    InputError
        If the width is below 2, another size is not positive, or the weights are of another kind.
    UnsupportedError
        If the activation jumps, or its slope does where it is not 0: second derivatives taken
        point by point miss what happens there.
    """
    import jax

    wanted = np.array(depths, dtype=np.int64)
    if width < 2 or wanted.ndim != 1 or wanted.size == 0 or wanted.min() < 1 or draws < 2:
        raise InputError(
            "width and draws must be at least 2, and depths a list of positive numbers"
        )
    if weights not in ("gaussian", "orthogonal"):
        raise InputError(f"weights must be 'gaussian' or 'orthogonal', not {weights!r}")
    _refuse_kinks(layer.activation)
    rng = np.random.default_rng(seed)
    first = max(variance - layer.bias_variance, 0.0)
    x = np.full(width, np.sqrt(first / layer.weight_variance))
    rates = (ntk_weight / width, ntk_bias)
    deepest = int(wanted.max())
    batch = int(np.clip(_ENTRIES // (deepest * width**2), 1, draws))
    rounds = -(-draws // batch)
    found = np.empty((3, rounds * batch, wanted.size))
    measure = _contractions(layer.activation)
    with jax.enable_x64(True):
        for i in range(rounds):
            w, b = _draw(rng, layer, width, deepest, weights, batch)
            rows = slice(i * batch, (i + 1) * batch)
            for j, depth in enumerate(wanted):
                found[:, rows, j] = measure(w[:, :depth], b[:, :depth], x, rates)
    found = found[:, :draws]
    h, outer, inner = found
    q = (inner - outer / width) / (width + 1.0 - 2.0 / width)
    p = (outer - 2.0 * q) / width
    errors = (s.std(axis=0, ddof=1) / np.sqrt(draws) for s in (p, q))
    p_error, q_error = (np.asarray(e) for e in errors)
    means = (s.mean(axis=0) for s in (h, p, q))
    ntk, p, q = (np.asarray(m) for m in means)
    return DifferentialEnsemble(width, draws, tuple(wanted.tolist()), ntk, p, p_error, q, q_error)


def _refuse_kinks(record: Activation) -> None:
    away = [at for at, _ in slope_jumps(record) if abs(float(record(at))) > 1e-9]
    if record.staircase or record.jumps or away:
        raise UnsupportedError(
            f"{record} has a jump or a kink where it is not 0: the differential of its tangent "
            "kernel is no average of second derivatives"
        )


def _draw(
    rng: np.random.Generator, layer: DepthMap, n: int, depth: int, weights: Weights, draws: int
) -> tuple[Array, Array]:
    """Weights ``(draws, depth, n, n)`` and biases ``(draws, depth, n)``."""
    shape = (draws, depth, n, n)
    if weights == "gaussian":
        w = rng.standard_normal(shape) / np.sqrt(n)
    else:
        w = orthogonal_weights(rng, n, n, draws * depth).reshape(shape)
    b = rng.standard_normal(shape[:-1])
    return w * np.sqrt(layer.weight_variance), b * np.sqrt(layer.bias_variance)


@functools.lru_cache(maxsize=16)
def _contractions(record: Activation) -> Callable[..., tuple[Any, Any, Any]]:
    """``(weights, biases, input, rates) -> mean H_ii, sum dH_ijj z_i, sum dH_iij z_j``.

    Over draws, the first axis of weights, biases and results.
    """
    import jax
    import jax.numpy as jnp

    def network(parameters: tuple[Any, Any], x: Any) -> Any:
        (w, b) = parameters

        def step(z: Any, now: tuple[Any, Any]) -> tuple[Any, None]:
            return now[0] @ record(z) + now[1], None

        return jax.lax.scan(step, w[0] @ x + b[0], (w[1:], b[1:]))[0]

    def contractions(w: Any, b: Any, x: Any, rates: tuple[float, float]) -> tuple[Any, Any, Any]:
        def run(parameters: tuple[Any, Any]) -> Any:
            return network(parameters, x)

        def second(v: tuple[Any, Any], u: tuple[Any, Any]) -> Any:
            """The second derivative of all outputs in the directions ``v`` and ``u``."""

            def once(parameters: tuple[Any, Any]) -> Any:
                return jax.jvp(run, (parameters,), (v,))[1]

            return jax.jvp(once, ((w, b),), (u,))[1]

        z = run((w, b))
        jacobian = jax.jacrev(run)((w, b))
        scaled = (rates[0] * jacobian[0], rates[1] * jacobian[1])
        kernel = jnp.sum(scaled[0] * jacobian[0]) + jnp.sum(scaled[1] * jacobian[1])
        along = (jnp.tensordot(z, scaled[0], 1), jnp.tensordot(z, scaled[1], 1))

        def both(k: Any, v: tuple[Any, Any]) -> tuple[Any, Any]:
            return z @ second(v, v), second(v, along)[k]

        outer, inner = jax.vmap(both)(jnp.arange(len(z)), scaled)
        return kernel / len(z), jnp.sum(outer), jnp.sum(inner)

    def each(w: Any, b: Any, x: Any, rates: tuple[float, float]) -> tuple[Any, Any, Any]:
        # one draw after the other: side by side their gradients would not fit into the cache
        def one(draw: tuple[Any, Any]) -> tuple[Any, Any, Any]:
            return contractions(draw[0], draw[1], x, rates)

        found: tuple[Any, Any, Any] = jax.lax.map(one, (w, b))
        return found

    return jax.jit(each)
