"""Compiled convolutional recursion of one pair of images, one row displacement at a time.

With stride-1 convolutions the entry for sites (p, q) only ever meets (p + s, q + s): each
displacement evolves on its own. A slab holds the pairs of all columns for the rows (i, i + a) of
one displacement a: ``lines`` of W + pad entries, so that the neighbour (p + 1, q + 1) along the
row lies one line and one entry further, and zero padding is a border of zeros between lines. A
slab stays in the second-level cache through all layers.

The covariance is carried in float64 and the tangent kernel in the type of ``slots_t``: near
cos = 1 the angle is the square root of a difference. Polynomials are in that type too.

Numba is imported here: import this module where a kernel is computed, not before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.theory.kernels.fused_angle import angle_and_gap
from tangency.theory.kernels.fused_numba import compiled

__all__ = ["ACTIVATE", "CONVOLVE", "MIX", "evolve"]

CONVOLVE, ACTIVATE, MIX = 0, 1, 2

Array = np.ndarray[Any, Any]


@compiled
def _load(
    slab: Array, rate: Array, x1: Array, x2: Array, cov: Array, ntk: Array, shift: int, pad: int
) -> None:
    """Fill a slab from the images' inner products, or from ``cov`` unless it is empty."""
    height, width, channels = x1.shape
    low = max(0, -shift)
    for r in range(height - abs(shift)):
        i = r + low
        for p in range(width):
            start = (p + pad) * (width + pad) + pad
            line = slab[r, start : start + width]
            slope = rate[r, start : start + width]
            if cov.shape[0] > 0:
                for q in range(width):
                    line[q] = cov[i * width + p, (i + shift) * width + q]
                    slope[q] = ntk[i * width + p, (i + shift) * width + q]
            else:
                for q in range(width):
                    total = 0.0
                    for c in range(channels):
                        total += x1[i, p, c] * x2[i + shift, q, c]
                    line[q] = total / channels
                    slope[q] = 0


@compiled
def _sum_rows(slab: Array, rows: int, r: int, tall: int, out: Array) -> None:
    """The sum of the rows within ``tall`` of r, borders included."""
    first, stop = max(0, r - tall), min(rows, r + tall + 1)
    if stop - first == 3:  # one pass over memory where a 3x3 window lies inside
        a, b, c = slab[first], slab[first + 1], slab[first + 2]
        for k in range(out.shape[0]):
            out[k] = a[k] + b[k] + c[k]
        return
    a = slab[first]
    for k in range(out.shape[0]):
        out[k] = a[k]
    for other in range(first + 1, stop):
        b = slab[other]
        for k in range(out.shape[0]):
            out[k] += b[k]


@compiled
def _sum_steps(sums: Array, step: int, wide: int, out: Array) -> None:
    """The sum of entries within ``wide`` steps; the first and last ``wide`` steps are left out."""
    count = out.shape[0]
    a, b, c = sums[(wide - 1) * step :], sums[wide * step :], sums[(wide + 1) * step :]
    if wide == 1:
        for k in range(count):
            out[k] = a[k] + b[k] + c[k]
        return
    for k in range(count):
        out[k] = b[k]
    for s in range(1, wide + 1):
        a, c = sums[(wide - s) * step :], sums[(wide + s) * step :]
        for k in range(count):
            out[k] += a[k] + c[k]


