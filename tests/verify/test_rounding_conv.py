"""Convolutions by frequency: symbols, blocks and the mean of a head, against exact numbers."""

import itertools
import math
from fractions import Fraction
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest

from tangency.models.errors import InputError, NotProvedError
from tangency.verify.certificate import conv, conv_blocks, conv_norm, conv_symbol
from tangency.verify.certificate.conv_norm import conv_norm_bound, conv_norm_is_at_most
from tangency.verify.certificate.conv_pieces import FrequencyWitness, check_frequencies
from tangency.verify.certificate.conv_symbol import ConvLayer, Symbol
from tangency.verify.certificate.layers import Slopes

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


@pytest.fixture
def _many_digits():
    with mpmath.workprec(300):
        yield


@pytest.mark.usefixtures("_many_digits")
def test_tables_of_turns_are_correctly_rounded():
    for n in (1, 2, 3, 8, 12, 30, 97):
        cosines, sines = conv_symbol._turns(n)
        for m in range(n):
            angle = 2 * mpmath.pi * m / n
            for got, value in ((cosines[m], mpmath.cos(angle)), (sines[m], mpmath.sin(angle))):
                assert abs(mpmath.mpf(float(got)) - value) <= abs(value) * 2.0**-53 + 2.0**-180


@pytest.mark.usefixtures("_many_digits")
@pytest.mark.parametrize(
    ("torus", "stride"), [((5, 3), (1, 1)), ((4, 6), (1, 1)), ((3, 4), (2, 1))]
)
def test_symbols_hold_the_exact_ones(torus, stride):
    rng = np.random.default_rng(0)
    layer = ConvLayer(rng.standard_normal((2, 2, 2, 3)), stride=stride)
    found = conv_symbol.symbol(layer, torus)
    offsets, values = layer.taps()
    count = len(offsets)
    for f, (j1, j2) in enumerate(conv_symbol.frequencies(torus).tolist()):
        real, imag, size = (np.zeros(found.real.shape[1:], dtype=object) for _ in range(3))
        for (q1, q2), tap in zip(offsets.tolist(), values, strict=True):
            turns = j1 * q1 * torus[1] + j2 * q2 * torus[0]
            angle = 2 * mpmath.pi * turns / (torus[0] * torus[1])
            tap = np.vectorize(mpmath.mpf, otypes=[object])(tap)
            real, imag = real + mpmath.cos(angle) * tap, imag + mpmath.sin(angle) * tap
            # gamma of as many terms as there are taps, and one rounding of a cosine
            cosine = abs(mpmath.cos(angle))
            rounded = abs(cosine - mpmath.nint(cosine)) > mpmath.mpf(2) ** -200
            size = size + abs(tap) * cosine * (count + int(rounded))
        for got, radius, value in (
            (found.real[f], found.real_radius[f], real),
            (found.imag[f], found.imag_radius[f], imag),
        ):
            gap = abs(np.vectorize(mpmath.mpf, otypes=[object])(got) - value)
            assert (gap <= radius + mpmath.mpf(2) ** -250).all()  # the reference's own rounding
        least = mpmath.mpf(2) ** -53 * size * (1 - mpmath.mpf(2) ** -40)
        assert (found.real_radius[f] >= least).all()


@pytest.mark.parametrize(
    ("kernel", "size", "norm"),
    [([[1.0]], (2, 2), 1.0), ([[0.5, 0.5]], (1, 6), 1.0), ([[3.0]], (2, 2), 3.0)],
)
def test_norms_of_convolutions_at_their_very_value(kernel, size, norm):
    layer = ConvLayer(np.array([[kernel]]))
    assert not conv_norm_is_at_most(layer, size, math.nextafter(norm, 0.0))
    assert conv_norm_is_at_most(layer, size, norm * (1 + 1e-9))
    assert conv_norm_bound(layer, size) >= norm
    dense = ConvLayer(np.ones((1, 1, 1, 2)))  # as large as its image: a matrix
    assert not conv_norm_is_at_most(dense, (1, 2), 1.414)


