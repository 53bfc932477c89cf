"""Convolutional bounds: sorting over channels, dense heads, batch norm, prelu, pooling."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models import Builder, InputError, NotProvedError, activations
from tangency.models.ops import AveragePool, BatchNorm, Conv, Dense, GroupSort, Prelu, Reshape
from tangency.verify.certificate import GroupSort as Sorting
from tangency.verify.certificate import Slopes
from tangency.verify.certificate.conv import check_conv
from tangency.verify.certificate.conv_symbol import ConvLayer
from tangency.verify.chain.conv_pieces import Run, pieces_of
from tangency.verify.lipschitz import lipschitz_bound
from tangency.verify.lipschitz.conv import conv_bound
from tangency.verify.lipschitz.conv.bases import neurons_of
from tangency.verify.lipschitz.conv.head import allotted, balanced, gram
from tangency.verify.lipschitz.conv.recursion import Problem
from tangency.verify.lipschitz.conv.repair import prove
from tangency.verify.lipschitz.conv.search import minimise

SAME = ((1, 1), (1, 1))


def classifier(
    seed=0, channels=(2, 4, 4), side=6, kind="relu", pool=False, normed=False, outputs=3
):
    """Convolutions, activations, perhaps batch norm and pooling, then a dense layer."""
    rng = np.random.default_rng(seed)
    b = Builder("float64")
    x = b.input((1, channels[0], side, side))
    for k, (i, o) in enumerate(pairwise(channels)):
        weight = rng.standard_normal((o, i, 3, 3)) * np.sqrt(2 / (9 * i))
        x = b.emit(Conv((1, 1), SAME), [x], {"weight": (f"w{k}", weight)})
        if normed:
            scale = {r: (f"{r}{k}", rng.random(o) + 0.5) for r in ("mean", "var")}
            scale["weight"] = (f"g{k}", rng.standard_normal(o))
            x = b.emit(BatchNorm(), [x], scale)
        if kind.startswith("sort"):
            x = b.emit(GroupSort(int(kind[4:])), [x])
        elif kind == "prelu":
            x = b.emit(Prelu(), [x], {"slope": (f"p{k}", rng.uniform(-0.5, 1.5, o))})
        else:
            x = b.activation(x, activations.get(kind))
    if pool:
        x = b.emit(AveragePool((2, 2), (2, 2), ((0, 0), (0, 0))), [x])
    width = int(np.prod(b.nodes[x.node].shape))
    x = b.emit(Reshape((width,)), [x])
    dense = rng.standard_normal((outputs, width)) / np.sqrt(width)
    return b.finish([b.emit(Dense(), [x], {"weight": ("d", dense)})])


def steepest(network, seed=1):
    """The largest difference quotient of sampled pairs."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((200, *network.input_shape))
    y = x + rng.choice([1e-3, 1.0], (200, 1, 1, 1)) * rng.standard_normal(x.shape)
    moved = np.linalg.norm((network.evaluate(x) - network.evaluate(y)).reshape(200, -1), axis=1)
    return float((moved / np.linalg.norm((x - y).reshape(200, -1), axis=1)).max())


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "relu"},
        {"kind": "sort2"},
        {"kind": "sort4", "seed": 1},
        {"kind": "prelu"},
        {"kind": "relu", "normed": True, "seed": 2},
        {"kind": "leaky_relu", "normed": True, "pool": True},
        {"kind": "sort2", "pool": True},
    ],
    ids=lambda o: "-".join(str(v) for v in o.values()),
)
def test_classifiers_between_the_unrolled_bound_and_the_product(options):
    network = classifier(**options)
    run = pieces_of(network)[0]
    assert run.dense
    assert len(run.layers) == 3
    found = conv_bound(network, time_limit=None, rtol=0.1)
    peer = lipschitz_bound(network, attack=False, time_limit=None, rtol=1e-3)
    assert found.certified
    assert steepest(network) <= found.upper
    assert found.lower <= peer.upper * (1 + 1e-9)
    assert peer.upper <= found.upper * (1 + 2e-3)
    assert found.upper <= found.product
    ((_, witness),) = found.witnesses
    again = check_conv(run.layers, run.activations, run.size, witness)
    share = 0.25 if options.get("pool") else 1.0
    assert found.method == "product" or found.upper == pytest.approx(share * again, rel=1e-14)


def test_a_head_in_the_run_beats_its_norm():
    network = classifier(channels=(2, 4, 4), side=7, outputs=4)
    (run,) = pieces_of(network)
    whole = conv_bound(network, time_limit=None, attack=False).upper
    cut = Problem(run.layers[:-1], run.activations[:-1], run.size)
    alone, _ = prove(cut, minimise(cut).theta)
    head = run.layers[-1].weight
    assert whole < 0.9 * alone * np.linalg.norm(head.reshape(len(head), -1), 2)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 3))
