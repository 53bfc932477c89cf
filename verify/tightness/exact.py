r"""True tightness of a small ReLU network: its exact output box over that of intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.verify.rigorous.walk import walk
from tangency.verify.tightness.branching import Relaxation, greatest
from tangency.verify.tightness.pieces import Pieces, pieces

__all__ = ["TrueTightness", "true_tightness"]

Array = Any


@dataclass(frozen=True, eq=False)
class TrueTightness:
    """Tightness of the interval box of N balls, output by output, enclosed on both sides.

    Attributes
    ----------
    lower, upper : (N, S) array
        Enclosure of tau; NaN where the network is constant on the box.
    optimal_lower, optimal_upper : (N, S) array
        Enclosure of the half-width of the smallest box: the lower side is attained, the upper one
        holds to the tolerance of the linear programs.
    interval : (N, S) array
        Half-width that the method gives.
    eps : float
        Radius of the balls.
    method : str
        Of the bounds compared with.
    programs : int
        Linear programs solved.
    seconds : float
        Wall-clock time.
    """

    lower: Array = field(repr=False)
    upper: Array = field(repr=False)
    optimal_lower: Array = field(repr=False)
    optimal_upper: Array = field(repr=False)
    interval: Array = field(repr=False)
    eps: float
    method: str
    programs: int
    seconds: float

    @property
    def tau(self) -> Array:
        """(N, S) array: the middle of the enclosure."""
        return (self.lower + self.upper) / 2

    @property
    def mean(self) -> float:
        """Mean over points and outputs, of those where the network is not constant."""
        there = np.isfinite(self.tau)
        return float(self.tau[there].mean()) if there.any() else float("nan")

    @property
    def gap(self) -> float:
        """Greatest width of an enclosure of tau: how far the search got."""
        return float(np.nanmax(self.upper - self.lower, initial=0.0))

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        names = ("lower", "upper", "optimal_lower", "optimal_upper", "interval")
        return {
            "tightness": self.mean,
            "gap": self.gap,
            "eps": self.eps,
            "method": self.method,
            "certified": False,
            "programs": self.programs,
            "seconds": self.seconds,
            **{name: getattr(self, name).tolist() for name in names},
        }

    def plot(self) -> Any:
        """Half-widths of the method's box against those of the exact one: a matplotlib Figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.loglog(self.optimal_upper.ravel(), self.interval.ravel(), "o", alpha=0.6)
        ends = np.array(axes.get_xlim())
        axes.loglog(ends, ends, ":", color="grey", label="tau = 1")
        axes.set(xlabel="exact half-width", ylabel=f"half-width by {self.method}")
        axes.set_title(f"mean tau {self.mean:.3g} at eps {self.eps:g}")
        axes.legend()
        return figure


def true_tightness(
    network: Network,
    x: Array,
    eps: float,
    *,
    labels: Array | None = None,
    method: str = "ibp",
    clip: tuple[float, float] | None = None,
    tolerance: float = 1e-6,
    nodes: int = 10_000,
) -> TrueTightness:
    """Exact ranges of a small ReLU network on balls, beside the ranges that bounds give.

    Parameters
    ----------
    network : Network
        With one input and one output, of affine layers, ReLUs and leaky ReLUs.
    x : (N, *shape) or (*shape) array
        Centres.
    eps : float
        Radius of the l-infinity balls, > 0.
    labels : (N,) array of integers, optional
        Classes: the outputs are then the margins ``y_label - y_j``.
    method : str
        Whose bounds are compared, of :func:`tangency.verify.bounds.bound`.
    clip : (float, float), optional
        Range of valid inputs, which the balls do not leave.
    tolerance : float
        Gap of the search, relative to the half-width that the method gives.
    nodes : int
        Nodes of each search; where they do not suffice, the enclosure stays open.

    Raises
    ------
    InputError
        For points, labels or a radius that do not fit.
    UnsupportedError
        For another kind of layer, by its name, or a network that is too large.

    References
    ----------
    Mao, Müller, Fischer, Vechev, arXiv 2306.10426, figure 2 (there by mixed-integer programs).

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.models import from_layers
    >>> net = from_layers([np.array([[1.0], [-1.0]]), np.array([[1.0, -1.0]])])
    >>> true_tightness(net, np.zeros(1), 1.0).tau.round(6)  # relu(x) - relu(-x) = x
    array([[1.]])
    """
    from tangency.verify.bounds import Box, bound
    from tangency.verify.tightness.local import outputs_of, points_of

    start = perf_counter()
    x = points_of(network, x)
    if isinstance(eps, bool) or np.ndim(eps) != 0 or not (np.isfinite(eps) and eps > 0):
        raise InputError(f"eps is {eps!r}: give one finite radius > 0")
    spec, parts = outputs_of(network, labels, len(x)), pieces(network)
    box = Box.around(x, float(eps), clip=clip)
    found = bound(network, box, method=method, spec=spec)
    interval = (found.upper - found.lower) / 2
    ends = np.zeros((2, *interval.shape))
    programs = 0
    for i in range(len(x)):
        sides = np.stack([box.lower[i].ravel(), box.upper[i].ravel()], axis=1)
        relaxed = _relaxation(network, parts, Interval(box.lower[i : i + 1], box.upper[i : i + 1]))
        relaxed.box = sides
        relaxed.tighten()
        for s, row in enumerate(spec[min(i, len(spec) - 1)]):
            close = tolerance * interval[i, s]
            ends[:, i, s] = _half_width(network, relaxed, row, close, nodes)
        programs += relaxed.programs
    with np.errstate(invalid="ignore", divide="ignore"):
        tau = ends / interval
    return TrueTightness(
        lower=tau[0],
        upper=tau[1],
        optimal_lower=ends[0],
        optimal_upper=ends[1],
        interval=interval,
        eps=float(eps),
        method=method,
        programs=programs,
        seconds=perf_counter() - start,
    )


def _relaxation(network: Network, parts: Pieces, box: Interval) -> Relaxation:
    """Triangles from the interval bounds of the pre-activations."""
    before = [i for i, _ in parts.nodes]
    bounds = walk(network, [box], before).found if before else {}
    low, high = (
        np.concatenate([np.zeros(0), *(getattr(bounds[i], end).reshape(-1) for i in before)])
        for end in ("lower", "upper")
    )
    return Relaxation(parts, np.zeros((parts.inputs, 2)), low, high)


def _half_width(
    network: Network, relaxed: Relaxation, row: Array, tolerance: float, nodes: int
) -> tuple[float, float]:
    """Enclosure of half the width of ``row . output`` over the box."""
    parts, wide = relaxed.pieces, network.astype("float64")
    c, constant = row @ parts.output, float(row @ parts.output_offset)

    def evaluate(point: Array) -> float:
        return float(row @ wide.evaluate(point.reshape(wide.input_shape)).reshape(-1))

    widths = np.zeros(2)
    for sign in (1.0, -1.0):
        widths += greatest(
            relaxed,
            sign * c,
            sign * constant,
            lambda point, sign=sign: sign * evaluate(point),  # type: ignore[misc]
            tolerance=tolerance,
            nodes=nodes,
        )
    return float(widths[0] / 2), float(widths[1] / 2)
