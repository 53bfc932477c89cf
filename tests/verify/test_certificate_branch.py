"""Certificates of boxes in pieces: the cover, each piece, and all that may be forged in them."""

import subprocess
import sys
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models import Builder, activations, from_layers
from tangency.models.errors import InputError, NotProvedError
from tangency.models.ops import Add, Dense
from tangency.verify import Box, check, lipschitz_bound, read_certificate, write_certificate
from tangency.verify.certificate.branch import BranchWitness, check_branch
from tangency.verify.certificate.cover import require_cover
from tangency.verify.certificate.file import CertificateError, pack, unpack
from tangency.verify.certificate.product import ProductWitness
from tangency.verify.certificate.witness import ChainWitness
from tangency.verify.checking import certificate_of
from tangency.verify.lipschitz.implicit import ImplicitBound

LOW, HIGH = np.array([-1.0, -1.0]), np.array([1.0, 0.5])
KINDS = [
    ("relu", {}),
    ("relu", {"norm": "inf", "output": ("margin", 0, 1)}),
    ("maxmin", {"output": "inf", "norm": 1}),
    ("tanh", {"output": 1}),
]


@lru_cache
def net(name="relu", seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(6, 2), (6, 6), (2, 6)]
    return from_layers([(rng.standard_normal(s), rng.standard_normal(s[0])) for s in shapes], name)


@lru_cache
def case(kind=0):
    """A network, its bound on the box after some cuts, and the certificate."""
    name, options = KINDS[kind]
    network = net(name)
    bound = lipschitz_bound(
        network,
        box=Box(LOW, HIGH),
        branch=True,
        max_boxes=12 if kind == 2 else 7,
        attack=False,
        **options,
    )
    return network, bound, certificate_of(bound, network)


def cut_up(draw, low, high, depth=4):
    """Corners of the pieces of a box after random cuts."""
    if depth == 0 or not draw(st.booleans()):
        return [(low, high)]
    axis = draw(st.integers(0, len(low) - 1))
    where = low[axis] + draw(st.sampled_from([0.25, 0.5, 0.625])) * (high[axis] - low[axis])
    top, bottom = high.copy(), low.copy()
    top[axis] = bottom[axis] = where
    first, second = cut_up(draw, low, top, depth - 1), cut_up(draw, bottom, high, depth - 1)
    return [*first, *second]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_covers_are_recognised_and_gaps_are_found(data, n):
    low, high = -np.ones(n), np.arange(1.0, n + 1)
    pieces = cut_up(data.draw, low, high)
    order = data.draw(st.permutations(range(len(pieces))))
    lower, upper = (np.array([pieces[i][side] for i in order]) for side in (0, 1))
    require_cover(lower, upper, low, high)
    assert (upper - lower).prod(axis=1).sum() == pytest.approx((high - low).prod())
    i, j = data.draw(st.integers(0, len(pieces) - 1)), data.draw(st.integers(0, n - 1))
    middle = (lower[i] + upper[i]) / 2
    for change in (-1e-9, 1e-9):
        for side in (0, 1):
            other = [lower.copy(), upper.copy()]
            other[side][i, j] += change
            with pytest.raises(NotProvedError, match=r"piece|cut"):
                require_cover(*other, low, high)
    left = np.arange(len(pieces)) != i
    gap = ~((lower[left] <= middle) & (middle <= upper[left])).all(axis=1).any()
    assert gap  # what is taken away leaves a hole
    with pytest.raises(NotProvedError):
        require_cover(lower[left], upper[left], low, high)
    twice = np.append(np.arange(len(pieces)), i)
    with pytest.raises(NotProvedError):
        require_cover(lower[twice], upper[twice], low, high)


def test_a_pinwheel_is_no_cover_by_cuts():
    # It covers the square, but no cut goes through: what is not proved is refused.
    lower = np.array([[0, 0], [2, 0], [1, 2], [0, 1], [1, 1]], float)
    upper = np.array([[2, 1], [3, 2], [3, 3], [1, 3], [2, 2]], float)
    assert (upper - lower).prod(axis=1).sum() == 9
    with pytest.raises(NotProvedError, match="no cut parts the 5 pieces"):
        require_cover(lower, upper, np.zeros(2), np.full(2, 3.0))
    for wrong in (lower[:, :1], lower[:4], lower[0]):
        with pytest.raises(NotProvedError, match="no boxes of 2"):
            require_cover(wrong, upper, np.zeros(2), np.full(2, 3.0))
    with pytest.raises(NotProvedError, match="no piece covers"):
        require_cover(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(2), np.ones(2))


