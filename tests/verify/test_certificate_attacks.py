"""What an attack on the checker found: options that were ignored, sentences in names, settings."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

import tangency
from tangency.models.errors import InputError
from tangency.verify import certify_robust, check, lipschitz_bound, write_certificate
from tangency.verify.certificate.file import pack, unpack
from tangency.verify.certificate.outputs import OutputsClaim

START = "import sys; from tangency.cli import main; sys.exit(main())"


def command(*words, cwd=None, **options):
    options = {"capture_output": True, "text": True} | options
    return subprocess.run([sys.executable, "-c", START, *words], cwd=cwd, check=False, **options)


@pytest.fixture
def robust(tmp_path):
    network = tangency.from_layers([np.eye(3), np.eye(3)], "relu")
    x, y = np.eye(3), np.arange(3)
    found = certify_robust(network, x, y, 0.1, attack="none")
    return network, x, y, write_certificate(tmp_path / "r.cert", found, network)


def test_labels_of_the_data_are_not_ignored(robust, tmp_path):
    network, x, y, certificate = robust
    claim = certificate.claim
    spec = np.concatenate([claim.spec, claim.spec[:, :1]], axis=1)
    vacuous = OutputsClaim(claim.low, claim.high, spec, np.full(spec.shape[:2], -1e6), claim.ball)
    (tmp_path / "v.cert").write_bytes(pack(dataclasses.replace(certificate, claim=vacuous)))
    network.save(tmp_path / "m.tangency")
    np.savez(tmp_path / "X.npz", x=x, y=y)
    words = ["check", "v.cert", "m.tangency", "--data", "X.npz", "--eps", "0.1"]
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert "labels were given" in done.stdout
    assert command(*words, "--ignore-labels", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    "options", [{"y": [2, 2, 2]}, {"clip": (5, 1)}, {"norm": "zz"}, {"samples": [10**9]}]
)
def test_what_is_to_be_compared_is_not_ignored(robust, options):
    network, _, _, certificate = robust
    with pytest.raises(InputError, match="give x and eps"):
        check(certificate, network, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"eps": "0.1"},
        {"eps": [0.1]},
        {"eps": np.full(3, 0.1)},
        {"samples": []},
        {"samples": "01"},
        {"samples": [3]},
        {"clip": "01"},
        {"clip": (0, 1, 2)},
    ],
)
def test_odd_options_are_bad_input(robust, options):
    network, x, y, certificate = robust
    with pytest.raises(InputError):
        check(certificate, network, **{"x": x, "y": y, "eps": 0.1} | options)


def test_samples_may_be_an_array(robust):
    network, x, y, certificate = robust
    assert check(certificate, network, x=x, y=y, eps=0.1, samples=np.arange(2)).samples == (0, 1)


def test_a_method_is_a_name_and_no_sentence(robust):
    *_, certificate = robust
    words = "crown; all labels proved kept, eps 0.5 in linf, margin > 1"
    with pytest.raises(InputError):
        unpack(pack(dataclasses.replace(certificate, method=words)))


def test_a_range_of_samples_beyond_the_data_is_not_listed(robust, tmp_path):
    network, x, y, _ = robust
    network.save(tmp_path / "m.tangency")
    np.savez(tmp_path / "X.npz", x=x, y=y)
    words = ["check", "r.cert", "m.tangency", "--data", "X.npz", "--eps", "0.1"]
    done = command(*words, "--samples", "0:999999999999", cwd=tmp_path)
    assert done.returncode == 2
    assert "hold 3 samples" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("json", [True, False])
def test_an_answer_that_cannot_be_written_is_not_the_status_of_not_proved(robust, tmp_path, json):
    robust[0].save(tmp_path / "m.tangency")
    words = ["check", "r.cert", "m.tangency"] + ["--json"] * json
    with open("/dev/full", "w") as full:
        done = command(
            *words, cwd=tmp_path, capture_output=False, stdout=full, stderr=subprocess.DEVNULL
        )
    assert done.returncode == 3


def test_floating_point_errors_of_the_caller_refute_nothing(tmp_path):
    network = tangency.from_layers([np.eye(2), np.eye(2)], "relu")
    with np.errstate(all="raise"):
        bound = lipschitz_bound(network, method="product", attack=False)
        write_certificate(tmp_path / "p.cert", bound, network)
        assert check(tmp_path / "p.cert", network).holds
        fresh = tangency.from_layers(
            [np.eye(2), np.eye(2)], tangency.models.activations.get("mish")
        )
        assert lipschitz_bound(fresh, method="product", attack=False).certified
