"""Global slope ranges: the measured card, soundness against samples, tightness."""

import math

import numpy as np
import pytest

from tangency.models.activations import Activation, get, names

INF = math.inf

# Section 6 of the reference (min and max of phi'). Its last digits of "sigmoid .00001", "ELU",
# "softplus", "ATLU .00012 and .99988" and "StableMax .00592" are those of a finite grid: the
# suprema are limits at infinity. "GCU -8.09971" is too: x cos x has slopes of both signs without
# bound. The mathematically right values stand here.
CARD = {
    "relu": (0.0, 1.0),
    "leaky_relu": (0.01, 1.0),
    "tanh": (0.0, 1.0),
    "sigmoid": (0.0, 0.25),
    "erf": (0.0, 1.12838),
    "sin": (-1.0, 1.0),
    "elu": (0.0, 1.0),
    "softplus": (0.0, 1.0),
    "gelu": (-0.12890, 1.12890),
    "silu": (-0.09984, 1.09984),
    "mish": (-0.11253, 1.08850),
    "golu": (-0.11488, 1.11340),
    "smelu": (0.0, 1.0),
    "sau": (0.25, 1.0),
    "snake": (0.0, 2.0),
    "crrelu": (-0.00446, 1.01),
    "atlu": (0.0, 1.0),
    "apa": (0.0, 0.25),
    "tempered_sigmoid": (0.0, 1.0),
    "cauchy": (-0.5, 1.27452),
    "elephant": (-1.06521, 1.06521),
    "gcu": (-INF, INF),
    "relu_squared": (0.0, INF),
    "hardswish": (-0.5, 1.5),
    "stablemax": (0.0, 1.0),
    "gaussian": (-0.60653, 0.60653),
    "abs": (-1.0, 1.0),
    "hermite3": (-3.0, INF),
}

# Attained extrema in closed form.
ROOT = math.sqrt(2.0)
BELL = math.exp(-1.0) / math.sqrt(2.0 * math.pi)
CLOSED = {
    "gelu": (-0.5 * math.erfc(1.0) * -1.0 - ROOT * BELL, 0.5 * math.erfc(-1.0) + ROOT * BELL),
    "tanh": (0.0, 1.0),
    "sigmoid": (0.0, 0.25),
    "erf": (0.0, 2.0 / math.sqrt(math.pi)),
    "gaussian": (-math.exp(-0.5), math.exp(-0.5)),
    "hardswish": (-0.5, 1.5),
    "relu6": (0.0, 1.0),
    "snake": (0.0, 2.0),
    "crrelu": (-0.02 * math.exp(-1.5), 1.01),
    "selu": (0.0, 1.0507009873554804934 * 1.6732632423543772848),
    "hermite3": (-3.0, INF),
    "arctan": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0 / 6.0),
}


@pytest.mark.parametrize("name", CARD)
def test_activation_slope_range_matches_the_card(name):
    low, high = get(name).slope_range
    want_low, want_high = CARD[name]
    assert low == pytest.approx(want_low, abs=1e-5)
    assert high == pytest.approx(want_high, abs=1e-5)
    assert get(name).lipschitz == max(abs(low), abs(high))


@pytest.mark.parametrize("name", CLOSED)
def test_activation_slope_range_is_tight(name):
    low, high = get(name).slope_range
    want_low, want_high = CLOSED[name]
    assert want_low - 1e-9 <= low <= want_low + 1e-15
    assert high == want_high or want_high - 1e-15 <= high <= want_high + 1e-9


@pytest.mark.parametrize("name", names())
def test_activation_slope_range_is_never_beaten(name, exact):
    record = get(name)
    low, high = record.slope_range
    a, b = max(record.domain[0], -40.0), min(record.domain[1], 40.0)
    x = np.linspace(a, b, 200_001)[1:-1]
    for k in record.poles:
        x = x[x != k]
    slope = record.slope(x)
    slack = 1e-12 * np.maximum(1.0, np.abs(slope))
    assert (slope >= low - slack).all()
    assert (slope <= high + slack).all()
    # at the worst points, and at random ones, in high precision and without slack
    worst = x[[int(np.argmin(slope)), int(np.argmax(slope))]]
    for t in (*worst, *np.random.default_rng(1).choice(x, 6)):
        assert low <= exact.slope(record, t) <= high


def test_activation_inflections_are_proved_and_listed():
    points = get("gelu").inflections
    assert points.shape == (2,)
    assert points.contains([-ROOT, ROOT]).all()
    assert (points.upper - points.lower < 1e-11).all()
    turn = get("silu").turning_points
    assert turn.shape == (1,)
    assert turn.contains(-1.2784645427610738).all()


def test_activation_kinks_are_found_even_if_not_declared():
    bent = Activation(
        "bent",
        lambda nx, x: x**2 - nx.abs(x),
        limits=((INF, -INF), (INF, INF)),
        core=(-30.0, 30.0),
    )
    found = bent.slopes_on(-0.1, 0.1)
    assert found.lower <= -1.0
    assert found.upper >= 1.0
    own = Activation(
        "own",
        lambda nx, x: nx.where(x > 1.0, x, 1.0),
        derivative=lambda nx, x: nx.where(x > 1.0, 1.0, 0.0 * x),
        limits=((1.0, 0.0), (INF, 1.0)),
        core=(-30.0, 30.0),
    )
    assert own.slope_range == (0.0, 1.0)
    assert own.slopes_on(0.5, 1.0).contains([0.0, 1.0]).all()
