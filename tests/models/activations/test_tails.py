"""What a record claims of its tails is checked against its formula before it is used."""

import contextlib
import math
import re

import numpy as np
import pytest

from tangency.models.activations import Activation, get, names
from tangency.models.errors import InputError
from tangency.models.intervals import Interval

INF = math.inf
GROWING = ("exp", "expm1", "sinh", "cosh", "golu", "gcu", "snake", "sin", "cos", "sine")


def ramp(core=(-30.0, 30.0), **fields):
    return Activation(
        "w4",
        lambda nx, x: nx.maximum(x - 50.0, 0.0) - nx.maximum(x - 51.0, 0.0),
        limits=((0.0, 0.0), (1.0, 0.0)),
        core=core,
        **fields,
    )


def late_tanh(core):
    return Activation(
        "late_tanh",
        lambda nx, x: nx.tanh(5.0 * (x - 40.0)),
        limits=((-1.0, 0.0), (1.0, 0.0)),
        core=core,
    )


def test_limits_need_a_core():
    with pytest.raises(InputError, match=r"w4 has limits and no core.*core=\(low, high\)"):
        ramp(core=None)
    for core in ((3.0, -3.0), (0.0, INF), (math.nan, 1.0)):
        with pytest.raises(InputError, match="finite low < high"):
            ramp(core=core)
    with pytest.raises(InputError, match="jumps at 60, outside of its core"):
        ramp(jumps=(60.0,))


def test_a_ramp_beyond_the_core_contradicts():
    with pytest.raises(InputError, match=r"w4 contradicts its formula.*above 30 its slopes stay"):
        _ = ramp().slope_range
    with pytest.raises(InputError, match="w4 contradicts"):
        ramp().range_on(40.0, 60.0)
    assert ramp((-30.0, 60.0)).slope_range == (0.0, 1.0)


def test_a_turn_beyond_the_core_contradicts():
    with pytest.raises(InputError, match="late_tanh contradicts its formula"):
        _ = late_tanh((-30.0, 30.0)).slope_range
    low, high = late_tanh((-30.0, 60.0)).slope_range
    assert 5.0 <= high <= 5.0 + 1e-8
    assert -1e-9 <= low <= 0.0


@pytest.mark.parametrize(
    ("formula", "limits", "core"),
    [
        # limits that the formula does not have
        (lambda nx, x: nx.tanh(x), ((-1.0, 0.0), (2.0, 0.0)), (-15.0, 15.0)),
        (lambda nx, x: nx.tanh(x), ((-1.0, 0.0), (0.5, 0.0)), (-15.0, 15.0)),
        (lambda nx, x: 2.0 * x, ((-INF, 2.0), (INF, 1.0)), (-1.0, 1.0)),
        (lambda nx, x: nx.maximum(x, 0.0), ((0.0, 0.0), (0.0, 1.0)), (-1.0, 1.0)),
        # a bump of width 1e-3 at 1e4
        (
            lambda nx, x: nx.maximum(1.0 - nx.abs(1000.0 * (x - 10000.0)), 0.0),
            ((0.0, 0.0), (0.0, 0.0)),
            (-30.0, 30.0),
        ),
        # inflections beyond the core
        (lambda nx, x: x / (1.0 + x**2), ((0.0, 0.0), (0.0, 0.0)), (-1.2, 1.2)),
        # the slope falls at 64, where two cells meet, and rises again
        (
            lambda nx, x: (
                nx.maximum(x - 40.0, 0.0) - nx.maximum(x - 64.0, 0.0) + nx.maximum(x - 80.0, 0.0)
            ),
            ((0.0, 0.0), (INF, 1.0)),
            (-30.0, 50.0),
        ),
    ],
)
def test_false_claims_are_refused(formula, limits, core):
    record = Activation("claims", formula, limits=limits, core=core)
    with pytest.raises(InputError, match="claims"):
        _ = record.slope_range


def test_what_cannot_be_checked_is_not_used():
    # the product rule cancels: interval arithmetic does not see that the slope is positive
    def record(**fields):
        return Activation(
            "quotient",
            lambda nx, x: x / (1.0 + nx.abs(x)),
            limits=((-1.0, 0.0), (1.0, 0.0)),
            core=(-30.0, 30.0),
            **fields,
        )

    with pytest.raises(InputError, match=r"quotient .* could not be checked on "):
        _ = record().slope_range
    found = record().range_on([20.0, -90.0], [90.0, 31.0])  # searched, not read from the claim
    np.testing.assert_allclose(found.upper, [90.0 / 91.0, 31.0 / 32.0], rtol=1e-6)
    with pytest.raises(InputError, match="could not be checked"):  # nothing shows that it is one
        _ = record(derivative=lambda nx, x: 1.0 / (1.0 + nx.abs(x)) ** 2).slope_range