@compiled
def _convolve(
    slab: Array, rate: Array, to: Array, to_rate: Array, rows: int, width: int, pad: int,
    tall: int, wide: int, factors: Array, sums: Array, rates: Array, inner: Array, line: Array,
) -> None:  # fmt: skip
    """Box sums over rows, then along the diagonal, into another slab.

    Whole rows are summed, borders and all, in long loops; the borders are wiped after it.
    """
    weight, bias = factors[0], factors[1]
    kind = rate.dtype.type
    share, gain, base = kind(weight), kind(factors[2]), kind(factors[3])
    step = width + pad + 1
    skip = wide * step

    count = sums.shape[0] - 2 * skip
    for r in range(rows):
        _sum_rows(slab, rows, r, tall, sums)
        _sum_rows(rate, rows, r, tall, rates)
        total, slope = inner[:count], line[:count]
        _sum_steps(sums, step, wide, total)
        _sum_steps(rates, step, wide, slope)
        here, there = to[r, skip : skip + count], to_rate[r, skip : skip + count]
        for k in range(count):
            there[k] = share * slope[k] + gain * kind(total[k]) + base
        for k in range(count):
            here[k] = weight * total[k] + bias
        _wipe(to[r], width, pad)
        _wipe(to_rate[r], width, pad)


@compiled
def _wipe(row: Array, width: int, pad: int) -> None:
    stride = width + pad
    row[: pad * stride + pad] = 0
    for p in range(pad + 1, pad + width):
        row[p * stride : p * stride + pad] = 0
    row[(pad + width) * stride :] = 0


@compiled
def _activate(
    slab: Array, rate: Array, root1: Array, root2: Array, shift: int, pad: int,
    half: float, kink: float, same: bool, line: Array, one: Any, inverse: Array,
) -> None:  # fmt: skip
    """A kinked linear activation, in place."""
    height, width = root1.shape
    low = max(0, -shift)
    stride = width + pad
    bend, share = rate.dtype.type(kink), rate.dtype.type(half)
    line[:] = 0
    for r in range(height - abs(shift)):
        i = r + low
        right = root2[i + shift]
        for q in range(width):
            inverse[q] = 1.0 / right[q] if right[q] > 0.0 else 0.0
        row = slab[r]
        for p in range(width):
            start = (p + pad) * stride + pad
            cov, gaps = row[start : start + width], line[start : start + width]
            deviation = root1[i, p]
            scale = 1.0 / deviation if deviation > 0.0 else 0.0
            for q in range(width):
                delta = 1.0 - cov[q] * (scale * inverse[q])
                delta = delta if delta > 0.0 else 0.0
                gaps[q] = delta if delta < 2.0 else 2.0
            if same and shift == 0:  # a site with itself
                gaps[p] = 0
        # Borders have delta = 0 and stay zero: one long loop for the costly part.
        ntk = rate[r]
        for k in range(ntk.shape[0]):
            theta, gap = angle_and_gap(line[k])
            ntk[k] = ntk[k] * (share * (one - bend * theta))
            line[k] = gap
        for p in range(width):
            start = (p + pad) * stride + pad
            cov, gaps = row[start : start + width], line[start : start + width]
            scale = root1[i, p] * kink * half
            for q in range(width):
                cov[q] = half * cov[q] + scale * right[q] * gaps[q]


@compiled
def _mix(
    slab: Array, rate: Array, more: Array, other: Array, rows: int, ours: float, theirs: float
) -> None:
    """``ours * slab + theirs * more``."""
    mine, yours = rate.dtype.type(ours), rate.dtype.type(theirs)
    for r in range(rows):
        s, t, u, v = slab[r], rate[r], more[r], other[r]
        for k in range(s.shape[0]):
            s[k] = ours * s[k] + theirs * u[k]
        for k in range(s.shape[0]):
            t[k] = mine * t[k] + yours * v[k]


@compiled
def _collect(
    slab: Array, rate: Array, height: int, width: int, shift: int, pad: int, cov: Array, ntk: Array
) -> None:
    """Write a slab to its place among all pairs of sites."""
    low = max(0, -shift)
    for r in range(height - abs(shift)):
        i = r + low
        for p in range(width):
            start = (p + pad) * (width + pad) + pad
            for q in range(width):
                cov[i * width + p, (i + shift) * width + q] = slab[r, start + q]
                ntk[i * width + p, (i + shift) * width + q] = rate[r, start + q]


