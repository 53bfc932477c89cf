"""The matrices that certificates ask to be definite, against the same matrices in rationals.

Each is an enclosure: at every corner of what goes in, the exact matrix must lie within its radius.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tangency.models.errors import NotProvedError
from tangency.verify.certificate import chain, implicit
from tangency.verify.certificate.branch import BranchWitness, check_branch
from tangency.verify.certificate.cover import require_cover
from tangency.verify.certificate.implicit_product import (
    ImplicitProductWitness,
    check_implicit_product,
)
from tangency.verify.certificate.layers import GroupSort, Householder, Residual, Slopes
from tangency.verify.certificate.matrix import Matrix
from tangency.verify.certificate.product import ProductWitness
from tangency.verify.certificate.reduction import Reduction, reduce

U = Fraction(1, 2**53)
EXACT = np.vectorize(Fraction, otypes=[object])
BELOW, ABOVE = math.nextafter(1.0, 0.0), math.nextafter(1.0, 2.0)


def exact(matrix, sign=0):
    values = EXACT(matrix.midpoint)
    return values if matrix.radius is None else values + sign * EXACT(matrix.radius)


def assert_encloses(matrix, value):
    radius = np.zeros(matrix.shape) if matrix.radius is None else matrix.radius
    assert (abs(EXACT(matrix.midpoint) - value) <= EXACT(radius)).all()


def symmetric(values):
    return np.tril(values) + np.tril(values, -1).T


def blocks(rows):
    return np.vstack([np.hstack(row) for row in rows])


# --- layers of a chain --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
        ([-0.1, 0.1, -0.3], [1.1, 0.7, 0.3]),
        ([0.1, 0.2, 0.7], [0.7, 0.2, 1.0]),  # the second is linear
        ([-1.0, 0.0, 0.3], [-0.1, 0.0, 0.9]),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "residual", "wide"])
def test_inequality_of_slopes(lower, upper, kind):
    rng = np.random.default_rng(5)
    weight = Matrix(rng.standard_normal((3, 3)))
    if kind == "wide":
        weight = Matrix(weight.midpoint, np.full((3, 3), 2.0**-20))
    slopes = Slopes(np.array(lower), np.array(upper))
    outer = Matrix(rng.standard_normal((3, 3)), np.full((3, 3), 2.0**-25))
    activation = Residual(slopes, outer) if kind == "residual" else slopes
    strength = np.array([1.1, 0.3, 2.7])
    before, after = (Matrix(symmetric(rng.standard_normal((3, 3)))) for _ in range(2))
    found = chain._inequality(reduce(activation, weight, strength, name="it"), before, after)
    a, b, lam = EXACT(lower), EXACT(upper), EXACT(strength)
    free = np.flatnonzero(a != b)
    for sign, other in itertools.product((-1, 0, 1), repeat=2):
        w = exact(weight, sign)
        # y = linear part + free coordinates, written out from y_i = phi_i((W x)_i).
        linear = np.where((a == b)[:, None], a[:, None] * w, 0 * w)
        spread = EXACT(np.eye(3))[:, free]
        if kind == "residual":
            g = exact(outer, other)
            linear, spread = EXACT(np.eye(3)) + g @ linear, g @ spread
        v, low, high = w[free], a[free][:, None], b[free][:, None]
        scale = lam[free][:, None]
        q, p = exact(before), exact(after)
        top = q + 2 * v.T @ (scale * low * high * v) - linear.T @ p @ linear
        side = -(scale * (low + high) * v + spread.T @ p @ linear)
        corner = np.diag(2 * lam[free]) - spread.T @ p @ spread
        assert_encloses(found, blocks([[top, side.T], [side, corner]]))


def test_inequality_of_multipliers_that_are_rounded():
    rng = np.random.default_rng(0)
    inner, lam = Matrix(rng.standard_normal((2, 3))), np.array([[0.7], [1.3]])
    strength = Matrix(lam, lam * 2.0**-10)
    lower, upper = np.array([-0.3, 0.1]), np.array([0.9, 0.7])
    before, after = (Matrix(symmetric(rng.standard_normal((n, n)))) for n in (3, 2))
    found = chain._inequality(Reduction(inner, strength, lower, upper), before, after)
    v, low, high = exact(inner), EXACT(lower)[:, None], EXACT(upper)[:, None]
    for sign in (-1, 1):
        scale = exact(strength, sign)
        top = exact(before) + 2 * v.T @ (scale * low * high * v)
        side = -scale * (low + high) * v
        corner = np.diag(2 * scale[:, 0]) - exact(after)
        assert_encloses(found, blocks([[top, side.T], [side, corner]]))


def test_sums_of_slopes_are_exact_for_the_usual_ones_alone():
    for a, b in ((0.1, 0.7), (-0.1, 0.3), (1.0, 2.0**-53), (0.0, 0.1), (-0.3, 0.3)):
        found = chain._sum(np.array([a, 0.0]), np.array([b, 1.0]))
        assert_encloses(found, np.array([[Fraction(a) + Fraction(b)], [Fraction(1)]]))
    assert chain._sum(np.zeros(2), np.ones(2)).radius is None


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("radius", [0.0, 2.0**-18])
def test_sorting_keeps_sums_and_shrinks_the_rest(size, radius):
    rng = np.random.default_rng(size)
    weight = Matrix(rng.standard_normal((2 * size, 3)), np.full((2 * size, 3), radius))
    strength = np.array([0.7, 1.3])
    found = reduce(GroupSort(size), weight, strength, name="it")
    basis = np.zeros((size, size - 1), dtype=object)
    for j in range(1, size):  # Helmert's basis
        basis[:j, j - 1], basis[j, j - 1] = Fraction(1), Fraction(-j)
    whole = np.kron(np.eye(2, dtype=int), basis)
    lengths = (whole * whole).sum(axis=0)
    mean = np.kron(np.eye(2, dtype=int), np.full((size, size), Fraction(1, size)))
    for sign in (-1, 0, 1):
        w = exact(weight, sign)
        assert_encloses(found.inner, (whole.T @ w) / lengths[:, None])
        assert_encloses(found.linear, mean @ w)
    assert_encloses(found.spread, whole)
    assert_encloses(found.strength, (np.repeat(EXACT(strength), size - 1) * lengths)[:, None])
    assert (found.lower == -1).all()
    assert (found.upper == 1).all()


@pytest.mark.parametrize("length", [1.0, 3.7, 2.0**-60, 2.0**-300])
def test_reflections_keep_what_is_orthogonal(length):
    rng = np.random.default_rng(2)
    weight = Matrix(rng.standard_normal((6, 2)), np.full((6, 2), 2.0**-19))
    normals = rng.standard_normal((2, 3)) * length
    found = reduce(Householder(normals), weight, np.array([0.7, 1.3]), name="it")
    v = EXACT(np.zeros((6, 2)))
    v[:3, 0], v[3:, 1] = EXACT(normals)
    squares = (v * v).sum(axis=0)
    for sign in (-1, 0, 1):
        w = exact(weight, sign)
        inner = (v.T @ w) / squares[:, None]
        assert_encloses(found.inner, inner)
        assert_encloses(found.linear, w - v @ inner)
    assert_encloses(found.strength, (EXACT([0.7, 1.3]) * squares)[:, None])


def test_normals_too_short_to_be_told_from_zero_are_refused():
    weight = Matrix(np.eye(2))
    with pytest.raises(NotProvedError, match="short"):
        reduce(Householder(np.full((1, 2), 2.0**-537)), weight, np.ones(1), name="it")


def test_negative_multipliers_are_refused():
    with pytest.raises(NotProvedError, match="negative"):
        reduce(Slopes(0.0, 1.0), Matrix(np.eye(2)), np.array([1.0, -1e-300]), name="it")


# --- implicit layers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lower", "upper"), [([0.0, 0.0], [1.0, 1.0]), ([-0.1, 0.3], [0.7, 0.9]), ([-1, -0.2], [0, 1])]
)
def test_quadratic_form_of_slopes(lower, upper):
    rng = np.random.default_rng(1)
    weight = Matrix(rng.standard_normal((2, 2)), np.full((2, 2), 2.0**-20))
    inputs = Matrix(rng.standard_normal((2, 3)))
    lam = np.array([0.7, 1.9])
    witness = implicit.ImplicitWitness(1.0, lam, np.zeros(0), "contraction", np.ones(2))
    slopes = Slopes(np.array(lower, dtype=float), np.array(upper, dtype=float))
    found = implicit._quadratic(weight, inputs, slopes, witness)
    a, b, lam = EXACT(lower), EXACT(upper), EXACT(lam)
    for sign in (-1, 0, 1):
        du = np.hstack([exact(inputs), exact(weight, sign)])
        dz = np.hstack([EXACT(np.zeros((2, 3))), EXACT(np.eye(2))])
        below, above = dz - a[:, None] * du, b[:, None] * du - dz
        form = below.T @ (lam[:, None] * above)
        assert_encloses(found, form + form.T)


def test_quadratic_form_of_sorting():
    rng = np.random.default_rng(1)
    weight = Matrix(rng.standard_normal((4, 4)), np.full((4, 4), 2.0**-20))
    inputs = Matrix(rng.standard_normal((4, 1)))
    lam, kappa = np.array([0.7, 1.9]), np.array([0.3, 2.1])
    witness = implicit.ImplicitWitness(1.0, lam, kappa, "contraction", np.ones(4))
    found = implicit._quadratic(weight, inputs, GroupSort(2), witness)
    sums = EXACT(np.kron(np.eye(2), np.ones((1, 2))))
    for sign in (-1, 0, 1):
        du = np.hstack([exact(inputs), exact(weight, sign)])
        dz = np.hstack([EXACT(np.zeros((4, 1))), EXACT(np.eye(4))])
        scale = np.repeat(EXACT(lam), 2)[:, None]
        kept = sums @ (du - dz)
        form = du.T @ (scale * du) - dz.T @ (scale * dz) - kept.T @ (EXACT(kappa)[:, None] * kept)
        assert_encloses(found, form)


def posed(weight, activation, how, scaling=None):
    n = len(weight)
    try:
        implicit.check_well_posed(
            Matrix(np.array(weight)), activation, how, np.ones(n) if scaling is None else scaling
        )
    except NotProvedError:
        return False
    return True


def test_fixed_points_at_the_edge_of_their_conditions():
    relu, tanh = Slopes(0.0, 1.0), Slopes(-1.0, 0.5)
    for weight, slopes in (([[1.0]], relu), ([[-1.0]], relu), ([[1.0]], tanh), ([[2.0]], relu)):
        assert not posed(weight, slopes, "contraction")
    assert posed([[0.99]], relu, "contraction")
    assert not posed([[0.6, 0.6], [0.6, 0.6]], relu, "contraction")
    assert not posed([[1.0]], relu, "monotone")
    assert not posed([[0.5]], Slopes(0.0, 2.0), "monotone")
    assert posed([[-5.0]], relu, "monotone")
    assert posed([[0.99]], relu, "monotone")
    assert not posed([[-5.0]], tanh, "monotone")
    assert not posed([[0.0, 2.0], [0.0, 0.0]], relu, "monotone")
    assert posed([[0.0, 2.0], [0.0, 0.0]], relu, "monotone", np.array([1.0, 9.0]))
    # W x can be z where D is not constant on a group: sorting needs that it is.
    assert not posed(np.diag([0.1, 0.1]), GroupSort(2), "contraction", np.array([1.0, 2.0]))
    assert not posed(np.eye(2), GroupSort(2), "contraction")
    assert posed(np.eye(2) * 0.99, GroupSort(2), "contraction")


def implicit_bound(weight, inputs, output, slopes, bound, strength):
    n = len(weight)
    witness = implicit.ImplicitWitness(bound, strength, np.zeros(0), "contraction", np.ones(n))
    parts = (Matrix(np.array(v)) for v in (weight, inputs, output))
    return implicit.check_implicit(*parts, slopes, witness)


def test_implicit_bounds_below_the_truth_are_refused():
    # z = z / 2 + x, y = z: the constant is 2, and lambda = 2 proves it.
    linear = Slopes(0.0, 1.0)
    args = ([[0.5]], [[1.0]], [[1.0]], linear)
    for strength in np.linspace(0.5, 5.0, 46):
        with pytest.raises(NotProvedError):
            implicit_bound(*args, math.nextafter(2.0, 0.0), np.array([strength]))
    assert implicit_bound(*args, 2.01, np.array([2.0])) == 2.01


def naive(norms, bound, slopes=None):
    half = Matrix(np.array([[0.5]]))
    one = Matrix(np.array([[1.0]]))
    witness = ImplicitProductWitness(bound, norms)
    try:
        check_implicit_product(half, one, one, slopes or Slopes(0.0, 1.0), witness)
    except NotProvedError:
        return False
    return True


def test_naive_implicit_bounds_to_the_last_bit():
    norms = (0.5 + 2.0**-40, 1.1, 1.3)
    w, u, c = map(Fraction, norms)
    value = u * c / (1 - w)
    bound = float(value)
    while Fraction(bound) >= value:
        bound = math.nextafter(bound, 0.0)
    assert not naive(norms, bound)
    assert naive(norms, math.nextafter(bound, 9.0))
    assert not naive((1.0, 1.1, 1.3), 1e300)
    assert not naive(norms, 1e300, Slopes(-2.0, 1.0))


# --- pieces of a box ----------------------------------------------------------------------------


def covered(pieces, low, high):
    lower, upper = (np.array([p[k] for p in pieces], dtype=float) for k in (0, 1))
    try:
        require_cover(lower, upper, np.array(low, dtype=float), np.array(high, dtype=float))
    except NotProvedError:
        return False
    return True


def test_pieces_cover_to_the_last_bit():
    half, above = 0.5, math.nextafter(0.5, 1.0)
    assert covered([([0], [half]), ([half], [1])], [0], [1])
    assert not covered([([0], [half]), ([above], [1])], [0], [1])
    assert not covered([([0], [half]), ([half], [BELOW])], [0], [1])
    assert not covered([([2.0**-1074], [half]), ([half], [1])], [0], [1])
    assert not covered([([0], [half])], [0], [1])
    quarters = [([0, 0], [1, half]), ([0, half], [half, 1]), ([half, half], [1, 1])]
    assert covered(quarters, [0, 0], [1, 1])
    assert not covered(quarters[:2], [0, 0], [1, 1])
    assert not covered([quarters[0], quarters[0], quarters[1]], [0, 0], [1, 1])


def test_no_piece_may_exceed_the_claim():
    lower, upper = np.array([[0.0], [0.5]]), np.array([[0.5], [1.0]])

    def check(bound, parts, prove):
        pieces = tuple(ProductWitness(b, (b,)) for b in parts)
        witness = BranchWitness(bound, lower, upper, pieces)
        try:
            return check_branch(witness, np.zeros(1), np.ones(1), prove) == bound
        except NotProvedError:
            return False

    assert check(1.0, (1.0, 0.5), lambda part, low, high: part.bound)
    assert not check(1.0, (1.0, ABOVE), lambda part, low, high: part.bound)
    assert not check(1.0, (ABOVE, 1.0), lambda part, low, high: part.bound)
    assert not check(1.0, (1.0, 1.0), lambda part, low, high: ABOVE)
