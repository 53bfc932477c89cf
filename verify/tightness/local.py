r"""Local tightness: how much of the interval box of a point's own linear map is really reached.

At a point x a network is its linearisation J. The smallest box that holds the image of a small
ball has radii ``|J| eps``; interval bounds take the absolute value layer by layer and get
``|J_L| ... |J_1| eps``. Their ratio, output by output, lies in [0, 1]:

.. math:: \tau = \frac{|J_L \cdots J_1| \, \varepsilon}{|J_L| \cdots |J_1| \, \varepsilon}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from tangency.models.arrays import check_array
from tangency.models.errors import InputError
from tangency.models.network import Network, precision
from tangency.models.ops import Activate, Prelu, jax_backend
from tangency.models.structure import Structure
from tangency.verify.tightness.radii import carry
from tangency.verify.training.margins import last_dense

__all__ = ["Tightness", "local_tightness", "outputs_of", "points_of"]

Array = Any


@dataclass(frozen=True, eq=False)
class Tightness:
    """Tightness of interval bounds at N points, output by output.

    Attributes
    ----------
    tau : (N, S) array
        Half-width of the smallest box over that of the interval box, in [0, 1]; NaN where both
        are zero. A box that is exact has tau = 1 (propagation invariance).
    optimal, interval : (N, S) array
        The two half-widths, a unit of eps where eps was not given.
    what : str
        Which linear maps were compared.
    """

    tau: Array = field(repr=False)
    optimal: Array = field(repr=False)
    interval: Array = field(repr=False)
    what: str

    @property
    def mean(self) -> float:
        """Mean over points and outputs, of those where the network is not locally constant."""
        there = np.isfinite(self.tau)
        return float(self.tau[there].mean()) if there.any() else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {
            "tightness": self.mean,
            "what": self.what,
            "certified": False,
            **{name: getattr(self, name).tolist() for name in ("tau", "optimal", "interval")},
        }

    def plot(self) -> Any:
        """Histogram of tau over points and outputs: a matplotlib Figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.0, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.hist(self.tau[np.isfinite(self.tau)], bins=np.linspace(0, 1, 41).tolist())
        axes.axvline(self.mean, color="black", linestyle=":", label=f"mean {self.mean:.3g}")
        axes.set(xlabel="tightness of the interval box", ylabel="outputs", title=self.what)
        axes.legend()
        return figure


def local_tightness(
    network: Network,
    x: Array,
    *,
    labels: Array | None = None,
    eps: float | Array = 1.0,
    linear: bool = False,
) -> Tightness:
    """Local propagation tightness at points, for any graph.

    Every op enters with its derivative at x: a ReLU as the 0/1 mask of its activity, a maximum as
    the entry that it picks, a smooth activation as its slope. With labels, the outputs are the
    margins ``y_label - y_j`` and the differences are joined to the last dense layer, as interval
    bounds of margins do. Computed in float64.

    Parameters
    ----------
    network : Network
        With one input and one output.
    x : (N, *shape) or (*shape) array
        Points.
    labels : (N,) array of integers, optional
        Classes, for a network whose output is a vector of K scores.
    eps : float, or array that broadcasts to x
        Radii of the ball's sides: a common factor changes the half-widths and no tau.
    linear : bool
        Take every activation of one variable as the identity: the deep linear network of the same
        weights.

    Returns
    -------
    Tightness
        With S the number of outputs, or K - 1.

    Raises
    ------
    InputError
        For points, labels or radii that do not fit.

    References
    ----------
    Mao, Müller, Fischer, Vechev, "Understanding certified training with interval bound
    propagation", arXiv 2306.10426, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.models import from_layers
    >>> layers = [np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([[1.0, 1.0]])]
    >>> net = from_layers(layers, "identity")
    >>> local_tightness(net, np.zeros(2)).tau  # x1 + x2 + x1 - x2, radius 2 of 4
    array([[0.5]])
    """
    x = points_of(network, x)
    radii, spec = _radii(eps, x), outputs_of(network, labels, len(x))
    with precision("float64"):
        wide = network.astype("float64")
        below, above = _compare(wide.structure, dict(wide.weights), x, radii, spec, linear)
    optimal, interval = np.asarray(below), np.asarray(above)
    with np.errstate(invalid="ignore", divide="ignore"):
        tau = optimal / interval
    # Both sides sum the same products in another order: rounding alone carries tau over 1.
    tau = np.where(tau > 1.0, np.where(tau < 1 + 1e-9, 1.0, tau), tau)
    outputs = "outputs" if labels is None else "margins"
    what = f"{outputs} of the deep linear network" if linear else f"{outputs} at the points"
    return Tightness(tau, optimal, interval, what)