def test_a_head_is_bounded_from_above(seed, outputs, channels):
    # |sum p W X|^2 <= sum p X* W* J^{-1} W X for every X, with equality nowhere beaten
    rng = np.random.default_rng(seed)
    layer = ConvLayer(rng.standard_normal((outputs, channels, 3, 4)))
    problem = Problem([ConvLayer(np.eye(channels)[:, :, None, None]), layer],
                      [Slopes(0.0, 1.0)], (3, 4), dense=True)  # fmt: skip
    half = rng.standard_normal((len(problem.shares), channels, channels))
    flow = problem.shares[:, None, None] * (half @ half.swapaxes(1, 2)).astype(complex)
    head = allotted(problem.weights[-1], flow, problem.shares)
    mean = np.tensordot(problem.shares, head.real, axes=(0, 0))
    assert np.abs(mean - np.eye(outputs)).max() < 1e-9
    middle = gram(problem.weights[-1], head)
    x = rng.standard_normal((20, channels, 3, 4))
    spectrum = np.fft.fft2(x).reshape(20, channels, -1)
    from tangency.verify.certificate.conv_symbol import frequencies

    # The symbol turns the other way than numpy: conjugate.
    at = [a * 4 + b for a, b in frequencies((3, 4))]
    z = spectrum[:, :, at].conj().transpose(0, 2, 1)
    energy = np.einsum("f,nfi,fij,nfj->n", problem.shares, z.conj(), middle, z).real
    moved = (
        x.reshape(20, -1) @ np.ldexp(layer.weight, -problem.exponents[-1]).reshape(outputs, -1).T
    )
    assert ((moved**2).sum(axis=1) <= energy * (1 + 1e-9)).all()
    worse = balanced(head + 0.5 * np.eye(outputs), problem.shares)
    cost = [np.einsum("fij,fji->", flow, gram(problem.weights[-1], j)).real for j in (head, worse)]
    assert cost[0] <= cost[1] * (1 + 1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_neurons_of_sorting_keep_sums(size):
    neurons = neurons_of(Sorting(size), 12)
    rng = np.random.default_rng(size)
    assert np.abs(neurons.basis @ neurons.basis.T - np.eye(12)).max() < 1e-14
    x, y = rng.standard_normal((2, 100, 12))
    change = np.sort(x.reshape(100, -1, size)) - np.sort(y.reshape(100, -1, size))
    before, after = (x - y) @ neurons.basis.T, change.reshape(100, 12) @ neurons.basis.T
    groups = 12 // size
    assert np.abs(before[:, :groups] - after[:, :groups]).max() < 1e-13
    sums = [np.stack([neurons.collect(v**2) for v in part]) for part in (before, after)]
    assert (sums[1] <= sums[0] + 1e-12).all()


def test_tampered_heads_and_sums_are_refused():
    network = classifier(kind="sort2", side=5)
    found = conv_bound(network, time_limit=None, rtol=0.1, attack=False)
    ((run, witness),) = found.witnesses
    check_conv(run.layers, run.activations, run.size, witness)
    head, kept = witness.head, witness.kept
    skew = head.copy()
    skew[0, 0, 1] += 1.0
    bad = [
        (replace(witness, head=1.001 * head), "mean of the head"),
        (replace(witness, head=0.99 * head), "layer 3: not proved"),
        (replace(witness, head=skew), "Hermitian"),
        (replace(witness, head=head[:, :1, :1].copy()), "the head is not complex"),
        (replace(witness, head=None), "layer 3: not proved"),
        (replace(witness, kept=kept[:1]), "one matrix of sums"),
        (replace(witness, kept=(0.5 * kept[0], kept[1])), "layer 1: not proved"),
        (replace(witness, kept=(kept[0][:, :2], kept[1])), "the matrix of sums is not"),
        (replace(witness, square=witness.square * (1 - 1e-3)), "layer 1: not proved"),
        (replace(witness, multipliers=witness.multipliers[::-1]), "not proved"),
    ]
    for forged, reason in bad:
        with pytest.raises(NotProvedError, match=reason):
            check_conv(run.layers, run.activations, run.size, forged)
    image = [*run.layers[:-1], ConvLayer(run.layers[-1].weight[:, :, :3, :3])]
    with pytest.raises(NotProvedError, match="one pixel"):
        check_conv(image, run.activations, run.size, witness)
    with pytest.raises(InputError, match="groups of 3"):
        check_conv(run.layers, [Sorting(3), Sorting(2)], run.size, witness)


def test_pooling_before_a_convolution_joins_its_kernel():
    rng = np.random.default_rng(5)
    b = Builder("float64")
    x = b.input((1, 2, 8, 8))
    for k in range(2):
        weight = rng.standard_normal((2, 2, 3, 3)) / 3
        x = b.emit(Conv((1, 1), SAME), [x], {"weight": (f"w{k}", weight)})
        if not k:
            x = b.activation(x, activations.get("relu"))
            x = b.emit(AveragePool((2, 2), (2, 2), ((0, 0), (0, 0))), [x])
    network = b.finish([x])
    pieces = pieces_of(network)
    runs = [p for p in pieces if isinstance(p, Run)]
    assert [p.bound for p in pieces if not isinstance(p, Run)] == [1.0, np.nextafter(0.25, 1.0)]
    assert runs[1].layers[0].stride == (2, 2)
    found = conv_bound(network, time_limit=None)
    peer = lipschitz_bound(network, attack=False, time_limit=None, rtol=1e-3)
    assert found.lower <= peer.upper <= found.upper * (1 + 2e-3)
    assert steepest(network) <= found.upper


@pytest.mark.parametrize("op", [GroupSort(2, axis=1), Prelu(axis=1), GroupSort(2, axis=-1)])
def test_what_runs_along_another_axis_joins_no_run(op):
    rng = np.random.default_rng(6)
    b = Builder("float64")
    x = b.input((1, 4, 4, 4))  # as many channels as rows: shapes alone do not tell them apart
    params = {"slope": ("p", np.array([3.0, 0.1, 0.1, 0.1]))} if isinstance(op, Prelu) else {}
    for k in range(2):
        weight = rng.standard_normal((4, 4, 3, 3)) / 3
        x = b.emit(Conv((1, 1), SAME), [x], {"weight": (f"w{k}", weight)})
        x = x if k else b.emit(op, [x], params)
    network = b.finish([x])
    pieces = pieces_of(network)
    assert [isinstance(p, Run) for p in pieces] == [True, False, True]
    assert pieces[1].bound == (3.0 if params else 1.0)
    assert steepest(network) <= conv_bound(network, attack=False).upper
