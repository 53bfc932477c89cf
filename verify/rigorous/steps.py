"""One step back through an op: affine, element-wise by its planes, or a product of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tangency.models.intervals import Interval
from tangency.models.ops import Shape
from tangency.verify.rigorous.backward import Charge, Part, Rows, Step, cut
from tangency.verify.rigorous.cropping import Window, crop, expand
from tangency.verify.rigorous.dots import dot, dot_each, unbroadcast
from tangency.verify.rigorous.enclosure import UNDERFLOW, midpoint_radius, relative_error
from tangency.verify.rigorous.relaxations import Planes
from tangency.verify.rigorous.transpose import Linear

__all__ = ["AffineStep", "MatMulStep", "PlanesStep"]

Array = Any


@dataclass(frozen=True, eq=False)
class AffineStep(Step):
    """Back through an affine op."""

    inputs: tuple[int, ...]
    magnitudes: tuple[Array, ...]
    linear: Linear
    charge: Charge | None
    shape: Shape

    @staticmethod
    def of(
        linear: Linear, inputs: tuple[int, ...], magnitudes: tuple[Array, ...], shape: Shape
    ) -> AffineStep:
        """With ``magnitudes`` ``(N or 1, *in)`` of the inputs, infinite where nothing is known."""
        weight, free = np.zeros((1, *shape)), True
        spill: Array = np.full((1, 1), UNDERFLOW)
        for slip, m in zip(linear.slips, magnitudes, strict=True):
            if slip is None:
                continue
            free, wild = False, np.isinf(m)
            if wild.any():
                reached = slip(wild.astype(np.float64)) > 0
                weight = weight + np.where(reached, np.inf, 0.0)
                m = np.where(wild, 0.0, m)
            weight = weight + slip(m)
            spill = spill + UNDERFLOW * (1.0 + m.reshape((len(m), -1)).sum(axis=1)[:, None])
        if linear.shift is not None:
            free = False
            weight = weight + relative_error(prod(shape)) * np.abs(linear.shift)
        if linear.slack is not None:
            weight = weight + linear.slack
        charge = None if free else Charge.of(weight[:, None], spill)
        return AffineStep(inputs, magnitudes, linear, charge, shape)

    def apply(self, rows: Rows, coef: Array, part: Part, window: Window | None = None) -> None:
        """Replace ``coef`` at the node by coefficients at its inputs."""
        if self.charge is not None:
            size = np.abs(coef)
            rows.charge(dot(size, crop(cut(self.charge.weight, part)[:, 0], window)))
            rows.charge(cut(self.charge.spill, part))
            if self.charge.bad is not None:
                self.charge.lost(rows, size > 0, part, window)
        if self.linear.shift is not None:
            rows.shift(dot(coef, crop(self.linear.shift[None], window)))
        if window is not None and self.linear.near is not None:
            for j, m in zip(self.inputs, self.magnitudes, strict=True):
                new, place = self.linear.near(coef, window)
                rows.add(j, new, cut(m, part), place)
            return
        coef = expand(coef, window, self.shape)
        for j, pull, m in zip(self.inputs, self.linear.pulls, self.magnitudes, strict=True):
            rows.add(j, pull(coef), cut(m, part))


@dataclass(frozen=True, eq=False)
class PlanesStep(Step):
    """Back through an element-wise op, by its planes."""

    inputs: tuple[int, ...]
    shapes: tuple[Shape, ...]
    magnitudes: tuple[Array, ...]
    planes: Planes
    charge: Charge
    no_low: Array | None
    no_high: Array | None

    @staticmethod
    def of(
        planes: Planes,
        inputs: tuple[int, ...],
        magnitudes: tuple[Array, ...],
        shape: Shape,
    ) -> PlanesStep:
        """With ``magnitudes`` ``(N or 1, *in)`` of the inputs."""
        n, rank = prod(shape), len(shape)
        weight: Array = 0.0
        spill: Array = np.full((1, 1), UNDERFLOW)
        for a, b, m in zip(planes.below, planes.above, magnitudes, strict=True):
            slope = np.maximum(np.abs(a), np.abs(b))
            wide = m.reshape((m.shape[0], 1, *(1,) * (rank + 1 - m.ndim), *m.shape[1:]))
            terms = n // max(prod(m.shape[1:]), 1) + 1
            weight = weight + np.where(slope > 0, relative_error(terms) * slope * wide, 0.0)
            tame = np.where(np.isinf(m), 0.0, m)
            spill = spill + UNDERFLOW * (1.0 + tame.reshape((len(m), -1)).sum(axis=1)[:, None])
        no_low, no_high = ~np.isfinite(planes.low), ~np.isfinite(planes.high)
        low, high = np.where(no_low, 0.0, planes.low), np.where(no_high, 0.0, planes.high)
        weight = weight + relative_error(2 * n) * np.maximum(np.abs(low), np.abs(high))
        lead = np.shape(weight)[: np.ndim(weight) - rank]
        weight = np.broadcast_to(weight, (*lead, *shape))
        low, high = (np.broadcast_to(v, (*v.shape[:2], *shape)) for v in (low, high))
        below, above = planes.below, planes.above
        if len(inputs) == 1:  # of the node's own shape, so that a window can be cut out
            (a,), (b,) = below, above
            below = (np.broadcast_to(a, (*a.shape[:2], *shape)),)
            above = below if a is b else (np.broadcast_to(b, (*b.shape[:2], *shape)),)
        return PlanesStep(
            inputs,
            tuple(m.shape[1:] for m in magnitudes),
            magnitudes,
            Planes(below, above, low, high),
            Charge.of(weight, spill),
            no_low if no_low.any() else None,
            no_high if no_high.any() else None,
        )

    def apply(self, rows: Rows, coef: Array, part: Part, window: Window | None = None) -> None:
        """Replace ``coef`` at the node by coefficients at its inputs."""
        if len(self.inputs) > 1:
            coef, window = expand(coef, window, self.planes.low.shape[2:]), None
        plus = np.maximum(coef, 0.0)
        minus = np.minimum(coef, 0.0)
        low, high, weight = (
            crop(cut(v, part), window)
            for v in (self.planes.low, self.planes.high, self.charge.weight)
        )
        if low.any():
            rows.shift(dot_each(plus, low))
        if high.any():
            rows.shift(dot_each(minus, high))
        rows.charge(dot_each(plus, weight) - dot_each(minus, weight))
        rows.charge(cut(self.charge.spill, part))
        if self.charge.bad is not None:
            self.charge.lost(rows, coef != 0, part, window)
        for side, open_ in ((plus, self.no_low), (minus, self.no_high)):
            if open_ is not None:
                Charge(weight, self.charge.spill, open_).lost(rows, side != 0, part, window)
        for k, j in enumerate(self.inputs):
            below, above = self.planes.below[k], self.planes.above[k]
            if below is above:
                new = coef * crop(cut(below, part), window)
            else:
                new = plus * crop(cut(below, part), window)
                new += minus * crop(cut(above, part), window)
            if window is None:
                new = unbroadcast(new, self.shapes[k])
            rows.add(j, new, cut(self.magnitudes[k], part), window)


@dataclass(frozen=True, eq=False)
class MatMulStep(Step):
    r"""Back through ``x y``, by ``x y = c y + x d - c d + (x - c)(y - d)`` at the centres c, d.

    The last term is at most :math:`r_x r_y` in size: a product of two matrices, as all the others,
    so that no array of all the triples (i, k, j) is formed. Where a factor is a point its radius
    is 0 and the step is exact.
    """

    inputs: tuple[int, int]
    shapes: tuple[Shape, Shape]
    magnitudes: tuple[Array, Array]
    centres: tuple[Array, Array]
    middle: Array
    spread: Array
    charge: Charge

    @staticmethod
    def of(
        boxes: Sequence[Interval], inputs: tuple[int, int], magnitudes: tuple[Array, Array]
    ) -> MatMulStep:
        """With boxes ``(N or 1, *shape)`` of the factors."""
        shapes = (boxes[0].lower.shape[1:], boxes[1].lower.shape[1:])
        rank = max(map(len, shapes))

        def lifted(v: Array) -> Array:
            return v.reshape((v.shape[0], 1, *(1,) * (rank + 1 - v.ndim), *v.shape[1:]))

        (c, rx), (d, ry) = (tuple(map(lifted, midpoint_radius(x))) for x in boxes)
        mx, my = (lifted(np.where(np.isinf(m), 0.0, m)) for m in magnitudes)
        middle, spread = c @ d, rx @ ry
        size = np.abs(c)
        g = relative_error(prod(middle.shape[2:]) + sum(map(prod, shapes)))
        weight = g * (mx @ np.abs(d) + size @ my + size @ np.abs(d) + np.abs(spread))
        weight = np.where(np.isnan(spread), np.inf, weight)
        spread = np.where(np.isfinite(spread), spread, 0.0)
        total = [np.where(np.isinf(m), 0.0, m).reshape((len(m), -1)).sum(1) for m in magnitudes]
        spill = UNDERFLOW * (1.0 + total[0] + total[1])[:, None]
        return MatMulStep(
            inputs, shapes, magnitudes, (c, d), middle, spread, Charge.of(weight, spill)
        )

    def apply(self, rows: Rows, coef: Array, part: Part, window: Window | None = None) -> None:
        """Replace ``coef`` at the node by coefficients at its inputs."""
        coef = expand(coef, window, self.middle.shape[2:])
        size = np.abs(coef)
        rows.shift(-dot_each(coef, cut(self.middle, part)))
        rows.shift(-dot_each(size, cut(self.spread, part)))
        rows.charge(dot_each(size, cut(self.charge.weight, part)))
        rows.charge(cut(self.charge.spill, part))
        self.charge.lost(rows, size > 0, part)
        c, d = (cut(v, part) for v in self.centres)
        for j, new, shape, m in (
            (self.inputs[0], coef @ d.swapaxes(-1, -2), self.shapes[0], self.magnitudes[0]),
            (self.inputs[1], c.swapaxes(-1, -2) @ coef, self.shapes[1], self.magnitudes[1]),
        ):
            rows.add(j, unbroadcast(new, shape), cut(m, part))