def test_pieces_of_no_width():
    point = np.array([0.5, 2.0])
    require_cover(point[None], point[None], point, point)
    lower, upper = np.array([[0.0, 2.0], [0.5, 2.0]]), np.array([[0.5, 2.0], [1.0, 2.0]])
    require_cover(lower, upper, np.array([0.0, 2.0]), np.array([1.0, 2.0]))


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_a_bound_from_pieces_is_checked_in_every_norm(kind, tmp_path):
    network, bound, certificate = case(kind)
    assert isinstance(certificate.witness, BranchWitness)
    assert 1 < len(certificate.witness.pieces) == len(bound.pieces) <= bound.boxes
    path = tmp_path / "cut.cert"
    write_certificate(path, bound, network)
    read = read_certificate(path)
    assert path.read_bytes() == pack(certificate) == pack(read)
    found = check(path, network)
    assert found.holds, found.reason
    assert found.bound == bound.upper == max(p.bound for p in read.witness.pieces)
    assert "in the box of 2 entries" in found.claim
    whole = lipschitz_bound(network, box=Box(LOW, HIGH), attack=False, **KINDS[kind][1])
    assert bound.upper < whole.upper
    # Below it: difference quotients of pairs anywhere in the box.
    rng = np.random.default_rng(1)
    x, y = LOW + (HIGH - LOW) * rng.random((2, 2000, 2))
    y[:1000] = np.clip(x[:1000] + 1e-4 * y[:1000], LOW, HIGH)
    apart = network.evaluate(x) - network.evaluate(y)
    if bound.output == "margin:0,1":
        apart = apart[:, :1] - apart[:, 1:]
    ends = {"2": 2, "1": 1, "inf": np.inf, "margin:0,1": 2}
    quotient = np.linalg.norm(apart, ends[bound.output], axis=1)
    quotient /= np.linalg.norm(x - y, ends[bound.norm], axis=1)
    assert 0.3 * bound.upper < quotient.max() <= bound.upper


def test_in_exact_arithmetic():
    pytest.importorskip("flint", reason="needs the extra [exact]")
    network, bound, certificate = case()
    assert check(certificate, network, exact=True).bound == bound.upper
    lowered = with_bound(certificate, bound.upper * (1 - 1e-6))
    assert "exceeds" in check(lowered, network, exact=True).reason


def with_bound(certificate, value, **changes):
    """The certificate with another bound, in the claim and in the witness."""
    witness = replace(certificate.witness, bound=value, **changes)
    return replace(certificate, claim=replace(certificate.claim, bound=value), witness=witness)


def changed(certificate, **changes):
    return replace(certificate, witness=replace(certificate.witness, **changes))


