"""The layer-wise form against Jacobians: every kind of site, shared weights, both front ends."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.models import Builder, from_layers
from tangency.models.network import precision
from tangency.models.ops import (
    Add,
    BatchNorm,
    Conv,
    ConvTranspose,
    LayerNorm,
    Prelu,
    Reduce,
    jax_backend,
)
from tangency.theory.ntk import empirical_ntk
from tangency.theory.ntk.channels import channelwise
from tangency.theory.ntk.contraction import cheaper
from tangency.theory.ntk.jax_sites import plan_sites

RNG = np.random.default_rng(11)


def jacobian_kernel(network, x1, x2=None):
    """Contract whole Jacobians, with no knowledge of the layers."""
    import jax

    s = network.structure

    def one(wanted, x):
        return s.apply(jax_backend(), {**network.weights, **wanted}, [x[None]])[0].reshape(-1)

    with precision(network.dtype):
        wanted = {k: network.weights[k] for k in s.trainable}
        tall = jax.jit(jax.vmap(jax.jacrev(one), (None, 0)))

        def flat(x):
            return np.concatenate(
                [np.asarray(j).reshape(*j.shape[:2], -1) for j in tall(wanted, x).values()], -1
            )

        j1 = flat(x1)
        j2 = j1 if x2 is None else flat(x2)
    return np.einsum("iap,jbp->ijab", j1, j2)


def agree(network, x, **options):
    want = jacobian_kernel(network, x)
    k, scale = want.shape[2], np.abs(want).max()
    full = empirical_ntk(network, x, outputs="full", **options).ntk
    np.testing.assert_allclose(full, want, rtol=1e-10, atol=1e-12 * scale)
    diagonal = empirical_ntk(network, x, outputs="diagonal", **options).ntk
    np.testing.assert_allclose(diagonal, np.einsum("ijaa->ija", want), atol=1e-12 * scale)
    trace = empirical_ntk(network, x, **options).ntk
    np.testing.assert_allclose(trace, np.einsum("ijaa->ij", want) / k, atol=1e-12 * scale)
    total = empirical_ntk(network, x, outputs="sum", **options).ntk
    np.testing.assert_allclose(total, want.sum((2, 3)) / k, atol=1e-12 * scale * k)


def emitted(value, b, op, arrays, buffers=()):
    return b.emit(op, [value.node], arrays, buffers=list(buffers))


def test_every_op_with_weights():
    b = Builder("float64")
    draw = RNG.standard_normal
    x = b.input((1, 2, 6, 5))
    y = emitted(x, b, Conv((2, 1), ((1, 1), (0, 1)), (1, 2)),
                {"weight": ("c1", draw((4, 2, 3, 2))), "bias": ("c1b", draw(4))})  # fmt: skip
    y = emitted(y, b, BatchNorm(0), {
        "mean": ("m", draw(4)), "var": ("v", draw(4) ** 2),
        "weight": ("g", draw(4)), "bias": ("gb", draw(4)),
    }, ["mean", "var"])  # fmt: skip
    y = emitted(y, b, Prelu(0), {"slope": ("s", draw(4))})
    y = emitted(y, b, Conv((1, 1), ((1, 1), (1, 1)), (1, 1), 2),
                {"weight": ("c2", draw((4, 2, 3, 3)))})  # fmt: skip
    y = emitted(y, b, ConvTranspose((2, 1)),
                {"weight": ("t", draw((4, 3, 2, 2))), "bias": ("tb", draw(3))})  # fmt: skip
    y = emitted(y, b, LayerNorm((-1,)), {
        "weight": ("lw", draw(y.shape[-1])), "bias": ("lb", draw(y.shape[-1])),
    })  # fmt: skip
    y = b.scale(y, draw(y.shape[-1]), key="scale")
    y = b.shift(y, draw(y.shape[-2:]), key="shift")
    y = b.dense(y, draw((2, y.shape[-1])), draw(2), keys=("d", "db"))
    network = b.finish([b.emit(Reduce("sum", (1,)), [y.node])])
    x = RNG.standard_normal((5, *network.input_shape))
    want = jacobian_kernel(network, x)
    scale = np.abs(want).max()
    # Tiles of two samples, the last of one.
    tiles = empirical_ntk(network, x, outputs="full", batch_size=2).ntk
    np.testing.assert_allclose(tiles, want, rtol=1e-10, atol=1e-12 * scale)
    total = empirical_ntk(network, x).ntk
    np.testing.assert_allclose(
        total, np.einsum("ijaa->ij", want) / want.shape[2], atol=1e-12 * scale
    )


def test_a_weight_that_two_layers_share_has_its_cross_terms():
    b = Builder("float64")
    w, v = RNG.standard_normal((4, 4)), RNG.standard_normal((2, 4))
    y = b.input((1, 4))
    for _ in range(2):
        y = b.emit(_dense(), [y.node], {"weight": ("shared", w)})
        y = b.activation(y, _tanh())
    network = b.finish([b.dense(y, v, keys=("out", "bias"))])
    assert network.structure.param_shapes == {"shared": (4, 4), "out": (2, 4)}
    plan = plan_sites(network.structure, "full", 6, 2)
    assert plan.keys == ("shared",)
    agree(network, RNG.standard_normal((6, 4)))


def _dense():
    from tangency.models.ops import Dense

    return Dense()


def _tanh():
    from tangency.models.activations import get

    return get("tanh")


def test_both_ways_through_a_convolution_agree():
    def network(space, channels, width):
        b = Builder("float64")
        x = b.input((1, channels, space, space))
        w = RNG.standard_normal((width, channels, 3, 3))
        y = emitted(x, b, Conv((1, 1), ((1, 1), (1, 1))),
                    {"weight": ("w", w), "bias": ("b", RNG.standard_normal(width))})  # fmt: skip
        y = b.activation(y, _tanh())
        y = b.reshape(y, (1, width * space * space))
        return b.finish([b.dense(y, RNG.standard_normal((3, width * space * space)))])

    few, many = network(2, 6, 8), network(7, 1, 2)
    assert len(plan_sites(few.structure, "full", 4, 3).pairs) == 2
    assert len(plan_sites(many.structure, "full", 4, 3).pairs) == 1
    for net, shape in ((few, (4, 6, 2, 2)), (many, (4, 1, 7, 7))):
        x = RNG.standard_normal(shape)
        want = jacobian_kernel(net, x)
        got = empirical_ntk(net, x, outputs="full").ntk
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12 * np.abs(want).max())


@settings(max_examples=3, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=4),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(0, 2**31),
)
def test_tiles_of_two_sets_are_the_whole(sizes, n1, n2, batch, seed):
    rng = np.random.default_rng(seed)
    layers = [(rng.standard_normal((m, n)), rng.standard_normal(m)) for n, m in pairs(sizes)]
    network = from_layers(layers, "tanh")
    x, y = rng.standard_normal((n1, sizes[0])), rng.standard_normal((n2, sizes[0]))
    want = jacobian_kernel(network, x, y)
    for options in ({"batch_size": batch}, {"memory": 400}):
        got = empirical_ntk(network, x, y, outputs="full", **options).ntk
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-11 * np.abs(want).max())


def pairs(sizes):
    return pairwise(sizes)


def test_one_triangle_in_blocks_is_the_whole():
    network = from_layers([RNG.standard_normal((6, 5)), RNG.standard_normal((2, 6))], "tanh")
    x = RNG.standard_normal((53, 5))  # four blocks, the last one short
    agree(network, x)
    one = empirical_ntk(network, x, outputs="full").matrix
    assert (one == one.T).mean() > 0.6  # mirrored, not computed twice


def test_sum_of_logits_reports_its_error():
    network = from_layers([RNG.standard_normal((6, 5)), RNG.standard_normal((3, 6))], "relu")
    x = RNG.standard_normal((9, 5))
    got = empirical_ntk(network, x, outputs="sum", sample=9)
    full = jacobian_kernel(network, x)
    stand_in = got.ntk[:, :, None, None] * np.eye(3)
    want = np.linalg.norm(full - stand_in) / np.linalg.norm(full)
    assert got.error == pytest.approx(want, rel=1e-9)
    assert got.error_samples == 9
    assert 0.1 < want < 2
    other = empirical_ntk(network, x, x[:4].copy(), outputs="sum", sample=3)
    assert other.error_samples == 3
    assert other.error > 0
    assert got.as_dict()["error"] == got.error


def test_sum_of_logits_is_exact_for_one_output():
    network = from_layers([RNG.standard_normal((6, 5)), RNG.standard_normal((1, 6))], "relu")
    x = RNG.standard_normal((4, 5))
    got = empirical_ntk(network, x, outputs="sum")
    np.testing.assert_allclose(got.ntk, empirical_ntk(network, x).ntk, rtol=1e-12)
    assert got.error < 1e-14


def test_the_cheaper_way_is_the_one_with_fewer_multiplications():
    assert cheaper("full", 100, 10, (1, 784, 512)) == "pair"
    assert cheaper("full", 64, 10, (1024, 144, 16)) == "gradient"
    assert cheaper("full", 64, 10, (16, 4608, 512)) == "pair"
    assert cheaper("project", 1, 10, (1, 784, 512), 1000) == "pair"
    assert cheaper("project", 1, 10, (1024, 27, 4), 1000) == "gradient"


def residual(head="pool"):
    b = Builder("float64")
    draw = RNG.standard_normal
    same = Conv((1, 1), ((1, 1), (1, 1)))
    x = b.input((1, 2, 4, 4))
    first = emitted(x, b, same, {"weight": ("c1", draw((3, 2, 3, 3)))})
    y = b.activation(first, _tanh())
    y = emitted(y, b, same, {"weight": ("c2", draw((3, 3, 3, 3))), "bias": ("c2b", draw(3))})
    y = emitted(y, b, BatchNorm(0), {"mean": ("m", draw(3)), "var": ("v", draw(3) ** 2)},
                ["mean", "var"])  # fmt: skip
    y = b.activation(b.elementwise(Add(), y, first), _tanh())
    if head == "pool":
        y = b.emit(Reduce("mean", (1, 2)), [y.node])
    else:
        y = b.reshape(y, (1, 48))
    return b.finish([b.dense(y, draw((4, y.shape[-1])), draw(4), keys=("d", "db"))])


def test_channels_that_stay_apart_share_one_gradient():
    network = residual()
    names = [network.structure.nodes[i].name for i in channelwise(network.structure)]
    plan = plan_sites(network.structure, "full", 5, 4)
    # The second convolution alone: the first goes through it.
    assert len(names) == len(plan.channels) == 1
    assert network.structure.nodes[plan.channels[0]].params[0].key == "c2"
    x = RNG.standard_normal((5, *network.input_shape))
    agree(network, x)


def test_channels_that_a_dense_layer_mixes_by_position_are_not_apart():
    assert channelwise(residual("flatten").structure) == frozenset()
