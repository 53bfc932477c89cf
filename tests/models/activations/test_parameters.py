"""Any parameter is refused by an InputError of ours, or the record's claims hold."""

import inspect
import math

import numpy as np
import pytest

from tangency.models.activations import get, names
from tangency.models.activations.registry import _FACTORIES
from tangency.models.errors import InputError

VALUES = [-1.0, -0.3, 0.0, 3.0, math.nan, math.inf, -math.inf, 1e-300, 1e300, "a", None]
CASES = [
    (name, key)
    for name in names()
    for key in inspect.signature(_FACTORIES[name]).parameters
    if name != "kan_edge" or key == "grid"
]


def places(record, rng):
    """Points near and far, and beside all that the record names."""
    marks = np.array([0.0, *record.kinks, *record.jumps, *(record.core or ())])
    near = marks + rng.choice([-1.0, 1.0], marks.size) * 10.0 ** rng.uniform(-12, 1, marks.size)
    sizes = 10.0 ** np.concatenate([rng.uniform(-3, 3, 60), rng.uniform(-90, 90, 20)])
    x = np.concatenate([near, rng.normal(size=80) * sizes])
    return np.unique(np.clip(x, *record.domain))


def check_claims(record, rng):
    x = places(record, rng)
    x = x[~np.isin(x, record.poles)]
    least, most = record.slope_range
    with np.errstate(all="ignore"):
        slopes = np.asarray(record.slope(x))
    slopes = slopes[np.isfinite(slopes)]
    slack = 1e-9 * (1.0 + np.abs(slopes))
    assert (slopes >= least - slack).all(), record
    assert (slopes <= most + slack).all(), record
    low, high = x[:-1], x[1:]
    for pole in record.poles:
        keep = (low > pole) | (high < pole)
        low, high = low[keep], high[keep]
    ranges = record.range_on(low, high)
    for t in rng.uniform(0.0, 1.0, 3):
        inside = low * (1.0 - t) + high * t
        with np.errstate(all="ignore"):
            y = np.asarray(record(inside))
        slack = 1e-12 * np.abs(y) + 1e-300
        fine = np.isfinite(y)
        assert (y >= ranges.lower - slack)[fine].all(), record
        assert (y <= ranges.upper + slack)[fine].all(), record


@pytest.mark.parametrize(("name", "key"), CASES)
def test_every_parameter(name, key):
    rng = np.random.default_rng(0)
    for value in VALUES:
        try:
            record = get(name, **{key: value})
            _ = record.slope_range
        except InputError as error:
            assert name in str(error)  # noqa: PT017 - either way is right
            continue
        check_claims(record, rng)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("softshrink", {"lambd": -0.5}, "softshrink has lambd = -0.5; it accepts a number from 0"),
        ("smelu", {"beta": -1.0}, r"smelu has beta = -1\.0; it accepts a number from"),
        ("sine", {"omega": 0.0}, r"sine has omega = 0\.0; .* of any sign"),
        ("celu", {"alpha": 0.0}, "celu has alpha"),
        ("apa", {"kappa": -2.0}, "apa has kappa"),
        ("tempered_sigmoid", {"T": math.nan}, "tempered_sigmoid has T = nan"),
        ("sau", {"sigma": math.inf}, "sau has sigma = inf"),
        ("leaky_relu", {"negative_slope": "steep"}, "negative_slope = 'steep'; it accepts numbers"),
        ("power", {"n": math.nan}, "power has n = nan"),
        ("polyrelu", {"coefficients": 1.0}, "coefficients = 1.0; it accepts a tuple"),
        ("rational", {"numerator": ()}, "numerator"),
        ("kan_edge", {"grid": (1.0, 1.0)}, "grid"),
        ("elephant", {"a": -1.0}, "elephant has a"),
        ("hardtanh", {"min_val": 2.0}, "hardtanh has min_val = 2, max_val = 1"),
        ("xatlu", {"alpha": 1e-300}, "xatlu has alpha"),
    ],
)
def test_a_refusal_names_the_parameter(name, params, message):
    with pytest.raises(InputError, match=message):
        get(name, **params)


def test_negative_parameters_that_are_functions():
    falling = get("hardsigmoid", alpha=-0.5)
    assert falling.slope_range == (-0.5, 0.0)
    found = falling.range_on(-np.inf, np.inf)
    assert (float(found.lower), float(found.upper)) == (0.0, 1.0)
    assert get("leaky_relu", negative_slope=-2.0).slope_range == (-2.0, 1.0)
    low, high = get("elu", alpha=-1.0).slope_range
    assert low == pytest.approx(-1.0, abs=1e-12)
    assert high == 1.0
    # alpha x + (1 - alpha)(...) with alpha = -1 turns, and tends to inf on the left
    bent = get("sau", alpha=-1.0)
    assert bent.range_on(-np.inf, -1.0).upper == np.inf
    assert bent.slope_range[0] == pytest.approx(-1.0, abs=1e-9)
    assert get("xatlu", alpha=-0.25).range_on(-np.inf, 0.0).lower == -np.inf


def test_xatlu_turns_where_its_core_says():
    for alpha in (1e-2, 1e-6, 1e-9):
        record = get("xatlu", alpha=alpha)
        x = -np.geomspace(1.0, -2.0 * record.core[0], 4001)
        assert record.range_on(x[-1], x[0]).lower <= record(x).min()