def points_of(network: Any, x: Any) -> Array:
    """Points as a float64 batch; InputError when they are not inputs of the network."""
    if not isinstance(network, Network):
        raise InputError(f"network is a {type(network).__name__}: give a tangency Network")
    shape = network.input_shape
    check_array("x", x, finite=True)
    x = np.asarray(x, dtype=np.float64)
    x = x[None] if x.shape == shape else x
    if x.ndim != len(shape) + 1 or x.shape[1:] != shape or len(x) == 0:
        text = ", ".join(map(str, shape))
        raise InputError(f"x has shape {x.shape}: the network takes (N, {text}), N >= 1")
    return x


def outputs_of(network: Network, labels: Any, samples: int) -> Array:
    """The compared linear maps of the flattened output, ``(N or 1, S, n_out)``."""
    from tangency.verify.bounds.engine import check_classifier
    from tangency.verify.spec import check_labels, margin_spec

    if labels is None:
        return np.eye(prod(network.output_shape))[None]
    classes = check_classifier(network)
    return margin_spec(check_labels(labels, samples, classes), classes)


def _radii(eps: Any, x: Array) -> Array:
    try:
        radii = np.broadcast_to(np.asarray(eps, dtype=np.float64), x.shape)
    except (TypeError, ValueError):
        raise InputError(
            f"eps is {eps!r}: give a number, or an array that fits {x.shape}"
        ) from None
    if not (np.isfinite(radii) & (radii >= 0)).all():
        raise InputError(f"eps is {eps}: radii are finite and >= 0")
    return radii


def _compare(
    structure: Structure,
    weights: Mapping[str, Array],
    x: Array,
    radii: Array,
    spec: Array,
    linear: bool,
) -> tuple[Array, Array]:
    """Half-widths ``|spec J| r`` and those of the layers one by one, each ``(N, S)``."""
    import jax
    import jax.numpy as jnp

    nodes, end, last = structure.nodes, structure.outputs[0], last_dense(structure)

    def output(points: Array) -> Array:
        y = _values(structure, weights, points, linear)[end]
        return jnp.broadcast_to(y, (len(points), *y.shape[1:])).reshape(len(points), -1)

    y, pull = jax.vjp(output, jnp.asarray(x))
    values = _values(structure, weights, jnp.asarray(x), linear)
    spread: list[Array] = []
    for i, node in enumerate(nodes):
        if i in structure.inputs:
            spread.append(jnp.asarray(radii))
        elif linear and isinstance(node.op, Activate | Prelu):
            spread.append(spread[node.inputs[0]])
        else:
            params = {p.role: weights[p.key] for p in node.params}
            xs, rs = ([found[j] for j in node.inputs] for found in (values, spread))
            spread.append(carry(node.op, params, xs, rs))
    maps = jnp.broadcast_to(spec, (len(x), *spec.shape[1:]))
    rows = jax.lax.map(lambda s: pull(maps[:, s].astype(y.dtype))[0], jnp.arange(maps.shape[1]))
    axes = tuple(range(2, rows.ndim))
    below = (jnp.abs(rows) * radii[None]).sum(axis=axes).T
    if last is None:
        behind = jnp.broadcast_to(spread[end], (len(x), *spread[end].shape[1:]))
        return below, (jnp.abs(maps) @ behind.reshape(len(x), -1)[..., None])[..., 0]
    params = {p.role: weights[p.key] for p in nodes[last].params}
    merged, behind = maps @ params["weight"], spread[nodes[last].inputs[0]]
    return below, (jnp.abs(merged) * behind[:, None]).sum(axis=-1)


def _values(
    structure: Structure, weights: Mapping[str, Array], x: Array, linear: bool
) -> list[Array]:
    """Value of every node; with ``linear``, activations of one variable let their input through."""
    found: list[Array] = []
    for i, node in enumerate(structure.nodes):
        if i in structure.inputs:
            found.append(x)
        elif linear and isinstance(node.op, Activate | Prelu):
            found.append(found[node.inputs[0]])
        else:
            params = {p.role: weights[p.key] for p in node.params}
            found.append(node.op.apply(jax_backend(), params, *(found[j] for j in node.inputs)))
    return found
