"""Slopes at kinks, against exact arithmetic: random formulas, and the whole catalogue.

The reference is arithmetic of *germs*: numbers ``a + b e + c e^2`` with rational coefficients and
an infinitesimal ``e > 0``. A formula of rational operations and choices is evaluated just beside a
point, where every comparison has one exact result; ``b`` is then the exact one-sided slope.
"""

import functools
import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from tangency.models import InputError, from_layers
from tangency.models.activations import Activation, get, names
from tangency.models.activations.continuity import Join, continuity
from tangency.models.activations.jets import jet
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval
from tangency.verify import Box, jacobian_bounds, lipschitz_bound, local_lipschitz

INF = math.inf


class Germ:
    """A number beside a rational point; ordered as the numbers for a small enough ``e``."""

    def __init__(self, *terms):
        self.terms = terms

    def like(self, x):
        """``x`` as a germ of as many terms."""
        if isinstance(x, Germ):
            return x.terms
        return (Fraction(x), *(Fraction(0),) * (len(self.terms) - 1))

    def __add__(self, other):
        return Germ(*(a + b for a, b in zip(self.terms, self.like(other), strict=True)))

    __radd__ = __add__

    def __neg__(self):
        return Germ(*(-a for a in self.terms))

    def __sub__(self, other):
        return Germ(*(a - b for a, b in zip(self.terms, self.like(other), strict=True)))

    def __rsub__(self, other):
        return -self + other

    def __mul__(self, other):
        if not isinstance(other, Germ):
            return Germ(*(a * Fraction(other) for a in self.terms))
        a, b = self.terms, other.terms
        return Germ(*(sum(a[i] * b[n - i] for i in range(n + 1)) for n in range(len(a))))

    __rmul__ = __mul__

    def __truediv__(self, other):
        a, b, out = self.terms, self.like(other), []
        for n in range(len(a)):
            out.append((a[n] - sum(out[i] * b[n - i] for i in range(n))) / b[0])
        return Germ(*out)

    @property
    def sign(self):
        return next(((c > 0) - (c < 0) for c in self.terms if c), 0)

    def __lt__(self, other):
        return (self - other).sign < 0

    def __le__(self, other):
        return (self - other).sign <= 0

    def __gt__(self, other):
        return (self - other).sign > 0

    def __ge__(self, other):
        return (self - other).sign >= 0


class Rational:
    """The vocabulary, as far as it is rational, on germs of some number of terms."""

    def __init__(self, x):
        self.of = lambda y: y if isinstance(y, Germ) else Germ(*x.like(y))

    def where(self, condition, a, b):
        return self.of(a if condition else b)

    def maximum(self, a, b):
        return self.of(b if a <= b else a)

    def minimum(self, a, b):
        return self.of(b if a > b else a)

    def abs(self, x):
        return -x if x.sign < 0 else x

    def sign(self, x):
        return self.of(x.sign)


def germ(formula, *terms):
    x = Germ(*map(Fraction, terms))
    return formula(Rational(x), x).terms


def beside(formula, p, side):
    """Limit and slope of a formula just beside p, to the right (1) or to the left (-1)."""
    limit, slope, _ = germ(formula, p, side, 0)
    return limit, slope * side


def value_at(formula, x):
    return germ(formula, x)[0]


def holds(low, high, value):
    """Whether a rational number lies in [low, high], exactly."""
    return (low == -math.inf or Fraction(low) <= value) and (
        high == math.inf or value <= Fraction(high)
    )


def slope_range_at(formula, p):
    """Clarke's slopes at a point; infinite across a jump."""
    found = [*(beside(formula, p, side) for side in (-1, 1))]
    values = [found[0][0], value_at(formula, p), found[1][0]]
    slopes = [slope for _, slope in found]
    steps = [b - a for a, b in itertools.pairwise(values)]
    low = -math.inf if min(steps) < 0 else min(slopes)
    high = math.inf if max(steps) > 0 else max(slopes)
    return low, high


# -- random formulas ------------------------------------------------------------------------


def _number(rng):
    return float(rng.choice([rng.integers(-6, 7) / 4, round(rng.normal(), 2), rng.normal()]))