def corners(rng, f, n, m, width=2.0**-20):
    """A symbol, and the exact matrices at some of its corners."""
    parts = [rng.standard_normal((f, n, m)) for _ in range(2)]
    radii = [rng.random((f, n, m)) * width for _ in range(2)]
    exact_parts = [
        [EXACT(v) + sign * EXACT(r) for v, r in zip(parts, radii, strict=True)]
        for sign in (-1, 0, 1)
    ]
    return Symbol(*parts, *radii), exact_parts


def hermitian(rng, f, n):
    values = rng.standard_normal((f, n, n)) + 1j * rng.standard_normal((f, n, n))
    return values + values.conj().swapaxes(1, 2)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [([0.0, 0.0], [1.0, 1.0]), ([-0.1, 0.0], [0.7, 0.3]), ([-0.3, -0.1], [0.0, 1.1])],
)
@pytest.mark.parametrize("width", [0.0, 2.0**-20])
def test_blocks_of_slopes(lower, upper, width):
    rng = np.random.default_rng(4)
    inner, exact_parts = corners(rng, 2, 2, 3, width)
    after, strength = hermitian(rng, 2, 2), np.array([0.7, 1.3])
    layer = conv_blocks.Sloped(np.array(lower), np.array(upper), strength)
    stacked, real, imag, spread = conv_blocks.sloped_blocks(inner, after, layer)
    a, b, lam = EXACT(lower), EXACT(upper), EXACT(strength)
    held = np.flatnonzero((a != 0) & (b != 0))
    extra = EXACT(np.array([real[0, 2 + k, 2 + k] for k in range(len(held))]))
    # Any H >= -2 ab Lambda serves, which stands for itself in both places.
    assert (extra >= (-2 * a * b * lam)[held]).all()
    for w_real, w_imag in exact_parts:
        for got, radius, w in (
            (stacked.real, stacked.real_radius, w_real),
            (stacked.imag, stacked.imag_radius, w_imag),
        ):
            rows = [(lam * (a + b))[None, :, None] * w, extra[None, :, None] * w[:, held]]
            assert (abs(EXACT(got) - np.concatenate(rows, axis=1)) <= EXACT(radius)).all()
    # three roundings: a + b, times lambda, times the symbol
    rounded = np.flatnonzero((a != 0) | ((b != 0) & (b != 1)))
    least = 3 * U * abs(EXACT(stacked.real[:, rounded])) * (1 - 8 * U)
    assert (EXACT(stacked.real_radius[:, rounded]) >= least).all()
    for f in range(2):
        below = EXACT(np.zeros(real[f].shape))
        below[:2, :2] = np.diag(2 * lam) - EXACT(after.real[f])
        for k, h in enumerate(extra):
            below[2 + k, 2 + k] = h
        assert (abs(EXACT(real[f]) - below) <= EXACT(spread[f])).all()
    np.testing.assert_array_equal(imag[:, :2, :2], -after.imag)


@pytest.mark.parametrize("size", [2, 3])
def test_blocks_of_sorting(size):
    rng = np.random.default_rng(4)
    n = 2 * size
    inner, exact_parts = corners(rng, 2, n, 3)
    after, strength = hermitian(rng, 2, n), np.array([0.7, 1.3])
    kept = rng.standard_normal((2, n))
    layer = conv_blocks.Sorted(size, strength, kept)
    stacked, real, imag, spread = conv_blocks.sorted_blocks(inner, after, layer)
    sums = EXACT(np.kron(np.eye(2), np.ones((1, size))))
    pairs = [
        (g * size + i, g * size + j, g)
        for g in range(2)
        for i, j in itertools.combinations(range(size), 2)
    ]
    apart = EXACT(np.zeros((len(pairs), n)))
    for k, (i, j, _) in enumerate(pairs):
        apart[k, i], apart[k, j] = Fraction(1), Fraction(-1)
    lam = EXACT([strength[g] for _, _, g in pairs])
    k = EXACT(kept)
    for w_real, w_imag in exact_parts:
        for got, radius, w in (
            (stacked.real, stacked.real_radius, w_real),
            (stacked.imag, stacked.imag_radius, w_imag),
        ):
            for f in range(2):
                rows = np.vstack([k.T @ (sums @ w[f]), lam[:, None] * (apart @ w[f])])
                assert (abs(EXACT(got[f]) - rows) <= EXACT(radius[f])).all()
    free = sums.T @ k + k.T @ sums + apart.T @ (lam[:, None] * apart)
    for f in range(2):
        below = EXACT(np.zeros(real[f].shape))
        below[:n, :n] = free - EXACT(after.real[f])
        for i, value in enumerate(lam):
            below[n + i, n + i] = value
        assert (abs(EXACT(real[f]) - below) <= EXACT(spread[f])).all()
    np.testing.assert_array_equal(imag[:, :n, :n], -after.imag)


