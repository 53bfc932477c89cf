"""Mutated certificates: refused or true, and never a traceback.

400 of each kind by default; 10,000 with ``-m slow``. A mutant that is accepted must be
true: its claim follows from the one that was mutated, or no sampled point contradicts it, and where
it states a smaller bound and rational arithmetic takes it, that proves it too.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tangency.cli.common import to_json
from tangency.models import Builder, activations, from_layers
from tangency.models.errors import InputError
from tangency.models.ops import Conv
from tangency.verify import Ball, Box, ImplicitLayer, bound, certify_robust, check, lipschitz_bound
from tangency.verify.certificate.claim import WITNESSES, Claim
from tangency.verify.certificate.encoding import CertificateError
from tangency.verify.certificate.file import pack, unpack
from tangency.verify.checking import certificate_of
from tangency.verify.lipschitz.conv import conv_bound
from tangency.verify.lipschitz.implicit import implicit_bound

LINE = 105  # bytes of the first line
JUNK = [
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**63 - 1,
    2**64,
    -(2**70),
    1.5,
    float("nan"),
    "",
    "inf",
    "1",
    "2",
    "margin",
    "é\n\x1b[31m",
    [],
    [0],
    {},
    {"float": "nan"},
    {"float": "0x0.0p+0"},
    {"float": "-0x1.0000000000000p+0"},
    {"float": "0x1.0000000000000p+1023"},
    {"float": "0x0.0000000000001p-1022"},
    {"array": 0},
    {"array": 10**9},
]
NUMBERS = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 5e-324, 1e-300, 1e300, -1.7e308]
FACTORS = [0.0, -1.0, 0.5, 0.99, 1 - 1e-7, 1 - 1e-12, 1 + 1e-12, 1 + 1e-7, 1.01, 2.0, 1e3, 1e200]


def dense(seed, sizes, activation="relu"):
    rng = np.random.default_rng(seed)
    return from_layers(
        [(rng.normal(size=s), 0.3 * rng.normal(size=s[0])) for s in sizes], activation
    )


def chain(**options):
    network = dense(0, [(4, 2), (3, 4), (2, 3)])
    return network, lipschitz_bound(network, attack=False, **options)


def convolutions():
    rng, b = np.random.default_rng(1), Builder("float64")
    x = b.input((1, 1, 3, 4))
    for k, (i, o) in enumerate(((1, 2), (2, 1))):
        weight = {"weight": (f"w{k}", rng.normal(size=(o, i, 3, 3)))}
        x = b.emit(Conv((1, 1), ((1, 1), (1, 1))), [x], weight)
        x = x if k else b.activation(x, activations.get("leaky_relu"))
    network = b.finish([x])
    return network, conv_bound(network, attack=False, time_limit=None)


def layer(activation, *, naive=False):
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(4, 4))
    weight *= 0.6 / np.linalg.norm(weight, 2)
    model = ImplicitLayer(weight, rng.normal(size=(4, 2)), rng.normal(size=(2, 4)), activation)
    found = implicit_bound(model.W, model.U, model.C, activation=activation, attack=False)
    if naive:
        found = replace(found, upper=found.product, method="product", proof=None)
    return model, found


def robust():
    network = dense(3, [(5, 3), (5, 5), (3, 5)])
    x = np.random.default_rng(4).normal(size=(6, 3))
    y = network.evaluate(x).argmax(axis=1)
    return network, certify_robust(
        network, x, y, 0.05, method="alpha-crown", steps=2, attack="none"
    )


def bounded(region, method):
    network = dense(3, [(5, 3), (5, 5), (3, 5)], "tanh")
    return network, bound(
        network, region(np.random.default_rng(5).normal(size=(2, 3))), method=method
    )


SQUARE = Box(np.array([-1.0, -0.5]), np.array([0.5, 1.0]))
KINDS = {
    "chain": lambda: chain(),
    "chain of margins": lambda: chain(norm="inf", output=("margin", 0, 1)),
    "chain of entries": lambda: chain(norm=1, output="inf"),
    "chain on a box": lambda: chain(box=SQUARE, output=1),
    "product": lambda: chain(method="product"),
    "branch": lambda: chain(box=SQUARE, branch=True, max_boxes=5),
    "frequency": convolutions,
    "implicit": lambda: layer("relu"),
    "implicit, sorting": lambda: layer("maxmin"),
    "implicit product": lambda: layer("relu", naive=True),
    "robust": robust,
    "bounds": lambda: bounded(lambda x: Box.around(x, 0.2), "crown"),
    "bounds, forward": lambda: bounded(lambda x: Box.around(x, 0.2), "forward"),
    "bounds on balls": lambda: bounded(lambda x: Ball(x, 0.4, clip=(-3.0, 3.0)), "crown"),
}


@cache
def case(kind):
    """The model, the certificate and its bytes."""
    network, found = KINDS[kind]()
    certificate = certificate_of(found, network)
    return network, certificate, pack(certificate)


def test_every_kind_of_witness_is_mutated():
    assert {type(case(kind)[1].witness).__name__ for kind in KINDS} == set(WITNESSES)
    assert all(check(case(kind)[1], case(kind)[0]) for kind in KINDS)


class Mutant:
    """A file taken apart: header and arrays, put together again with right digests."""

    def __init__(self, data, rng):
        length = int(data[23:39])
        self.rng, self.header = rng, json.loads(data[LINE : LINE + length])
        start, self.blocks = LINE + length, []
        for entry in self.header["arrays"]:
            self.blocks.append(data[start : start + entry["bytes"]])
            start += entry["bytes"]

    def data(self, text=None):
        entries = self.header.get("arrays")
        pairs = zip(entries, self.blocks, strict=False) if isinstance(entries, list) else ()
        for entry, block in pairs:
            if isinstance(entry, dict):
                entry["sha256"] = hashlib.sha256(block).hexdigest()
        body = json.dumps(self.header, indent=1).encode() if text is None else text
        body += b" " * (-(LINE + len(body) + 1) % 64) + b"\n"
        line = f"tangency-certificate 2 {len(body):016d} {hashlib.sha256(body).hexdigest()}\n"
        return line.encode() + body + b"".join(self.blocks)

    def pick(self, items):
        return items[int(self.rng.integers(len(items)))]

    def places(self, node=None):
        """Every (container, key) of the header."""
        node = self.header if node is None else node
        found = []
        for key in node if isinstance(node, dict) else range(len(node)):
            found.append((node, key))
            if isinstance(node[key], dict | list):
                found += self.places(node[key])
        return found

    # What is done to the header's tree.

    def junk(self):
        node, key = self.pick(self.places())
        node[key] = copy.deepcopy(self.pick(JUNK))

    def drop(self):
        node, key = self.pick(self.places())
        del node[key]

    def repeat(self):
        node, key = self.pick([p for p in self.places() if isinstance(p[0], list)])
        node.insert(key, copy.deepcopy(node[key]))

    def swap(self):
        (a, i), (b, j) = self.pick(self.places()), self.pick(self.places())
        a[i], b[j] = copy.deepcopy(b[j]), copy.deepcopy(a[i])

    def add(self):
        node, _ = self.pick([p for p in self.places() if isinstance(p[0], dict)])
        name = self.pick(["more", "source", "region", "ball", "head", "clip", "margin"])
        node[name] = copy.deepcopy(self.pick(JUNK))

    def number(self):
        """One whole number or float of the header becomes another."""
        places = [p for p in self.places() if type(p[0][p[1]]) is int or self.is_float(p)]
        node, key = self.pick(places)
        if self.is_float((node, key)):
            value = float.fromhex(node[key]) * self.pick(FACTORS)
            node[key] = value.hex() if np.isfinite(value) else str(value)
        else:
            node[key] += int(self.pick([-(2**40), -2, -1, 1, 2, 7, 2**20, 2**62]))

    @staticmethod
    def is_float(place):
        value = place[0][place[1]]
        return isinstance(value, str) and value.lstrip("-").startswith("0x")

    # What is done to the claim and to the witness at once, so that they still agree.

    def bound(self):
        claim, fields = self.header["claim"], self.header["witness"]["fields"]
        if "bound" in claim:
            value = (float.fromhex(claim["bound"]) * self.pick(FACTORS)).hex()
            claim["bound"] = value
            fields["bound"] = {"float": value}
            for piece in fields.get("pieces", []):
                if (
                    isinstance(piece, dict)
                    and "bound" in piece["fields"]
                    and self.rng.random() < 0.7
                ):
                    piece["fields"]["bound"] = {"float": value}

    def norms(self):
        claim, fields = self.header["claim"], self.header["witness"]["fields"]
        if "norm_in" in claim:
            norm, output = self.pick(["1", "2", "inf"]), self.pick(["1", "2", "inf", "margin"])
            claim["norm_in"], claim["norm_out"] = norm, output
            claim["margin"] = [0, 1] if output == "margin" else []
            for place in (
                fields,
                *(p["fields"] for p in fields.get("pieces", []) if "fields" in p),
            ):
                own = {"norm": norm, "output": output, "margin": claim["margin"]}
                defaults = {"norm": "2", "output": "2", "margin": []}
                for name, value in own.items():
                    place.pop(name, None)
                    if value != defaults[name]:
                        place[name] = value
                names = ["bound", "exponents", "multipliers", "storage", "norms", "lower", "upper"]
                names += ["pieces", "norm", "output", "margin", "head", "tail"]
                ordered = {n: place[n] for n in names if n in place}
                place.clear()
                place.update(ordered)

    # What is done to the arrays.

    def array(self):
        k = int(self.rng.integers(len(self.blocks)))
        entry = self.header["arrays"][k]
        return k, entry, np.frombuffer(self.blocks[k], entry["dtype"]).copy()

    def set(self, k, entry, values, shape):
        self.blocks[k] = values.astype(entry["dtype"]).tobytes()
        entry["shape"], entry["bytes"] = list(map(int, shape)), len(self.blocks[k])

    def values(self):
        k, entry, values = self.array()
        with np.errstate(all="ignore"):
            how = self.rng.integers(4)
            if how == 0:
                values[self.rng.integers(values.size)] = self.pick(NUMBERS)
            elif how == 1:
                values = values * self.pick(FACTORS)
            elif how == 2:
                values[self.rng.integers(values.size)] *= self.pick(FACTORS)
            else:
                values = values + self.pick([1e-3, 1e-9, 1.0]) * self.rng.normal(size=values.size)
            self.set(k, entry, values, entry["shape"])

    def flip(self):
        k = int(self.rng.integers(len(self.blocks)))
        block = bytearray(self.blocks[k])
        block[self.rng.integers(len(block))] ^= 1 << int(self.rng.integers(8))
        self.blocks[k] = bytes(block)

    def shape(self):
        k, entry, values = self.array()
        shape = list(entry["shape"])
        how = self.rng.integers(7)
        if how == 0:
            shape = [*shape, 1]
        elif how == 1:
            shape = [1, *shape]
        elif how == 2:
            shape = [values.size]
        elif how == 3:
            shape = shape[::-1]
        elif how == 4:
            values, shape = values[:1], []  # 0-dim
        elif how == 5:
            values, shape = values[:0], self.pick([[0], [0, *shape], [0, 2**30, 2**30]])
        else:
            axis = int(self.rng.integers(max(len(shape), 1)))
            values = values.reshape(shape)
            again = self.pick([0, 1, 2])  # one less, or one more, along an axis
            if values.ndim:
                values = np.concatenate([values, values], axis=axis)
                values = np.take(values, range(max(shape[axis] - 1 + again, 0)), axis=axis)
            shape = values.shape
        self.set(k, entry, np.ascontiguousarray(values), shape)

    def dtype(self):
        entry = self.pick(self.header["arrays"])
        entry["dtype"] = self.pick(["<f8", "<i8", ">f8", "<f4", "|O", "<c16"])

    def exchange(self):
        i, j = self.rng.integers(len(self.blocks), size=2)
        entries = self.header["arrays"]
        self.blocks[i], self.blocks[j] = self.blocks[j], self.blocks[i]
        if self.rng.random() < 0.8:
            entries[i], entries[j] = entries[j], entries[i]

    def torus(self):
        for node, key in self.places():
            if key == "torus" and isinstance(node[key], list):
                node[key] = [int(self.pick([-1, 0, 1, 4, 5, 6, 9, 256, 2**62])) for _ in range(2)]


BOUNDARY = "not proved, by an error within the proof"
TREE = ("junk", "drop", "repeat", "swap", "add", "number", "bound", "norms", "torus")
ARRAYS = ("values", "flip", "shape", "dtype", "exchange")


def mutated(data, seed):
    rng = np.random.default_rng(seed)
    how = rng.random()
    if how < 0.1:  # the bytes of the file as they are
        return scratched(data, rng)
    mutant = Mutant(data, rng)
    if how < 0.2:  # those of the header, its digest right again
        return mutant.data(scratched(json.dumps(mutant.header, indent=1).encode(), rng))
    for _ in range(rng.integers(1, 4)):
        names = TREE if rng.random() < 0.5 or not mutant.blocks else ARRAYS
        try:
            getattr(mutant, names[rng.integers(len(names))])()
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError):
            continue  # what an earlier step left has no such place
    return mutant.data()


def scratched(data, rng):
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        i, how = int(rng.integers(len(data))), rng.integers(4)
        if how == 0:
            data[i] ^= 1 << int(rng.integers(8))
        elif how == 1:
            data[i:i] = bytes(rng.integers(32, 127, size=rng.integers(1, 5)).tolist())
        elif how == 2:
            del data[i : i + int(rng.integers(1, 9))]
        elif rng.random() < 0.2:
            del data[i:]
    return bytes(data or b"\0")


def values_at(network, x):
    if not isinstance(network, ImplicitLayer):
        return network.evaluate(x).reshape(len(x), -1)
    z = np.zeros((len(x), len(network.W)))
    for _ in range(120):
        z = x @ network.U.T + z @ network.W.T
        if network.activation == "relu":
            z = np.maximum(z, 0)
        else:
            z = -np.sort(-z.reshape(len(z), -1, 2), axis=-1).reshape(z.shape)
    return z @ network.C.T


def norm(v, p):
    return np.linalg.norm(v, {"1": 1, "2": 2, "inf": np.inf}[p], axis=1)


def contradicted(claim, network):
    """Whether a sampled point, or pair, shows that a claim is false."""
    rng = np.random.default_rng(0)
    shape = network.input_shape
    with np.errstate(all="ignore"):
        if isinstance(claim, Claim):
            unit = rng.random((3000, *shape))
            low, high = (-3.0, 3.0)
            if claim.region is not None:
                low, high = claim.region.lower, claim.region.upper
            x = low + (high - low) * unit
            y = x + 1e-4 * (high - low) * rng.normal(size=x.shape)
            y = np.clip(y, low, high)
            moved = values_at(network, x) - values_at(network, y)
            if claim.norm_out == "margin":
                i, j = claim.margin
                moved = np.abs(moved[:, i] - moved[:, j])
            else:
                moved = norm(moved, claim.norm_out)
            apart = norm((x - y).reshape(len(x), -1), claim.norm_in)
            return bool((moved > claim.bound * apart * (1 + 1e-9) + 1e-12).any())
        for n in range(len(claim.low)):
            unit = np.concatenate([rng.random((300, *shape)), rng.integers(2, size=(30, *shape))])
            x = claim.low[n] + (claim.high[n] - claim.low[n]) * unit
            if claim.ball is not None:
                center = claim.ball.center[min(n, len(claim.ball.center) - 1)]
                radius = claim.ball.radius[min(n, len(claim.ball.radius) - 1)]
                away = np.linalg.norm((x - center).reshape(len(x), -1), claim.ball.norm, axis=1)
                x = x[away <= radius * (1 - 1e-12)]
            if not (len(x) and np.isfinite(x).all()):
                continue
            spec = claim.spec[min(n, len(claim.spec) - 1)]
            found = values_at(network, x) @ spec.T
            slack = 1e-9 * (1 + np.abs(claim.lower[n]) + np.abs(spec).sum(axis=1))
            if (found < claim.lower[n] - slack).any():
                return True
    return False


def follows(claim, original):
    """Whether a Lipschitz claim is the mutated one, or weaker in its bound alone."""
    if not isinstance(claim, Claim) or claim == original:
        return claim == original
    return replace(claim, bound=original.bound) == original and claim.bound >= original.bound


def outcome(kind, seed):
    """What becomes of one mutant, in a word; anything raised here is a failure."""
    network, original, data = case(kind)
    other = mutated(data, seed)
    if other == data:
        return "the same file"
    try:
        certificate = unpack(other)
    except CertificateError:
        return "refused: no certificate"
    try:
        found = check(certificate, network)
    except InputError:  # as the command has it: status 2
        return "refused: bad input"
    to_json(found.as_dict())
    printed = found.claim + found.reason
    assert printed.isprintable()
    if not found.holds:
        return BOUNDARY if "within the proof" in found.reason else "not proved"
    claim = certificate.claim
    if follows(claim, original.claim):
        return "accepted: the claim follows from the first"
    assert not contradicted(claim, network)
    if isinstance(claim, Claim) and claim.bound < original.claim.bound:
        try:
            assert check(certificate, network, exact=True)
        except InputError:
            return "accepted: a smaller bound, no sample contradicts it"
        return "accepted: a smaller bound, proved in rationals too"
    return "accepted: another claim, no sample contradicts it"


@pytest.mark.parametrize("kind", KINDS)
def test_the_samples_see_a_false_claim(kind):
    network, certificate, _ = case(kind)
    claim = certificate.claim
    assert not contradicted(claim, network)
    if isinstance(claim, Claim):
        false = replace(claim, bound=claim.bound / 8)
    else:
        false = replace(claim, lower=claim.lower + 2.0)
    assert contradicted(false, network)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutants_are_refused_or_true(kind, count):
    outcomes = Counter()
    for seed in range(count):
        try:
            outcomes[outcome(kind, seed)] += 1
        except BaseException as error:
            error.add_note(f"mutant {seed} of {kind!r}")
            raise
    print(kind, count, dict(outcomes.most_common()))
    # The mutants reach the proofs, and some of them leave what is proved as it was.
    assert sum(outcomes.values()) == count
    assert not outcomes[BOUNDARY]  # every misfit has a reason in words, before NumPy finds it
    assert outcomes["not proved"] > count // 50
    assert sum(n for word, n in outcomes.items() if word.startswith("accepted")) > 0