def _grown(rng, depth, marks):
    """A random formula of ``(nx, x)``; appends the floats at which its choices may switch."""
    if depth == 0:
        a, b = _number(rng), _number(rng)
        return rng.choice([lambda nx, x: x, lambda nx, x: a * x + b, lambda nx, x: x - a])
    f, g = (_grown(rng, depth - 1, marks) for _ in range(2))
    a, b, c = (_number(rng) for _ in range(3))
    kind = rng.choice(
        ["abs", "maximum", "minimum", "sum", "product", "where", "quotient", "compose", "sign"],
        p=[0.15, 0.12, 0.08, 0.1, 0.15, 0.15, 0.12, 0.08, 0.05],
    )
    if kind in ("where", "sign"):
        marks.append(c)
    made = {
        "abs": lambda nx, x: nx.abs(f(nx, x)),
        "maximum": lambda nx, x: nx.maximum(f(nx, x), g(nx, x)),
        "minimum": lambda nx, x: nx.minimum(f(nx, x), b),
        "sum": lambda nx, x: a * f(nx, x) + g(nx, x),
        "product": lambda nx, x: f(nx, x) * g(nx, x),
        # two branches that meet, and two that as a rule do not
        "where": rng.choice(
            [
                lambda nx, x: nx.where(x < c, f(nx, x), f(nx, x) + (x - c) * g(nx, x)),
                lambda nx, x: nx.where(x >= c, a * (x - c), b * (x - c)) * f(nx, x),
                lambda nx, x: nx.where(x <= c, f(nx, x), g(nx, x)),
            ],
            p=[0.5, 0.35, 0.15],
        ),
        "quotient": lambda nx, x: f(nx, x) / (1.0 + nx.abs(g(nx, x))),
        "compose": lambda nx, x: f(nx, g(nx, x)),
        "sign": rng.choice(
            [
                lambda nx, x: f(nx, x) + a * nx.sign(x - c),
                lambda nx, x: f(nx, x) * nx.sign(x - c),
            ]
        ),
    }
    return made[kind]


REACH = 2.0


def _random_record(seed, most):
    """A random formula on [-2, 2], constant beyond, as a record; and where to look at it."""
    rng = np.random.default_rng(seed)
    marks = [0.0, -REACH, REACH]
    inner = _grown(rng, int(rng.integers(min(2, most), most + 1)), marks)

    def formula(nx, x):
        return inner(nx, nx.minimum(nx.maximum(x, -REACH), REACH))

    ends = [value_at(formula, Fraction(side * (REACH + 1.0))) for side in (-1, 1)]
    enclosed = [Interval(*(float(np.nextafter(float(y), s)) for s in (-INF, INF))) for y in ends]
    limits = tuple((y, 0.0) for y in enclosed)
    record = Activation(f"random{seed}", formula, limits=limits, core=(-3.0, 3.0))
    return record, formula, sorted({*marks, *_kinks(record)})


def _kinks(record, most=6):
    """Floats at or next to kinks: where computed slopes jump, on finer and finer grids."""
    grid = np.linspace(-REACH, REACH, 129) + 2.0**-9
    jump = np.abs(np.diff(record.slope(grid)))
    found = []
    for i in np.argsort(-jump)[:most]:
        a, b = grid[i], grid[i + 1]
        while b - a > 1e-15 * max(1.0, abs(a)):
            fine = np.linspace(a, b, 9)
            k = int(np.argmax(np.abs(np.diff(record.slope(fine)))))
            a, b = fine[k], fine[k + 1]
            if np.ptp(record.slope(np.array([a, b]))) < 1e-6:
                break
        # a short fraction where there is one: most kinks are at one
        near = float(Fraction(a).limit_denominator(1000))
        found.append(near if abs(near - a) < 1e-12 else float(a))
    return found


def _boxes(marks, steps, rng):
    """Boxes that end, begin, lie at or hold a mark."""
    low, high = [], []
    for p in marks:
        for h in steps:
            low += [p, p - h, p - h]
            high += [p + h, p, p + h]
    a, b = np.sort(rng.uniform(-2.5, 2.5, (2, 5)), axis=0)
    return np.array([*low, *a]), np.array([*high, *b])


