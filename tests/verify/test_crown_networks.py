"""Linear bounds of whole networks: stored numbers, exact ranges, floating point at its worst."""

import gzip
import importlib.util
import re
import subprocess
import sys
import textwrap
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tangency.models import Builder, from_layers
from tangency.verify.bounds import Box, bound, margins
from tangency.verify.rigorous.numpy_engine import NumpyEngine
from tangency.verify.rigorous.schedule import intermediate
from tangency.verify.rigorous.sets import InputSet

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1].parent / "shared" / "data"
REFERENCE = DATA / "bounds_reference.npz"

_spec = importlib.util.spec_from_file_location("bounds_networks", HERE / "test_bounds_networks.py")
base = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(base)

METHODS = ("crown-ibp", "crown", "forward")


# --- stored numbers ---------------------------------------------------------------------------


def stored(name):
    with np.load(REFERENCE) as data:
        network = base.reference_network(data, name)
        arrays = {k[len(name) + 1 :]: data[k] for k in data if k.startswith(f"{name}/")}
    return network, arrays


def close(got, wanted):
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


needs_data = pytest.mark.skipif(not REFERENCE.exists(), reason="shared data not present")


@needs_data
@pytest.mark.parametrize(
    ("name", "method", "samples"),
    [
        ("mlp", "crown-ibp", 64),
        ("mlp", "crown", 64),
        ("cnn", "crown-ibp", 64),
        ("cnn", "crown", 2),
        ("mnistfc2", "crown-ibp", 15),
        ("mlp", "forward", 4),
        ("cnn", "forward", 1),
        ("mnistfc2", "forward", 4),
    ],
)
def test_plain_bounds_equal_the_stored_ones(name, method, samples):
    network, data = stored(name)
    box = Box(data["xl"][:samples], data["xu"][:samples])
    key = method if method == "forward" else method.upper()
    wanted = {k: data[f"{key}/{k}"][:samples] for k in ("lb", "ub", "mlb")}
    found = bound(network, box, method=method, plain=True)
    close(found.lower, wanted["lb"])
    close(found.upper, wanted["ub"])
    assert found.certified
    if method == "forward":
        return  # the peer has none of margins
    close(
        bound(network, box, spec=data["C"][:samples], method=method, plain=True).lower,
        wanted["mlb"],
    )


@needs_data
def test_the_stored_crown_of_a_trained_network_mixes_in_intervals():
    """There, neurons whose sign intervals tell in *all* samples of the batch keep their intervals.

    Without that the bounds are those of plain CROWN, of mean width 0.5625 and margin 0.2566.
    """
    network, data = stored("mnistfc2")
    sets = [InputSet(data["xl"].astype(float), data["xu"].astype(float))]
    engine, end = NumpyEngine(network, sets), network.structure.outputs
    spec = data["C"].astype(float)
    known = intermediate(engine, end, method="crown", plain=True)
    low, high = engine.sweep(end[0], known)
    assert np.mean(high - low) == pytest.approx(0.5625, abs=1e-4)
    assert engine.sweep(end[0], known, spec=spec)[0].mean() == pytest.approx(0.2566, abs=1e-4)
    known = intermediate(engine, end, method="crown-ibp")
    before = network.structure.nodes[network.structure.nodes[end[0]].inputs[0]].inputs[0]
    low, high = known[before]
    swept = engine.sweep(before, known)
    open_ = ((low < 0) & (high > 0)).any(axis=0)
    known[before] = tuple(
        np.where(open_, new, old) for new, old in zip(swept, (low, high), strict=True)
    )
    for i in (before + 1, end[0]):
        known[i] = engine.interval(i, known)
    low, high = engine.sweep(end[0], known)
    close(low, data["CROWN/lb"])
    close(high, data["CROWN/ub"])
    close(engine.sweep(end[0], known, spec=spec)[0], data["CROWN/mlb"])


def mnist_property(index):
    text = gzip.open(DATA / "mnist_fc" / "vnnlib" / f"prop_{index}_0.03.vnnlib.gz", "rt").read()
    box = np.zeros((2, 784))
    for op, i, value in re.findall(r"\(assert \((<=|>=) X_(\d+) ([-\d.e]+)\)\)", text):
        box[int(op == "<="), int(i)] = float(value)
    others = {pair[1] for pair in re.findall(r"\(>= Y_(\d+) Y_(\d+)\)", text)}
    assert len(others) == 1
    return box, int(others.pop())


