r"""Duals without a closed form: Hermite series, with kinks and jumps taken out in closed form.

``phi = r + N``, where ``N`` has the kinks and jumps of ``phi``: powers at 0 (:mod:`.duals_kinks`)
or ramps and steps anywhere (:mod:`.duals_bends`), whose dual is known. The series carries the rest,
``p_l = r_l (r_l + n_l) + n_l r_l``; a piecewise linear function leaves a straight line. Terms
beyond the last are lumped into one of its order, and into two of far higher ones where ``N`` is
empty, so that variances (and the slopes of smooth functions) stay exact on the diagonal.

The rows ``a_l(q)`` come from tables, one an octave of ``q`` (:mod:`.duals_octaves`), made when it
is first met; its number of terms is the least that reaches 1e-15 of ``E phi^2``, 128 at most.

References
----------
Daniely, Frostig, Singer, arXiv 1602.05897; Han et al., arXiv 2209.04121.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tangency.models.activations import Activation
from tangency.models.activations.moments import gaussian_moments
from tangency.models.errors import InputError
from tangency.theory.kernels.duals_base import (
    Array,
    DualFunction,
    DualPair,
    Geometry,
    Parts,
    Sides,
)
from tangency.theory.kernels.duals_bends import Bends, singular_part
from tangency.theory.kernels.duals_kinks import Kinks, find_breaks
from tangency.theory.kernels.duals_octaves import (
    EXTRA,
    FAR,
    MOST,
    POINTS,
    Octave,
    Source,
    make_octave,
    octave_of,
)
from tangency.theory.kernels.duals_series import radial_of_rows, series

__all__ = ["Hermite"]

_WIDE = 4.0  # the variance from which only ReLUs are taken out at 0


@dataclass(frozen=True)
class Hermite(DualFunction):
    """Dual of any record by its Hermite series, with an error estimate."""

    slopes: bool = field(default=True, repr=False, compare=False)
    powers: bool = field(default=True, repr=False, compare=False)
    kinks: Kinks | Bends = field(init=False)
    breaks: tuple[float, ...] = field(init=False, repr=False)
    inner: Hermite | None = field(init=False, repr=False, compare=False)
    wide: Hermite | None = field(init=False, repr=False, compare=False)
    _octaves: dict[int, Octave] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.record is None:
            raise InputError("a Hermite dual needs an activation record")
        gaussian_moments(self.record, 1.0)  # refuses what has no moments
        breaks = find_breaks(self.record)
        kinks = singular_part(self.record, breaks)
        if not self.powers and isinstance(kinks, Kinks):
            kinks = Kinks(kinks.bends[:1] if any(kinks.bends[:1]) else ())
        object.__setattr__(self, "breaks", breaks)
        object.__setattr__(self, "kinks", kinks)
        object.__setattr__(self, "_octaves", {})
        inner = None
        if self.slopes and self._jumps:
            # The series of phi would give its slope the Dirac parts that autodiff leaves out.
            joints = (*self.record.jumps, *self.record.kinks)
            own = Activation(f"{self.record}'", self.record.derivative, jumps=joints)
            inner = Hermite(own, slopes=False)
        object.__setattr__(self, "inner", inner)
        wide = None
        if self.powers and isinstance(kinks, Kinks) and any(kinks.bends[1:]):
            wide = Hermite(self.record, slopes=self.slopes, powers=False)
        object.__setattr__(self, "wide", wide)

    @property
    def _jumps(self) -> bool:
        assert self.record is not None
        return bool(self.record.jumps or self.record.staircase)

    @property
    def closed_form(self) -> bool:
        """Whether no series is cut off."""
        return False

    def pair(self, q1: Any, q2: Any, s: Any, delta: Any = None) -> DualPair:
        """Evaluate the dual at pairs of Gaussians; see :meth:`DualFunction.pair`."""
        found = super().pair(q1, q2, s, delta)
        if self.wide is not None:
            # Far out, the powers that are taken out at 0 would outgrow the function itself.
            large = np.maximum(*np.broadcast_arrays(q1, q2)) >= _WIDE
            if np.any(large):
                other = self.wide.pair(q1, q2, s, delta)
                large = np.broadcast_to(large, found.k.shape)
                both = zip(other, found, strict=True)
                found = DualPair(*(np.where(large, x, y) for x, y in both))
        if self.inner is None:
            return found
        return found._replace(slope=self.inner.pair(q1, q2, s, delta).k)

    def terms(self, q: float) -> int:
        """The number of terms that the series has at this variance."""
        return self._octave(octave_of(np.asarray([q]))[0]).terms

    def _variance(self, q: Array) -> Array:
        return np.asarray(self._table(q, rows=False)[0])

    def _slope_variance(self, q: Array) -> Array:
        return np.asarray(self._table(q, rows=False)[1])

    def _prepare(self, q: Array) -> Array:
        return self._table(q, rows=True)

    def _table(self, q: Array, *, rows: bool) -> Array:
        """Rows at variances: r_0 .. r_T and the lump, the same of n, and the extra ones."""
        flat = np.ravel(q)
        octaves = octave_of(flat)
        wide = 2 * (MOST + 1) if rows else 0
        out = np.zeros((wide + EXTRA, flat.size))
        for octave in np.unique(octaves):
            table = self._octave(int(octave))
            here = octaves == octave
            with np.errstate(divide="ignore"):
                x = 2.0 * (np.log2(flat[here]) - octave) - 1.0
            basis = np.polynomial.chebyshev.chebvander(np.clip(x, -1.0, 1.0), POINTS - 1)
            out[wide:, here] = (basis @ table.extra).T
            if rows:
                out[: MOST + 1, here] = (basis @ table.rows).T
                out[MOST + 1 : wide, here] = (basis @ table.kinks).T
        zero = flat == 0.0
        if zero.any():
            out[:, zero] = 0.0
            value, slope = self._at_zero()
            out[wide : wide + 3, zero] = np.array([[value**2], [slope**2], [slope]])
            if rows:
                base = float(self.kinks.value(np.zeros(1))[0])
                out[0, zero], out[MOST + 1, zero] = value - base, base
        if rows:
            total = out[MOST]
            if self.kinks:
                # r (r + 2 n) = total, with n the lump of N
                kink = np.sqrt(np.maximum(out[2 * MOST + 1], 0.0))
                both = kink + np.sqrt(np.maximum(kink * kink + total, 0.0))
                with np.errstate(divide="ignore", invalid="ignore"):
                    out[MOST] = np.where(both > 0.0, total / both, 0.0)
                out[2 * MOST + 1] = kink
            else:
                lump = np.sqrt(np.maximum(total, 0.0))
                if self.record is not None and self.record.parity == "odd":
                    out[MOST - 1] = np.copysign(np.hypot(out[MOST - 1], lump), out[MOST - 1])
                    lump = np.zeros_like(lump)
                out[MOST] = lump
        return out.reshape(len(out), *q.shape)

    def _at_zero(self) -> tuple[float, float]:
        assert self.record is not None
        return float(self.record(0.0)), float(self.record.slope(0.0))

    def _octave(self, octave: int) -> Octave:
        if octave not in self._octaves:
            assert self.record is not None
            source = Source(self.record, self.kinks, self.breaks)
            self._octaves[octave] = make_octave(source, octave)
        return self._octaves[octave]

    def _pair(self, g: Geometry, one: Sides, two: Sides) -> Parts:
        terms = min(_used(one.rows), _used(two.rows))
        a, b = one.rows, two.rows
        shift = MOST + 1
        if self.kinks:

            def product(i: int) -> Array:
                return np.asarray(a[i] * (b[i] + b[shift + i]) + a[shift + i] * b[i])

        else:

            def product(i: int) -> Array:
                return np.asarray(a[i] * b[i])

        k, slope, quotient = series(product, terms, g.cos)
        first, second = a[2 * shift :], b[2 * shift :]
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(g.w > 0.0, slope / g.w, 0.0)
        drop = quotient * g.delta
        whole = np.sqrt(one.second) * np.sqrt(two.second)
        radial = np.zeros(1)
        if not g.equal:
            radial = radial_of_rows(one, two, terms)
        for order, row in zip(FAR, (5, 7), strict=True):
            far1, far2 = (np.sqrt(np.maximum(side[row], 0.0)) for side in (first, second))
            if far1.any() or far2.any():
                k, slope, drop = self._far(g, order, far1 * far2, k, slope, drop)
                if not g.equal:
                    left, right = (np.sqrt(np.maximum(x.second, 1e-300)) for x in (one, two))
                    radial = radial + 0.5 * (far1 / left - far2 / right) ** 2
        if self.kinks:
            part = self.kinks.pair(g)
            k, slope, drop = k + part.k, slope + part.slope, drop + part.drop
            if not g.equal:
                radial = self.kinks.radial(g, one, two, terms, shift)
        slope = np.where(g.w > 0.0, slope, first[2] * second[2])
        with np.errstate(divide="ignore", invalid="ignore"):
            delta = np.where(whole > 0.0, radial + drop / whole, 0.0)
        return Parts(k, slope, delta, self._error(g, one, two, terms, whole))

    def _far(
        self, g: Geometry, order: int, far: Array, k: Array, slope: Array, drop: Array
    ) -> tuple[Array, Array, Array]:
        """Add the lump of a high order, which is felt only just before cos = +-1."""
        assert self.record is not None
        parity = {"even": 1.0, "odd": -1.0, None: 0.0}[self.record.parity]
        with np.errstate(divide="ignore"):
            logs = order * np.log1p(-g.delta.clip(0.0, 1.0))
            back = parity * np.exp(order * np.log1p(-(2.0 - g.delta).clip(0.0, 1.0)))
        power = np.exp(logs)
        with np.errstate(divide="ignore", invalid="ignore"):
            steep = np.nan_to_num(order * (power - back) / (np.abs(g.cos) * g.w), posinf=0.0)
        change = -np.expm1(logs) - back
        return k + far * (power + back), slope + far * steep, drop + far * change

    def _error(self, g: Geometry, one: Sides, two: Sides, terms: int, whole: Array) -> Array:
        """What moving the cut-off terms to one order can change, and the quadrature's share."""
        shift = MOST + 1
        tails = (one.rows[2 * shift + 6], two.rows[2 * shift + 6])
        rest = np.sqrt(np.maximum(tails[0] * tails[1], 0.0))
        power = np.abs(g.cos) ** MOST
        steep = np.sqrt(np.abs(one.rows[2 * shift + 3] * two.rows[2 * shift + 3])) * g.delta
        if self._jumps:  # the tail has no slope
            steep = np.full_like(steep, np.inf)
        # moved and true terms may have opposite signs, but for one variance and cos > 0
        alike = (g.cos >= 0.0) & (g.q1 == g.q2)
        cut = np.minimum(np.where(alike, 1.0, 2.0) * rest * power, np.where(alike, steep, np.inf))
        rounding = 4e-15 + np.maximum(one.rows[2 * shift + 4], two.rows[2 * shift + 4])
        if self.kinks:  # r and N may each be larger than their sum
            whole = whole + np.sqrt(self.kinks.second(g.q1) * self.kinks.second(g.q2))
        return np.asarray(cut + rounding * whole)


def _used(rows: Array) -> int:
    """Orders up to the last row of the series that is not all zero."""
    busy = np.flatnonzero(np.any(rows[: MOST + 1].reshape(MOST + 1, -1) != 0.0, axis=1))
    return int(busy[-1]) + 1 if busy.size else 1