def _probes(low, high, marks):
    """Rational points of a box: its ends, the marks inside and beside them, and others."""
    a, b = Fraction(low), Fraction(high)
    points = {a, b, *((a * k + b * (8 - k)) / 8 for k in (1, 3, 6))}
    for p in map(Fraction, marks):
        for h in (Fraction(0), Fraction(1, 10**15), Fraction(1, 10**9), Fraction(1, 10**4)):
            points |= {x for x in (p - h, p, p + h) if a <= x <= b}
    return sorted(points)


def _check(seed, depth, *, thorough):
    """Slope range, slopes, values, lines and Jacobians of one record; whether its slope is bounded.

    The lines and Jacobians are looked at only if ``thorough``: they cost most of the time.
    """
    record, formula, marks = _random_record(seed, depth)
    steps = (0.0, 5e-324, 1e-12, 1e-3, 0.3) if thorough else (0.0, 1e-3)
    low, high = _boxes(marks, steps, np.random.default_rng(seed))
    bottom, top = record.slope_range
    slopes, values = record.slopes_on(low, high), record.range_on(low, high)
    lines = record.relaxation(low, high) if thorough else None
    claims = [(np.full(low.shape, bottom), np.full(low.shape, top)), (slopes.lower, slopes.upper)]
    if thorough and np.isfinite([bottom, top]).all():
        network = from_layers([np.eye(1)] * 2, record)
        box = Box(low[:, None], high[:, None])
        for method in ("interval", "crown"):
            J = jacobian_bounds(network, box, method=method)
            claims.append((np.ravel(J.lower), np.ravel(J.upper)))
    phi_at = functools.cache(lambda x: value_at(formula, x))
    clarke = functools.cache(lambda x: slope_range_at(formula, x))
    for i in range(low.size):
        points = _probes(low[i], high[i], marks)
        y = [phi_at(x) for x in points]
        where = f"seed {seed}, box [{low[i]!r}, {high[i]!r}]"
        for x, phi in zip(points, y, strict=True):
            assert holds(values.lower[i], values.upper[i], phi), where
            if lines is not None:
                assert holds(lines.b_l[i], INF, phi - Fraction(lines.a_l[i]) * x), where
                assert holds(-INF, lines.b_u[i], phi - Fraction(lines.a_u[i]) * x), where
        chords = [
            (w - v) / (b - a) for (a, v), (b, w) in itertools.pairwise(zip(points, y, strict=True))
        ]
        for a, b in ((float(ends[0][i]), float(ends[1][i])) for ends in claims):
            assert all(holds(a, b, chord) for chord in chords), where
            for x in (points[0], points[-1]):  # and what lies just outside of the box
                least, most = clarke(x)
                assert a == -INF if least == -INF else holds(a, INF, least), where
                assert b == INF if most == INF else holds(-INF, b, most), where
    return math.isfinite(bottom) and math.isfinite(top)


@pytest.mark.parametrize("first", range(0, 150, 50))
def test_random_formulas_against_exact_chords(first):
    finite = [_check(seed, 2, thorough=seed % 10 == 0) for seed in range(first, first + 20)]
    assert sum(finite) >= 10  # an infinite slope proves nothing


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_many_random_formulas_against_exact_chords(first):
    for seed in range(first, first + 100):
        _check(seed, 3, thorough=True)


# -- the catalogue ---------------------------------------------------------------------------

POSITIVE = {
    "apa": ("lam", "kappa"),
    "celu": ("alpha",),
    "elu": ("alpha",),
    "hardshrink": ("lambd",),
    "hardsigmoid": ("alpha", "beta"),
    "helu": ("alpha",),
    "leaky_relu": ("negative_slope",),
    "prelu": ("slope",),
    "sau": ("alpha", "sigma"),
    "sine": ("omega",),
    "smelu": ("beta",),
    "snake": ("a",),
    "softplus": ("beta",),
    "softshrink": ("lambd",),
    "swish": ("beta",),
    "tempered_sigmoid": ("s", "T", "o"),
    "threshold": ("threshold", "value"),
    "xatlu": ("alpha",),
    "xgelu": ("alpha",),
    "xsilu": ("alpha",),
    "crrelu": ("epsilon",),
    "cauchy": ("lam1", "lam2", "d"),
}


