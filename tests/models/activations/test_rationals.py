"""Activations with coefficients: what they claim of their tails, against exact polynomials."""

from fractions import Fraction

import numpy as np
import pytest

from tangency.models.activations import get
from tangency.models.errors import InputError

POLYNOMIAL = np.polynomial.polynomial


def real_roots(coefficients):
    """Real roots of a polynomial of fractions (constant first), in floating point."""
    c = np.trim_zeros(np.asarray(coefficients, object), "b")
    if c.size < 2:
        return np.empty(0)
    scale = max(abs(v) for v in c)
    roots = np.roots([float(v / scale) for v in c[::-1]])
    return roots.real[np.abs(roots.imag) <= 1e-7 * np.abs(roots)]


def landmarks(p, q):
    """Kinks, turning points and inflections of p/(1 + |q|), from Fraction polynomials."""
    P, Q = (np.array([Fraction(v) for v in c], object) for c in (p, (0.0, *q)))
    found = [real_roots(Q)]
    for sign in (1, -1):
        D = sign * Q
        D[0] += 1
        first = POLYNOMIAL.polysub(
            POLYNOMIAL.polymul(POLYNOMIAL.polyder(P), D),
            POLYNOMIAL.polymul(P, POLYNOMIAL.polyder(D)),
        )
        second = POLYNOMIAL.polysub(
            POLYNOMIAL.polymul(POLYNOMIAL.polyder(first), D),
            2 * POLYNOMIAL.polymul(first, POLYNOMIAL.polyder(D)),
        )
        for roots in (real_roots(first), real_roots(second)):  # those of this branch of |q|
            at = np.polynomial.polynomial.polyval(roots, [float(v) for v in Q])
            found.append(roots[sign * at >= -1e-9])
    return np.concatenate(found)


def random_coefficients(rng, k):
    """Any degrees in turn with a quadratic q whose second root is far out."""
    m, n = rng.integers(1, 7, 2) if k % 2 else (3, 2)
    p, q = rng.normal(size=m), rng.normal(size=n)
    if not k % 2:
        q[-1] *= 10.0 ** rng.uniform(-2, 0)
    return tuple(p.tolist()), tuple(q.tolist())


def test_rational_core_holds_all_that_turns():
    rng = np.random.default_rng(0)
    for k in range(400):
        p, q = random_coefficients(rng, k)
        low, high = get("rational", numerator=p, denominator=q).core
        for x in landmarks(p, q):
            assert low - 1e-6 * abs(low) <= x <= high + 1e-6 * high, (p, q, x)


def test_rational_with_a_peak_far_out():
    record = get(
        "rational",
        numerator=(0.11485620404071625, -0.08999076182400897, 0.5264409349956517),
        denominator=(-2.682271789245187, 0.06148841715995574),
    )
    found = record.range_on(20.0, 90.0)
    assert found.lower <= record(20.0)
    assert found.upper >= record(43.62239) > 997.9
    before, after = record.slope(43.6), record.slope(43.65)
    assert record.slope_range[0] <= min(before, after)
    assert record.slope_range[1] >= max(before, after)


@pytest.mark.parametrize("c", [1e-12, 1e-14, 1e-30, 1e-300, 5e-324])
def test_rational_with_a_small_leading_coefficient(c):
    # x/(1 + c x^2) has the slopes -1/8 ... 1 and the range +-1/(2 sqrt c), whatever c is
    record = get("rational", numerator=(0.0, 1.0), denominator=(0.0, c))
    low, high = record.slope_range
    assert -0.13 <= low <= -0.125
    assert 1.0 <= high <= 1.0 + 1e-9
    top = 0.5 / np.sqrt(c)
    everywhere = record.range_on(-np.inf, np.inf)
    assert everywhere.lower <= -0.99 * top
    assert everywhere.upper >= 0.99 * top


def test_rational_coefficients_out_of_all_proportion():
    with pytest.raises(InputError, match="beyond the numbers of float64"):
        get("rational", numerator=(1e300, 1.0, 1e-300), denominator=(5e-324, 0.0))


def test_kan_edge_with_a_wide_grid():
    # one spline of the cell width 20 around 30: steepest at 30 +- 20 2/3, by 2/3 / 20
    record = get("kan_edge", coefficients=(0.0, 0.0, 0.0, 1.0), grid=(-10.0, 10.0), base=0.0)
    low, high = record.slope_range
    assert low <= -1.0 / 30.0 <= low + 1e-9
    assert high >= 1.0 / 30.0 >= high - 1e-9
    assert record.range_on(45.0, 100.0).upper >= record(45.0)
    rng = np.random.default_rng(2)
    for _ in range(6):
        low = rng.normal() * 30.0
        grid = (low, low + 10.0 ** rng.uniform(-1, 2.5))
        c = tuple(rng.normal(size=rng.integers(4, 9)).tolist())
        record = get("kan_edge", coefficients=c, grid=grid, base=float(rng.normal()))
        width = grid[1] - grid[0]
        x = np.linspace(grid[0] - 4.0 * width, grid[1] + 4.0 * width, 4001)
        slopes, (least, most) = record.slope(x), record.slope_range
        slack = 1e-12 * (1.0 + np.abs(slopes))
        assert (slopes >= least - slack).all()
        assert (slopes <= most + slack).all()
