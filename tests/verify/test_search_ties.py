"""Derivatives of planes where candidates tie: from inside the slope's range, by differences."""

from itertools import product

import numpy as np
import pytest

import tangency
from tangency.models.activations import get
from tangency.models.network import precision
from tangency.models.ops import Activate, Prelu, Product, Select, Subtract, numpy_backend
from tangency.verify import Box
from tangency.verify.bounds.search.freedom import freedoms
from tangency.verify.bounds.search.intervals import step
from tangency.verify.bounds.search.planes import planes, starting_slopes

RECORDS = [
    ("relu", {}),
    ("leaky_relu", {"negative_slope": 0.1}),
    ("relu6", {}),
    ("abs", {}),
    ("hardtanh", {}),
    ("hardsigmoid", {}),
    ("hardswish", {}),
    ("softshrink", {}),
    ("threshold", {"threshold": 0.3, "value": 0.3}),
]


def boxes(count, seed=1):
    rng = np.random.default_rng(seed)
    pairs = [(-rng.uniform(0.1, 8, (3, 5)), rng.uniform(0.1, 8, (3, 5))) for _ in range(count)]
    return [(low.astype(np.float64), high.astype(np.float64)) for low, high in pairs]


def assert_derivatives_point_inside(op, params, pairs):
    """At both ends of a slope's range, where a line lies along the function, and between."""
    import jax
    import jax.numpy as jnp

    start = starting_slopes(op, params, pairs)
    free = freedoms(op, params, pairs, start)
    seen = 0
    for which, room in enumerate(free):
        if room is None:
            continue
        width = room.high - room.low

        def offset(slope, which=which):
            found = planes(op, params, pairs, (*start[:which], slope, *start[which + 1 :]))
            return found.low if which < len(free) // 2 else found.high

        for share, away in ((0.0, 1e-6), (0.3, 1e-6), (1.0, -1e-6)):
            at, h = room.low + share * width, away * width
            own = jax.grad(lambda slope: offset(slope).sum())(at)
            inside = (offset(at + h) - offset(at)) / jnp.where(width > 0, h, 1.0)
            wrong = (jnp.abs(own - inside) > 1e-4 * (1.0 + jnp.abs(inside))) & (width > 0)
            assert not wrong.any(), (which, share, own[wrong], inside[wrong])
            seen += int((width > 0).sum())
    assert seen


@pytest.mark.parametrize(("name", "params"), RECORDS, ids=[name for name, _ in RECORDS])
def test_activations_with_kinks(name, params):
    with precision("float64"):
        assert_derivatives_point_inside(Activate(get(name, **params)), {}, boxes(1))


@pytest.mark.parametrize("slope", [0.2, -0.5, 1.7])
def test_prelu(slope):
    with precision("float64"):
        assert_derivatives_point_inside(Prelu(0), {"slope": np.full(5, slope)}, boxes(1))


def test_select():
    with precision("float64"):
        assert_derivatives_point_inside(Select(), {}, boxes(4))


@pytest.mark.parametrize("mode", ["last", "joint"])
@pytest.mark.parametrize("record", ["relu", "tanh"])
def test_proved_alpha_bounds_are_never_looser_than_crown(record, mode):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        weights = [rng.normal(size=s) for s in ((6, 4), (6, 6), (3, 6))]
        network = tangency.from_layers(weights, record)
        box = Box.around(rng.normal(size=(4, 4)), 0.3)
        crown = tangency.bound(network, box, method="crown")
        found = tangency.bound(network, box, method="alpha-crown", mode=mode, steps=1)
        rounding = 1e-13 * np.abs(crown.lower).max()  # of two proofs of one line
        assert (found.lower >= crown.lower - rounding).all()
        assert (found.upper <= crown.upper + rounding).all()


@pytest.mark.parametrize("op", [Subtract(), Prelu(0), Product()], ids=lambda op: op.kind)
def test_interval_steps_of_the_search_hold_sampled_values_and_are_attained(op):
    rng = np.random.default_rng(3)
    count = 1 if isinstance(op, Prelu) else 2
    pairs = [(-rng.uniform(0.1, 2, (4, 5)), rng.uniform(0.1, 2, (4, 5))) for _ in range(count)]
    params = {"slope": np.array([-0.5, 0.2, 1.7, -2.0, 0.0])} if isinstance(op, Prelu) else {}
    low, high = step(numpy_backend(), op, params, pairs)
    # Corners, the kinks at zero, and what lies between.
    drawn = [[a, b, 0.0 * a, a + (b - a) * rng.random(a.shape)] for a, b in pairs]
    values = np.array([op.apply(numpy_backend(), params, *xs) for xs in product(*drawn)])
    np.testing.assert_allclose(low, values.min(axis=0), atol=1e-12)
    np.testing.assert_allclose(high, values.max(axis=0), atol=1e-12)


@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.4, 1.0, 1.5])
def test_offsets_of_any_slope_are_those_of_the_ends_and_the_kink(slope):
    with precision("float64"):
        ((low, high),) = boxes(1)
        a = np.full((3, 1, 5), slope)
        found = planes(Activate(get("relu")), {}, [(low, high)], (a, a))
        gaps = np.array([np.maximum(x, 0.0) - slope * x for x in (low, high, 0.0 * low)])
        np.testing.assert_allclose(found.low[:, 0], gaps.min(axis=0), atol=1e-12)
        np.testing.assert_allclose(found.high[:, 0], gaps.max(axis=0), atol=1e-12)