def _parameters(name, rng):
    """Random parameters of a record of the catalogue, on round numbers and on others."""

    def some(count):
        drawn = rng.uniform(0.1, 3.0, count)
        return np.round(drawn, 1) if rng.random() < 0.5 else drawn

    if name in POSITIVE:
        return dict(zip(POSITIVE[name], some(len(POSITIVE[name])).tolist(), strict=True))
    if name in ("clip", "hardtanh"):
        a, width = some(2).tolist()
        keys = ("min", "max") if name == "clip" else ("min_val", "max_val")
        return dict(zip(keys, (a - width, a), strict=True))
    if name == "power":
        return {"n": float(rng.integers(-3, 6))}
    if name == "elephant":
        return {"a": float(some(1)[0]), "d": float(rng.choice([1.0, 1.5, 2.0, 3.0, 4.0]))}
    if name == "polyrelu":
        return {"coefficients": tuple(rng.normal(size=rng.integers(1, 5)).tolist())}
    if name == "rational":
        p, q = rng.normal(size=rng.integers(1, 7)), rng.normal(size=rng.integers(1, 5))
        return {"numerator": tuple(p.tolist()), "denominator": tuple(q.tolist())}
    if name == "kan_edge":
        return {"coefficients": tuple(rng.normal(size=rng.integers(4, 9)).tolist())}
    return {}


def _breakpoints(record):
    points = {0.0, *record.kinks, *record.jumps}
    for _, value in record.params:
        flat = value if isinstance(value, tuple) else (value,)
        points |= {s * v for v in flat if abs(v) < 20.0 for s in (-1.0, 1.0)}
    try:
        spots = (record.inflections, record.turning_points)
    except InputError:  # too many
        spots = ()
    for spot in spots:
        points |= set(np.ravel(spot.midpoint)[:20].tolist())
    if record.name == "rational":
        q = dict(record.params)["denominator"]
        roots = np.polynomial.Polynomial((0.0, *q)).roots()
        points |= set(roots[np.abs(roots.imag) < 1e-9].real.tolist())
    return sorted((p for p in points if abs(p) < 30.0), key=abs)[:15]


STEPS = (1e-12, 1e-9, 1e-5, 1e-2, 1.0)


@pytest.mark.parametrize("name", names())
def test_chords_around_every_breakpoint_of_the_catalogue(name, exact):
    rng = np.random.default_rng(sum(map(ord, name)))
    for parameters in ({}, *(_parameters(name, rng) for _ in range(2))):
        record = get(name, **parameters)
        if record.staircase:
            continue  # its slopes are 0 and inf
        ends = []
        for p in _breakpoints(record):
            for h in STEPS:
                ends += [(p - h, p), (p, p + h), (p - h, p + h), (p + h, p + 2 * h)]
        a, b = record.domain
        ends = [
            (x, y)
            for x, y in ends
            if a < x < y < b
            and not any(x <= pole <= y for pole in record.poles)
            and (name != "tan" or -1.5 < x < y < 1.5)
        ]
        low, high = np.array(ends).T
        bottom, top = record.slope_range
        slopes, values = record.slopes_on(low, high), record.range_on(low, high)
        lines = record.relaxation(low, high)
        for i, (x, y) in enumerate(ends):
            where = f"{record} on [{x!r}, {y!r}]"
            places = [mpmath.mpf(x), mpmath.mpf(y), (mpmath.mpf(x) + mpmath.mpf(y)) / 2]
            phi = [exact.value(record, t) for t in places]
            chord = (phi[1] - phi[0]) / (places[1] - places[0])
            for least, most in ((bottom, top), (slopes.lower[i], slopes.upper[i])):
                error = abs(chord) * mpmath.mpf(2) ** -100 + mpmath.mpf(2) ** -130
                assert least - error <= chord <= most + error, where
            for t, v in zip(places, phi, strict=True):
                error = abs(v) * mpmath.mpf(2) ** -180
                assert values.lower[i] - error <= v <= values.upper[i] + error, where
                assert lines.a_l[i] * t + lines.b_l[i] <= v + error, where
                assert lines.a_u[i] * t + lines.b_u[i] >= v - error, where


