"""Lines of any slope around an activation: proved, fast and differentiable offsets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models.activations import Activation, get, names
from tangency.models.activations.lines import default_slopes, intercepts, proved_intercepts
from tangency.models.errors import InputError
from tangency.models.namespace import jax_namespace, numpy_namespace
from tangency.models.network import precision

SMOOTH = ["sigmoid", "tanh", "erf", "gelu", "silu", "mish", "golu", "cube", "arctan", "sin"]
SMOOTH += ["elu", "hardswish", "selu", "clip", "softshrink", "gaussian", "tanhshrink", "snake"]
FEW = ["relu", "leaky_relu", "abs", "clip", "sigmoid", "gelu", "softplus", "exp", "sin", "floor"]


def boxes_of(record, count=24, seed=0):
    """Boxes of all sizes, some of them points, some that begin or end at a corner or inflection."""
    rng = np.random.default_rng(seed)
    low = rng.normal(size=count) * 10.0 ** rng.integers(-2, 3, count)
    high = low + np.abs(rng.normal(size=count)) * 10.0 ** rng.integers(-9, 2, count)
    marks = np.array([*record.kinks, *record.jumps, 0.0, 1.0])
    low = np.concatenate([low, marks - 1.5, marks, marks])
    high = np.concatenate([high, marks, marks + 2.0, marks])
    if record.name == "tan":
        low, high = np.sort(np.stack([low % 1.4, high % 1.4]), axis=0)
    elif record.domain != (-np.inf, np.inf) or record.poles:
        low, high = np.sort(np.stack([np.abs(low) % 0.9, np.abs(high) % 0.9]) + 0.01, axis=0)
    return low, high


def record_marks(record):
    return np.array([*record.kinks, 0.0])[:, None]


def inside(low, high, count=401):
    t = np.linspace(0.0, 1.0, count)[:, None]
    return np.clip(low * (1.0 - t) + high * t, low, high)


@pytest.mark.parametrize("name", names())
def test_proved_lines_of_any_slope_hold(name, exact):
    record, rng = get(name), np.random.default_rng(1)
    low, high = boxes_of(record, 12)
    a_l, a_u = default_slopes(record, numpy_namespace, low, high)
    a_l = a_l + rng.normal(size=low.shape) * rng.integers(0, 2, low.size)
    a_u = a_u + rng.normal(size=low.shape) * rng.integers(0, 2, low.size)
    b_l, b_u = proved_intercepts(record, low, high, a_l, a_u)
    mpf = exact.namespace.mpf
    for i in range(low.size):
        # where the lines are nearest to the function, and at random
        x = inside(low[i : i + 1], high[i : i + 1])[:, 0]
        with np.errstate(all="ignore"):
            y = np.asarray(record(x))
            near = [np.argmin(y - a_l[i] * x), np.argmax(y - a_u[i] * x), rng.integers(x.size)]
        for p in x[near]:
            value, point = exact.value(record, p), mpf(p)
            assert mpf(a_l[i]) * point + mpf(b_l[i]) <= value, (low[i], high[i], p)
            assert mpf(a_u[i]) * point + mpf(b_u[i]) >= value, (low[i], high[i], p)


@pytest.mark.parametrize("name", names())
def test_proved_offsets_are_attained(name):
    """Beside every proved bound a value that is reached: they differ by a sample's step."""
    record, rng = get(name), np.random.default_rng(2)
    low, high = boxes_of(record, 24)
    keep = (np.abs(low) < 20) & (np.abs(high) < 20)
    low, high = low[keep], high[keep]
    a_l, a_u = default_slopes(record, numpy_namespace, low, high)
    a_l, a_u = a_l + rng.normal(size=low.shape), a_u + rng.normal(size=low.shape)
    b_l, b_u = proved_intercepts(record, low, high, a_l, a_u)
    x = np.concatenate([inside(low, high, 4001), np.clip(record_marks(record), low, high)])
    x = np.sort(x, axis=0)
    y = record(x)
    if record.staircase or record.jumps:  # the values at a jump, too
        around = np.concatenate([x, np.nextafter(np.rint(2 * x) / 2, -np.inf), np.rint(2 * x) / 2])
        around = np.concatenate([around, np.nextafter(np.rint(2 * x) / 2, np.inf)])
        x = np.clip(around, low, high)
        y = record(x)
    steep = np.max(np.abs(np.diff(y, axis=0)), axis=0, initial=0.0) if not record.jumps else 0.0
    steep = 0.0 if record.staircase else steep
    size = 1e-8 * (1 + np.abs(y).max(axis=0) + (np.abs(a_l) + np.abs(a_u)) * np.abs(x).max(axis=0))
    # Between samples a smooth function moves by less than a hundredth of what it moves in a step.
    slack = size + 0.01 * steep + (0.01 if record.name == "sine" else 0.0)
    assert (b_l >= (y - a_l * x).min(axis=0) - slack).all()
    assert (b_u <= (y - a_u * x).max(axis=0) + slack).all()


