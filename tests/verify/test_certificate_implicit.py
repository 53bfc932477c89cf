"""Certificates of implicit layers: the layer as a file, the proof as a file, and forgeries."""

import subprocess
import sys
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from tangency.models import from_layers
from tangency.models.errors import InputError, NotProvedError, UnsupportedError
from tangency.verify import (
    ImplicitLayer,
    check,
    lipschitz_bound,
    read_certificate,
    write_certificate,
)
from tangency.verify.certificate import GroupSort, Householder, Slopes
from tangency.verify.certificate.file import CertificateError, pack, unpack
from tangency.verify.certificate.implicit import ImplicitWitness
from tangency.verify.certificate.implicit_product import ImplicitProductWitness
from tangency.verify.checking import certificate_of
from tangency.verify.lipschitz.implicit import implicit_bound

ACTIVATIONS = ["relu", "maxmin", (-0.1, 1.0), GroupSort(4), Slopes(0.2, 0.8)]


def layer(activation="relu", seed=0, n=8, m=4, p=3, norm=0.8):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((n, n))
    weight *= norm / np.linalg.norm(weight, 2)
    inputs, output = rng.standard_normal((n, m)), rng.standard_normal((p, n))
    return ImplicitLayer(weight, inputs, output, activation, rng.standard_normal(n))


@lru_cache
def case(k=0):
    model = layer(ACTIVATIONS[k])
    bound = implicit_bound(
        model.W, model.U, model.C, activation=model.activation, b=model.b, attack=False
    )
    return model, bound, certificate_of(bound, model)


def naive(model):
    """The bound by norms, as `implicit_bound` returns it where nothing better was proved."""
    bound = implicit_bound(model.W, model.U, model.C, activation=model.activation, attack=False)
    return replace(bound, upper=bound.product, method="product", proof=None)


def outputs(model, x):
    z = np.zeros((len(x), len(model.W)))
    for _ in range(2000):
        h = z @ model.W.T + x @ model.U.T + model.b
        z = 0.5 * z + 0.5 * {
            "relu": lambda h: np.maximum(h, 0),
            "maxmin": lambda h: -np.sort(-h.reshape(len(h), -1, 2), axis=-1).reshape(h.shape),
        }[model.activation](h)
    return z @ model.C.T


@pytest.mark.parametrize("k", range(len(ACTIVATIONS)))
def test_files_of_the_layer_and_of_the_proof(k, tmp_path):
    model, bound, certificate = case(k)
    model.save(tmp_path / "layer.npz")
    again = ImplicitLayer.load(tmp_path / "layer.npz")
    assert again.hash == model.hash
    assert (again.input_shape, again.output_shape) == ((4,), (3,))
    for name in "WUCb":
        assert getattr(again, name).tobytes() == getattr(model, name).tobytes()
    path = tmp_path / "layer.cert"
    write_certificate(path, bound, model)
    read = read_certificate(path)
    assert path.read_bytes() == pack(certificate) == pack(read)
    assert isinstance(read.witness, ImplicitWitness)
    assert (read.input_shape, read.output_shape) == ((4,), (3,))
    found = check(path, again)
    assert found.holds, found.reason
    assert found.bound == bound.upper < bound.product
    assert model.hash in found.claim
    if k < 2:
        rng = np.random.default_rng(1)
        x, y = 4 * rng.standard_normal((2, 200, 4))
        y[:100] = x[:100] + 1e-3 * y[:100]
        apart = np.linalg.norm(outputs(model, x) - outputs(model, y), axis=1)
        quotient = (apart / np.linalg.norm(x - y, axis=1)).max()
        assert 0.4 * bound.upper < quotient <= bound.upper


def test_a_monotone_layer_and_the_naive_bound(tmp_path):
    rng = np.random.default_rng(0)
    skew = rng.standard_normal((6, 6))
    w = skew - skew.T - 2 * np.eye(6)
    model = ImplicitLayer(w, rng.standard_normal((6, 2)), rng.standard_normal((2, 6)))
    bound = implicit_bound(model.W, model.U, model.C, attack=False)
    assert bound.posed == "monotone"
    certificate = write_certificate(tmp_path / "m.cert", bound, model)
    other = replace(certificate.witness, posed="contraction")
    assert "contraction" in check(replace(certificate, witness=other), model).reason
    other = replace(certificate.witness, posed="faith")
    assert "unknown condition" in check(replace(certificate, witness=other), model).reason

    model = layer()
    certificate = write_certificate(tmp_path / "n.cert", naive(model), model)
    witness = certificate.witness
    assert isinstance(witness, ImplicitProductWitness)
    w, u, c = (np.linalg.norm(part, 2) for part in (model.W, model.U, model.C))
    assert certificate.bound == pytest.approx(c * u / (1 - w), rel=1e-9)
    assert check(tmp_path / "n.cert", model).bound == certificate.bound
    for i, name in enumerate("WUC"):
        norms = list(witness.norms)
        norms[i] *= 1 - 1e-6
        forged = replace(certificate, witness=replace(witness, norms=tuple(norms)))
        assert f"the norm of {name}" in check(forged, model).reason
    for norms, reason in (((1.0, 9.0, 9.0), "not below 1"), ((-1.0, 9.0, 9.0), "not a finite")):
        forged = replace(certificate, witness=replace(witness, norms=norms))
        assert reason in check(forged, model).reason
    lowered = certificate.bound * (1 - 1e-6)
    forged = replace(
        certificate,
        claim=replace(certificate.claim, bound=lowered),
        witness=replace(witness, bound=lowered),
    )
    assert "prove no bound" in check(forged, model).reason


