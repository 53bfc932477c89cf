"""What a certificate says is what it claims, and whether that is what a user has in mind."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tangency.models import Builder, from_layers
from tangency.models.errors import InputError, NotProvedError
from tangency.models.ops import Conv
from tangency.verify import (
    Ball,
    Box,
    bound,
    certify_robust,
    check,
    checking,
    lipschitz_bound,
    write_certificate,
)
from tangency.verify.certificate import conv, conv_witness
from tangency.verify.certificate.claim import Region
from tangency.verify.certificate.conv_pieces import RunWitness
from tangency.verify.certificate.file import CertificateError, pack, unpack
from tangency.verify.certificate.outputs import BallSet, OutputsClaim
from tangency.verify.certificate.regions import decimal, half_edges
from tangency.verify.certificate.source import Samples, Source, require_samples
from tangency.verify.checking import certificate_of
from tangency.verify.lipschitz.conv import conv_bound

EPS = 0.02
FLOATS = st.floats(-4, 4, width=64)


@cache
def case():
    """Labelled samples, some of which are proved robust, and the certificate."""
    rng = np.random.default_rng(3)
    sizes = [(8, 4), (8, 8), (3, 8)]
    network = from_layers([(rng.normal(size=s), rng.normal(size=s[0])) for s in sizes], "relu")
    x = rng.normal(size=(12, 4))
    y = network.evaluate(x).argmax(axis=1)
    y[5] = (y[5] + 1) % 3  # one that is not kept
    result = certify_robust(network, x, y, EPS, method="crown", attack="none")
    assert 4 < result.verified.sum() < 12
    return network, x, y, result, unpack(pack(certificate_of(result, network)))


def changed(certificate, **parts):
    return replace(certificate, claim=replace(certificate.claim, **parts))


def words(certificate):
    return str(certificate), certificate.claim.as_dict()


def test_what_is_printed_determines_the_claim():
    network, x, _, _, certificate = case()
    claim = certificate.claim
    middle = (claim.low + claim.high) / 2
    nudged = claim.high.copy()
    nudged[0, 0] = np.nextafter(nudged[0, 0], np.inf)
    others = [
        changed(certificate, low=middle, high=middle),  # shrunk to points: proved all the more
        changed(certificate, high=nudged),
        changed(certificate, low=claim.low + 1.0, high=claim.high + 1.0),
    ]
    assert check(others[0], network).holds
    region = certificate_of(
        lipschitz_bound(network, box=Box.around(x[0], EPS), attack=False), network
    )
    own = region.claim.region
    shrunk = Region((own.lower + own.upper) / 2, (own.lower + own.upper) / 2)
    assert words(region) != words(changed(region, region=shrunk))
    assert "half-edges between 0 and 0 " in str(changed(region, region=shrunk))
    assert len({str(c) for c in (certificate, *others)}) == 4
    assert len({repr(c.claim.as_dict()) for c in (certificate, *others)}) == 4
    assert "half-edges between 0 and 0 " in str(others[0])
    least, largest = certificate.claim.as_dict()["region"]["half_edges"]
    assert EPS <= float(least) <= float(largest) <= EPS * (1 + 1e-12)
    assert f"half-edges between {least} and {largest} and corners" in str(certificate)
    assert f"labels y are {', '.join(map(str, claim.labels))}" in str(certificate)


def test_a_ball_that_is_cut_says_so():
    network, x, *_ = case()
    whole = certificate_of(bound(network, Ball(x, 0.4), method="crown"), network)
    assert "each of 12 l2 balls of radius 0.4" in str(whole)
    assert "cut" not in str(whole)
    claim = whole.claim
    points = changed(
        whole, low=x, high=x, ball=BallSet(claim.ball.center, np.full(1, 1e6), claim.ball.norm)
    )
    assert check(points, network).holds  # at the points alone
    assert "radius 1e+6 " in str(points)
    assert "cut with boxes with half-edges between 0 and 0 " in str(points)
    assert points.claim.as_dict()["region"]["cut_with_boxes"] is True
    clipped = Ball(np.clip(x, -1, 1), 0.4, clip=(-1.0, 1.0))
    cut = certificate_of(bound(network, clipped, method="crown"), network)
    assert "cut with" in str(cut)
    two = changed(whole, ball=BallSet(claim.ball.center, np.linspace(0.3, 0.4, 12), 2))
    assert "radius 0.29999999999999998 to 0.40000000000000003 " in str(two)


@settings(max_examples=200, deadline=None)
@given(arrays(np.float64, (2, 5), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_half_edges_are_exact(corners):
    low, high = np.sort(corners, axis=0)
    exact = [(Fraction(b) - Fraction(a)) / 2 for a, b in zip(low, high, strict=True)]
    assert half_edges(low, high) == (min(exact), max(exact))
    assert Fraction(decimal(min(exact), up=False)) <= min(exact)
    assert Fraction(decimal(max(exact), up=True)) >= max(exact)
    for value in low:
        assert Fraction(decimal(value, up=False, digits=3)) <= Fraction(float(value))


@pytest.mark.parametrize("seed", range(20))
def test_labels_are_those_of_whole_sets_of_margins(seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 5))
    y = rng.integers(k, size=3)
    spec = np.array([[np.eye(k)[a] - np.eye(k)[j] for j in range(k) if j != a] for a in y])
    claim = OutputsClaim(np.zeros((3, 2)), np.ones((3, 2)), spec, np.ones((3, k - 1)))
    assert claim.labels.tolist() == y.tolist()
    assert replace(claim, spec=spec[:, ::-1]).labels.tolist() == y.tolist()
    for wrong in (2 * spec, -spec if k > 2 else 3 * spec, spec[:, [0] * (k - 1)] * (k > 2)):
        assert replace(claim, spec=wrong).labels is None
    assert replace(claim, spec=np.ones((1, 1, k))).labels is None or k == 2


def holds_exactly(low, high, ball, x, eps, norm, clip):
    """Whether a box, and a ball around the same centre, hold the ball of a sample; in rationals."""
    e = Fraction(eps)
    for a, b, c in zip(low, high, x, strict=True):
        first, last = Fraction(c) - e, Fraction(c) + e
        if clip is not None:
            first, last = max(first, Fraction(clip[0])), min(last, Fraction(clip[1]))
        if not Fraction(a) <= first <= last <= Fraction(b):
            return False
    if ball is None:
        return True
    n = len(x)
    power = {("inf", 2): n, ("2", 1): n, ("inf", 1): n**2}.get((norm, ball.norm), 1)
    return Fraction(float(ball.radius[0])) ** 2 >= e**2 * power


@settings(max_examples=300, deadline=None)
@given(
    arrays(np.float64, 3, elements=FLOATS),
    st.floats(0, 2),
    st.lists(st.integers(-1, 1), min_size=6, max_size=6),
    st.sampled_from(["inf", "2", "1"]),
    st.sampled_from([None, 1, 2]),
    st.sampled_from([0.999, 1.0, 1.001, 3.0]),
    st.booleans(),
)
def test_a_sample_is_covered_exactly_where_its_ball_is(x, eps, nudges, norm, kind, wide, cut):
    """Corners at x - eps and x + eps as floats round them, and one float beside."""
    low, high = x - eps, x + eps
    for k, step in enumerate(nudges):
        side = (low, high)[k // 3]
        side[k % 3] = np.nextafter(side[k % 3], step * np.inf) if step else side[k % 3]
    low, high = np.minimum(low, x), np.maximum(high, x)
    clip = (float(x.min()), float(x.max())) if cut else None
    if cut:
        low, high = np.maximum(low, clip[0]), np.minimum(high, clip[1])
    spread = {("inf", 2): 3**0.5, ("2", 1): 3**0.5, ("inf", 1): 3.0}.get((norm, kind), 1.0)
    ball = None if kind is None else BallSet(x[None], np.array([eps * spread * wide]), kind)
    claim = OutputsClaim(low[None], high[None], np.ones((1, 1, 1)), np.ones((1, 1)), ball)
    certificate = replace(case()[-1], claim=claim, input_shape=(3,), source=None)
    believed = Samples(x[None], eps, norm=norm, clip=clip)
    if holds_exactly(low, high, ball, x, eps, norm, clip):
        assert require_samples(certificate, believed) == (0,)
    else:
        with pytest.raises(NotProvedError, match="sample 0: the set of the claim leaves out"):
            require_samples(certificate, believed)


def test_the_balls_that_are_certified_hold_what_they_are_named_for():
    """Box.around and Ball round outward: the claim is about the exact balls, never about less."""
    rng = np.random.default_rng(1)
    for eps in (0.02, 0.1, 1 / 3, 1e-17, 1e3):
        x = rng.normal(size=(20, 7)) * 10.0 ** rng.integers(-3, 4, size=(20, 1))
        for norm, region in (("inf", Box.around(x, eps)), ("2", Ball(x, eps)), ("1", Ball(x, eps))):
            box = region.interval
            ball = None if norm == "inf" else BallSet(x, np.full(20, eps), 2)
            claim = OutputsClaim(box.lower, box.upper, np.ones((1, 1, 1)), np.ones((20, 1)), ball)
            certificate = replace(case()[-1], claim=claim, input_shape=(7,), source=None)
            assert len(require_samples(certificate, Samples(x, eps, norm=norm))) == 20
            with pytest.raises(NotProvedError):
                require_samples(certificate, Samples(x, np.nextafter(eps, 9e9) * 1.5, norm=norm))


def test_a_robust_certificate_is_compared_with_the_data():
    network, x, y, result, certificate = case()
    claimed = tuple(np.flatnonzero(result.verified).tolist())
    found = check(certificate, network, x=x, y=y, eps=EPS)
    assert found.holds
    assert found.samples == claimed
    assert tuple(certificate.source.samples.tolist()) == claimed
    assert check(certificate, network, x=x.astype(np.float64), y=y, eps=EPS / 2).holds
    assert (
        check(certificate, network, x=x, y=y, eps=EPS, samples=claimed[1:3]).samples == claimed[1:3]
    )
    other = y.copy()
    other[claimed[2]] = (other[claimed[2]] + 1) % 3
    moved = x.copy()
    moved[claimed[3], 1] = np.nextafter(moved[claimed[3], 1], np.inf)
    unsure = int(np.flatnonzero(~result.verified)[0])
    for options, reason in (
        ({"eps": 1.001 * EPS}, f"sample {claimed[0]}: the set of the claim leaves out"),
        ({"x": x + 1.0}, "leaves out a part of its ball"),
        ({"x": moved}, f"sample {claimed[3]}: the set"),
        ({"y": other}, f"sample {claimed[2]}: the claim is about the label"),
        ({"samples": [unsure]}, f"sample {unsure} is not claimed"),
        ({"samples": range(12)}, "is not claimed"),
        ({"x": x[:3], "y": y[:3]}, "and the data hold 3"),
    ):
        found = check(certificate, network, **({"x": x, "y": y, "eps": EPS} | options))
        assert not found.holds
        assert reason in found.reason
        assert found.samples is None
    # What the file says of its source is no more than a hint.
    shifted = replace(certificate.source, samples=certificate.source.samples[::-1].copy())
    assert not check(replace(certificate, source=shifted), network, x=x, y=y, eps=EPS).holds
    # Without it the samples are named by whoever asks.
    bare = replace(certificate, source=None)
    assert check(bare, network, x=x, y=y, eps=EPS, samples=claimed).holds
    with pytest.raises(InputError, match="names no samples"):
        check(bare, network, x=x, y=y, eps=EPS)
    # Labels that are claimed with a margin of less than nothing are not kept.
    loose = changed(certificate, lower=certificate.claim.lower - 1e3)
    assert check(loose, network).holds
    assert "keeps no label" in check(loose, network, x=x, y=y, eps=EPS).reason


def test_other_claims_are_compared_too():
    network, x, y, *_ = case()
    everywhere = certificate_of(lipschitz_bound(network, method="product", attack=False), network)
    assert check(everywhere, network, x=x, eps=1e9).samples == tuple(range(12))
    assert "labels were given" in check(everywhere, network, x=x, y=y, eps=EPS).reason
    near = lipschitz_bound(network, box=Box.around(x[3], EPS), attack=False, method="product")
    named = certificate_of(near, network, Samples(x, EPS).source([3]))
    named = unpack(pack(named))
    assert check(named, network, x=x, eps=EPS).samples == (3,)
    assert check(named, network, x=x, eps=EPS, norm=2).holds
    assert "leaves out" in check(named, network, x=x, eps=2 * EPS).reason
    assert "sample 4 is not claimed" in check(named, network, x=x, eps=EPS, samples=[4]).reason
    assert check(certificate_of(near, network), network, x=x[3:4], eps=EPS).samples == (0,)
    balls = certificate_of(bound(network, Ball(x, 0.4), method="crown"), network)
    assert check(balls, network, x=x, eps=0.4, norm=2).holds
    assert check(balls, network, x=x, eps=0.4, norm=1).holds
    assert not check(balls, network, x=x, eps=0.4).holds
    assert check(balls, network, x=x, eps=0.19).holds  # 2 * 0.19 < 0.4, in four dimensions


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"x": np.zeros((2, 4), int)}, "give finite floats"),
        ({"x": np.full((2, 4), np.nan)}, "give finite floats"),
        ({"x": np.zeros((2, 3))}, "is about inputs"),
        ({"eps": -1.0}, "a radius is finite"),
        ({"eps": None}, "go together"),
        ({"norm": 3}, "give inf, 2 or 1"),
        ({"y": np.zeros(2)}, "give 12 integers"),
        ({"clip": (0.0, 0.1)}, "no range"),
        ({"samples": [12]}, "sample 12 is not in the data"),
    ],
)
def test_data_that_cannot_be_compared_are_errors(options, word):
    network, x, _, _, certificate = case()
    with pytest.raises(InputError, match=word):
        check(certificate, network, **({"x": x, "eps": EPS} | options))


def test_malformed_claims_are_refused_where_they_are_read():
    network, x, _, _, certificate = case()
    near = certificate_of(
        lipschitz_bound(network, box=Box.around(x[0], EPS), attack=False, method="product"), network
    )
    own, source, claim = near.claim.region, certificate.source, certificate.claim
    balls = changed(certificate, ball=BallSet(x[:1], np.ones(1), 2))
    for other, word in (
        (changed(certificate, low=np.array(0.0)), r"boxes \(\)"),
        (changed(near, region=Region(own.lower, own.upper[:2])), r"not \(4,\)"),
        (changed(near, region=Region(own.upper, own.lower)), "lower > upper"),
        (changed(near, norm_out="margin", margin=(0, 3)), "two of 3 entries"),
        (changed(near, norm_out="margin", margin=()), "two of 3 entries"),
        (changed(near, bound=-1.0), "no bound of a norm"),
        (changed(certificate, spec=claim.spec[:2]), "do not fit"),
        (changed(balls, ball=BallSet(x[:2], np.ones(1), 2)), "do not fit"),
        (changed(balls, ball=BallSet(x[:1], -np.ones(1), 2)), "do not fit"),
        (changed(balls, ball=BallSet(x[:1], np.ones(1), 3)), "norm 3"),
        (replace(certificate, network="0"), "no sha256"),
        (replace(certificate, method="x)\nholds: all"), "is no name"),
        (replace(certificate, tangency="\x1b[2J"), "is no name"),
        (replace(certificate, input_shape=(0,)), "is no shape"),
        (replace(certificate, source=replace(source, samples=source.samples[:2])), "not .* places"),
        (replace(certificate, source=replace(source, samples=0 * source.samples)), "twice"),
        (replace(certificate, source=replace(source, data="x")), "source.data"),
        (replace(certificate, source=replace(source, eps=-1.0)), "no radius"),
        (changed(replace(near, source=Source(np.arange(1), "a" * 64, 1.0)), region=None), "source"),
    ):
        with pytest.raises(CertificateError, match=word):
            unpack(pack(other))
        assert not check(other, network)


def test_a_small_file_asks_for_little(monkeypatch):
    """Empty arrays with huge axes, and a torus that no array of the file is as large as."""
    rng, b = np.random.default_rng(0), Builder("float64")
    x = b.input((1, 1, 8, 8))
    for k in range(2):
        weight = {"weight": (f"w{k}", rng.normal(size=(1, 1, 3, 3)))}
        x = b.emit(Conv((1, 1), ((1, 1), (1, 1))), [x], weight)
    network = b.finish([x])
    certificate = certificate_of(conv_bound(network, attack=False), network)

    def with_run(run):
        return replace(certificate, witness=replace(certificate.witness, pieces=(run, run)))

    for module in (conv, conv_witness):
        monkeypatch.setattr(module, "frequencies", lambda torus: pytest.fail("walked through"))
    large = unpack(pack(with_run(RunWitness(1e6, (256, 256), (0,)))))
    assert len(pack(large)) < 1500
    assert r"torus (256, 256) is too large: (9, 9) is enough" in check(large, network).reason
    hollow = RunWitness(1e6, (9, 9), (0, 0), (), (np.zeros((0, 2**20, 2**20)),))
    with pytest.raises(CertificateError, match=r"without entries has the shape \[0\]"):
        unpack(pack(with_run(hollow)))


def test_slopes_of_another_number_of_functions_do_not_fit():
    network, x, y, *_ = case()
    result = certify_robust(network, x, y, EPS, method="alpha-crown", steps=1, attack="none")
    certificate = certificate_of(result, network)
    (first, *rest) = certificate.witness.last
    for count in (3, 7):
        slopes = tuple(np.repeat(v[:, :1], count, axis=1) for v in first.slopes)
        witness = replace(certificate.witness, last=(replace(first, slopes=slopes), *rest))
        found = check(unpack(pack(replace(certificate, witness=witness))), network)
        assert not found.holds
        assert "do not fit node" in found.reason


def test_what_a_proof_raises_is_not_a_proof(monkeypatch, tmp_path):
    network, _, _, result, certificate = case()

    def fails(*args, **options):
        raise IndexError("index 5 is out of bounds")

    monkeypatch.setattr(checking, "prove", fails)
    found = check(certificate, network)
    assert not found.holds
    assert "does not fit the model (IndexError within the proof: index 5" in found.reason
    # A witness of our own that fails so is an error of ours, which nothing hides.
    with pytest.raises(IndexError):
        write_certificate(tmp_path / "x.cert", result, network)
    assert not (tmp_path / "x.cert").exists()