def test_bordered_matrices_are_those_of_their_blocks():
    rng = np.random.default_rng(6)
    stacked, _ = corners(rng, 1, 2, 3)
    before, below = hermitian(rng, 1, 3), hermitian(rng, 1, 2)
    spread = rng.random((1, 2, 2))
    found, radius = conv_blocks.bordered(before, (stacked, below.real, below.imag, spread))
    v = stacked.real + 1j * stacked.imag
    whole = np.block([[before[0], v[0].conj().T], [v[0], below[0]]])
    wide = np.block(
        [[np.zeros((3, 3)), stacked.real_radius[0].T], [stacked.real_radius[0], spread[0]]]
    )
    cross = np.block(
        [
            [np.zeros((3, 3)), stacked.imag_radius[0].T],
            [stacked.imag_radius[0], np.zeros((2, 2))],
        ]
    )
    np.testing.assert_array_equal(
        found[0], np.block([[whole.real, -whole.imag], [whole.imag, whole.real]])
    )
    np.testing.assert_array_equal(radius[0], np.block([[wide, cross], [cross, wide]]))


def test_the_mean_of_a_head_is_summed_with_its_rounding(monkeypatch):
    seen = []
    plain = conv.definiteness

    def spy(midpoint, radius):
        seen.append((midpoint, radius))
        return plain(midpoint, radius)

    monkeypatch.setattr(conv, "definiteness", spy)
    rng = np.random.default_rng(8)
    torus = (5, 4)
    half = conv_symbol.frequencies(torus)
    head = hermitian(rng, len(half), 2) * 0.01
    conv._require_mean(head, torus)
    total, size = EXACT(np.zeros((2, 2))), EXACT(np.zeros((2, 2)))
    for (j1, j2), j in zip(half.tolist(), head, strict=True):
        own = (2 * j1) % torus[0] == 0 and (2 * j2) % torus[1] == 0
        total = total + (1 if own else 2) * EXACT(j.real)
        size = size + (1 if own else 2) * abs(EXACT(j.real))
    midpoint, radius = seen[0]
    value = EXACT(20.0 * np.eye(2)) - total
    assert (abs(EXACT(midpoint) - value) <= EXACT(radius)).all()
    count = len(half)
    formula = count * U / (1 - count * U) * size + U * abs(EXACT(midpoint))
    assert (EXACT(radius) >= formula).all()


@pytest.mark.parametrize("share", [1.0, ABOVE])
def test_heads_of_mean_one_are_refused(share):
    torus = (4, 4)
    head = np.full((len(conv_symbol.frequencies(torus)), 1, 1), share, complex)
    with pytest.raises(NotProvedError, match="mean"):
        conv._require_mean(head, torus)
    conv._require_mean(head * (1 - 1e-9), torus)


def test_a_chain_of_convolutions_below_the_truth_is_refused():
    one = ConvLayer(np.ones((1, 1, 1, 1)))
    storage = np.full((10, 1, 1), 1.0 + 1e-9, complex)
    for square in (1.0, BELOW, ABOVE):
        witness = conv.ConvWitness(square, (4, 4), (0, 0), (np.array([1.004]),), (storage,))
        with pytest.raises(NotProvedError):
            conv.check_conv([one, one], [Slopes(0.0, 1.0)], (4, 4), witness)
    for square in (1.3, 1.4, 1.5, 1.6, 1.7, 2.0, 3.0):
        witness = conv.ConvWitness(square, (4, 4), (0, 0), (np.array([1.004]),), (storage,))
        found = conv.check_conv([one, one], [Slopes(0.0, 1.0)], (4, 4), witness)
        assert Fraction(found) ** 2 >= Fraction(square)


