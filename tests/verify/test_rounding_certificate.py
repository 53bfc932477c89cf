"""Every rounding constant of the certificates' arithmetic, held to its formula in rationals.

Two kinds of test: inputs on which the bound without the constant is false, and, where no input
attains the worst case, the number that the code computes against the formula of the literature.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tangency.models.errors import InputError, NotProvedError
from tangency.verify.certificate import diagonal, directed, ends, norms
from tangency.verify.certificate.conv_stack import stack_failure
from tangency.verify.certificate.definite import definiteness, is_positive_definite
from tangency.verify.certificate.layers import Residual, Slopes
from tangency.verify.certificate.matrix import Matrix
from tangency.verify.certificate.product import (
    ProductWitness,
    exact_square,
    norm_is_at_most,
    require_product,
)
from tangency.verify.certificate.witness import ChainWitness

U, ETA = Fraction(1, 2**53), Fraction(1, 2**1074)
EPS = 2.0**-52
SMALL = [1.0, 2.0**-53, 2.0**-53, 2.0**-53, 2.0**-53, 2.0**-53, 2.0**-53]  # floats add up to 1
TIE = (1.0 + 2.0**-26, 1.0 + 2.0**-27)  # the product is half a unit from the nearest float
EXACT = np.vectorize(Fraction, otypes=[object])
INDEFINITE_TRIALS = 400


def gamma_of(n):
    return n * U / (1 - n * U)


def radius_of(matrix):
    return np.zeros(matrix.shape) if matrix.radius is None else matrix.radius


def assert_between(found, least, slack):
    """Not below the formula, and not above it by more than a relative slack."""
    for got, wanted in zip(np.ravel(EXACT(found)), np.ravel(least), strict=True):
        assert wanted <= got <= wanted * (1 + Fraction(slack)) + 64 * ETA


def assert_encloses(matrix, value):
    gap = abs(EXACT(matrix.midpoint) - value)
    assert (gap <= EXACT(radius_of(matrix))).all()


# --- scalars ------------------------------------------------------------------------------------


def test_the_units_are_those_of_binary64():
    assert Fraction(directed.UNIT) == U
    assert Fraction(directed.ETA) == ETA
    assert 1.0 + 2.0**-53 == 1.0


@pytest.mark.parametrize("n", [1, 2, 3, 17, 1000, 2**20, 2**40])
def test_gamma_is_rounded_upward(n):
    assert_between(directed.gamma(n), gamma_of(n), 8 * U)


PAIRS = [
    (1.0, 2.0**-53),
    (1.0 + EPS, 2.0**-53),
    (1.0 + EPS, -(2.0**-54)),
    TIE,
    (1.0 / 3.0, 0.1),
    (1.5 * 2.0**-537, 2.0**-537),
    (1.25 * 2.0**-537, 2.0**-537),
    (2.0**-600, 2.0**-600),
    (5e-324, 3.0),
    (1.0, 3.0),
    (2.0, 3.0),
    (1.0, 1.0 - 2.0**-53),
]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_scalars_are_rounded_the_way_their_names_say(a, b):
    x, y = Fraction(a), Fraction(b)
    assert Fraction(directed.add_up(a, b)) >= x + y
    assert Fraction(directed.multiply_up(a, b)) >= x * y
    assert Fraction(directed.multiply_down(a, b)) <= x * y
    if b > 0:
        assert Fraction(directed.divide_up(a, b)) >= x / y
    assert Fraction(directed.sqrt_up(a)) ** 2 >= x
    for found, plain in ((directed.add_up(a, b), a + b), (directed.multiply_up(a, b), a * b)):
        assert found == math.nextafter(plain, math.inf)
    assert directed.down(a) < a < directed.up(a)


# --- sums and products --------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1000])
def test_row_sums_grow_by_twice_gamma(n):
    row = np.zeros((1, n))
    row[0, 0] = 1.0
    # fl(s) >= (1 - gamma_{n-1}) s, and 1 + 2 gamma_{n+1} is what the code says it multiplies by.
    assert_between(directed.row_sums_up(row), [1 + 2 * gamma_of(n + 1)], 16 * U)
    assert Fraction(directed.row_sums_up(row)[0]) * (1 - gamma_of(n - 1)) >= 1


@pytest.mark.parametrize("repeats", [1, 3, 40])
def test_row_sums_of_what_rounding_swallows(repeats):
    row = np.array([SMALL * repeats])
    assert Fraction(directed.row_sums_up(row)[0]) >= EXACT(row).sum()


@pytest.mark.parametrize("power", [0, -530, -537])
@pytest.mark.parametrize(("m", "n", "p"), [(2, 1, 3), (3, 5, 2), (2, 33, 2)])
@pytest.mark.parametrize("radii", ["none", "first", "second", "both"])
def test_products_have_the_radius_of_the_formula(power, m, n, p, radii):
    rng = np.random.default_rng(m * n)
    a, b = (np.ldexp(rng.standard_normal(shape), power) for shape in ((m, n), (n, p)))
    ra = np.abs(a) * rng.random(a.shape) if radii in ("first", "both") else None
    rb = np.abs(b) * rng.random(b.shape) if radii in ("second", "both") else None
    found = directed.product(Matrix(a, ra), Matrix(b, rb))
    sa, sb = (abs(EXACT(v)) for v in (a, b))
    xa = EXACT(np.zeros_like(a) if ra is None else ra)
    xb = EXACT(np.zeros_like(b) if rb is None else rb)
    formula = gamma_of(n) * (sa @ sb) + sa @ xb + xa @ (sb + xb) + n * ETA
    for got, least in zip(EXACT(found.radius).ravel(), formula.ravel(), strict=True):
        assert least <= got <= least * (1 + Fraction(1, 2**40)) + 4 * (n + 4) * ETA
    for signs in (1, -1):  # corners of both enclosures
        assert_encloses(found, (EXACT(a) + signs * xa) @ (EXACT(b) + xb))


@pytest.mark.parametrize("radii", [False, True])
def test_products_of_what_rounding_swallows(radii):
    a = np.array([SMALL, [1.0, *[-(2.0**-54)] * 6]])
    ones = np.ones((7, 1))
    ra = np.full(a.shape, 2.0**-60) if radii else None
    rb = np.full(ones.shape, 2.0**-55) if radii else None
    found = directed.product(Matrix(a, ra), Matrix(ones, rb))
    for first, second in itertools.product((1, -1), repeat=2):
        shift = 0 if ra is None else first * EXACT(ra)
        other = 0 if rb is None else second * EXACT(rb)
        assert_encloses(found, (EXACT(a) + shift) @ (EXACT(ones) + other))


@pytest.mark.parametrize("n", [1, 40, 1000])
def test_products_of_radii_grow_by_gamma(n):
    one, none = np.zeros((1, n)), np.zeros((n, 1))
    one[0, 0] = 1.0
    radius = one.T.copy()
    # a computed sum may be gamma_n too small: |A| R_B, R_A |B| and R_A R_B, each 1 here
    for a, ra, b, rb in ((one, None, none, radius), (one * 0, one, radius, None)):
        found = directed.product(Matrix(a, ra), Matrix(b, rb))
        assert Fraction(found.radius[0, 0]) >= 1 / (1 - gamma_of(n))
    found = directed.product(Matrix(one * 0, one), Matrix(none, radius))
    assert Fraction(found.radius[0, 0]) >= 1 / (1 - gamma_of(n))


def test_products_pay_for_underflow():
    a, b = np.full((1, 6), 2.0**-537), np.full((6, 1), 1.5 * 2.0**-538)
    found = directed.product(Matrix(a), Matrix(b))
    assert_encloses(found, EXACT(a) @ EXACT(b))
    zero = directed.product(Matrix(a * 2.0**-60), Matrix(b))
    assert_encloses(zero, EXACT(a * 2.0**-60) @ EXACT(b))
    assert zero.midpoint[0, 0] == 0.0


def test_scaled_rows_pay_for_one_rounding():
    factors, other = (
        np.array([TIE[0], 2.0**-537, 3.0]),
        np.array([[TIE[1]], [1.25 * 2.0**-537], [1]]),
    )
    exact = EXACT(factors)[:, None] * EXACT(other)
    assert_encloses(directed.scale_rows(factors, Matrix(other)), exact)
    radius = np.array([[2.0**-40], [2.0**-539], [2.0**-54]])
    found = directed.scale_rows(-factors, Matrix(other, radius))
    for sign in (1, -1):
        assert_encloses(found, -EXACT(factors)[:, None] * (EXACT(other) + sign * EXACT(radius)))
    rounding = U * abs(EXACT(found.midpoint))
    assert (EXACT(found.radius) >= rounding + EXACT(factors)[:, None] * EXACT(radius)).all()


def test_sums_pay_for_one_rounding():
    a = Matrix(np.array([[1.0, 1.0, 2.0**-1021, 1.0]]), np.array([[0.0, 2.0**-53, 0.0, 1e-3]]))
    b = Matrix(np.array([[2.0**-53, 2.0**-53, 5e-324, -1.0]]), np.array([[0.0, 2.0**-54, 0, 1e-9]]))
    for other, sign in ((directed.total(a, b), 1), (directed.difference(a, b), -1)):
        for corner in (1, -1):
            value = EXACT(a.midpoint) + corner * EXACT(a.radius)
            value = value + sign * (EXACT(b.midpoint) + corner * sign * EXACT(b.radius))
            assert_encloses(other, value)
    plain = directed.total(Matrix(a.midpoint), Matrix(b.midpoint))
    assert_encloses(plain, EXACT(a.midpoint) + EXACT(b.midpoint))


@pytest.mark.parametrize("diagonal_middle", [True, False])
def test_congruences_are_symmetric_enclosures(diagonal_middle):
    rng = np.random.default_rng(3)
    w, r = rng.standard_normal((4, 3)), rng.random((4, 3)) * 1e-3
    whole = rng.standard_normal((4, 4))
    whole = np.tril(whole) + np.tril(whole, -1).T
    middle = np.diag(whole).copy() if diagonal_middle else Matrix(whole)
    found = directed.congruence(Matrix(w, r), middle)
    centre = np.diag(EXACT(middle)) if diagonal_middle else EXACT(whole)
    for sign in (1, -1, 0):
        corner = EXACT(w) + sign * EXACT(r)
        assert_encloses(found, corner.T @ centre @ corner)
    np.testing.assert_array_equal(found.midpoint, found.midpoint.T)
    np.testing.assert_array_equal(found.radius, found.radius.T)


# --- scaling by powers of two, reciprocals ------------------------------------------------------


def test_scaling_that_loses_bits_says_so():
    tiny = np.array([[3.0, 5.0, 4.0]]) * 2.0**-1074
    found = Matrix(tiny).scaled(-1)
    assert_encloses(found, EXACT(tiny) / 2)
    assert found.radius[0, 2] == 0.0
    both = Matrix(tiny, tiny).scaled(-1)
    assert_encloses(both, EXACT(tiny))  # midpoint and radius: up to tiny / 2 + tiny / 2
    assert_encloses(both, 0 * EXACT(tiny))
    assert Matrix(np.array([[0.1, -3.0]])).scaled(-40).radius is None
    kept = Matrix(np.array([[1.0]]), np.array([[5.0 * 2.0**-1074]])).scaled(-1)
    assert Fraction(kept.radius[0, 0]) >= Fraction(5, 2) * ETA


def test_numbers_that_float64_rounds_are_refused():
    wide = np.longdouble(1) + np.longdouble(2) ** -60
    for values in ([[2**53 + 1]], *([[[wide]]] if wide != 1 else [])):
        with pytest.raises(InputError, match="exact"):
            Matrix.of(np.array(values))


def test_reciprocals_pay_for_their_rounding_and_their_radius():
    column = np.array([[3.0], [1.0 - 2.0**-53], [49.0], [1e-300], [1.7e308], [4.0]])
    found = diagonal.reciprocal(Matrix(column))
    assert_encloses(found, 1 / EXACT(column))
    assert found.radius[-1, 0] == 0.0
    radius = column * np.array([[1e-3], [0.5], [2.0**-53], [1e-2], [2.0**-52], [0.25]])
    found = diagonal.reciprocal(Matrix(column, radius))
    for sign in (1, -1):
        assert_encloses(found, 1 / (EXACT(column) + sign * EXACT(radius)))
    with np.errstate(divide="ignore"):
        assert diagonal.reciprocal(Matrix(column, column)).radius.min() == np.inf  # holds zero


@pytest.mark.parametrize("wide", [False, True])
def test_interval_diagonals_times_interval_matrices(wide):
    column = np.array([[TIE[0]], [3.0], [0.5], [0.5], [0.0]])
    other = np.array([[TIE[1], 1.0], [1.0 / 3.0, 7.0], [3.0, 5.0], [5e-324, 1.0], [0.1, 0.3]])
    spread = column * 0.25 if wide else None
    radius = other * 0.5 if wide else None
    found = diagonal.times(Matrix(column, spread), Matrix(other, radius))
    for sign in (1, -1):
        c = EXACT(column) + (sign * EXACT(spread) if wide else 0)
        assert_encloses(found, c * (EXACT(other) + (sign * EXACT(radius) if wide else 0)))
        assert_encloses(found, c * (EXACT(other) - (sign * EXACT(radius) if wide else 0)))


def test_no_radius_only_where_nothing_was_rounded():
    ones = np.ones((2, 2))
    assert diagonal.scaled(np.array([0.5, -4.0]), Matrix(ones)).radius is None
    assert diagonal.scaled(np.array([0.0, 2.0]), Matrix(ones)).radius is None
    assert diagonal.scaled(np.array([0.5, 3.0]), Matrix(ones)).radius is not None
    tiny = diagonal.scaled(np.array([0.5]), Matrix(np.array([[5e-324]])))
    assert_encloses(tiny, EXACT([[5e-324]]) / 2)
    kept = diagonal.scaled(np.array([0.5]), Matrix(ones[:1], ones[:1]))
    assert Fraction(kept.radius[0, 0]) >= Fraction(1, 2)


# --- Cholesky -----------------------------------------------------------------------------------


@pytest.fixture
def factored(monkeypatch):
    """The matrices that were handed to the factorisation."""
    seen = []
    plain = np.linalg.cholesky

    def spy(matrix):
        seen.append(np.array(matrix, copy=True))
        return plain(matrix)

    monkeypatch.setattr(np.linalg, "cholesky", spy)
    return seen


def symmetric(values):
    return np.tril(values) + np.tril(values, -1).T


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("wide", [False, True])
def test_the_shift_before_cholesky_is_that_of_demmel_and_rump(factored, stacked, n, wide):
    rng = np.random.default_rng(n)
    a = symmetric(rng.standard_normal((n, n)) / (8 * n)) + np.diag(1.0 + 2.9 * rng.random(n))
    radius = symmetric(rng.random((n, n)) / (20 * n)) if wide else np.zeros((n, n))
    powers = rng.integers(-20, 20, n)  # rows and columns are scaled back, without error
    scale = np.ldexp(1.0, powers)[:, None] * np.ldexp(1.0, powers)[None, :]
    if stacked:
        assert stack_failure((a * scale)[None], (radius * scale)[None]) == ""
        lowered = np.diagonal(factored[0][0])
    else:
        assert definiteness(a * scale, radius * scale if wide else None)
        lowered = np.diagonal(factored[0])
    # |R^T R - B| <= g / (1 - g) sqrt(b_ii b_jj) with g = gamma_{n+1} for the textbook's algorithm,
    # n + 8 for reciprocals; the norm of such a matrix is n times as large; Gershgorin's row sums.
    g = gamma_of(n + 8)
    shift = n * g / (1 - g) * EXACT(np.diagonal(a)) + EXACT(radius).sum(axis=1)
    given = EXACT(np.diagonal(a)) - EXACT(lowered)
    assert (given >= shift).all()
    growth = 1 + 2 * gamma_of(n + 2)
    assert (given <= shift * growth * (1 + 64 * U) + 16 * 2 * U).all()


def test_indefinite_matrices_whose_factorisation_runs_to_completion():
    rng = np.random.default_rng(0)
    deceived = 0
    for _ in range(INDEFINITE_TRIALS):
        n = int(rng.integers(3, 12))
        factor = rng.integers(-20, 21, (n, n - 1)).astype(float)
        # A multiple of the identity below a singular matrix of integers: lambda_min is -delta.
        matrix = factor @ factor.T - 2.0 ** -int(rng.integers(42, 45)) * np.eye(n)
        try:
            done = np.isfinite(np.linalg.cholesky(matrix)).all()
        except np.linalg.LinAlgError:
            done = False
        deceived += bool(done)
        assert not is_positive_definite(matrix)
        assert stack_failure(matrix[None], np.zeros((1, n, n)))
    assert deceived > 5


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_radii_that_reach_a_singular_matrix(n):
    eye = np.eye(n)
    for share, proved in ((1.0 / n, False), ((1 - 1e-9) / n, True)):
        radius = np.full((n, n), share)
        assert is_positive_definite(eye, radius) is proved
        assert (stack_failure(eye[None], radius[None]) == "") is proved


@pytest.mark.parametrize(
    ("matrix", "radius", "word"),
    [
        ([[1.0, 0.9], [0.9, 1.0]], [[-0.5, 0.0], [0.0, -0.5]], "negative"),
        ([[1.0, 0.0], [0.9, 1.0]], np.zeros((2, 2)), "not symmetric"),
        (np.eye(2), [[0.0, 0.9], [0.0, 0.0]], "not symmetric"),
        ([[np.nan]], [[0.0]], "finite"),
        ([[1.0]], [[np.inf]], "finite"),
        ([[0.0]], [[0.0]], "not positive"),
        ([[1.0, 9.0], [9.0, 1.0]], np.zeros((2, 2)), "exceeds"),
        ([[1.0]], [[1.0]], "exceeds"),
        ([[1.0, 1.0], [1.0, 1.0]], np.zeros((2, 2)), "breaks down"),
    ],
)
def test_stacks_are_refused_for_one_bad_matrix(matrix, radius, word):
    stack = np.stack([np.eye(len(matrix)), np.array(matrix)])
    radii = np.stack([np.zeros((len(matrix), len(matrix))), np.array(radius)])
    assert word in stack_failure(stack, radii)


# --- norms --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 2.0**-540, 2.0**500, 3.0 * 2.0**-1060])
def test_norms_of_rows_that_rounding_swallows(scale):
    for row in (
        SMALL,
        [1.0, *[2.0**-27] * 6],
        [1.0, *[1.4 * 2.0**-27] * 6],
        [0.1, 0.3],
        [TIE[0], 1],
    ):
        values = np.array([row]) * scale
        square = sum(Fraction(v) ** 2 for v in values.ravel())
        for matrix in (values, values.T):
            assert Fraction(norms.spectral_norm_bound(matrix)) ** 2 >= square
            plain = matrix / scale
            assert Fraction(norms._frobenius_norm(plain)) ** 2 >= (EXACT(plain) ** 2).sum()
            assert Fraction(norms._crude_norm(plain)) ** 2 >= EXACT(plain).sum() * Fraction(
                max(plain.ravel())
            )


def test_norms_of_enclosures():
    one, radius = np.array([[1.0]]), np.array([[2.0**-60]])
    assert Fraction(norms.spectral_norm_bound(one, radius)) >= 1 + Fraction(1, 2**60)
    wide = np.full((3, 3), 0.25)
    assert norms.spectral_norm_bound(np.eye(3), wide) >= 1.75
    assert norms.spectral_norm_bound(np.zeros((3, 3)), wide) >= 0.75


@pytest.mark.parametrize("share", [0.5, 0.8, 1 - 1e-9])
def test_norms_do_not_trust_the_singular_values(monkeypatch, share):
    plain = np.linalg.norm
    monkeypatch.setattr(np.linalg, "norm", lambda *args: share * plain(*args))
    assert norms.spectral_norm_bound(np.array([[3.0, 0.0], [0.0, 1.0]])) >= 3.0
    assert norms.spectral_norm_bound(np.array([[3.0, 4.0], [4.0, -3.0]])) >= 5.0


BELOW = math.nextafter(1.0, 0.0)


@pytest.mark.parametrize(
    ("matrix", "norm", "proved"),
    [
        ([[1.0]], 1.0, True),
        ([[1.0]], BELOW, False),
        ([[1.0, 2.0**-27]], 1.0, False),
        ([[1.0, 2.0**-40]], 1.0, False),
        (np.eye(3), 1.0 + 32 * EPS, True),
        (np.eye(3), BELOW, False),
        (np.eye(3) + np.eye(3, k=1) * 2.0**-60, 1.0, False),
        ([[0.0, 4.0], [4.0, 0.0]], 4.0 + 64 * EPS, True),
        ([[1.0, 1.0], [1.0, 1.0]], math.nextafter(2.0, 0.0), False),
        ([[0.1, 0.2], [0.2, 0.4]], 0.5, False),  # 0.50000000000000004...
        ([[0.0]], 0.0, True),
    ],
)
def test_norms_at_their_very_value(matrix, norm, proved):
    assert norm_is_at_most(Matrix(np.array(matrix, dtype=float)), norm) is proved


def test_the_radius_counts_in_a_claimed_norm():
    one, tiny = np.array([[1.0]]), np.array([[2.0**-60]])
    assert not norm_is_at_most(Matrix(one, tiny), 1.0)
    assert norm_is_at_most(Matrix(one, tiny), 1.0 + 4 * EPS)
    assert not norm_is_at_most(Matrix(np.zeros((1, 1)), one), BELOW)
    assert not norm_is_at_most(Matrix(np.zeros((2, 2)), np.ones((2, 2))), 1.5)


def test_exact_squares():
    for values in ([0.1, 1e300, -5e-324], SMALL, [2.0**-1074, 3.0]):
        assert exact_square(np.array(values)) == sum(Fraction(v) ** 2 for v in values)


def product_holds(bound, factors, slopes, **options):
    weights = [Matrix(np.ones((2, 2)))] * len(factors)
    try:
        require_product(weights, slopes, ProductWitness(bound, tuple(factors), **options))
    except NotProvedError:
        return False
    return True


@pytest.mark.parametrize(
    ("factors", "slope", "options", "square"),
    [
        ((0.1, 0.3), 1.0, {}, (Fraction(0.1) * Fraction(0.3)) ** 2),
        ((1.1, 1.3), 1.1, {}, (Fraction(1.1) * Fraction(1.3) * Fraction(1.1)) ** 2),
        ((1.1, 1.3), 1.0, {"norm": "inf"}, 2 * (Fraction(1.1) * Fraction(1.3)) ** 2),
        ((1.1, 1.3), 1.0, {"norm": "1"}, (Fraction(1.1) * Fraction(1.3)) ** 2),
        ((1.1, 1.3), 1.0, {"output": "1"}, 2 * (Fraction(1.1) * Fraction(1.3)) ** 2),
        ((1.1, 0.7), 1.0, {"output": "inf"}, (Fraction(1.1) * Fraction(0.7)) ** 2),
        (
            (1.1, 1.3),
            1.0,
            {"output": "margin", "margin": (0, 1), "norm": "inf"},
            4 * (Fraction(1.1) * Fraction(1.3)) ** 2,
        ),
    ],
)
def test_products_of_norms_to_the_last_bit(factors, slope, options, square):
    bound = math.sqrt(square)
    while Fraction(bound) ** 2 >= square:
        bound = math.nextafter(bound, 0.0)
    slopes = [Slopes(-slope, 0.5)]  # the largest slope in absolute value counts
    assert not product_holds(bound, factors, slopes, **options)
    assert product_holds(math.nextafter(bound, math.inf), factors, slopes, **options)


def test_residual_blocks_add_one():
    block = [Residual(Slopes(0.0, 1.0), Matrix(np.eye(2) * 2.0))]
    assert not product_holds(math.nextafter(3.0, 0.0), (1.0, 1.0), block)
    assert product_holds(3.0001, (1.0, 1.0), block)
    assert not product_holds(math.nextafter(2.0, 0.0), (1.0, 1.0), [Residual(Slopes(0.0, 1.0))])


# --- both ends of a chain -----------------------------------------------------------------------


def head(bound, norm, values, n, scale=0):
    witness = ChainWitness(bound, (), (), (), norm=norm, head=(np.array(values),))
    return ends.first_storage(witness, n, scale)


@pytest.mark.parametrize("bound", [TIE[0], 0.1, 1.0 + EPS, 3e-200, 1e200])
@pytest.mark.parametrize("shift", [0, 3, -5])
def test_the_square_of_the_claim_is_rounded_downward(bound, shift):
    scale = math.frexp(bound)[1] + shift
    square = Fraction(bound) ** 2 / Fraction(4) ** scale
    found = ends.first_storage(ChainWitness(bound, (), (), ()), 2, scale)
    assert found.radius is None
    assert square * (1 - 4 * U) <= Fraction(found.midpoint[0, 0]) <= square
    assert found.midpoint[0, 1] == 0.0


def test_heads_that_exceed_the_claim_by_a_rounding():
    square = math.nextafter(1.0, 0.0)  # what is left of 1.0 squared, rounded downward
    with pytest.raises(NotProvedError, match="sum"):
        head(1.0, "inf", [square, 2.0**-60, 2.0**-60], 3)
    head(1.0, "inf", [0.5, 0.25, 0.125], 3)
    for values in ([1.0 + EPS, 0.0], [1.0, -1.0 - EPS]):
        with pytest.raises(NotProvedError):
            head(1.0, "inf", values, 2)
    with pytest.raises(NotProvedError, match="diagonal"):
        head(1.0, "1", [[1.0, 0.0], [0.0, 1.0]], 2)  # 1.0 exceeds the square rounded downward
    head(1.0, "1", [[square, 5.0], [5.0, square]], 2)


def tail(values):
    witness = ChainWitness(1.0, (), (), (), output="1", tail=(np.array(values),))
    return ends.last_storage(witness, Matrix(np.ones((len(values), 1))), None)


def test_tails_whose_inverses_exceed_one_by_a_rounding():
    tail([3.0001, 3.0001, 3.0001])
    for values in ([3.0, 3.0, math.nextafter(3.0, 0.0)], [1.0, 1e30], [2.0, 2.0, 1e20]):
        assert sum(1 / Fraction(v) for v in values) > 1
        with pytest.raises(NotProvedError, match="more than one"):
            tail(values)
    with pytest.raises(NotProvedError, match="positive"):
        tail([2.0, -5.0])