@pytest.mark.parametrize("name", SMOOTH)
def test_default_slopes_have_least_area(name):
    """At the middle, within 1 % of the best of 500 slopes (brute force over samples)."""
    record = get(name)
    low, high = np.sort(np.random.default_rng(0).uniform(-5, 5, (2, 24)), axis=0)
    low, high = low[high - low > 0.05], high[high - low > 0.05]
    slopes = default_slopes(record, numpy_namespace, low, high)
    offsets = proved_intercepts(record, low, high, *slopes)
    for i in range(low.size):
        x = np.linspace(low[i], high[i], 801)
        y, m = record(x), 0.5 * (low[i] + high[i])
        steps = np.diff(y) / np.diff(x)
        tried = np.linspace(steps.min(), steps.max(), 500)[:, None]
        best_u = (tried[:, 0] * m + (y - tried * x).max(axis=1)).min()
        best_l = (tried[:, 0] * m + (y - tried * x).min(axis=1)).max()
        slack = 0.01 * (best_u - best_l) + 1e-9
        assert slopes[1][i] * m + offsets[1][i] <= best_u + slack
        assert slopes[0][i] * m + offsets[0][i] >= best_l - slack


def test_relu_has_its_triangle_and_the_adaptive_slope():
    low, high = np.array([-1.0, -2.0, 1.0, -3.0, -1.0, 0.0]), np.array([2.0, 1.0, 3.0, -1.0, 1, 0])
    a_l, a_u = default_slopes(get("relu"), numpy_namespace, low, high)
    np.testing.assert_allclose(a_l, [1, 0, 1, 0, 0, 0], atol=0)
    np.testing.assert_allclose(a_u, [2 / 3, 1 / 3, 1, 0, 0.5, 0], rtol=1e-15)
    b_l, b_u = proved_intercepts(get("relu"), low, high, a_l, a_u)
    np.testing.assert_allclose(b_l, 0.0, atol=1e-14)
    np.testing.assert_allclose(b_u, [2 / 3, 2 / 3, 0, 0, 0.5, 0], atol=1e-14)


@pytest.mark.parametrize("name", names())
def test_fast_offsets_agree_with_the_proved_ones(name):
    record, rng = get(name), np.random.default_rng(5)
    low, high = boxes_of(record)
    slopes = default_slopes(record, numpy_namespace, low, high)
    slopes = [a + rng.normal(size=low.shape) * rng.integers(0, 2, low.size) for a in slopes]
    fast = intercepts(record, numpy_namespace, low, high, *slopes)
    proved = proved_intercepts(record, low, high, *slopes)
    reach = np.maximum(np.abs(low), np.abs(high))
    for a, b, c in zip(slopes, fast, proved, strict=True):
        size = 1.0 + np.abs(record(low)) + np.abs(record(high)) + np.abs(a) * reach
        # A function that is known on a part of the line has a margin beyond it in both.
        known = 30.0 if name == "gcu" else np.inf
        there = reach <= known
        np.testing.assert_array_less(np.abs(b - c)[there], (1e-7 * size)[there])