def checked(slopes=(0.0, 1.0), strength=1.004, torus=(4, 4), count=10):
    one = ConvLayer(np.ones((1, 1, 1, 1)))
    storage = np.full((count, 1, 1), 1.0 + 1e-9, complex)
    witness = conv.ConvWitness(4.0, torus, (0, 0), (np.array([strength]),), (storage,))
    return conv.check_conv([one, one], [Slopes(*slopes)], (4, 4), witness)


def test_what_the_proof_by_frequency_presumes():
    assert checked() >= 2.0
    for slopes in ((0.1, 1.0), (-1.0, -0.1)):  # the mask gives zero outside of the image
        with pytest.raises(InputError, match="must hold zero"):
            checked(slopes=slopes)
    for strength in (-1.004, -1e-300, math.nan):
        with pytest.raises(NotProvedError, match="not 1 numbers >= 0"):
            checked(strength=strength)
    with pytest.raises(NotProvedError, match="too small"):  # it would wrap round into the input
        checked(torus=(3, 3), count=5)


@pytest.mark.parametrize("name", ["real", "imag", "real_radius", "imag_radius"])
def test_all_of_a_symbol_counts_in_its_norm(name):
    parts = dict.fromkeys(("real", "imag", "real_radius", "imag_radius"), np.zeros((1, 2, 2)))
    assert conv_norm._holds(Symbol(**parts), 0.9)
    parts[name] = np.array([[[0.0, 1.0], [0.0, 0.0]]])
    assert not conv_norm._holds(Symbol(**parts), 0.9)
    assert conv_norm._holds(Symbol(**parts), 1.1)


def test_products_of_pieces_to_the_last_bit():
    for first, second in ((0.1, 0.3), (1.1, 1.3), (0.7, 0.9), (1.7, 0.3), (2.3, 0.1)):
        exact = Fraction(first) * Fraction(second)
        bound = float(exact)
        while Fraction(bound) >= exact:
            bound = math.nextafter(bound, 0.0)
        for claim, proved in ((bound, False), (math.nextafter(bound, 9.0), True)):
            witness = FrequencyWitness(claim, ((first,), (second,)))
            try:
                found = check_frequencies([first, second], witness) == claim
            except NotProvedError:
                found = False
            assert found is proved


def test_runs_by_norms_count_their_slopes():
    layers = [ConvLayer(np.ones((1, 1, 1, 1)))] * 2
    run = SimpleNamespace(layers=layers, activations=[Slopes(-3.0, 1.0)], size=(2, 2))
    norms = (1.0 + 1e-9, 1.0 + 1e-9)
    with pytest.raises(NotProvedError, match="exceeds"):
        check_frequencies([run], FrequencyWitness(2.9, (norms,)))
    assert check_frequencies([run], FrequencyWitness(3.1, (norms,))) == 3.1


def test_the_smallest_torus_wraps_nothing_into_the_input():
    # An output at i reads s i + d t - p: no two of these may meet the input modulo s T.
    for n, k, s, d, before, after in itertools.product(
        (4, 7), (1, 3), (1, 2, 3), (1, 2), (0, 1, 2), (0, 2)
    ):
        layer = ConvLayer(np.ones((1, 1, 1, k)), (1, s), ((0, 0), (before, after)), (1, d))
        if n + before + after < d * (k - 1) + 1:
            continue
        torus, out = layer.torus((1, n))[1], layer.output_size((1, n))[1]
        for i, t in itertools.product(range(out), range(k)):
            place = s * i + d * t - before
            if not 0 <= place < n:
                assert not 0 <= place % (s * torus) < n
        assert torus >= out
