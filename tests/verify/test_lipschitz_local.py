"""Local bounds: tighter than the global one, never below what happens inside the box."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tangency
from tangency.models import (
    Builder,
    InputError,
    NotProvedError,
    UnsupportedError,
    activations,
    from_layers,
)
from tangency.models.ops import Activate, Add, Prelu, Product
from tangency.verify import Ball, Box, check, lipschitz_bound, read_certificate, write_certificate
from tangency.verify.certificate.claim import Region
from tangency.verify.certificate.file import pack, unpack
from tangency.verify.chain.networks import local_chain
from tangency.verify.checking import certificate_of
from tangency.verify.lipschitz import repair
from tangency.verify.lipschitz.local import local_bound
from tangency.verify.lipschitz.local_attack import attack_box
from tangency.verify.lipschitz.network_attack import attack_network

NAMES = ["relu", "tanh", "gelu", "silu", "softplus", "maxmin", "sin", "hardswish"]
NORMS = {"2": 2, "1": 1, "inf": np.inf}


@lru_cache
def net(activation="relu", seed=0, sizes=(2, 8, 8, 3)):
    rng = np.random.default_rng(seed)
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    weights = [rng.standard_normal(s) / np.sqrt(s[1]) for s in shapes]
    biases = [0.5 * rng.standard_normal(s[0]) for s in shapes]
    return from_layers(list(zip(weights, biases, strict=True)), activation)


@lru_cache
def everywhere(*key):
    return lipschitz_bound(net(*key), attack=False).upper


def values(network, x):
    """The network on a batch, in float64 and NumPy: the chain with its biases."""
    chain = local_chain(network, Box(x.min(axis=0), x.max(axis=0)))
    for k, (w, b) in enumerate(zip(chain.weights, chain.biases, strict=True)):
        x = x @ w.midpoint.T + b
        if k < len(chain.activations):
            function = chain.functions[k]
            if function is None:
                x = np.sort(x.reshape(len(x), -1, 2))[..., ::-1].reshape(x.shape)
            else:
                x = function.value(x)
    return x


def jacobian(network, x, h=1e-6):
    steps = h * np.eye(len(x))
    return ((values(network, x + steps) - values(network, x - steps)) / (2 * h)).T


def boxes(dimension=2):
    return st.tuples(
        st.lists(st.floats(-2, 2), min_size=dimension, max_size=dimension),
        st.floats(-6, 0.5),
    )


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.integers(0, 3),
    boxes(),
    st.sampled_from(["2", "1", "inf"]),
    st.sampled_from(["2", "1", "inf", "margin:0,2"]),
)
def test_between_what_is_attained_and_the_global_bound(name, seed, where, norm, output):
    network = net(name, seed)
    box = Box.around(np.array(where[0]), 10.0 ** where[1])
    target = ("margin", 0, 2) if output.startswith("margin") else output
    found = lipschitz_bound(network, box=box, norm=norm, output=target)
    assert found.certified
    assert (found.norm, found.output, found.box) == (norm, output, box)
    assert found.lower <= found.upper
    if (norm, output) == ("2", "2"):
        assert found.upper <= everywhere(name, seed) * (1 + 1e-4)
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(box.lower, box.upper, (2, 400, 2))
    y[200:] = np.clip(x[200:] + (y[200:] - x[200:]) * 1e-3, box.lower, box.upper)
    out = values(network, np.concatenate([x, y]))
    rise = out[:400] - out[400:]
    rise = rise[:, :1] - rise[:, 2:] if target != output else rise
    run = np.linalg.norm(x - y, ord=NORMS[norm], axis=1)
    rise = np.linalg.norm(rise, ord=NORMS.get(output, 2), axis=1)
    assert (rise <= found.upper * run * (1 + 1e-9) + 1e-13).all()


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "silu"])
@pytest.mark.parametrize("norm", ["2", "1", "inf"])
def test_shrinks_to_the_norm_of_the_jacobian(name, norm):
    x = np.array([0.3, -0.7])
    found = lipschitz_bound(net(name), box=Box.around(x, 1e-6), norm=norm)
    there = jacobian(net(name), x)
    if norm == "2":
        exact = np.linalg.norm(there, 2)
    elif norm == "1":
        exact = np.linalg.norm(there, axis=0).max()
    else:
        signs = np.array([[1, 1], [1, -1]])
        exact = np.linalg.norm(signs @ there.T, axis=1).max()
    # For the norm inf the multipliers' bound is a relaxation of the matrix norm itself.
    slack = 1e-3 if norm != "inf" else 0.06
    assert exact * (1 - 1e-5) <= found.upper <= exact * (1 + slack)
    assert found.lower == pytest.approx(exact, rel=1e-5)


def test_a_point_is_its_jacobian():
    found = lipschitz_bound(net("relu"), box=Box(np.array([0.3, -0.7]), np.array([0.3, -0.7])))
    assert found.upper == pytest.approx(np.linalg.norm(jacobian(net("relu"), [0.3, -0.7]), 2))


def test_shrinking_boxes_shrink_the_bound():
    x = np.array([0.1, 0.2])
    for name in ("relu", "gelu"):
        bounds = [
            lipschitz_bound(net(name), box=Box.around(x, eps), attack=False).upper
            for eps in (3.0, 1.0, 0.3, 0.1, 0.01)
        ]
        assert all(a >= b * (1 - 1e-6) for a, b in pairwise(bounds))
        assert bounds[-1] < bounds[0]


def test_stable_neurons_are_linear():
    weights = [np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([[1.0, 2.0, 3.0]])]
    network = from_layers(weights, "relu")
    on = lipschitz_bound(network, box=Box(np.array([1.0, 1.0]), np.array([2.0, 2.0])))
    assert on.upper == pytest.approx(np.hypot(4.0, 5.0), rel=1e-9)
    assert on.lower == pytest.approx(on.upper, rel=1e-9)
    off = lipschitz_bound(network, box=Box(np.array([-2.0, -2.0]), np.array([-1.0, -1.0])))
    assert off.upper == off.lower == 0.0
    for norm in ("1", "inf"):
        again = lipschitz_bound(network, box=off.box, norm=norm)
        assert again.upper == 0.0
        assert check(certificate_of(again, network), network).holds


def test_prelu_and_unbounded_slopes():
    b = Builder("float64")
    x = b.input((1, 2))
    y = b.emit(Prelu(0), [x], {"slope": ("p", np.array([3.0, -0.5]))})
    network = b.finish([y])
    for low, high, expected in ((1, 2, 1.0), (-2, -1, 3.0), (-1, 1, 3.0)):
        box = Box(np.full(2, float(low)), np.full(2, float(high)))
        assert lipschitz_bound(network, box=box).upper == pytest.approx(expected, rel=1e-6)
    b = Builder("float64")
    x = b.input((1, 1))
    y = b.emit(Activate(activations.get("sqrt")), [x])
    network = b.finish([y])
    with pytest.raises(InputError, match="no global Lipschitz bound"):
        lipschitz_bound(network)
    found = lipschitz_bound(network, box=Box(np.array([1.0]), np.array([4.0])))
    assert found.upper == pytest.approx(0.5, rel=1e-6)
    assert found.lower == pytest.approx(0.5, rel=1e-5)
    with pytest.raises(InputError, match="no local Lipschitz bound"):
        lipschitz_bound(network, box=Box(np.array([0.0]), np.array([4.0])))


def brute(network, box, count=160):
    """The largest Jacobian norm on a grid that meets no kink."""
    axes = [
        np.linspace(a + 1e-6, b - 1e-6, count) for a, b in zip(box.lower, box.upper, strict=True)
    ]
    x = np.stack(np.meshgrid(*axes), -1).reshape(-1, len(axes))
    columns = []
    for step in 1e-7 * np.eye(len(axes)):
        columns.append((values(network, x + step) - values(network, x - step)) / 2e-7)
    return np.linalg.norm(np.stack(columns, -1), 2, axis=(1, 2)).max()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_branch_and_bound_meets_brute_force(seed):
    network, box = net("relu", seed, (2, 5, 4, 2)), Box(-np.ones(2), np.ones(2))
    seen = []
    found = lipschitz_bound(
        network,
        box=box,
        branch=True,
        time_limit=None,
        max_boxes=300,
        rtol=0.01,
        progress=lambda bound, seconds: seen.append(bound),
    )
    one = lipschitz_bound(network, box=box)
    exact = brute(network, box)
    assert exact * (1 - 1e-6) <= found.upper <= exact * 1.05
    assert found.upper <= one.upper * (1 + 1e-4)
    assert seen == sorted(seen, reverse=True)
    bounds = [bound for _, bound in found.history]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] == found.upper
    assert found.lower <= exact * (1 + 1e-6)
    assert found.boxes <= 300
    assert not (found.finished and found.upper > found.lower * 1.0101)


def test_branch_and_bound_is_anytime():
    network, box = net("relu", 0, (2, 16, 16, 2)), Box(-2 * np.ones(2), 2 * np.ones(2))
    few = lipschitz_bound(network, box=box, branch=True, max_boxes=4)
    more = lipschitz_bound(network, box=box, branch=True, max_boxes=16)
    assert few.upper >= more.upper
    assert not few.finished
    assert (few.boxes, more.boxes) == (4, 16)
    short = lipschitz_bound(network, box=box, branch=True, time_limit=1e-9)
    assert not short.finished
    assert short.upper >= more.lower

    told = []

    def stop(bound, seconds):
        told.append(bound)
        if len(told) == 6:
            raise KeyboardInterrupt

    stopped = lipschitz_bound(network, box=box, branch=True, progress=stop, time_limit=None)
    assert not stopped.finished
    assert (len(told), stopped.boxes) == (6, 6)
    assert few.upper >= stopped.upper >= more.upper
    assert check(certificate_of(more, network), network).bound == more.upper
    for bad in ({"max_boxes": 0}, {"time_limit": -1.0}, {"rtol": 2.0}):
        with pytest.raises(InputError, match=next(iter(bad))):
            local_bound(network, box, branch=True, **bad)


@pytest.mark.parametrize("name", ["relu", "tanh", "maxmin"])
@pytest.mark.parametrize("method", ["lipsdp", "product"])
def test_certificates_are_checked_from_the_box(name, method, tmp_path):
    network, path = net(name), tmp_path / "local.cert"
    box = Box.around(np.array([0.2, 0.4]), 0.05)
    bound = lipschitz_bound(network, box=box, method=method, norm="inf")
    written = write_certificate(path, bound, network)
    read = read_certificate(path)
    assert read.claim == written.claim
    assert read.claim.region.lower.tobytes() == box.lower.tobytes()
    assert read.claim.region.upper.tobytes() == box.upper.tobytes()
    assert pack(unpack(path.read_bytes())) == path.read_bytes()
    found = tangency.check(path, network)
    assert found.holds
    assert found.bound == bound.upper
    assert "for all x and y in the box of 2 entries" in found.claim


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_tampered_boxes_are_refused(name):
    network = net(name)
    box = Box.around(np.array([0.2, 0.4]), 0.05)
    certificate = certificate_of(lipschitz_bound(network, box=box), network)
    region = certificate.claim.region

    def on(low, high):
        claim = replace(certificate.claim, region=Region(low, high))
        return check(replace(certificate, claim=claim), network)

    assert on(region.lower, region.upper).holds
    wide = on(region.lower - 3.0, region.upper + 3.0)
    assert not wide.holds
    assert wide.reason
    assert not on(region.lower + 2.0, region.upper + 2.0).holds
    assert "not (2,)" in on(region.lower[:1], region.upper[:1]).reason
    assert "lower > upper" in on(region.upper, region.lower).reason
    # Without its box the claim is about all of space, which the witness does not prove.
    assert check(certificate, network, exact=True).holds
    bare = replace(certificate, claim=replace(certificate.claim, region=None))
    assert not check(bare, network).holds
    # A file with damaged corners is no certificate.
    data = bytearray(pack(certificate))
    data[-3] ^= 1
    with pytest.raises(InputError, match="damaged"):
        unpack(bytes(data))


def test_the_bound_is_of_this_box_alone():
    network = net("relu")
    bound = lipschitz_bound(network, box=Box.around(np.array([0.2, 0.4]), 0.05))
    other = replace(bound, box=Box(-3 * np.ones(2), 3 * np.ones(2)))
    assert not check(certificate_of(other, network), network).holds
    with pytest.raises(NotProvedError, match="bound is"):
        certificate_of(replace(bound, upper=bound.upper * 0.99), network)
    assert bound.as_dict()["local"] is True


@pytest.mark.parametrize("seed", [4, 15, 22, 28, 32, 33])
def test_slopes_beyond_the_range_of_float64_leave_the_product(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, 5)
    layers = [
        (0.6 * rng.standard_normal((n, m)), 0.6 * rng.standard_normal(n))
        for m, n in pairwise(sizes)
    ]
    network = from_layers(layers, ["cube", "exp", "sigmoid"])  # slopes of exp up to e**500
    box = Box(np.full(sizes[0], -2.57), np.full(sizes[0], 2.57))
    found = lipschitz_bound(network, box=box, norm="1")
    x, y = (box.lower + 5.14 * rng.random((500, sizes[0])) for _ in range(2))
    quotients = np.linalg.norm(values(network, x) - values(network, y), axis=1)
    assert (quotients <= found.upper * np.abs(x - y).sum(axis=1)).all()


CANCEL = [
    ([[1.0, 1.0], [0.0, 1.0]], [[1.0, -1.0]]),  # f = x
    ([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]], [[3.0, -3.0]]),  # f = 3 x
    ([[1.0, 1.0, 2.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [[1.0, -1.0, -2.0 + 1e-7]]),
]


@pytest.mark.parametrize(("first", "second"), CANCEL)
def test_inputs_whose_effects_cancel_cost_nothing_in_linf(first, second, tmp_path):
    first, second = np.array(first), np.array(second)
    n = first.shape[1]
    network = from_layers([first, second], "relu")  # linear on the box
    true = float(np.abs(second @ first).sum())
    found = lipschitz_bound(network, box=Box(np.ones(n), np.full(n, 2.0)), norm="inf")
    assert true <= found.lipsdp <= true * (1.0 + found.gap + 1e-9)
    assert found.upper <= true * (1.0 + 1e-5)
    write_certificate(tmp_path / "cancel.cert", found, network)
    assert check(read_certificate(tmp_path / "cancel.cert"), network).holds


@pytest.mark.parametrize("output", [2, 1, "inf", ("margin", 0, 1)])
def test_linf_is_no_more_than_the_root_of_the_inputs_times_l2(output):
    rng = np.random.default_rng(3)
    for size in (0.02, 0.5, 3.0):
        network = net("relu", int(rng.integers(99)), (3, 6, 6, 3))
        box = Box(np.full(3, -size), np.full(3, size))
        linf, l2 = (lipschitz_bound(network, box=box, norm=p, output=output) for p in ("inf", 2))
        assert linf.upper <= np.sqrt(3.0) * l2.upper * (1.0 + 1e-6)


@pytest.mark.parametrize("output", [2, "inf"])
def test_the_gap_holds_what_the_proof_adds(output, monkeypatch):
    network = from_layers([np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([[1.0, -1.0]])], "relu")
    box = Box(np.ones(2), np.full(2, 2.0))  # f = 2 x
    monkeypatch.setattr(repair, "_LOOSENINGS", (1e-2, 1e-2))
    for norm, true in (("inf", 2.0), (2, 2.0)):
        found = lipschitz_bound(network, box=box, norm=norm, output=output)
        if found.gap is not None:
            assert true * (1.0 + 1e-3) <= found.lipsdp <= true * (1.0 + found.gap + 1e-9)
    assert lipschitz_bound(network, box=box, norm="inf").gap is not None


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("name", ["relu", "tanh", "maxmin"])
def test_a_ball_lies_between_what_it_attains_and_its_box(name, norm, tmp_path):
    network, x = net(name), np.array([0.3, -0.2])
    ball = Ball(x, 0.5, norm=norm)
    found = lipschitz_bound(network, box=ball)
    box = lipschitz_bound(network, box=Box(ball.interval.lower, ball.interval.upper))
    assert (found.upper, found.box.shape) == (box.upper, (2,))
    rng = np.random.default_rng(0)
    points = x + 0.5 * rng.uniform(-1.0, 1.0, (4000, 2))
    points = points[np.linalg.norm(points - x, ord=norm, axis=1) <= 0.5]
    slopes = [np.linalg.norm(jacobian(network, p), 2) for p in points[:60]]
    assert max(slopes) * (1.0 - 1e-4) <= found.upper
    assert 0.9 * max(slopes) <= found.lower <= found.upper
    write_certificate(tmp_path / "ball.cert", found, network)
    assert check(read_certificate(tmp_path / "ball.cert"), network).holds
    branched = lipschitz_bound(network, box=ball, branch=True, max_boxes=4)
    assert found.lower * (1.0 - 1e-9) <= branched.upper <= found.upper * 1.001


def test_the_lower_bound_of_a_ball_is_attained_inside_of_it():
    # |f'| is 5 where x + y > 1.2, a corner of the box that the ball of radius 0.8 does not reach
    network = from_layers([(np.ones((1, 2)), np.array([-1.2])), np.array([[5.0]])], "relu")
    centre = np.zeros(2)
    assert lipschitz_bound(network, box=Box(centre - 0.8, centre + 0.8)).lower > 7.0
    assert lipschitz_bound(network, box=Ball(centre, 0.8)).lower == 0.0
    assert lipschitz_bound(network, box=Ball(centre, 0.9)).lower > 7.0  # 0.9 * sqrt(2) > 1.2
    block = blocks()  # no chain of plain layers: the graph is searched
    reach = attack_network(block, box=Ball(centre, 0.8)), attack_network(block, box=Ball(centre, 1))
    assert reach == pytest.approx((1.0, 11.0))


def blocks():
    """Return x + (5, 5) relu(x + y - 1.2): a Jacobian of norm 11 behind the kink, 1 before it."""
    builder = Builder("float64")
    x = builder.input((1, 2))
    z = builder.dense(x, np.ones((1, 2)), np.array([-1.2]), keys=("v", "c"))
    z = builder.activation(z, activations.get("relu"))
    z = builder.dense(z, np.full((2, 1), 5.0), np.zeros(2), keys=("w", "b"))
    return builder.finish([builder.emit(Add(), [x, z], {})])


def test_several_samples_at_once_are_refused():
    network, x = net(), np.zeros((3, 2))
    for region in (Box.around(x, 0.1), Ball(x, 0.1), [Ball(x, 0.1)]):
        with pytest.raises(InputError, match=r"\(3, 2\).* one box at a time.* each sample"):
            lipschitz_bound(network, box=region)
    one = lipschitz_bound(network, box=Ball(x[:1], np.array([0.1])))
    assert one.upper == lipschitz_bound(network, box=[Ball(x[0], 0.1)]).upper


def test_refusals():
    network = net("relu")
    with pytest.raises(InputError, match="one box at a time"):
        lipschitz_bound(network, box=Box(np.zeros((3, 2)), np.ones((3, 2))))
    with pytest.raises(InputError, match="the network takes"):
        lipschitz_bound(network, box=Box(np.zeros(5), np.ones(5)))
    with pytest.raises(InputError, match="box is a"):
        lipschitz_bound(network, box=0.1)
    b = Builder("float64")
    x = b.input((1, 2))
    y = b.emit(Activate(activations.get("relu")), [x])
    with pytest.raises(UnsupportedError):
        lipschitz_bound(b.finish([b.emit(Product(), [x, y])]), box=Box(np.zeros(2), np.ones(2)))


def test_attack_stays_inside():
    """A kink outside of the box contributes nothing."""
    network = from_layers([(np.array([[1.0]]), np.array([-1.0])), np.array([[5.0]])])
    chain = local_chain(network, Box(np.array([-1.0]), np.array([0.9])))
    assert attack_box(chain, Box(np.array([-1.0]), np.array([0.9]))) == 0.0
    assert attack_box(chain, Box(np.array([-1.0]), np.array([1.5]))) == pytest.approx(5.0)


def test_maxmin_pairs_that_keep_their_order():
    network = net("maxmin")
    x = np.array([0.3, -0.7])
    for eps in (1e-6, 0.01, 0.3):
        found = lipschitz_bound(network, box=Box.around(x, eps))
        assert found.lower <= found.upper <= everywhere("maxmin") * (1 + 1e-4)
        assert check(certificate_of(found, network), network).holds
        if eps == 1e-6:
            exact = np.linalg.norm(jacobian(network, x), 2)
            assert found.upper == pytest.approx(exact, rel=1e-6)
    # The turned chain is the same map.
    rng = np.random.default_rng(1)
    box = Box.around(x, 0.3)
    points = rng.uniform(box.lower, box.upper, (50, 2))
    direct = network.astype("float64")(points)
    assert np.allclose(values(network, points), np.asarray(direct, float), rtol=1e-5, atol=1e-6)
    turned = local_chain(network, box)
    assert any(a.lower.min() < a.lower.max() for a in turned.activations if hasattr(a, "lower"))


def test_a_check_needs_numpy_alone(tmp_path):
    network, box = net("gelu"), Box.around(np.array([0.2, 0.4]), 0.05)
    write_certificate(tmp_path / "a.cert", lipschitz_bound(network, box=box), network)
    network.save(tmp_path / "net.tangency")
    code = """
import sys
for name in ("jax", "scipy", "cvxpy", "scs", "clarabel", "torch", "numba", "flint"):
    sys.modules[name] = None
import tangency
found = tangency.check(sys.argv[1], tangency.load(sys.argv[2]))
print(found.holds, found.reason)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.cert"), str(tmp_path / "net.tangency")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["True"], done.stdout + done.stderr