@settings(max_examples=15, deadline=None)
@given(st.floats(-1e30, 1e30), st.floats(0, 1e30), st.floats(-5, 5), st.floats(0, 1))
def test_huge_boxes(start, width, slope, t):
    x = min(start + t * width, start + width)
    for name in ("relu", "clip", "sigmoid", "gelu", "softplus", "atlu", "sin", "floor"):
        record = get(name)
        low, high = np.array([start]), np.array([start + width])
        b_l, b_u = proved_intercepts(record, low, high, np.array([slope]), np.array([slope]))
        slack = 1e-15 * (1 + abs(slope * x))  # of this line's own rounding
        assert slope * x + b_l[0] <= record(x) + slack
        assert slope * x + b_u[0] >= record(x) - slack
        for a in default_slopes(record, numpy_namespace, low, high):
            assert np.isfinite(a).all()


def test_many_slopes_for_one_box():
    record, rng = get("tanh"), np.random.default_rng(3)
    low = rng.normal(size=(2, 1, 3, 4))
    high = low + rng.exponential(size=low.shape)
    a = rng.normal(size=(2, 5, 3, 4))
    b_l, b_u = proved_intercepts(record, low, high, a, -a)
    assert b_l.shape == b_u.shape == a.shape
    for s in range(5):
        alone = proved_intercepts(record, low[:, 0], high[:, 0], a[:, s], -a[:, s])
        np.testing.assert_array_equal(alone, (b_l[:, s], b_u[:, s]))
    fast = intercepts(record, numpy_namespace, low, high, a, -a)
    np.testing.assert_allclose(fast, (b_l, b_u), atol=1e-12)
    assert isinstance(float(proved_intercepts(record, -1.0, 1.0, 0.5, 0.5)[0]), float)


def test_records_of_users():
    two_fields = Activation("wobble", lambda nx, x: x + nx.sin(x) / 2.0)
    namesake = Activation("relu", lambda nx, x: nx.minimum(x, 0.0) + nx.tanh(x))
    wave = Activation("sin", lambda nx, x: nx.sin(x) + nx.cos(2.0 * x), period=2 * np.pi)
    stairs = Activation("stairs", lambda nx, x: nx.floor(2.0 * x), staircase=True)
    low, high = np.array([-3.0, 0.5, 25.0, -80.0]), np.array([1.0, 0.5, 40.0, 60.0])
    x = inside(low, high, 20001)
    for record in (two_fields, namesake, wave, stairs):
        slopes = default_slopes(record, numpy_namespace, low, high)
        for offsets in (
            proved_intercepts(record, low, high, *slopes),
            intercepts(record, numpy_namespace, low, high, *slopes),
        ):
            assert (slopes[0] * x + offsets[0] <= record(x) + 1e-9).all(), record
            assert (slopes[1] * x + offsets[1] >= record(x) - 1e-9).all(), record


def test_staircases_see_a_jump_at_the_end_of_a_box_from_one_side():
    low, high = np.array([2.0, 1.5, 2.0]), np.array([2.5, 2.0, 2.0])
    flat = np.zeros(3)
    for name, least, most in (("floor", [2, 1, 2], [2, 2, 2]), ("ceil", [2, 2, 2], [3, 2, 2])):
        b_l, b_u = proved_intercepts(get(name), low, high, flat, flat)
        np.testing.assert_allclose(b_l, least, rtol=1e-14)
        np.testing.assert_allclose(b_u, most, rtol=1e-14)
    b_l, b_u = proved_intercepts(get("heaviside"), low - 2, high - 2, flat, flat)
    np.testing.assert_allclose((b_l, b_u), ([0, 0, 0], [1, 0, 0]), atol=1e-14)