# -- the cases by which this was found -------------------------------------------------------


def _bump():
    return Activation(
        "bump",
        lambda nx, x: nx.tanh(x) + nx.abs(x) * nx.exp(-x * x) / 3.0,
        limits=((-1.0, 0.0), (1.0, 0.0)),
        core=(-30.0, 30.0),
    )


def test_a_slope_beside_a_kink_is_not_lost():
    # tanh'(0) + 1/3: the slope just to the right of 0, which is greatest there
    record = _bump()
    assert Fraction(4, 3) <= Fraction(record.slope_range[1]) < Fraction(4, 3) + Fraction(1, 10**5)
    network = from_layers([np.eye(1)] * 2, record)
    bound = lipschitz_bound(network, attack=False)
    assert Fraction(bound.upper) >= Fraction(4, 3)
    box = Box(np.array([[-0.1]]), np.array([[0.1]]))
    assert Fraction(float(local_lipschitz(network, box).upper.max())) >= Fraction(4, 3)
    for method in ("interval", "crown"):
        J = jacobian_bounds(network, box, method=method)
        assert Fraction(float(J.upper.max())) >= Fraction(4, 3)


def test_a_rational_whose_denominator_has_a_kink_keeps_both_slopes():
    p = (0.648, 1.87, 0.138, -1.993, -0.116, 0.595)
    q = (-0.188, -0.945, 0.09, 1.03)
    # at 0: p0 = .648, p1 = 1.87, |q1| = .188, so the slopes are p1 -+ p0 |q1|
    slope = Fraction(p[1]) + Fraction(p[0]) * abs(Fraction(q[0]))
    assert slope > Fraction("1.99182")
    assert get("rational", numerator=p, denominator=q).slope_range[1] >= slope


UNDECLARED = {
    "a step": lambda nx, x: nx.where(x > 0.3, 1.0, 0.0) + 0.0 * x,
    "a step on a slope": lambda nx, x: nx.tanh(x) + nx.sign(x - 0.3),
    "a step times zero": lambda nx, x: nx.where(x > 0.3, 1.0, 0.0) * (x - 0.3),
    "a choice by a curve": lambda nx, x: nx.where(x * x * x > 0.027, x, 0.0),
    "a floor": lambda nx, x: nx.floor(x + 0.7),
    "a rounding": lambda nx, x: nx.rint(x + 0.2) / 8.0,
    "a ceiling": lambda nx, x: nx.ceil(x - 0.3),
    "off by one float": lambda nx, x: nx.where(x > 0.3, x, float(np.nextafter(0.3, 1.0))),
}


@pytest.mark.parametrize("case", UNDECLARED)
def test_what_is_not_shown_to_be_continuous_has_no_finite_slope(case):
    record = Activation("step", UNDECLARED[case])
    for low, high in ((0.3, 0.3), (0.2, 0.3), (0.3, 0.4), (0.2, 0.4)):
        assert not np.isfinite(record.slopes_on(low, high).magnitude)
    assert np.isfinite(record.slopes_on(0.35, 0.45).magnitude)


def test_a_bound_without_a_finite_slope_says_how_to_write_the_formula():
    ends = ((0.0, 0.0), (1.0, 0.0))
    step = Activation("step", UNDECLARED["a step"], limits=ends, core=(-30.0, 30.0))
    with pytest.raises(InputError, match="maximum, minimum or abs"):
        lipschitz_bound(from_layers([np.eye(1)] * 2, step), attack=False)


@pytest.mark.parametrize(
    "formula",
    [
        lambda nx, x: nx.sqrt(nx.abs(x)) * nx.sqrt(nx.abs(x)),  # |x|
        lambda nx, x: (1.0 / x) * (x * x),  # x
        lambda nx, x: nx.where(x > 0.0, 1.0, 0.0) * x,  # relu
        lambda nx, x: nx.sign(x) * x,  # |x|
        lambda nx, x: (x * x) * (1.0 / x),
        lambda nx, x: x * nx.where(x > 0.0, 1.0, 0.0),
        lambda nx, x: x * nx.sign(x),
    ],
)
def test_zero_times_infinity_is_open(formula):
    slopes = Activation("open", formula).slope(Interval(0.0))
    assert slopes.contains(1.0)