@pytest.mark.skipif(not (DATA / "mnist_fc").exists(), reason="shared data not present")
@pytest.mark.parametrize(
    ("name", "plain", "least", "most", "verified"),
    [
        ("256x4", True, -2.8495, -2.848, 10),
        ("256x4", False, -0.56, 0.0, 11),
        ("256x2", False, 0.29, 0.5, 9),  # one label differs from that of the stored arrays
    ],
)
def test_mnist_fc(name, plain, least, most, verified, tmp_path):
    pytest.importorskip("onnx")
    from tangency.models import from_onnx

    path = tmp_path / "net.onnx"
    path.write_bytes(gzip.open(DATA / "mnist_fc" / "onnx" / f"mnist-net_{name}.onnx.gz").read())
    network = from_onnx(path)
    boxes, labels = zip(*map(mnist_property, range(15)), strict=True)
    corners = np.array(boxes).swapaxes(0, 1).reshape(2, 15, *network.input_shape)
    found = margins(
        network,
        Box(*map(np.ascontiguousarray, corners)),
        np.array(labels),
        method="crown",
        plain=plain,
    )
    assert least <= found.mean() <= most
    assert (found.min(axis=1) > 0).sum() == verified


@needs_data
def test_the_default_is_tighter_at_the_cost_of_crown():
    network, data = stored("mnistfc2")
    box = Box(data["xl"], data["xu"])
    assert margins(network, box, data["y"], method="crown").mean() >= 0.32


# --- floating point ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_network_that_float32_loses(dtype, plain, method):
    """relu(relu(x + 2^25) + 1) - 2^25 on |x| <= 1/4 has the range [3/4, 5/4]."""
    one, big = np.ones((1, 1), dtype), np.array([2.0**25], dtype)
    network = from_layers([(one, big), (one, np.ones(1, dtype)), (one, -big)], "relu")
    found = bound(network, Box(np.array([-0.25]), np.array([0.25])), method=method, plain=plain)
    assert 0.75 - 1e-6 <= found.lower[0, 0] <= 0.75
    assert 1.25 <= found.upper[0, 0] <= 1.25 + 1e-6


@pytest.mark.parametrize("method", ["crown", "forward"])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("radius", [0.0, 1e-13, 0.1])
def test_catastrophic_cancellation_against_rational_arithmetic(dtype, radius, plain, method):
    rng = np.random.default_rng(11)
    missed = 0
    for _ in range(4):
        layers = base.cancelling_layers(rng, dtype)
        network = from_layers(layers, "relu")
        x = rng.normal(size=3).astype(dtype)
        box = Box.around(x, radius)
        found = bound(network, box, method=method, plain=plain)
        for p in (x, *(np.array(c) for c in product(*zip(box.lower, box.upper, strict=True)))):
            for k, y in enumerate(base.exact_relu_network(layers, p)):
                assert Fraction(float(found.lower[0, k])) <= y <= Fraction(float(found.upper[0, k]))
                plain_value = network.evaluate(p.astype(dtype))[k]
                missed += abs(Fraction(float(plain_value)) - y) > abs(y) / 1000
    assert missed > 0  # the networks are as bad as they are meant to be


@pytest.mark.parametrize("method", METHODS)
def test_products_of_layers_that_vanish(method):
    """``W2 W1`` is rounding alone: without the errors counted, most bounds would be wrong."""
    rng = np.random.default_rng(12)
    for _ in range(6):
        first, shift = rng.normal(size=(20, 3)) * 1e6, 1e8 * np.ones(20)
        basis = np.linalg.qr(np.column_stack([first, shift]))[0]
        blind = rng.normal(size=(4, 20))
        blind -= blind @ basis @ basis.T  # sees neither the weights nor the bias
        b = Builder("float64")
        h = b.dense(b.input((1, 3)), first, shift, keys=("w", "b"))
        network = b.finish([b.dense(h, blind, keys=("v", "c"))])
        x = rng.normal(size=3)
        hidden = [
            sum((Fraction(a) * Fraction(v) for a, v in zip(row, x, strict=True)), Fraction(1e8))
            for row in first.tolist()
        ]
        found = bound(network, Box(x, x), method=method, plain=True)
        for k in range(4):
            y = sum(Fraction(float(a)) * v for a, v in zip(blind[k], hidden, strict=True))
            assert Fraction(float(found.lower[0, k])) <= y <= Fraction(float(found.upper[0, k]))
        assert (found.upper - found.lower).max() <= 1e-3