def test_a_users_derivative_and_staircase_bound_nothing():
    ends = {"limits": ((-1.0, 0.0), (1.0, 0.0)), "core": (-30.0, 30.0)}
    flat = Activation("flat", lambda nx, x: nx.tanh(x), derivative=lambda nx, x: 0.0 * x, **ends)
    assert flat.slope_range[1] >= 1.0
    assert flat.slopes_on(-0.1, 0.1).upper >= 1.0
    relaxed = flat.relaxation(-1.0, 1.0)
    x = np.linspace(-1.0, 1.0, 101)
    assert (relaxed.a_l * x + relaxed.b_l <= np.tanh(x)).all()
    assert (relaxed.a_u * x + relaxed.b_u >= np.tanh(x)).all()
    stairs = Activation("stairs", lambda nx, x: nx.floor(x) * nx.floor(x), staircase=True)
    with pytest.raises(InputError, match="not shown to rise"):
        stairs.range_on(-2.0, 2.0)


def test_a_users_limit_that_is_off_by_little_is_not_taken():
    c = 1.0 + 5e-13  # its slopes are known to a rounding
    lean = Activation(
        "lean",
        lambda nx, x: c * nx.maximum(x, 0.0),
        limits=((0.0, 0.0), (np.inf, 1.0)),
        core=(-1.0, 1.0),
    )
    with pytest.raises(InputError, match="contradicts its formula"):
        _ = lean.slope_range
    soft = Activation(  # its slopes are not
        "soft",
        lambda nx, x: c * nx.softplus(x),
        limits=((0.0, 0.0), (np.inf, 1.0)),
        core=(-1.0, 1.0),
    )
    with contextlib.suppress(InputError):
        assert soft.slope_range[1] >= c


def test_overflow_near_the_largest_float():
    def formula(nx, x):
        return nx.tanh(x) + nx.exp(-(x**2))  # its slope has 2 x

    def bump(value):
        return Activation("bump", value, limits=((-1.0, 0.0), (1.0, 0.0)), core=(-20.0, 20.0))

    record = bump(formula)
    low, high = record.slope_range
    x = np.linspace(-5.0, 5.0, 200_001)
    assert record.slope(x).min() - 1e-7 <= low <= record.slope(x).min() + 1e-12
    assert record.slope(x).max() - 1e-12 <= high <= record.slope(x).max() + 1e-7
    far = record.range_on([-np.inf, 1e305, 1e308], [np.inf, 1e306, 1.7e308])
    assert (far.lower <= [-1.0, 1.0, 1.0]).all()
    assert (far.upper >= [record(x).max(), 1.0, 1.0]).all()
    late = bump(lambda nx, x: formula(nx, x) + nx.minimum(nx.maximum(x - 1e305, 0.0), 1e-3))
    with pytest.raises(InputError, match="bump"):
        _ = late.slope_range


def test_a_record_of_waves_is_bounded_by_its_formula():
    def wave(limit):
        return Activation(
            "swell",
            lambda nx, x: x + nx.sin(x) / 2.0,
            limits=(limit, limit),
            core=(-30.0, 30.0),
            oscillates=True,
        )

    everything = Interval(-INF, INF)
    low, high = wave((everything, Interval(0.5, 1.5))).slope_range
    assert 0.5 - 1e-9 <= low <= 0.5
    assert 1.5 <= high <= 1.5 + 1e-9
    with pytest.raises(InputError, match="swell contradicts"):
        _ = wave((everything, Interval(0.9, 1.1))).slope_range


@pytest.mark.parametrize("name", names())
def test_the_catalogue_passes(name):
    record = get(name)
    if record.limits is None or record._tails is None:
        assert record.staircase
        return
    assert not record._tails.doubt
    for side in record._tails.sides:
        if side is not None and not record.oscillates:
            for spot in side.open:  # what is open is within rounding of the claim
                assert (
                    spot is None
                    or not math.isfinite(spot[3])
                    or spot[3] - spot[2] < 1e-6
                    or (spot[0] < 0 < spot[1])
                )


@pytest.mark.parametrize("name", names())
def test_tails_hold_far_out(name, exact):
    """Values and slopes in 60 digits, out to 1e20, inside of the ranges of boxes around them."""
    record = get(name)
    if record.staircase or record.poles or record.name in ("tan", "kan_edge"):
        return
    rng = np.random.default_rng(3)
    x = rng.choice([-1.0, 1.0], 24) * 10.0 ** np.concatenate(
        [rng.uniform(1.3, 3.0, 16), rng.uniform(3.0, 20.0, 8)]
    )
    a, b = record.domain
    x = x[(x > a) & (x < b)]
    x = x[np.abs(x) < 700.0] if name in GROWING else x
    low, high = np.minimum(x, 1.5 * x), np.maximum(x, 1.5 * x)
    low, high = np.maximum(low, a), np.minimum(high, b)
    R, S = record.range_on(low, high), record.slopes_on(low, high)
    least, most = record.slope_range
    for i, t in enumerate(x):
        y, slope = exact.value(record, t), exact.slope(record, t)
        assert R.lower[i] <= y <= R.upper[i], t
        assert S.lower[i] <= slope <= S.upper[i], t
        assert least <= slope <= most, t


def test_names_the_cell():
    with pytest.raises(InputError) as error:
        _ = ramp().slope_range
    cell = re.search(r"on \[([\d.]+), ([\d.]+)\]", str(error.value))
    assert cell is not None
    assert 50.0 - 1e-9 <= float(cell[1]) < float(cell[2]) <= 51.0 + 1e-9