def test_forged_pieces_are_refused():
    network, bound, certificate = case()
    witness = certificate.witness
    lower, upper, pieces = witness.lower, witness.upper, witness.pieces
    count = len(pieces)
    worst = int(np.argmax([p.bound for p in pieces]))
    assert pieces[worst].bound == bound.upper

    def reason(other, model=network):
        other = unpack(pack(other))  # as a file would bring it
        found = check(other, model)
        assert not found.holds
        assert found.bound is None
        return found.reason

    less = bound.upper * (1 - 1e-6)
    assert f"piece {worst + 1} of {count}: its bound" in reason(with_bound(certificate, less))
    for k in range(count):
        # The bound of a piece lowered with its witness: the proof has no such room.
        part = replace(pieces[k], bound=pieces[k].bound * (1 - 1e-6))
        parts = (*pieces[:k], part, *pieces[k + 1 :])
        assert f"piece {k + 1} of {count}: layer 1" in reason(changed(certificate, pieces=parts))
        # A missing piece, with its box or without.
        left = np.arange(count) != k
        parts = (*pieces[:k], *pieces[k + 1 :])
        hole = changed(certificate, lower=lower[left], upper=upper[left], pieces=parts)
        assert "part of the box that is left for it" in reason(hole) or "no cut" in reason(hole)
        assert "do not fit" in reason(changed(certificate, pieces=parts))
        # A box widened or narrowed, by much and by the least bit.
        for way in (-np.inf, np.inf):
            wide, high = lower.copy(), upper.copy()
            wide[k, 0], high[k, 1] = np.nextafter(wide[k, 0], way), np.nextafter(high[k, 1], way)
            assert "part" in reason(changed(certificate, lower=wide))
            assert "part" in reason(changed(certificate, upper=high))
        # The sign of a multiplier.
        if not isinstance(pieces[k], ProductWitness):
            flipped = [m.copy() for m in pieces[k].multipliers]
            flipped[0][np.flatnonzero(flipped[0])[0]] *= -1
            part = replace(pieces[k], multipliers=tuple(flipped))
            parts = (*pieces[:k], part, *pieces[k + 1 :])
            assert "multiplier is negative" in reason(changed(certificate, pieces=parts))
    part = replace(pieces[0], norm="inf", head=(np.ones(2),))
    assert "in other norms" in reason(changed(certificate, pieces=(part, *pieces[1:])))
    # Witnesses of other pieces: the slopes of each box are the model's.
    turned = changed(certificate, pieces=(*pieces[1:], pieces[0]))
    assert "piece" in reason(turned)
    # A larger region than the pieces cover, and none at all.
    region = certificate.claim.region
    for side, value in (("lower", LOW - 0.1), ("upper", HIGH + 2.0**-40)):
        wide = replace(region, **{side: value})
        claim = replace(certificate.claim, region=wide)
        assert "part of the box" in reason(replace(certificate, claim=claim))
    everywhere = replace(certificate, claim=replace(certificate.claim, region=None))
    assert "no witness for a box in pieces" in reason(everywhere)
    # Other weights, by the hash and by the proof.
    stranger = net(seed=1)
    assert "sha256" in reason(certificate, stranger)
    assert "piece" in reason(replace(certificate, network=stranger.hash), stranger)
    flat = replace(region, lower=LOW.reshape(1, 2), upper=HIGH.reshape(1, 2))
    claim = replace(certificate.claim, region=flat)
    with pytest.raises(InputError, match=r"not \(2,\)"):
        unpack(pack(replace(certificate, claim=claim)))
    data = pack(certificate)
    for end in (len(data) - 1, len(data) // 2):
        with pytest.raises(CertificateError, match="truncated"):
            unpack(data[:end])


def test_a_cut_that_was_moved_is_proved_again_or_refused():
    """Both sides of a cut move together: the cover holds, and the slopes are derived again."""
    network, _, certificate = case()
    lower, upper = certificate.witness.lower, certificate.witness.upper
    axis, where = next((a, w) for a in (0, 1) for w in lower[:, a] if w > LOW[a])
    refused = 0
    for step in np.linspace(-0.2, 0.2, 9):
        low, high = lower.copy(), upper.copy()
        low[:, axis][low[:, axis] == where] += step
        high[:, axis][high[:, axis] == where] += step
        found = check(changed(certificate, lower=low, upper=high), network)
        assert found.holds or "piece" in found.reason or "cut" in found.reason
        refused += not found.holds
        assert found.holds or step != 0.0
    assert refused


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([0.0, -1.0, 1 - 1e-7, 1 + 1e-7, 1e300]))
def test_a_changed_number_proves_only_what_is_true(data, factor):
    pytest.importorskip("flint", reason="needs the extra [exact]")
    network, bound, certificate = case()
    pieces = certificate.witness.pieces
    k = data.draw(st.integers(0, len(pieces) - 1))
    assert isinstance(pieces[k], ChainWitness)
    name = data.draw(st.sampled_from(["multipliers", "storage"]))
    arrays = [a.copy() for a in getattr(pieces[k], name)]
    chosen = arrays[data.draw(st.integers(0, len(arrays) - 1))].reshape(-1)
    chosen[data.draw(st.integers(0, chosen.size - 1))] *= factor
    part = replace(pieces[k], **{name: tuple(arrays)})
    other = changed(certificate, pieces=(*pieces[:k], part, *pieces[k + 1 :]))
    if check(other, network):
        assert check(other, network, exact=True).bound == bound.upper


