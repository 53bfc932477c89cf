"""Certificates as files: nothing is lost, nothing damaged or forged is believed."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tangency
from tangency.models import from_layers
from tangency.models.errors import InputError, NotProvedError
from tangency.verify import check, lipschitz_bound, read_certificate
from tangency.verify.certificate.encoding import CertificateError, decode, encode
from tangency.verify.certificate.file import pack, unpack
from tangency.verify.checking import certificate_of, write_certificate

LINE = 105  # bytes of the first line
CASES = [("maxmin", "lipsdp"), ("relu", "lipsdp"), ("maxmin", "product")]
ROOT2 = np.sqrt(0.5)


@lru_cache
def case(activation="maxmin", method="lipsdp", seed=0):
    """A small network, its bound, and the bytes of the certificate."""
    rng = np.random.default_rng(seed)
    shapes = [(4, 3), (4, 4), (2, 4)]
    network = from_layers([rng.standard_normal(shape) for shape in shapes], activation)
    bound = lipschitz_bound(network, method=method, attack=False)
    assert bound.method == method
    return network, bound, pack(certificate_of(bound, network))


@lru_cache
def tight(method):
    """A network whose bound is its true constant to seven digits, that constant, the certificate.

    By LipSDP: diagonal matrices, 2 with the product 4. By product: rotations around MaxMin, 1.
    """
    turn = np.array([[ROOT2, -ROOT2], [ROOT2, ROOT2]])
    if method == "product":
        network, constant = from_layers([turn, turn], "maxmin"), 1.0
    else:
        network, constant = from_layers([np.diag([2.0, 1.0]), np.diag([1.0, 2.0])], "relu"), 2.0
    bound = lipschitz_bound(network, method=method, attack=False)
    assert bound.method == method
    assert constant * (1 - 1e-15) < bound.upper < constant * (1 + 1e-7)
    return network, constant, certificate_of(bound, network)


def forged(data, change=None, arrays=None, *, text=None):
    """The file with another header or other arrays, all its digests right again."""
    length = int(data[23:39])
    header, tail = json.loads(data[LINE : LINE + length]), data[LINE + length :]
    if arrays is not None:
        tail = arrays(bytearray(tail))
        start = 0
        for entry in header["arrays"]:
            part = tail[start : start + entry["bytes"]]
            entry["sha256"] = hashlib.sha256(part).hexdigest()
            start += entry["bytes"]
    if change is not None:
        change(header)
    body = json.dumps(header, indent=1).encode() if text is None else text(header)
    body += b" " * (-(LINE + len(body) + 1) % 64) + b"\n"
    digest = hashlib.sha256(body).hexdigest()
    return f"tangency-certificate 2 {len(body):016d} {digest}\n".encode() + body + bytes(tail)


@pytest.mark.parametrize(("activation", "method"), CASES)
def test_round_trip_is_bit_exact_and_reproducible(activation, method, tmp_path):
    network, bound, data = case(activation, method)
    path = tmp_path / "a.cert"
    written = write_certificate(path, bound, network)
    assert path.read_bytes() == data == pack(certificate_of(bound, network))
    assert data[:20].decode() == "tangency-certificate"
    read = read_certificate(path)
    assert pack(read) == data == forged(data)
    assert read.claim == written.claim
    assert read.bound == bound.upper
    assert read.network == network.hash
    assert (read.input_shape, read.output_shape) == ((3,), (2,))
    assert (read.method, read.tangency) == (method, tangency.__version__)
    if method == "lipsdp":
        assert read.witness.exponents == bound.witness.exponents
        for name in ("multipliers", "storage"):
            for a, b in zip(getattr(read.witness, name), getattr(bound.witness, name), strict=True):
                assert a.dtype == b.dtype == np.float64
                assert a.tobytes() == b.tobytes()
    for given_ in (path, str(path), read):
        found = tangency.check(given_, network)
        assert found.holds
        assert found
        assert found.bound == bound.upper
        assert network.hash in found.claim
        assert found.reason == ""
    assert check(path, network, exact=True).holds


def test_any_truncation_is_refused(tmp_path):
    network, _, data = case()
    for length in range(len(data)):
        with pytest.raises(CertificateError, match="truncated"):
            unpack(data[:length])
    path = tmp_path / "short.cert"
    path.write_bytes(data[:-8])
    with pytest.raises(InputError, match=r"short.cert: truncated: 8 bytes are missing"):
        check(path, network)
    with pytest.raises(InputError, match="No such file"):
        read_certificate(tmp_path / "none.cert")
    with pytest.raises(CertificateError, match="1 bytes follow the end"):
        unpack(data + b"\0")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CASES), st.data(), st.integers(1, 255))
def test_any_flipped_byte_is_refused(which, draw, change):
    data = bytearray(case(*which)[2])
    data[draw.draw(st.integers(0, len(data) - 1))] ^= change
    with pytest.raises(CertificateError):
        unpack(bytes(data))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_noise_is_refused(noise, headed):
    with pytest.raises(CertificateError):
        unpack((case()[2][: LINE + 40] if headed else b"") + noise)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CASES[:2]), st.data(), st.integers(1, 255))
def test_a_forged_witness_proves_only_what_is_true(which, draw, change):
    """Bytes of the arrays changed, the digests put right: refused, or right in rationals."""
    network, bound, data = case(*which)
    size = sum(e["bytes"] for e in json.loads(data[LINE : LINE + int(data[23:39])])["arrays"])
    where = draw.draw(st.integers(0, size - 1))

    def flip(tail):
        tail[where] ^= change
        return bytes(tail)

    other = forged(data, arrays=flip)
    try:
        certificate = unpack(other)
    except CertificateError:  # a NaN or an infinite number
        assert not np.isfinite(np.frombuffer(other[-size:])).all()
        return
    if check(certificate, network):
        assert check(certificate, network, exact=True)
        assert certificate.bound == bound.upper


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CASES), st.floats(1e-3, 1e3))
def test_a_forged_bound_is_proved_only_where_it_is_true(which, factor):
    network, bound, _ = case(*which)
    certificate = certificate_of(bound, network)
    value = bound.upper * factor
    other = replace(
        certificate,
        claim=replace(certificate.claim, bound=value),
        witness=replace(certificate.witness, bound=value),
    )
    found = check(unpack(pack(other)), network)
    assert found.holds == (value >= bound.upper) or abs(factor - 1) < 1e-3
    assert not found.holds or check(other, network, exact=True).holds


CHANGES = [
    ("version 99", lambda h: h.update(version=99)),
    ("not that of a tangency", lambda h: h.update(format="other")),
    ("malformed", lambda h: h.pop("witness")),
    ("written as", lambda h: h.update(more=1)),
    ("written as", lambda h: h["claim"].update(words="|f(x) - f(y)|_2 <= 1 |x - y|_2")),
    ("claim.norm_out", lambda h: h["claim"].update(norm_out="3")),
    ("claim.kind", lambda h: h["claim"].update(kind="accuracy")),
    ("margin", lambda h: h["claim"].update(norm_out="margin")),
    ("not a finite", lambda h: h["claim"].update(bound="nan")),
    ("not a finite", lambda h: h["claim"].update(bound="inf")),
    ("no hexadecimal", lambda h: h["claim"].update(bound="0x1p0")),
    ("no hexadecimal", lambda h: h["claim"].update(bound=2)),
    ("input_shape", lambda h: h["network"].update(input_shape=3)),
    ("tangency:", lambda h: h.update(tangency=None)),
    ("unknown witness", lambda h: h["witness"].update(type="Oracle")),
    ("version 2", lambda h: h["witness"].update(version=2)),
    ("unknown or misplaced", lambda h: h["witness"]["fields"].update(more=1)),
    ("lacks storage", lambda h: h["witness"]["fields"].pop("storage")),
    ("not what is expected", lambda h: h["witness"]["fields"].update(bound=3)),
    ("not a finite", lambda h: h["witness"]["fields"]["bound"].update(float="-inf")),
    ("no hexadecimal", lambda h: h["witness"]["fields"]["bound"].update(float="0x1p99999")),
    ("exceeds 64", lambda h: h["witness"]["fields"].update(exponents=[2**64])),
    ("expected", lambda h: h["witness"]["fields"].update(exponents=[1.5])),
    ("expected", lambda h: h["witness"]["fields"].update(exponents=[True])),
    ("expected", lambda h: h["witness"]["fields"].update(storage="a")),
    ("belong to nothing", lambda h: h["witness"]["fields"]["storage"].pop()),
    ("not in the file", lambda h: h["witness"]["fields"]["storage"].append({"array": 4})),
    ("written as", lambda h: h["witness"]["fields"]["storage"][0].update(array=1)),
    ("truncated", lambda h: h["arrays"].append(dict(h["arrays"][0]))),
    ("follow the end", lambda h: h["arrays"].pop()),
    ("dtype", lambda h: h["arrays"][0].update(dtype="|O")),
    ("dtype", lambda h: h["arrays"][0].update(dtype=">f8")),
    ("an array of int64", lambda h: h["arrays"][0].update(dtype="<i8")),
    ("no shape", lambda h: h["arrays"][0].update(shape=[-4])),
    ("no shape", lambda h: h["arrays"][0].update(shape=[2**62, 0])),
    ("no shape", lambda h: h["arrays"][0].update(shape=[1] * 65)),
    ("do not fit", lambda h: h["arrays"][0].update(shape=[2**30] * 8)),
    ("do not fit", lambda h: h["arrays"][0].update(bytes=2**40)),
    ("truncated", lambda h: h["arrays"][0].update(shape=[2**30] * 8, bytes=2**243)),
    ("does not have its sha256", lambda h: h["arrays"][0].update(sha256="0" * 64)),
    ("malformed", lambda h: h.update(arrays=[3])),
    ("malformed", lambda h: h.update(claim=[])),
]


@pytest.mark.parametrize(("reason", "change"), CHANGES)
def test_forged_headers_are_refused(reason, change):
    with pytest.raises(CertificateError, match=reason) as refused:
        unpack(forged(case()[2], change))
    assert "\n" not in str(refused.value)


def test_other_forms_of_the_same_header_are_refused():
    _, _, data = case()
    for text in (
        lambda h: json.dumps(h).encode(),
        lambda h: (
            json.dumps(h, indent=1).encode().replace(b'"version"', b'"version": 1, "version"')
        ),
        lambda h: json.dumps(h, indent=1).encode() + b" " * 64,
    ):
        with pytest.raises(CertificateError, match=r"written as|JSON"):
            unpack(forged(data, text=text))
    for text, reason in ((b"[" * 10**5, "JSON"), (b"\xff", "JSON"), (b"[]", "not that of")):
        with pytest.raises(CertificateError, match=reason):
            unpack(forged(data, text=lambda _, text=text: text))
    first = b"tangency-certificate 99 0000000000000000 " + b"0" * 64 + b"\n"
    with pytest.raises(CertificateError, match="version 99; this reads version 2"):
        unpack(first + data[LINE:])
    for piece in (b"tangency-certificate 2 9999999999999999 ", b"tangency-certificate 2 x"):
        with pytest.raises(CertificateError, match=r"truncated|damaged"):
            unpack(piece + data[len(piece) :])
    long = forged(data, lambda h: h["witness"]["fields"].update(exponents=[1]), text=None)
    number = long.replace(
        b'"exponents": [\n    1\n   ]', b'"exponents": [\n    %s\n   ]' % (b"9" * 5000)
    )
    with pytest.raises(CertificateError):
        unpack(number)


def test_nan_in_an_array_is_refused():
    nan = np.array([np.nan]).tobytes()
    with pytest.raises(CertificateError, match="array 0 holds a NaN"):
        unpack(forged(case()[2], arrays=lambda tail: nan + bytes(tail[8:])))


@pytest.mark.parametrize("method", ["lipsdp", "product"])
def test_a_tight_bound_cannot_be_lowered(method):
    network, constant, certificate = tight(method)
    assert check(certificate, network).holds
    lower = certificate.bound * (1 - 1e-6)
    assert lower < constant
    for claim, witness in ((1, 1), (1, 0), (0, 1)):
        other = replace(
            certificate,
            claim=replace(certificate.claim, bound=lower) if claim else certificate.claim,
            witness=replace(certificate.witness, bound=lower) if witness else certificate.witness,
        )
        for exact in (False, True):
            found = check(unpack(pack(other)), network, exact=exact)
            assert not found.holds
            assert not found
            assert found.bound is None
            word = ("layer 1" if method == "lipsdp" else "product") if witness else "states"
            assert word in found.reason


def test_other_witnesses_weights_and_claims_do_not_hold():
    network, bound, data = case()
    certificate = unpack(data)
    witness = certificate.witness

    def reason(other, model=network):
        exact = check(other, model, exact=True)
        found = check(other, model)
        assert not found.holds
        assert not exact.holds
        return found.reason

    for k in range(2):
        for i in range(2):
            flipped = [m.copy() for m in witness.multipliers]
            flipped[k][i] *= -1
            other = replace(certificate, witness=replace(witness, multipliers=tuple(flipped)))
            assert f"layer {k + 1}: a multiplier is negative" in reason(unpack(pack(other)))
    stranger = case(seed=1)[0]
    assert f"sha256 {network.hash}, the model's are {stranger.hash}" in reason(
        certificate, stranger
    )
    # The right hash over another model's weights: the weights decide.
    assert "layer" in reason(replace(certificate, network=stranger.hash), stranger)
    first, second, third = (network.weights[f"layer{i}.weight"] for i in range(3))
    swapped = from_layers([first, second.T.copy(), third], "maxmin")
    assert "sha256" in reason(certificate, swapped)
    assert "layer" in reason(replace(certificate, network=swapped.hash), swapped)
    relu = from_layers([first, second, third], "relu")
    assert "shape" in reason(replace(certificate, network=relu.hash), relu)
    nudged = network.replace({"layer1.weight": second * (1 + 2**-40)})
    assert "sha256" in reason(certificate, nudged)
    assert "shapes" in reason(replace(certificate, input_shape=(4,)))
    claim = replace(certificate.claim, norm_in="inf")
    assert "states" in reason(replace(certificate, claim=claim))
    assert "states" in reason(
        replace(certificate, claim=replace(certificate.claim, norm_out="margin", margin=(0, 1)))
    )
    product = certificate_of(case(method="product")[1], network)
    for k in range(3):
        norms = list(product.witness.norms)
        norms[k] *= 1 - 1e-6
        lower = product.bound * (1 - 1e-6)
        other = replace(
            product,
            claim=replace(product.claim, bound=lower),
            witness=replace(product.witness, norms=tuple(norms), bound=lower),
        )
        assert f"layer {k + 1}: its norm" in check(other, network).reason
        assert f"layer {k + 1}: its norm" in check(other, network, exact=True).reason
    shorter = replace(product, witness=replace(product.witness, norms=product.witness.norms[:2]))
    assert "no witness" in reason(shorter)
    assert bound.upper < product.bound


def test_only_what_is_proved_is_written(tmp_path):
    network, bound, _ = case()
    path = tmp_path / "x.cert"
    with pytest.raises(NotProvedError, match="not proved for this network"):
        write_certificate(path, bound, case(seed=1)[0])
    with pytest.raises(NotProvedError, match="not certified"):
        write_certificate(path, replace(bound, certified=False), network)
    with pytest.raises(NotProvedError, match="the bound is"):
        write_certificate(path, replace(bound, upper=bound.upper / 2), network)
    lower = replace(case(method="product")[1], upper=bound.upper / 2)
    with pytest.raises(NotProvedError, match="exceeds the bound"):
        write_certificate(path, lower, network)
    assert not path.exists()
    with pytest.raises(InputError, match="cannot be written"):
        write_certificate(tmp_path / "no" / "x.cert", bound, network)


@pytest.mark.parametrize("scale", [1e-150, 1e-300, 1e150, 0.0])
def test_products_far_from_one(scale):
    rng = np.random.default_rng(3)
    layers = [scale * rng.standard_normal((5, 4)), rng.standard_normal((3, 5))]
    network = from_layers(layers, "relu")
    bound = lipschitz_bound(network, method="product", attack=False)
    certificate = unpack(pack(certificate_of(bound, network)))
    assert check(certificate, network).bound == bound.upper
    assert check(certificate, network, exact=True).holds


@dataclass(frozen=True)
class Inner:
    name: str
    where: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Outer:
    FORMAT_VERSION = 3
    inner: Inner | None
    parts: tuple[Inner | float, ...]
    pair: tuple[int, bool]
    later: float = 0.5


def test_any_dataclass_can_be_a_witness():
    first = Inner("a", np.arange(3))
    arrays = []
    data = encode(Outer(first, (0.1, first), (2, True)), arrays)
    assert data["version"] == 3
    assert "later" not in data["fields"]  # so that files of before the field read alike
    back = decode(json.loads(json.dumps(data)), Outer, list(arrays))
    assert back.parts[0] == 0.1
    assert back.pair == (2, True)
    assert back.later == 0.5
    assert back.inner.where.tolist() == [0, 1, 2]
    assert back.parts[1].where is arrays[1]
    assert encode(Outer(None, (), (2, True), 0.25), [])["fields"]["later"] == {
        "float": "0x1.0000000000000p-2"
    }
    for wrong in ([1], {1: 2}, 1j, np.float32(1), np.zeros(2, np.float32), np.array([np.inf])):
        with pytest.raises(CertificateError):
            encode((wrong,), [])
    for wrong in (np.inf, np.nan, 2**63):
        with pytest.raises(CertificateError):
            encode(wrong, [])
    data["fields"]["pair"] = [2]
    with pytest.raises(CertificateError, match="1 items, 2 are expected"):
        decode(data, Outer, list(arrays))


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
