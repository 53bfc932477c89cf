"""Certificates of convolutional bounds by frequency: packed, checked alone, forged."""

import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models import Builder, activations
from tangency.models.errors import InputError, NotProvedError
from tangency.models.ops import AveragePool, BatchNorm, Conv, Dense, Reshape
from tangency.verify import check, read_certificate, write_certificate
from tangency.verify.certificate import Matrix
from tangency.verify.certificate.conv_norm import conv_norm_bound, conv_norm_is_at_most
from tangency.verify.certificate.conv_pieces import FrequencyWitness, RunWitness, check_frequencies
from tangency.verify.certificate.conv_symbol import ConvLayer
from tangency.verify.certificate.conv_witness import ConvWitness
from tangency.verify.certificate.file import CertificateError, pack, unpack
from tangency.verify.checking import certificate_of
from tangency.verify.checking_models import parts_of
from tangency.verify.lipschitz.conv import conv_bound

SAME = ((1, 1), (1, 1))


@lru_cache
def net(name="leaky_relu", seed=0):
    """Three convolutions and a head, with layers of every kind that has a place."""
    rng = np.random.default_rng(seed)
    b = Builder("float64")
    x = b.input((1, 2, 5, 6))
    for k, (i, o) in enumerate(pairwise((2, 3, 4, 3))):
        params = {
            "weight": (f"w{k}", rng.standard_normal((o, i, 3, 3)) * np.sqrt(2 / (9 * i))),
            "bias": (f"b{k}", 0.1 * rng.standard_normal(o)),
        }
        x = b.activation(b.emit(Conv((1, 1), SAME), [x], params), activations.get(name))
    x = b.emit(AveragePool((2, 2), (2, 2), ((0, 0), (0, 0))), [x])
    scale = {key: (key, rng.random(3) + 0.5) for key in ("mean", "var", "weight")}
    x = b.emit(BatchNorm(), [x], scale)
    x = b.emit(Conv((2, 2), SAME), [x], {"weight": ("s", rng.standard_normal((2, 3, 3, 3)))})
    x = b.emit(Reshape((4,)), [x])
    x = b.emit(Dense(), [x], {"weight": ("d", rng.standard_normal((3, 4)))})
    return b.finish([x])


@lru_cache
def case(name="leaky_relu", seed=0):
    network = net(name, seed)
    bound = conv_bound(network, attack=False, time_limit=None, rtol=1e-3)
    assert bound.method == "conv"
    return network, bound, certificate_of(bound, network)


def runs(certificate):
    return [k for k, p in enumerate(certificate.witness.pieces) if isinstance(p, RunWitness)]


def with_piece(certificate, k, piece):
    pieces = certificate.witness.pieces
    witness = replace(certificate.witness, pieces=(*pieces[:k], piece, *pieces[k + 1 :]))
    return replace(certificate, witness=witness)


def with_bound(certificate, value):
    claim = replace(certificate.claim, bound=value)
    return replace(certificate, claim=claim, witness=replace(certificate.witness, bound=value))


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_a_file_holds_the_whole_network(name, tmp_path):
    network, bound, certificate = case(name)
    path = tmp_path / "conv.cert"
    write_certificate(path, bound, network)
    read = read_certificate(path)
    assert path.read_bytes() == pack(certificate) == pack(read)
    assert isinstance(read.witness, FrequencyWitness)
    assert runs(read)
    assert read.method == "conv"
    found = check(path, network)
    assert found.holds, found.reason
    assert found.bound == bound.upper < bound.product
    # Below it: difference quotients.
    rng = np.random.default_rng(2)
    x = 3 * rng.standard_normal((500, *network.input_shape))
    y = x + 1e-3 * rng.standard_normal(x.shape)
    moved = np.linalg.norm(network.evaluate(x) - network.evaluate(y), axis=1)
    quotient = (moved / np.linalg.norm((x - y).reshape(500, -1), axis=1)).max()
    assert 0.01 * bound.upper < quotient <= bound.upper


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 5))
def test_packing_is_exact(seed, n, f):
    rng = np.random.default_rng(seed)
    stack = rng.standard_normal((f, n, n)) + 1j * rng.standard_normal((f, n, n))
    stack = np.tril(stack, -1) + np.tril(stack, -1).conj().swapaxes(1, 2)
    stack[:, np.arange(n), np.arange(n)] = rng.standard_normal((f, n))
    held = (np.zeros((2, n)),)
    witness = ConvWitness(1.5, (4, 5), (0, 1), (np.ones(n),), (stack,), held, stack)
    packed = RunWitness.of(witness)
    back = packed.unpacked()
    for a, b in ((back.storage[0], stack), (back.head, stack)):
        assert a.dtype == np.complex128
        assert np.array_equal(a, b)
        assert np.array_equal(a, a.conj().swapaxes(1, 2))
    assert packed.storage[0].nbytes == stack.nbytes // 2
    assert (back.square, back.torus, back.exponents) == (1.5, (4, 5), (0, 1))
    assert back.multipliers is witness.multipliers
    assert back.kept is held
    if n > 1:
        skew = stack.copy()
        skew[0, 0, 1] += 1.0
        with pytest.raises(NotProvedError, match="not Hermitian"):
            RunWitness.of(replace(witness, storage=(skew,)))