@pytest.mark.parametrize("name", FEW)
def test_jax_offsets_hold_to_the_rounding_of_float32(name):
    jax = pytest.importorskip("jax")
    record, nx, rng = get(name), jax_namespace(), np.random.default_rng(7)
    low, high = (x.astype(np.float32) for x in boxes_of(record, 40))
    low, high = low[np.abs(high) < 30], high[np.abs(high) < 30]
    a = [x.astype(np.float32) for x in rng.normal(size=(2, 3, low.size))]
    made = jax.jit(lambda *args: intercepts(record, nx, *args))(low[None], high[None], *a)
    b_l, b_u = (np.asarray(b) for b in made)
    assert b_l.dtype == b_u.dtype == np.float32
    assert b_l.shape == (3, low.size)
    wide = [v.astype(np.float64) for v in (low, high, *a)]
    p_l, p_u = proved_intercepts(record, wide[0], wide[1], *wide[2:])
    size = 1.0 + np.abs(p_l) + np.abs(p_u) + (np.abs(a[0]) + np.abs(a[1])) * np.abs(low)
    np.testing.assert_array_less(np.abs(b_l - p_l), 1e-5 * size)
    np.testing.assert_array_less(b_l - p_l, 5e-7 * size)  # hardly ever on the wrong side
    np.testing.assert_array_less(np.abs(b_u - p_u), 1e-5 * size)
    np.testing.assert_array_less(p_u - b_u, 5e-7 * size)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "gelu", "clip"])
def test_jax_slopes_are_those_of_numpy(name):
    jax = pytest.importorskip("jax")
    record = get(name)
    low, high = np.sort(np.random.default_rng(0).uniform(-4, 4, (2, 60)), axis=0)
    low, high = low[high - low > 0.1], high[high - low > 0.1]
    with precision("float64"):
        made = jax.jit(lambda low, high: default_slopes(record, jax_namespace(), low, high))
        ours = [np.asarray(a) for a in made(low, high)]
    middle, theirs = 0.5 * low + 0.5 * high, default_slopes(record, numpy_namespace, low, high)
    first = proved_intercepts(record, low, high, *ours)
    second = proved_intercepts(record, low, high, *theirs)
    for a, b, c, d in zip(ours, first, theirs, second, strict=True):
        np.testing.assert_allclose(a * middle + b, c * middle + d, atol=1e-6)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "gelu", "softplus", "sin", "abs"])
def test_gradients_of_offsets_are_those_of_differences(name):
    jax = pytest.importorskip("jax")
    record, nx, rng = get(name), jax_namespace(), np.random.default_rng(11)
    low = rng.uniform(-3, 1, 30)
    high = low + rng.uniform(0.2, 3, 30)
    a = rng.normal(size=(2, 30))
    with precision("float64"):

        def total(low, high, a_l, a_u):
            return sum(b.sum() for b in intercepts(record, nx, low, high, a_l, a_u))

        arguments = (low, high, a[0], a[1])
        gradient = jax.jit(jax.grad(total, (0, 1, 2, 3)))(*map(jax.numpy.asarray, arguments))
        for k in range(4):
            moved = [list(arguments), list(arguments)]
            step = 1e-6
            moved[0][k], moved[1][k] = arguments[k] - step, arguments[k] + step
            ends = [intercepts(record, numpy_namespace, *m) for m in moved]
            slope = sum((v - u) / (2 * step) for u, v in zip(*ends, strict=True))
            found = np.asarray(gradient[k])
            # A kink of the offset (two candidates on a par) may lie within a step.
            assert np.mean(np.abs(found - slope) > 1e-4) <= 1 / 30


def test_slopes_of_relu_pass_the_gradient_of_the_chord():
    jax = pytest.importorskip("jax")
    slope = jax.grad(
        lambda low: default_slopes(get("relu"), jax_namespace(), low, 2.0 + 0 * low)[1]
    )
    # d/dl of u/(u - l) at l = -1, u = 2
    assert float(slope(jax.numpy.asarray(-1.0))) == pytest.approx(2.0 / 9.0, rel=1e-5)


def test_boxes_that_make_no_sense():
    for low, high, slope, text in (
        (-np.inf, 0.0, 1.0, "bounded"),
        (1.0, 0.0, 1.0, "lower > upper"),
        (0.0, 1.0, np.nan, "finite slopes"),
    ):
        with pytest.raises(InputError, match=text):
            proved_intercepts(get("tanh"), low, high, slope, slope)
    with pytest.raises(InputError, match="domain"):
        proved_intercepts(get("log"), -1.0, 1.0, 1.0, 1.0)
