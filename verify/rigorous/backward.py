r"""Linear functions carried backwards through a network, with the rounding counted beside them.

At every moment of a walk, for all inputs of the set and the values :math:`z_i` that they cause,

.. math:: a \cdot z_{target} \ge \sum_i A_i \cdot z_i + c - e(1 + 2^{-20})

in real arithmetic, row by row: :math:`A_i` are float64 coefficients of the nodes that the walk
stands on, c is the offset that was found so far, and e adds up what rounding may have cost. A step
replaces the latest node by its inputs. What it rounds is at most :math:`|A| \cdot w`, with one
vector w for a sample and a node, and that product is added to e. The factor pays for the rounding
of e itself. Only lower bounds are walked: an upper bound is minus the lower bound of :math:`-a`.

References
----------
Zhang et al., arXiv 1811.00866; Singh et al., "An abstract domain for certifying neural networks",
POPL 2019, for linear bounds that count their rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tangency.verify.rigorous.cropping import Window, crop, expand
from tangency.verify.rigorous.dots import dot, dot_each
from tangency.verify.rigorous.enclosure import UNDERFLOW
from tangency.verify.rigorous.sets import InputSet

__all__ = ["Charge", "Rows", "Step", "cut", "lower_bounds"]

Array = Any
Part = slice


@dataclass
class Rows:
    """Linear functions on their way back.

    Attributes
    ----------
    coef : dict of int to (B, S, *shape) array
        Coefficients by node; B is 1 while all samples share them.
    value, error : (B, S) arrays
        Offsets, and what rounding may have cost.
    windows : dict of int to (tuple of slice or None)
        The part of a node's last axes that its coefficients are kept on; None for all.
    """

    coef: dict[int, Array]
    value: Array
    error: Array
    windows: dict[int, Window | None] = field(default_factory=dict)

    def shift(self, amount: Array) -> None:
        """Add to the offsets."""
        self.value = self.value + amount
        self.error = self.error + np.abs(self.value) * 2.0**-51

    def charge(self, amount: Array) -> None:
        """Add to the errors."""
        self.error = self.error + amount

    def add(self, index: int, coef: Array, magnitude: Array, window: Window | None = None) -> None:
        """Give a node coefficients, on top of those it has; ``|z| <= magnitude``."""
        if index not in self.coef:
            self.coef[index], self.windows[index] = coef, window
            return
        old, place = self.pop(index)
        if place != window:
            shape = magnitude.shape[1:]
            old, coef = expand(old, place, shape), expand(coef, window, shape)
            window = None
        total = old + coef
        self.coef[index], self.windows[index] = total, window
        wild = np.isinf(magnitude)
        cost = np.where(wild, 0.0, magnitude) * 2.0**-51
        self.charge(dot(np.abs(total), crop(cost, window)) + UNDERFLOW)
        if wild.any():  # nothing is known of an entry that was rounded
            met = dot((total != 0).astype(np.float64), crop(wild, window).astype(np.float64))
            self.error = np.where(met > 0, np.inf, self.error)

    def pop(self, index: int) -> tuple[Array, Window | None]:
        """Take a node's coefficients and their window away."""
        return self.coef.pop(index), self.windows.pop(index, None)


@dataclass(frozen=True, eq=False)
class Charge:
    """What a step costs in rounding: ``|A| . weight + spill``, and all where ``bad`` is met.

    Attributes
    ----------
    weight : (N or 1, S or 1, *shape) array
        Finite.
    spill : (N or 1, 1) array
        For underflow.
    bad : (N or 1, S or 1, *shape) array of bool, optional
        Entries at which nothing finite is known: a row that meets one is lost.
    """

    weight: Array
    spill: Array
    bad: Array | None = None

    @staticmethod
    def of(weight: Array, spill: Array) -> Charge:
        """Of a weight that may be infinite or NaN."""
        bad = ~np.isfinite(weight)
        if bad.any() or not np.isfinite(spill).all():
            spill = np.where(np.isfinite(spill), spill, 0.0)
            return Charge(np.where(bad, 0.0, weight), spill, bad)
        return Charge(weight, spill)

    def lost(self, rows: Rows, touched: Array, part: Part, window: Window | None = None) -> None:
        """Give up the rows that meet a bad entry."""
        if self.bad is not None:
            bad = crop(cut(self.bad, part), window).astype(np.float64)
            met = dot_each(touched.astype(np.float64), bad)
            rows.error = np.where(met > 0, np.inf, rows.error)


def cut(v: Array, part: Part) -> Array:
    """The samples of a part; what all samples share stays as it is."""
    return v if v.shape[0] == 1 else v[part]


class Step:
    """A node's way back; steps hold what they need of all samples and act on a part of them."""

    def apply(self, rows: Rows, coef: Array, part: Part, window: Window | None = None) -> None:
        """Replace ``coef`` at the node by coefficients at its inputs."""
        raise NotImplementedError


def lower_bounds(rows: Rows, sets: Mapping[int, InputSet], part: Part) -> Array:
    """Lower bounds ``(N, S)`` once only inputs are left."""
    for i, coef in rows.coef.items():
        value, error = sets[i].take(part).least(coef, rows.windows.get(i))
        rows.shift(value)
        rows.charge(error)
    with np.errstate(all="ignore"):
        low = np.nextafter(rows.value - rows.error * (1.0 + 2.0**-20), -np.inf)
    return np.where(np.isfinite(low), low, -np.inf)