@compiled
def _weigh(
    slab: Array, rate: Array, height: int, width: int, shift: int, pad: int, weights: Array
) -> tuple[float, float]:
    """Sums of a slab under weights of the pairs of sites; one number stands for equal weights."""
    low = max(0, -shift)
    cov, ntk = 0.0, 0.0
    for r in range(height - abs(shift)):
        i = r + low
        for p in range(width):
            start = (p + pad) * (width + pad) + pad
            if weights.shape[0] == 1:
                for q in range(width):
                    cov += slab[r, start + q]
                    ntk += rate[r, start + q]
            else:
                for q in range(width):
                    weight = weights[i * width + p, (i + shift) * width + q]
                    cov += weight * slab[r, start + q]
                    ntk += weight * rate[r, start + q]
    if weights.shape[0] == 1:
        return cov * weights[0, 0], ntk * weights[0, 0]
    return cov, ntk


@compiled
def evolve(
    codes: Array, factors: Array, x1: Array, x2: Array, cov: Array, ntk: Array,
    roots1: Array, roots2: Array, reach: int, pad: int, weights: Array,
    all_cov: Array, all_ntk: Array, slots: Array, slots_t: Array, one: Any, same: bool,
) -> tuple[float, float]:  # fmt: skip
    """One stage of one pair of images.

    Parameters
    ----------
    codes : (ops, 6) int64 array
        Kind, slot read, slot written, then half heights of the window (a convolution), the row of
        ``roots`` (an activation) or the slot added (a sum).
    factors : (ops, 4) array
    x1, x2 : (H, W, channels) arrays, cov, ntk : (P, P) arrays
        Where ``cov`` is empty, the covariance of the images is the beginning.
    roots1, roots2 : (activations, H, W) arrays
        Standard deviations before each activation.
    reach : int
        Row displacements beyond it have no weight in the result.
    weights : (P, P) or (1, 1) array
        Of the sites in the numbers returned; empty where ``all_cov``, ``all_ntk`` are filled.
    slots, slots_t : (slots, H, B) arrays
        Zero on the borders.
    same : bool
        Whether the two images are one.
    """
    height, width = x1.shape[0], x1.shape[1]
    size = slots.shape[2]
    sums, inner, inverse = np.zeros(size), np.zeros(size), np.zeros(width)
    rates, line = np.zeros(size, slots_t.dtype), np.zeros(size, slots_t.dtype)
    total_cov, total_ntk = 0.0, 0.0
    for shift in range(-reach, reach + 1):
        rows = height - abs(shift)
        _load(slots[0], slots_t[0], x1, x2, cov, ntk, shift, pad)
        last = 0
        for k in range(codes.shape[0]):
            kind, a, b = codes[k, 0], codes[k, 1], codes[k, 2]
            if kind == CONVOLVE:
                _convolve(
                    slots[a], slots_t[a], slots[b], slots_t[b], rows, width, pad,
                    codes[k, 3], codes[k, 4], factors[k], sums, rates, inner, line,
                )  # fmt: skip
            else:
                if a != b:
                    slots[b, :rows] = slots[a, :rows]
                    slots_t[b, :rows] = slots_t[a, :rows]
                if kind == ACTIVATE:
                    row = codes[k, 3]
                    _activate(
                        slots[b], slots_t[b], roots1[row], roots2[row], shift, pad,
                        factors[k, 0], factors[k, 1], same, line, one, inverse,
                    )  # fmt: skip
                else:
                    other = codes[k, 3]
                    _mix(
                        slots[b], slots_t[b], slots[other], slots_t[other], rows,
                        factors[k, 0], factors[k, 1],
                    )  # fmt: skip
            last = b
        if weights.shape[0] == 0:
            _collect(slots[last], slots_t[last], height, width, shift, pad, all_cov, all_ntk)
        else:
            part_cov, part_ntk = _weigh(
                slots[last], slots_t[last], height, width, shift, pad, weights
            )
            total_cov += part_cov
            total_ntk += part_ntk
    return total_cov, total_ntk
