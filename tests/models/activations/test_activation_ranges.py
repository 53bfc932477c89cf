"""Ranges on boxes: sound against 60 digits, tight against dense sampling."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models.activations import Activation, get, names
from tangency.models.errors import InputError

RECORDS = [get(name) for name in names()]


def boxes(record, count=40):
    """Random boxes: wide, narrow, tiny, degenerate, far, and touching kinks."""
    rng = np.random.default_rng(0)
    a, b = record.domain
    low = rng.normal(size=count) * 10.0 ** rng.integers(-3, 3, count)
    width = np.abs(rng.normal(size=count)) * 10.0 ** rng.integers(-14, 2, count)
    width[::7] = 0.0
    high = low + width
    marks = [*record.kinks, *record.jumps, 0.0, 1.0, -3.0]
    low = np.concatenate([low, marks, np.array(marks) - 1.0, marks])
    high = np.concatenate([high, np.array(marks) + 1.0, marks, marks])
    if np.isfinite(a) or np.isfinite(b):
        low, high = (np.clip(np.abs(v) % 1.0, a, b) for v in (low, high))
        low, high = np.minimum(low, high), np.maximum(low, high)
    if record.name in ("tan",):
        low, high = np.sort(np.stack([low % 1.5, high % 1.5]), axis=0)
    for k in record.poles:
        keep = (low > k) | (high < k)
        low, high = low[keep], high[keep]
    return low, high


def samples(low, high, count):
    t = np.linspace(0.0, 1.0, count)[:, None]
    return np.clip(low + (high - low) * t, low, high)


@pytest.mark.parametrize("record", RECORDS, ids=str)
def test_activation_range_is_sound(record, exact):
    low, high = boxes(record)
    R = record.range_on(low, high)
    assert R.shape == low.shape
    for x in samples(low, high, 4):
        for i, t in enumerate(x):
            if t in record.domain:
                continue  # a limit, perhaps infinite
            y = exact.value(record, t)
            assert R.lower[i] <= y <= R.upper[i], (low[i], high[i], t)


@pytest.mark.parametrize("record", RECORDS, ids=str)
def test_activation_slopes_are_sound(record, exact):
    low, high = boxes(record)
    S = record.slopes_on(low, high)
    for x in samples(low, high, 4)[1:3]:
        for i, t in enumerate(x):
            if t in record.domain or t in record.kinks:
                continue
            y = exact.slope(record, t)
            assert S.lower[i] <= y <= S.upper[i], (low[i], high[i], t)


@pytest.mark.parametrize("record", RECORDS, ids=str)
def test_activation_ranges_are_tight(record):
    rng = np.random.default_rng(1)
    a, b = max(record.domain[0], -4.0), min(record.domain[1], 4.0)
    if record.poles:
        a = 0.1
    if record.name == "tan":
        a, b = -1.4, 1.4
    low, high = np.sort(rng.uniform(0.99 * a, 0.99 * b, (2, 60)), axis=0)
    x = samples(low, high, 20_001 if record.name != "sine" else 60_001)
    for found, y in (
        (record.range_on(low, high), record(x)),
        (record.slopes_on(low, high), record.slope(x)),
    ):
        if np.isinf(found.magnitude).any():
            continue  # jumps
        size = 1e-6 + 1e-3 * (np.max(y) - np.min(y))
        assert (found.upper - y.max(axis=0) <= size).all()
        assert (y.min(axis=0) - found.lower <= size).all()


@pytest.mark.parametrize("name", ["gelu", "mish", "golu", "hardswish", "gcu", "snake", "cauchy"])
def test_activation_range_on_any_box(name, exact):
    record = get(name)

    @settings(max_examples=40, deadline=None)
    @given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(0.0, 1.0))
    def check(a, b, t):
        a, b = min(a, b), max(a, b)
        x = min(max(a + t * (b - a), a), b)
        R, S = record.range_on(a, b), record.slopes_on(a, b)
        assert R.lower <= exact.value(record, x) <= R.upper
        if x not in record.kinks:
            assert S.lower <= exact.slope(record, x) <= S.upper

    check()


def test_activation_range_exact_for_relu():
    R = get("relu").range_on([-1.0, 0.5, -3.0], [2.0, 0.75, -1.0])
    np.testing.assert_array_equal(R.lower, [0.0, 0.5, 0.0])
    np.testing.assert_array_equal(R.upper, [2.0, 0.75, 0.0])
    S = get("relu").slopes_on([-1.0, 0.5, -3.0, 0.0], [2.0, 0.75, -1.0, 0.0])
    np.testing.assert_array_equal(S.lower, [0.0, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(S.upper, [1.0, 1.0, 0.0, 1.0])


def test_activation_range_with_infinite_ends():
    R = get("gelu").range_on([-np.inf, -np.inf, 1.0], [np.inf, -5.0, np.inf])
    np.testing.assert_allclose(R.lower, [-0.169971, -1.43326e-6, 0.841344], rtol=1e-4)
    np.testing.assert_array_equal(R.upper[[0, 2]], [np.inf, np.inf])
    assert 0.0 <= R.upper[1] <= 1e-300
    T = get("arctan").range_on(-np.inf, np.inf)
    assert T.upper == pytest.approx(np.pi / 2)
    assert T.upper > np.pi / 2


def test_activation_range_of_many_boxes_is_fast():
    low, high = np.sort(np.random.default_rng(0).normal(size=(2, 100_000)) * 3, axis=0)
    for name in ("relu", "gelu", "tanh", "silu"):
        record = get(name)
        record.range_on(0.0, 1.0)
        start = time.perf_counter()
        record.range_on(low, high)
        assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize(
    ("name", "box"),
    [
        ("log", (-1.0, 2.0)),
        ("sqrt", (-0.1, 2.0)),
        ("reciprocal", (-1.0, 1.0)),
        ("tan", (1.0, 2.0)),
        ("arcsin", (0.0, 1.5)),
    ],
)
def test_activation_box_outside_the_domain(name, box):
    with pytest.raises(InputError, match=rf"leaves the domain of {name}"):
        get(name).range_on(*box)
    with pytest.raises(InputError, match=name):
        get(name).slopes_on(*box)


def test_activation_of_two_lines():
    wobble = Activation("wobble", lambda nx, x: x + nx.sin(2.0 * x))
    low, high = np.array([-1.0, 100.0, 5.0]), np.array([1.0, 103.0, 5.0])
    R, S = wobble.range_on(low, high), wobble.slopes_on(low, high)
    x = samples(low, high, 5001)
    assert (R.lower <= wobble(x).min(axis=0) + 1e-15).all()
    assert (R.upper >= wobble(x).max(axis=0) - 1e-15).all()
    np.testing.assert_allclose(R.upper, wobble(x).max(axis=0), atol=1e-5)
    np.testing.assert_allclose(S.lower, wobble.slope(x).min(axis=0), atol=1e-5)
    with pytest.raises(InputError, match="limits"):
        _ = wobble.slope_range
