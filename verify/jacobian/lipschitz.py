r"""Local Lipschitz constants from bounds of the Jacobian.

With :math:`M_{sj} \ge |J_{sj}(x)|` on the box, the constants from the l-infinity norm of the input
are the row sums of M, those from the l1 norm its largest entries a row; as a map from a
norm to the same norm, the largest row sum (inf), the largest column sum (1), and for 2 the least of
:math:`\sqrt{\|M\|_1 \|M\|_\infty}`, :math:`\|M\|_F` and the proved spectral norm of the
midpoints of the Jacobian plus that of the radii.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.verify.certificate.norms import spectral_norm_bound
from tangency.verify.jacobian.bounds import jacobian_bounds, jacobian_intervals, seeds
from tangency.verify.rigorous.enclosure import midpoint_radius, total
from tangency.verify.sets import Box, input_intervals

__all__ = ["LocalLipschitz", "local_lipschitz"]

Array = Any
NORMS = ("inf", "1", "2")


@dataclass(frozen=True, eq=False)
class LocalLipschitz:
    """Bounds of the Lipschitz constant over each of N boxes.

    Attributes
    ----------
    upper, lower : (N,) array
        Of the constant from the norm to itself, ``sup |J(x)|`` over the box; ``lower`` is attained
        at ``points``, and both are proved.
    rows_upper, rows_lower : (N, S) array
        The same for each output (or row of the spec) alone, from the norm to the absolute value.
    points : (N, *input_shape) array
        Where ``lower`` is attained.
    norm, method : str
        As asked for.
    seconds : float
        Wall-clock time.
    certified : bool
        True: proved in real arithmetic.
    """

    upper: Array
    lower: Array
    rows_upper: Array
    rows_lower: Array
    points: Array = field(repr=False)
    norm: str
    method: str
    seconds: float
    certified: bool = True


def local_lipschitz(
    network: Network,
    box: Box,
    norm: str = "inf",
    *,
    outputs: Sequence[int] | None = None,
    spec: Array | None = None,
    method: str = "crown",
    samples: int = 32,
    rounds: int = 3,
    seed: int = 0,
) -> LocalLipschitz:
    """Bound the Lipschitz constant of a network on a box, from above and from below.

    Parameters
    ----------
    network : Network
        With one input and one output.
    box : Box
        N samples, or one; of a Ball, the box around it is taken.
    norm : {"inf", "1", "2"}
        The norm of inputs and outputs.
    outputs, spec, method
        As in :func:`.jacobian_bounds`; with a spec of margins, ``rows_upper`` holds the constants
        of the margins.
    samples, rounds : int
        Points tried for the lower bound, and rounds in which the best is varied.
    seed : int
        The search is deterministic.

    Raises
    ------
    InputError
        For an unknown norm, and as :func:`.jacobian_bounds`.

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.models import from_layers
    >>> net = from_layers([np.array([[1.0, -1.0], [1.0, 1.0]])])
    >>> found = local_lipschitz(net, Box.around(np.zeros(2), 1.0))
    >>> found.upper.round(6), found.lower.round(6)
    (array([2.]), array([2.]))
    """
    start = perf_counter()
    if str(norm) not in NORMS:
        raise InputError(f"norm {norm!r}: local Lipschitz constants have {', '.join(NORMS)}")
    norm = str(norm)
    found = jacobian_bounds(network, box, outputs=outputs, spec=spec, method=method)
    bounds = Interval(found.lower, found.upper)
    size = _flat(Interval(_least(bounds), bounds.magnitude))
    (x,) = input_intervals(network, box)
    rows = seeds(network, outputs, spec, max(x.shape[0], 1))
    upper = _whole(size, norm).upper
    if norm == "2":
        upper = np.minimum(upper, _around_middle(_flat(bounds)))
    below = _Search(network, x, rows, norm, np.random.default_rng(seed))
    below.run(samples, rounds)
    return LocalLipschitz(
        upper=upper,
        lower=below.best,
        rows_upper=_rows(size, norm).upper,
        rows_lower=below.rows_best,
        points=below.points,
        norm=norm,
        method=method,
        seconds=perf_counter() - start,
    )


def _least(x: Interval) -> Array:
    """Smallest absolute value."""
    return np.maximum(np.maximum(x.lower, -x.upper), 0.0)


def _flat(size: Interval) -> Interval:
    shape = (*size.shape[:2], -1)
    return Interval(size.lower.reshape(shape), size.upper.reshape(shape))


def _rows(size: Interval, norm: str) -> Interval:
    """Norms of the rows of a matrix of absolute values ``(N, S, n)``: the dual of ``norm``."""
    if norm == "inf":
        return total(size, (2,))
    if norm == "1":
        return Interval(size.lower.max(axis=2), size.upper.max(axis=2))
    root: Interval = interval_namespace.sqrt(total(size**2, (2,)))
    return root


def _whole(size: Interval, norm: str) -> Interval:
    """The operator norm; for 2 the ends are those of an upper bound, and of the longest row."""
    row_sums, column_sums = total(size, (2,)), total(size, (1,))
    by_row = Interval(row_sums.lower.max(axis=1), row_sums.upper.max(axis=1))
    by_column = Interval(column_sums.lower.max(axis=1), column_sums.upper.max(axis=1))
    if norm == "inf":
        return by_row
    if norm == "1":
        return by_column
    frobenius = total(size**2, (1, 2)).upper
    square = np.minimum((Interval(by_row.upper) * Interval(by_column.upper)).upper, frobenius)
    upper = interval_namespace.sqrt(Interval(square)).upper
    return Interval(np.minimum(_rows(size, "2").lower.max(axis=1), upper), upper)


def _around_middle(jacobian: Interval) -> Array:
    """Spectral norms of midpoints plus radii, sample by sample; infinite where an entry is."""
    middle, radius = midpoint_radius(jacobian)
    return np.array(
        [
            spectral_norm_bound(m, r) if np.isfinite(r).all() else np.inf
            for m, r in zip(middle, radius, strict=True)
        ]
    )


class _Search:
    """Points at which the Jacobian, enclosed in rigorous arithmetic, is large."""

    def __init__(
        self, network: Network, x: Interval, rows: Array, norm: str, rng: np.random.Generator
    ) -> None:
        n = max(x.shape[0], rows.shape[0])
        self.network, self.norm, self.rng = network, norm, rng
        self.low = np.broadcast_to(x.lower, (n, *x.shape[1:]))
        self.high = np.broadcast_to(x.upper, (n, *x.shape[1:]))
        self.rows = np.broadcast_to(rows, (n, *rows.shape[1:]))
        self.best = np.full(n, -1.0)
        self.rows_best = np.zeros(self.rows.shape[:2])
        self.points = Interval(self.low, self.high).midpoint

    def run(self, samples: int, rounds: int) -> None:
        self._try(self.points[:, None])
        for k in range(rounds + 1):
            shape = (len(self.points), samples, *self.points.shape[1:])
            part = self.rng.random(shape)
            corner = self.rng.random(shape[:2]) < 0.5
            part = np.where(
                corner.reshape((*shape[:2], *(1,) * (len(shape) - 2))), part.round(), part
            )
            low, high = self.low[:, None], self.high[:, None]
            points = np.clip(low + part * (high - low), low, high)
            if k:  # vary a part of the coordinates of the best point
                moved = self.rng.random(shape) < 0.3
                points = np.where(moved, points, self.points[:, None])
            self._try(points)

    def _try(self, points: Array) -> None:
        n, k = points.shape[:2]
        flat = points.reshape((n * k, *points.shape[2:]))
        rows = np.repeat(self.rows, k, axis=0)
        (found,) = jacobian_intervals(self.network, [Interval(flat)], rows)
        size = _flat(Interval(_least(found), found.magnitude))
        each = _rows(size, self.norm).lower.reshape((n, k, -1))
        self.rows_best = np.maximum(self.rows_best, each.max(axis=1))
        if self.norm == "2":
            whole = np.maximum(_spectral(_flat(found)), each.max(axis=2).reshape(-1))
        else:
            whole = _whole(size, self.norm).lower
        whole = np.nan_to_num(whole, nan=0.0).reshape((n, k))
        top = whole.argmax(axis=1)
        value = whole[np.arange(n), top]
        better = value > self.best
        self.best = np.where(better, value, self.best)
        chosen = points[np.arange(n), top]
        column = better.reshape((-1, *(1,) * (chosen.ndim - 1)))
        self.points = np.where(column, chosen, self.points)


def _spectral(jacobian: Interval) -> Array:
    """A proved lower bound of the spectral norm: ``|J v| / |v|`` at the likely best v."""
    middle = np.where(np.isfinite(jacobian.midpoint), jacobian.midpoint, 0.0)
    v = np.linalg.svd(middle, full_matrices=False)[2][:, :1, :]
    image = total(jacobian * v, (2,))
    square = total(Interval(_least(image), image.magnitude) ** 2, (1,)).lower
    length = total(Interval(v) ** 2, (1, 2)).upper
    ratio = interval_namespace.sqrt(Interval(np.maximum(square, 0.0)) / Interval(length))
    result: Array = ratio.lower
    return result
