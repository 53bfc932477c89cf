"""Certificates of bounds of outputs and of robust samples: written, checked, and refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import tangency
from tangency.models.errors import NotProvedError
from tangency.verify import (
    Ball,
    Box,
    bound,
    certify_robust,
    check,
    read_certificate,
    write_certificate,
)
from tangency.verify.certificate.file import CertificateError, pack, unpack
from tangency.verify.certificate.outputs import LinearWitness
from tangency.verify.checking import certificate_of

METHODS = ("ibp", "crown-ibp", "crown", "forward", "alpha-crown")


def net(seed: int = 0, *, activation: str = "relu"):
    rng = np.random.default_rng(seed)
    sizes = [(8, 5), (8, 8), (3, 8)]
    weights = [(rng.normal(size=s) / np.sqrt(s[1]), 0.3 * rng.normal(size=s[0])) for s in sizes]
    return tangency.from_layers(weights, activation)


@cache
def case(method: str = "crown", *, plain: bool = False):
    network = net()
    centre = np.random.default_rng(1).normal(size=(4, 5))
    found = bound(network, Box.around(centre, 0.2), method=method, plain=plain, steps=5)
    return network, found, certificate_of(found, network)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_bounds_are_proved_again(method, plain):
    network, found, certificate = case(method, plain=plain and method != "ibp")
    read = unpack(pack(certificate))
    assert read.claim == certificate.claim
    checked = check(read, network)
    assert checked.holds, checked.reason
    # What is stated is what was found, but for a millionth of a millionth.
    stated = certificate.claim.lower
    whole = np.concatenate([found.lower, -found.upper], axis=1)
    assert (stated <= whole).all()
    np.testing.assert_allclose(stated, whole, rtol=1e-11)
    # and no point of the boxes goes below it
    rng = np.random.default_rng(2)
    for n in range(4):
        low, high = certificate.claim.low[n], certificate.claim.high[n]
        y = network.evaluate(low + (high - low) * rng.random((500, 5)))
        assert (np.concatenate([y, -y], axis=1) >= stated[n] - 1e-9).all()


@pytest.mark.parametrize("norm", [1, 2])
def test_balls(norm, tmp_path):
    network, path = net(activation="tanh"), tmp_path / "ball.cert"
    centre = np.random.default_rng(3).normal(size=(2, 5))
    found = bound(network, Ball(centre, 0.4, norm=norm), method="crown")
    write_certificate(path, found, network)
    checked = check(path, network)
    assert checked.holds, checked.reason
    assert f"2 l{norm} balls" in checked.claim
    certificate = read_certificate(path)
    ball = replace(certificate.claim.ball, radius=certificate.claim.ball.radius * 1.01)
    wider = replace(certificate, claim=replace(certificate.claim, ball=ball))
    assert not check(wider, network)


@pytest.mark.parametrize("method", METHODS)
def test_robust_samples(method, tmp_path):
    network, path = net(4), tmp_path / "robust.cert"
    x = np.random.default_rng(5).normal(size=(12, 5))
    labels = network.evaluate(x).argmax(axis=1)
    result = certify_robust(
        network, x, labels, 0.05, method=method, attack="none", batch=5, steps=3
    )
    assert 0 < result.verified.sum()
    write_certificate(path, result, network)
    certificate = read_certificate(path)
    checked = check(certificate, network)
    assert checked.holds, checked.reason
    assert checked.bound > 0
    assert len(certificate.claim.low) == result.verified.sum()
    np.testing.assert_allclose(
        certificate.claim.lower.min(axis=1), result.margin_lower[result.verified], rtol=1e-11
    )


def changed(certificate, **parts):
    return replace(certificate, claim=replace(certificate.claim, **parts))


def test_a_changed_claim_is_refused():
    network, _, certificate = case()
    claim = certificate.claim
    above = claim.lower.copy()
    above[2, 3] += 1e-6 * abs(above[2, 3])
    assert "set 3 of 4, function 4" in check(changed(certificate, lower=above), network).reason
    wide = claim.high.copy()
    wide[1] += 1e-6
    assert "set 2 of 4" in check(changed(certificate, high=wide), network).reason
    turned = claim.spec.copy()
    turned[0, 0] *= -1
    assert not check(changed(certificate, spec=turned), network)
    empty = check(changed(certificate, low=claim.high, high=claim.low), network)
    assert "empty" in empty.reason
    for parts in (
        {"lower": claim.lower[:2]},
        {"lower": claim.lower[0]},
        {"low": claim.low[:, :3]},
        {"spec": claim.spec[:, :, :2]},
        {"spec": claim.spec[0]},
        {"lower": claim.lower[:0], "low": claim.low[:0], "high": claim.high[:0]},
    ):
        assert "do not fit" in check(changed(certificate, **parts), network).reason


def test_a_changed_witness_costs_tightness_and_never_truth():
    network, _, certificate = case("alpha-crown")
    witness = certificate.witness
    assert len(witness.last) == 2
    rng = np.random.default_rng(6)
    for _ in range(20):
        parts = tuple(
            replace(p, slopes=tuple(v + rng.normal(size=v.shape) for v in p.slopes))
            for p in witness.last
        )
        other = replace(certificate, witness=replace(witness, last=parts, inner=()))
        checked = check(other, network)
        # Either it is too loose, or what is stated is proved all the same.
        assert checked.holds or "is proved" in checked.reason
    wrong = replace(witness.last[0], node=0)
    for last, reason in (
        ((wrong,), "slopes of node 0"),
        ((witness.last[0], witness.last[0]), "slopes of node"),
        ((replace(witness.last[0], slopes=witness.last[0].slopes[:1]),), "1 arrays of slopes"),
        (
            (replace(witness.last[0], slopes=tuple(v[..., :2] for v in witness.last[0].slopes)),),
            "do not fit",
        ),
    ):
        other = replace(certificate, witness=replace(witness, last=last))
        assert reason in check(other, network).reason


def test_another_network_and_another_kind_are_refused():
    network, _, certificate = case()
    assert "certificate is for the weights" in check(certificate, net(1)).reason
    lipschitz = tangency.lipschitz_bound(network, method="product", attack=False)
    other = certificate_of(lipschitz, network)
    assert "no witness" in check(replace(other, witness=LinearWitness("ibp")), network).reason
    assert "no witness" in check(replace(certificate, witness=other.witness), network).reason
    with pytest.raises(tangency.InputError, match="exact arithmetic checks Lipschitz bounds"):
        check(certificate, network, exact=True)


def test_damaged_files_are_errors():
    data = pack(case()[2])
    for broken in (data[:-1], data + b"0", data[:200], data[:-9] + b"\0" + data[-8:]):
        with pytest.raises(CertificateError):
            unpack(broken)


def test_what_has_no_certificate_says_so(tmp_path):
    network, path = net(), tmp_path / "n.cert"
    weight = np.random.default_rng(7).normal(size=(2, 2))
    small = tangency.from_layers([weight, weight], "relu")  # what is searched is compiled: seconds
    box = Box(-np.ones(2), np.ones(2))
    estimate = bound(small, box, method="crown", rigorous=False)
    with pytest.raises(NotProvedError, match="estimate"):
        write_certificate(path, estimate, small)
    joint = bound(small, box, method="alpha-crown", mode="joint", steps=1)
    with pytest.raises(tangency.InputError, match="mode='last'"):
        write_certificate(path, joint, small)
    x = np.random.default_rng(5).normal(size=(3, 5))
    none = certify_robust(network, x, np.zeros(3, dtype=int), 50.0, attack="none")
    with pytest.raises(NotProvedError, match="no sample"):
        write_certificate(path, none, network)
    with pytest.raises(NotProvedError, match="not proved for this network"):
        write_certificate(path, case()[1], net(1))
    assert not path.exists()


CHECK = """
import sys
for name in ("jax", "cvxpy", "scs", "clarabel", "torch", "flint", "onnx", "numba"):
    sys.modules[name] = None
from tangency.models import Network
from tangency.verify import check
found = check(sys.argv[1], Network.load(sys.argv[2]))
assert found.holds, found.reason
print(found.claim)
"""


@pytest.mark.parametrize("method", ["crown", "alpha-crown"])
def test_it_holds_in_a_process_without_the_search(method, tmp_path):
    network, found, _ = case(method)
    path, model = Path(tmp_path / "n.cert"), tmp_path / "n.tangency"
    write_certificate(path, found, network)
    network.save(model)
    done = subprocess.run(
        [sys.executable, "-c", CHECK, path, model], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "4 boxes" in done.stdout