@pytest.mark.parametrize(
    ("joins", "ends"),
    [
        ((), (-INF, INF)),  # of a choice that is not listed nothing is known
        ((Join(True, False),), (0.0, INF)),
        ((Join(False, True),), (-INF, 0.0)),
        ((Join(),), (0.0, 0.0)),
    ],
)
def test_a_choice_has_the_slopes_of_its_jump(joins, ends):
    found = jet(
        lambda nx, x: nx.where(x > 0.0, 0.0 * x, 0.0),
        interval_namespace,
        Interval(-1.0, 1.0),
        1,
        joins,
    )
    assert (found.d1.lower, found.d1.upper) == ends


def test_an_own_derivative_does_not_hide_a_jump():
    record = Activation(
        "step",
        lambda nx, x: nx.where(x > 0.3, 1.0, 0.0) + 0.0 * x,
        derivative=lambda nx, x: 0.0 * x,
        limits=((0.0, 0.0), (1.0, 0.0)),
        core=(-30.0, 30.0),
    )
    assert record.slope_range == (0.0, INF)


@pytest.mark.parametrize("x", [0.0, 1.0, -3.0, 1e300])
def test_the_range_at_a_point_is_not_empty(x):
    record = Activation("wobble", lambda nx, x: x + nx.sin(x) / 2.0, core=(-0.5, 0.5))
    for found in (record.range_on([x], [x]), record.slopes_on([x], [x])):
        assert (found.lower <= found.upper).all()
    value = record.range_on([x], [x])
    assert value.contains(float(record(x))).all()


# -- what is shown to be continuous ----------------------------------------------------------

MEETS = {
    "lines": lambda nx, x: nx.where(x > 0.3, 2.0 * (x - 0.3), 0.0),
    "huber": lambda nx, x: nx.where(nx.abs(x) < 1.0, 0.5 * x**2, nx.abs(x) - 0.5),
    "exp": lambda nx, x: nx.where(x > 0.0, x + 1.0, nx.exp(x)),
    "symbols": lambda nx, x: nx.where(x < 0.5, nx.sin(x), nx.sin(0.5) * (2.0 * x)),
    "pi": lambda nx, x: nx.where(x < 1.0, nx.arctan(x) / nx.pi, 0.25 * x),
    "nested": lambda nx, x: nx.where(x > 2.0, 1.0, nx.where(x < 1.0, 0.0, (x - 1.0) ** 2)),
    "clipped": lambda nx, x: nx.where(nx.minimum(nx.maximum(x, -1.0), 1.0) > 0.5, x, 0.5),
    "quotient": lambda nx, x: nx.where(x >= 1.0, 1.0 / x, x),
}


@pytest.mark.parametrize("case", MEETS)
def test_branches_that_meet_are_shown_to_meet(case):
    found = continuity(MEETS[case])
    assert found.everywhere
    assert set(found.joins) == {Join()}


def test_the_direction_of_a_jump_is_found():
    def value(nx, x):
        up = nx.where(x < 1.0, 0.0, 1.0)
        down = nx.where(2.0 * x > 6.0, 0.0, x)
        lone = nx.where(nx.abs(x) > 0.0, 0.0, 1.0)
        same = nx.where(x > x, 5.0, x)
        return up + down + lone + same + nx.where(nx.exp(x) > 1.0, 1.0, 1.0)

    up, down, both = Join(rises=True), Join(falls=True), Join(True, True)
    assert continuity(value).joins == (up, down, both, Join(), both)


def test_a_branch_without_a_value_is_not_shown_to_meet():
    # the limit of the first branch is 2/pi, though its value looks like 0 times a number
    found = continuity(lambda nx, x: nx.where(x < 1.0, (1.0 - x) * nx.tan(nx.pi * x / 2.0), 0.0))
    assert found.joins == (Join(True, True),)


def test_what_cannot_be_read_is_not_shown():
    assert not continuity(lambda nx, x: x.sum()).everywhere