def test_affine_maps_of_all_scales_enclose_rational_arithmetic():
    """Down to subnormal numbers; several layers, so that a sweep is made."""
    rng = np.random.default_rng(4)
    for n in (1, 3, 40):
        layers = [
            (
                rng.normal(size=(m, k)) * 10.0 ** rng.uniform(-150, 3, size=(m, k)),
                rng.normal(size=m) * 10.0 ** rng.uniform(-320, 0, size=m),
            )
            for k, m in ((n, 5), (5, 4))
        ]
        x = rng.normal(size=n) * 10.0 ** rng.uniform(-200, 3, size=n)
        box = Box(x - abs(x) / 8, x + abs(x) / 8)
        found = bound(from_layers(layers, "identity"), box, method="crown", plain=True)
        for p in (x, box.lower, box.upper):
            y = p.astype(object)
            for w, b in layers:
                y = [
                    sum(
                        (Fraction(float(a)) * Fraction(v) for a, v in zip(row, y, strict=True)),
                        Fraction(float(c)),
                    )
                    for row, c in zip(w, b, strict=True)
                ]
            for k, value in enumerate(y):
                assert (
                    Fraction(float(found.lower[0, k]))
                    <= value
                    <= Fraction(float(found.upper[0, k]))
                )


def test_one_pass_agrees_with_ball_arithmetic():
    """The same slopes and boxes, the backward pass again in python-flint's arb at 200 bits."""
    flint = pytest.importorskip("flint")
    rng = np.random.default_rng(3)
    layers = base.random_layers(rng, (12, 20, 20, 4), dtype="float32")
    network = from_layers(layers, "relu")
    box = Box.around(rng.normal(size=12), 0.2)
    sets = [InputSet(box.lower[None], box.upper[None])]
    engine, (end,) = NumpyEngine(network, sets), network.structure.outputs
    known = intermediate(engine, [end], method="crown", plain=True)
    found = engine.sweep(end, known)
    flint.ctx.prec = 200
    try:
        for sign, bounds in ((1.0, found[0][0]), (-1.0, found[1][0])):
            for k in range(4):
                value = _ball_pass(flint, layers, known, box, sign, k)
                ours = flint.arb(float(sign * bounds[k]))
                assert not ours > value  # never better than exact arithmetic has it
                assert abs(float((value - ours).mid())) <= 1e-11 * max(1.0, abs(float(value.mid())))
    finally:
        flint.ctx.prec = 53


def _ball_pass(flint, layers, known, box, sign, row):
    arb = flint.arb
    coef = flint.arb_mat([[arb(sign) if i == row else arb(0) for i in range(4)]])
    offset = arb(0)
    for depth in (2, 1, 0):
        w, b = layers[depth]
        offset += (coef * flint.arb_mat([[arb(float(v))] for v in b]))[0, 0]
        coef = coef * flint.arb_mat([[arb(float(v)) for v in line] for line in w])
        if depth == 0:
            break
        low, high = (end[0] for end in known[2 * depth - 1])
        new = []
        for i, (l, u) in enumerate(zip(low, high, strict=True)):  # noqa: E741
            a = coef[0, i]
            if l >= 0 or u <= 0:
                new.append(a if l >= 0 else arb(0))
                continue
            chord = arb(float(u)) / (arb(float(u)) - arb(float(l)))
            if a > 0:
                new.append(a if u > -l else arb(0))
            else:
                new.append(a * chord)
                offset -= a * chord * arb(float(l))
        coef = flint.arb_mat([new])
    for i in range(box.lower.size):
        a = coef[0, i]
        offset += a * arb(float(box.lower[i] if a > 0 else box.upper[i]))
    return offset


# --- memory -----------------------------------------------------------------------------------


@needs_data
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux")
def test_memory_does_not_follow_the_batch():
    """Coefficients of a single sweep of 256 samples of 784-256-256-10 would take 900 MiB and more.

    1,024 samples take 210 MiB (measured by hand: it lasts six seconds).
    """
    script = textwrap.dedent(
        f"""
        import numpy as np
        from tangency.models import Builder, from_layers
        from tangency.verify.bounds import Box, margins
        data = np.load({str(REFERENCE)!r})
        layers = [(data[f"mlp/W{{i}}"], data[f"mlp/b{{i}}"]) for i in range(3)]
        box = Box(np.tile(data["mlp/xl"], (4, 1)), np.tile(data["mlp/xu"], (4, 1)))
        margins(from_layers(layers, "relu"), box, np.tile(data["mlp/y"], 4), method="crown")
        # The high-water mark of this program alone: getrusage inherits that of its parent.
        status = open("/proc/self/status").read()
        print(status.split("VmHWM:")[1].split()[0])
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) <= 500 * 2**10  # kilobytes