def test_products_of_norms_on_the_pieces():
    network = net()
    lower = np.array([[-1.0, -1.0], [0.0, -1.0], [0.0, -0.25]])
    upper = np.array([[0.0, 0.5], [1.0, -0.25], [1.0, 0.5]])
    bound = lipschitz_bound(network, box=Box(LOW, HIGH), method="product", attack=False)
    parts = []
    for low, high in zip(lower, upper, strict=True):
        own = lipschitz_bound(network, box=Box(low, high), method="product", attack=False)
        parts.append(certificate_of(own, network).witness)
    value = max(p.bound for p in parts)
    witness = BranchWitness(value, lower, upper, tuple(parts))
    certificate = certificate_of(bound, network)
    certificate = replace(
        certificate, claim=replace(certificate.claim, bound=value), witness=witness
    )
    assert check(certificate, network).bound == value
    proved = check_branch(witness, LOW, HIGH, lambda part, low, high: part.bound)
    assert proved == value
    with pytest.raises(NotProvedError, match="is proved, which exceeds"):
        check_branch(witness, LOW, HIGH, lambda part, low, high: 2 * value)
    with pytest.raises(NotProvedError, match="not a finite number"):
        check_branch(replace(witness, bound=float("nan")), LOW, HIGH, lambda *_: 0.0)


def test_residual_blocks_in_pieces():
    rng = np.random.default_rng(0)
    b = Builder("float64")
    x = b.input((1, 2))
    for k in range(2):
        inner = {"weight": (f"w{k}", rng.standard_normal((6, 2))), "bias": (f"b{k}", np.ones(6))}
        y = b.activation(b.emit(Dense(), [x], inner), activations.get("relu"))
        y = b.emit(Dense(), [y], {"weight": (f"v{k}", rng.standard_normal((2, 6)))})
        x = b.emit(Add(), [x, y])
    network = b.finish([x])
    bound = lipschitz_bound(
        network, box=Box(LOW, HIGH), branch=True, max_boxes=6, attack=False, rtol=1e-2
    )
    certificate = certificate_of(bound, network)
    found = check(unpack(pack(certificate)), network)
    assert found.bound == bound.upper, found.reason
    assert isinstance(certificate.witness, BranchWitness)
    less = bound.upper * (1 - 1e-6)
    assert "its bound" in check(with_bound(certificate, less), network).reason
    x, y = LOW + (HIGH - LOW) * rng.random((2, 1000, 2))
    apart = np.linalg.norm(network.evaluate(x) - network.evaluate(y), axis=1)
    assert (apart <= bound.upper * np.linalg.norm(x - y, axis=1)).all()


def test_one_piece_is_an_ordinary_certificate():
    network = net()
    bound = lipschitz_bound(
        network, box=Box(LOW, HIGH), branch=True, max_boxes=1, attack=False, time_limit=30
    )
    certificate = certificate_of(bound, network)
    assert not isinstance(certificate.witness, BranchWitness)
    assert check(certificate, network).bound == bound.upper
    implicit = ImplicitBound(1.0, None, True, "lipsdp", "2", 0.0, None, 1.0)
    with pytest.raises(InputError, match="ImplicitLayer"):
        certificate_of(implicit, network)


ALONE = """
import sys
for name in "scipy jax cvxpy scs clarabel numba torch onnx matplotlib flint".split():
    sys.modules[name] = None
import tangency
found = tangency.check(sys.argv[1], tangency.models.Network.load(sys.argv[2]))
assert found.holds, found.reason
print(found.claim)
"""


def test_the_check_needs_numpy_alone(tmp_path):
    network, bound, _ = case()
    write_certificate(tmp_path / "n.cert", bound, network)
    network.save(tmp_path / "n.tangency")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path / "n.cert", tmp_path / "n.tangency"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert network.hash in done.stdout