@pytest.mark.parametrize("k", range(len(ACTIVATIONS)))
def test_forged_certificates_are_refused(k):
    model, bound, certificate = case(k)
    witness = certificate.witness

    def reason(other, against=model):
        other = unpack(pack(other))  # as a file would bring it
        found = check(other, against)
        assert not found.holds
        assert found.bound is None
        return found.reason

    less = bound.upper * (1 - 1e-6)
    lowered = replace(witness, bound=less)
    claim = replace(certificate.claim, bound=less)
    assert "states" in reason(replace(certificate, claim=claim))
    for forged in (
        replace(certificate, witness=lowered),
        replace(certificate, claim=claim, witness=lowered),
    ):
        assert "the bound: not proved" in reason(forged)
    for name in ("multipliers", "penalties", "scaling"):
        flipped = getattr(witness, name).copy()
        if not flipped.size:
            continue
        flipped[0] *= -1
        other = replace(witness, **{name: flipped})
        assert "not positive" in reason(replace(certificate, witness=other))
    half = replace(witness, multipliers=0.5 * witness.multipliers)
    assert "not proved" in reason(replace(certificate, witness=half))
    stranger = layer(model.activation, seed=1)
    assert "sha256" in reason(certificate, stranger)
    steeper = ImplicitLayer(model.W, model.U, 1.01 * model.C, model.activation, model.b)
    assert "not proved" in reason(replace(certificate, network=steeper.hash), steeper)
    swapped = ImplicitLayer(model.W.T.copy(), model.U, model.C, model.activation, model.b)
    assert "sha256" in reason(certificate, swapped)
    loose = ImplicitLayer(model.W, model.U, model.C, (-1.0, 1.5), model.b)
    assert "sha256" in reason(certificate, loose)
    assert reason(replace(certificate, network=loose.hash), loose)
    network = from_layers([np.ones((8, 4)), np.ones((3, 8))])
    assert "sha256" in reason(certificate, network)
    assert "no witness for a chain" in reason(replace(certificate, network=network.hash), network)
    data = pack(certificate)
    with pytest.raises(CertificateError, match="truncated"):
        unpack(data[:-1])
    with pytest.raises(InputError, match="exact arithmetic checks chains"):
        check(certificate, model, exact=True)


def test_models_and_bounds_of_other_kinds():
    model, bound, _ = case()
    network = from_layers([np.eye(2), np.eye(2)])
    other = lipschitz_bound(network, method="product", attack=False)
    with pytest.raises(InputError, match="give a bound by implicit_bound"):
        certificate_of(other, model)
    with pytest.raises(InputError, match="give an ImplicitLayer"):
        certificate_of(bound, network)
    chain = replace(certificate_of(other, network), network=model.hash)
    chain = replace(chain, input_shape=(4,), output_shape=(3,))
    assert "no witness for an implicit layer" in check(chain, model).reason
    with pytest.raises(NotProvedError, match="not certified"):
        certificate_of(replace(bound, certified=False), model)


def test_layers_that_are_refused(tmp_path):
    model = layer()
    for arguments, reason in (
        ((model.W[:, :4], model.U, model.C), "do not fit"),
        ((model.W, model.U[:4], model.C), "do not fit"),
        ((model.W, model.U, model.C, "softmax"), "unknown activation"),
        ((model.W, model.U, model.C, GroupSort(3)), "do not fit 8"),
        ((model.W, model.U, model.C, "relu", np.ones(3)), "b must be 8"),
        ((model.W * np.nan, model.U, model.C), "NaN"),
    ):
        with pytest.raises(InputError, match=reason):
            ImplicitLayer(*arguments)
    with pytest.raises(UnsupportedError, match="slopes and GroupSort"):
        ImplicitLayer(model.W, model.U, model.C, Householder(np.ones((4, 2))))
    for content in (b"", b"text", b"PK\x03\x04 no archive"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"bad.npz: not an implicit layer"):
            ImplicitLayer.load(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", W=model.W)
    with pytest.raises(InputError, match=r"other.npz: not an implicit layer"):
        ImplicitLayer.load(tmp_path / "other.npz")
    with pytest.raises(InputError, match="No such file"):
        ImplicitLayer.load(tmp_path / "none.npz")
    with pytest.raises(InputError, match="cannot be written"):
        model.save(tmp_path / "no" / "layer.npz")
    nudged = ImplicitLayer(model.W * (1 + 2**-40), model.U, model.C, "relu", model.b)
    assert nudged.hash != model.hash
    single = ImplicitLayer(*(np.float32(part) for part in (model.W, model.U, model.C)))
    assert single.W.dtype == np.float64


ALONE = """
import sys
for name in "scipy jax cvxpy scs clarabel numba torch onnx matplotlib flint".split():
    sys.modules[name] = None
import tangency
from tangency.verify import ImplicitLayer
found = tangency.check(sys.argv[1], ImplicitLayer.load(sys.argv[2]))
assert found.holds, found.reason
print(found.claim)
"""


def test_the_check_needs_numpy_alone(tmp_path):
    model, bound, _ = case()
    write_certificate(tmp_path / "n.cert", bound, model)
    model.save(tmp_path / "n.npz")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path / "n.cert", tmp_path / "n.npz"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert model.hash in done.stdout