def test_forged_certificates_are_refused():
    network, bound, certificate = case()
    pieces = certificate.witness.pieces
    first = runs(certificate)[0]
    run = pieces[first]

    def reason(other, model=network):
        other = unpack(pack(other))  # as a file would bring it
        found = check(other, model)
        assert not found.holds
        assert found.bound is None
        return found.reason

    less = bound.upper * (1 - 1e-6)
    assert "exceeds the bound" in reason(with_bound(certificate, less))
    assert "states" in reason(replace(certificate, claim=replace(certificate.claim, bound=less)))
    smaller = with_piece(certificate, first, replace(run, square=run.square * (1 - 1e-6)))
    assert f"piece {first + 1} of {len(pieces)}: layer 1" in reason(smaller)
    assert "layer 1" in reason(with_bound(smaller, less))
    for k, strength in enumerate(run.multipliers):
        flipped = strength.copy()
        flipped[0] *= -1
        parts = (*run.multipliers[:k], flipped, *run.multipliers[k + 1 :])
        other = with_piece(certificate, first, replace(run, multipliers=parts))
        assert "numbers >= 0" in reason(other)
    for scale, word in ((0.99, "not proved positive"), (1.01, "not proved positive")):
        storage = tuple(scale * q for q in run.storage)
        assert word in reason(with_piece(certificate, first, replace(run, storage=storage)))
    flat = replace(run, storage=(run.storage[0][:, 0], *run.storage[1:]))
    assert "no stack of square" in reason(with_piece(certificate, first, flat))
    small = replace(run, torus=(run.torus[0] - 1, run.torus[1]))
    assert "too small" in reason(with_piece(certificate, first, small))
    for torus in ((2**62, 2**62), (0, 2**62), (-8, -8)):  # at once: nothing is enumerated
        other = with_piece(certificate, first, replace(run, torus=torus))
        assert "is enough" in reason(other) or "too small" in reason(other)
    for k, piece in enumerate(pieces):
        if isinstance(piece, RunWitness):
            continue
        other = with_piece(certificate, k, tuple(norm * (1 - 1e-6) for norm in piece))
        assert f"piece {k + 1} of {len(pieces)}" in reason(other)
        assert "not proved to be" in reason(other)
        assert "norms are no witness" in reason(with_piece(certificate, k, (*piece, 1.0)))
        assert "not a finite number" in reason(with_piece(certificate, k, (-1.0,) * len(piece)))
        assert f"piece {k + 1}" in reason(with_piece(certificate, k, run))
    for missing in (pieces[1:], pieces[:-1]):
        witness = replace(certificate.witness, pieces=missing)
        assert "pieces, the model" in reason(replace(certificate, witness=witness))
    stranger = net(seed=1)
    assert "sha256" in reason(certificate, stranger)
    assert "piece" in reason(replace(certificate, network=stranger.hash), stranger)
    swapped = network.replace({"w1": network.weights["w1"][:, ::-1].copy()})
    assert "sha256" in reason(certificate, swapped)
    assert "piece 1" in reason(replace(certificate, network=swapped.hash), swapped)
    data = pack(certificate)
    for end in (len(data) - 1, len(data) - 4000):
        with pytest.raises(CertificateError, match="truncated"):
            unpack(data[:end])
    with pytest.raises(InputError, match="exact arithmetic checks chains"):
        check(certificate, network, exact=True)


def test_norms_alone_are_a_witness_too():
    network, bound, certificate = case()
    first = runs(certificate)[0]
    part = parts_of(network)[first]
    norms, size = [], part.size
    for layer in part.layers:
        norms.append(conv_norm_bound(layer, size))
        size = layer.output_size(size)
    plain = with_piece(certificate, first, tuple(norms))
    assert "exceeds the bound" in check(plain, network).reason
    plain = with_bound(plain, bound.product * (1 + 1e-12))
    assert check(plain, network).bound == bound.product * (1 + 1e-12)
    norms[1] *= 1 - 1e-6
    assert "layer 2: its norm" in check(with_piece(plain, first, tuple(norms)), network).reason


def test_the_norm_of_a_convolution_is_decided_on_both_sides():
    rng = np.random.default_rng(3)
    for scale in (1e-150, 1.0, 1e150):
        layer = ConvLayer(scale * rng.standard_normal((3, 2, 3, 3)), padding=SAME)
        bound = conv_norm_bound(layer, (6, 5))
        assert conv_norm_is_at_most(layer, (6, 5), bound)
        assert not conv_norm_is_at_most(layer, (6, 5), bound * (1 - 1e-6))
        for wrong in (0.0, -bound, bound * 1e40, float("inf"), float("nan")):
            assert not conv_norm_is_at_most(layer, (6, 5), wrong)
    assert conv_norm_is_at_most(ConvLayer(np.zeros((1, 1, 3, 3))), (6, 5), 0.0)


def test_pieces_of_other_kinds():
    four = Matrix(np.array([[0.0, 4.0]]))
    assert check_frequencies([four, 2.0], FrequencyWitness(8.01, ((4.001,), (2.0,)))) == 8.01
    for wrong, reason in (
        (FrequencyWitness(7.9, ((4.001,), (2.0,))), "exceeds the bound"),
        (FrequencyWitness(8.01, ((3.9,), (2.0,))), "piece 1 of 2: its norm"),
        (FrequencyWitness(8.01, ((4.001,), (1.9,))), "piece 2 of 2: its norm"),
        (FrequencyWitness(8.01, ((4.001,), RunWitness(1.0, (1, 1), (0,)))), "no convolutions"),
        (FrequencyWitness(float("nan"), ((4.001,), (2.0,))), "not a finite"),
        (FrequencyWitness(8.01, ((4.001,), (float("inf"),))), "not a finite"),
    ):
        with pytest.raises(NotProvedError, match=reason):
            check_frequencies([four, 2.0], wrong)


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
