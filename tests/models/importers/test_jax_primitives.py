"""from_jax, primitive by primitive; every import is also checked by from_jax itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tangency.models import from_jax

RNG = np.random.default_rng(0)
V = np.zeros((1, 6), "float32")
M = np.zeros((1, 4, 6), "float32")
IMAGE = np.zeros((1, 8, 9, 3), "float32")
A = RNG.normal(size=(6, 6)).astype("float32")
W = RNG.normal(size=(6, 5)).astype("float32")
T = RNG.normal(size=(4, 6, 3)).astype("float32")
KERNEL = RNG.normal(size=(3, 3, 3, 4)).astype("float32")
GROUPED = RNG.normal(size=(3, 3, 1, 6)).astype("float32")
KERNEL_1D = RNG.normal(size=(5, 4, 3)).astype("float32")
TRI = np.tril(np.ones((4, 6), bool))
NHWC = ("NHWC", "HWIO", "NHWC")


def steps(network):
    return [node.op.kind for node in network.structure.nodes[1:]]


UNARY = (
    *("abs", "sign", "floor", "ceil", "round", "exp", "expm1", "tanh", "sin", "cos", "tan", "sinh"),
    *("cosh", "arcsinh", "arctan", "square", "log", "log1p", "sqrt", "arcsin", "arccos", "arctanh"),
)


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    assert steps(from_jax(getattr(jnp, name), V)) == ["activation"]


ELEMENTWISE = {
    "rsqrt": (lax.rsqrt, V, ["activation"]),
    "erf": (lax.erf, V, ["activation"]),
    "erfc": (lax.erfc, V, None),
    "exp2": (jnp.exp2, V, ["scale", "activation"]),
    "power -2": (lambda x: x**-2, V, ["activation"]),
    "power 1/2": (lambda x: x**0.5, V, ["activation"]),
    "power 1.7": (lambda x: x**1.7, V, None),
    "2 / x": (lambda x: 2 / x, V, ["activation", "scale"]),
    "quotient": (lambda x: x[:, :3] / x[:, 3:], V, ["slice", "slice", "quotient"]),
    "product": (lambda x: x[:, :, None] * x[:, None], V, None),
    "maximum": (lambda x: jnp.maximum(x[:, :3], x[:, 3:]), V, ["slice", "slice", "extremum"]),
    "max tensor": (lambda x: jnp.maximum(x, A[0]), V, ["constant", "extremum"]),
    "clamp tensor": (lambda x: lax.clamp(-jnp.abs(A[:1]), x, jnp.abs(A[:1])), V, None),
    "rsub": (lambda x: A[0] - x, V, ["constant", "subtract"]),
    "add 0": (lambda x: (x + 0.0) * 1.0, V, []),
    "select": (lambda x: jnp.where(x[:, :3] > x[:, 3:], 2 * x[:, :3], x[:, 3:]), V, None),
    "logic": (lambda x: jnp.where((x > 0.5) & (x < 1.5) | ~(x > -1), x, x * x), V, None),
    "scalar test": (lambda x: jnp.where(x.sum(-1, keepdims=True) > 0, x, 0), V, None),
    "equal": (lambda x: jnp.where(jnp.round(x) == x[:, :1] * 0, x, 1.0), V, None),
    "chosen test": (
        lambda x: jnp.where(jnp.where(x[:, :1] > 0, x > 0.5, x < -0.5), x, x * x),
        V,
        None,
    ),
    "not equal": (lambda x: jnp.where(jnp.round(x) != 0, x, 7.0), V, None),
    "step": (lambda x: (x > 0.3).astype(x.dtype) @ W, V, None),
    "nan test": (lambda x: jnp.where(jnp.isnan(x), 0, x), V, []),
    "finite": (lambda x: jnp.where(jnp.isfinite(x), x, 0), V, []),
    "mask": (lambda x: jnp.where(TRI, x, -1e9), M, ["scale", "constant", "add"]),
    "mask both": (lambda x: jnp.where(TRI, x, 2 * x), M, None),
    "logaddexp": (lambda x: jnp.logaddexp(x[:, :3], x[:, 3:]), V, None),
    "stop": (lambda x: lax.stop_gradient(x) + 1, V, None),
}
SHAPES = {
    "transpose": (lambda x: x.swapaxes(1, 2) @ T[:, 0], M, ["transpose", "dense"]),
    "there and back": (
        lambda x: jnp.tanh(x.swapaxes(1, 2) + 1).swapaxes(1, 2),
        M,
        ["constant", "add", "activation"],
    ),
    "reshape": (lambda x: x.reshape(-1, 24), M, ["reshape"]),
    "expand": (lambda x: jnp.tanh(x[:, None, :, None])[:, 0, :, 0], V, ["activation"]),
    "broadcast": (lambda x: jnp.broadcast_to(x[:, None], (x.shape[0], 3, 6)), V, None),
    "tile": (lambda x: jnp.tile(x, (1, 2, 1)), M, None),
    "repeat": (lambda x: jnp.repeat(x, 2, axis=1), M, None),
    "rev": (lambda x: x[:, ::-1], M, ["gather"]),
    "slice": (lambda x: x[:, 1:4:2, ::3], M, None),
    "take": (lambda x: x[:, np.array([2, 1, 1])], M, ["gather"]),
    "jnp.take": (lambda x: jnp.take(x, jnp.array([5, 1]), axis=-1), M, ["gather"]),
    "take range": (lambda x: x[:, np.array([1, 2, 3])], M, ["slice"]),
    "take pairs": (lambda x: x[:, np.array([2, 1]), np.array([0, 3])], M, ["reshape", "gather"]),
    "pad": (lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=0.5), M, ["pad"]),
    "pad negative": (
        lambda x: lax.pad(x, np.float32(0), ((0, 0, 0), (-1, 1, 0), (0, 0, 0))),
        M,
        [
            "slice",
            "pad",
        ],
    ),
    "pad interior": (
        lambda x: lax.pad(x, np.float32(2), ((0, 0, 0), (2, -1, 2), (1, 0, 1))),
        M,
        None,
    ),
    "concatenate": (lambda x: jnp.concatenate([x, 2 * x], 1), M, ["scale", "concat"]),
    "concatenate constant": (
        lambda x: jnp.concatenate([x, jnp.ones((x.shape[0], 1, 6))], 1),
        M,
        ["constant", "concat"],
    ),
    "stack": (lambda x: jnp.stack([x, 2 * x], -1), M, None),
    "split": (lambda x: jnp.concatenate(jnp.split(x, 2, axis=1)[::-1], 1), M, None),
}
SUMS = {
    "sum": (lambda x: x.sum((1, 2))[:, None], M, ["reduce", "reshape"]),
    "mean": (lambda x: x.mean(1), M, ["reduce"]),
    "mean keepdims": (lambda x: x - x.mean(1, keepdims=True), M, ["reduce", "reshape", "subtract"]),
    "var": (lambda x: x.var(-1), M, None),
    "max": (lambda x: x.max(2), M, ["reduce_extremum"]),
    "min": (lambda x: x.min(1), M, ["reduce_extremum"]),
    "norm": (lambda x: jnp.linalg.norm(x, axis=-1), M, ["activation", "reduce", "activation"]),
    "cumsum": (lambda x: jnp.cumsum(x, 2), M, ["dense"]),
    "cumsum back": (
        lambda x: lax.cumsum(x, 1, reverse=True),
        M,
        ["transpose", "dense", "transpose"],
    ),
    "sort": (jnp.sort, V, ["group_sort"]),
    "sort down": (lambda x: jnp.sort(x, axis=1)[:, ::-1], M, ["group_sort"]),
    "maxmin": (
        lambda x: jnp.sort(x.reshape(-1, 3, 2), axis=-1)[..., ::-1].reshape(-1, 6) @ W,
        V,
        ["group_sort", "dense"],
    ),
}
PRODUCTS = {
    "matmul": (lambda x: x @ W, V, ["dense"]),
    "matmul bias": (lambda x: x @ W + A[0, :5], M, ["dense"]),
    "weight first": (lambda x: (W.T @ x.T).T, V, ["dense"]),
    "x xT": (lambda x: jnp.einsum("bij,bkj->bik", x, x), M, ["transpose", "matmul"]),
    "xT x": (lambda x: jnp.einsum("bji,bjk->bik", x, x), M, ["transpose", "matmul"]),
    "x xT turned": (lambda x: jnp.einsum("bij,bkj->bki", x, 2 * x), M, None),
    "axis in front": (lambda x: jnp.einsum("bij,ik->bjk", x, A[:4]), M, ["transpose", "dense"]),
    "two axes": (lambda x: jnp.tensordot(x, T, axes=((1, 2), (0, 1))), M, ["reshape", "dense"]),
    "axes exchanged": (
        lambda x: jnp.tensordot(x, T.swapaxes(0, 1), axes=((2, 1), (0, 1))),
        M,
        ["reshape", "dense"],
    ),
    "batched weights": (lambda x: jnp.einsum("bij,ijk->bik", x, T), M, None),
    "merged batch": (lambda x: (x.reshape(-1, 6) @ W).reshape(-1, 4, 5), M, ["dense"]),
    "one feature": (lambda x: (x[..., None] @ W[:1]).sum(-1), V, None),
    "one output": (lambda x: x @ W[:, :1] + 0.5, M, None),
    "quadratic": (lambda x: jnp.einsum("bi,ij,bj->b", x, A, x)[:, None], V, None),
}
LOOPS = {
    "scan": (
        lambda x: lax.scan(
            lambda h, u: (jnp.tanh(h @ A + u), h),
            jnp.zeros((x.shape[0], 6), x.dtype),
            x.swapaxes(0, 1),
        )[1].swapaxes(0, 1),
        M,
        None,
    ),
    "scan reversed": (
        lambda x: lax.scan(
            lambda h, u: (jnp.tanh(h @ A + u), None),
            jnp.zeros((x.shape[0], 6), x.dtype),
            x.swapaxes(0, 1),
            reverse=True,
        )[0],
        M,
        None,
    ),
    "fori": (
        lambda x: lax.fori_loop(0, 2, lambda i, h: jnp.tanh(h @ A), x),
        V,
        [*("dense", "activation") * 2],
    ),
    "while": (
        lambda x: lax.while_loop(
            lambda c: c[0] < 2, lambda c: (c[0] + 1, jnp.tanh(c[1] @ A)), (0, x)
        )[1],
        V,
        ["dense", "activation"] * 2,
    ),
    "cond": (lambda x: lax.cond(True, jnp.tanh, jnp.sin, x), V, ["activation"]),
    "checkpoint": (jax.checkpoint(lambda x: jnp.tanh(x @ A)), V, ["dense", "activation"]),
}
CASES = {**ELEMENTWISE, **SHAPES, **SUMS, **PRODUCTS, **LOOPS}


@pytest.mark.parametrize("name", CASES)
def test_primitives(name):
    function, x, wanted = CASES[name]
    network = from_jax(function, x)
    assert wanted is None or steps(network) == wanted


@pytest.mark.parametrize("name", ["logic", "pad", "two axes", "scan", "x xT turned"])
def test_float64(name):
    function, x, _ = CASES[name]
    network = from_jax(function, x.astype("float64"))
    assert network.dtype == "float64"


def test_dynamic_slice_of_one_sample():
    network = from_jax(lambda x: lax.dynamic_slice(x, (1, 9), (2, 3)), M[0], batch_axis=None)
    assert steps(network) == ["slice"]
    assert network.structure.nodes[1].op.start == (1, 3)


# --- convolutions and pooling -----------------------------------------------------------------


def conv(w, stride=(1, 1), padding="SAME", numbers=NHWC, bias=None, **options):
    def function(x):
        y = lax.conv_general_dilated(x, w, stride, padding, dimension_numbers=numbers, **options)
        return y if bias is None else y + bias

    return function


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2), (0, 1)), ((-1, 2), (3, -1))])
def test_conv(padding, stride):
    bias = np.arange(4, dtype="float32")
    network = from_jax(conv(KERNEL, stride, padding, bias=bias), IMAGE)
    cut = ["slice"] if padding == ((-1, 2), (3, -1)) else []
    assert steps(network) == ["transpose", *cut, "conv", "transpose"]
    node = network.structure.nodes[-2]
    assert [p.role for p in node.params] == ["weight", "bias"]


def test_conv_of_frames():
    """Images that share the batch axis with it."""
    network = from_jax(
        lambda x: conv(KERNEL)(x.reshape(-1, 8, 9, 3)).reshape(-1, 2, 8 * 9 * 4),
        np.zeros((1, 2, 8, 9, 3), "float32"),
    )
    assert "conv" in steps(network)


def test_conv_forms():
    grouped = conv(GROUPED, rhs_dilation=(2, 1), feature_group_count=3)
    assert steps(from_jax(grouped, IMAGE)) == ["transpose", "conv", "transpose"]
    line = from_jax(conv(KERNEL_1D, (2,), numbers=None), M)
    assert steps(line) == ["conv"]
    channels_first = from_jax(
        conv(KERNEL, numbers=("NCHW", "HWIO", "NCHW")), np.zeros((1, 3, 8, 8), "float32")
    )
    assert steps(channels_first) == ["conv"]
    odd = from_jax(
        conv(KERNEL.transpose(2, 0, 3, 1), numbers=("HNWC", "IHOW", "HNWC")),
        IMAGE.transpose(1, 0, 2, 3),
        batch_axis=1,
    )
    assert odd.input_shape == (8, 9, 3)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [(2, 2), (3, 2)])
def test_conv_transpose(stride, padding):
    network = from_jax(lambda x: lax.conv_transpose(x, KERNEL, stride, padding), IMAGE)
    assert steps(network) == ["transpose", "conv_transpose", "transpose"]


def test_conv_of_a_dilated_input():
    around = ((2, 3), (1, 1))
    grouped = conv(
        GROUPED, padding=around, lhs_dilation=(2, 3), rhs_dilation=(2, 1), feature_group_count=3
    )
    assert "conv_transpose" in steps(from_jax(grouped, IMAGE))
    both = conv(KERNEL, (2, 1), around, lhs_dilation=(2, 3))
    assert "conv" in steps(from_jax(both, IMAGE))
    cropped = conv(KERNEL, padding=((5, -1), (0, 1)), lhs_dilation=(2, 3))
    assert "conv_transpose" in steps(from_jax(cropped, IMAGE))


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 1), (0, 1))])
def test_pooling(padding):
    from flax import linen

    x = IMAGE
    around = {"strides": (2, 2), "padding": padding}
    top = from_jax(lambda x: linen.max_pool(x, (3, 2), **around), x)
    assert steps(top) == ["transpose", "max_pool", "transpose"]
    for counted in (True, False):
        mean = from_jax(
            lambda x, c=counted: linen.avg_pool(x, (3, 2), count_include_pad=c, **around), x
        )
        assert steps(mean) == ["transpose", "average_pool", "transpose"]


def test_windows():
    def add(x):
        return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")

    assert steps(from_jax(add, IMAGE)) == ["transpose", "average_pool", "scale", "transpose"]

    def top(x):
        wide = {"window_dilation": (1, 2, 1, 1)}
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID", **wide)

    assert steps(from_jax(top, IMAGE)) == ["transpose", "max_pool", "transpose"]


def test_channels_last_costs_one_transpose_each_way():
    def model(p, x):
        for k in ("a", "b"):
            y = lax.conv_general_dilated(x, p[k], (1, 1), "SAME", dimension_numbers=NHWC)
            x = jax.nn.silu((y - 0.5) * np.arange(1, 4, dtype="float32")) + x
        return x.mean((1, 2))

    w = RNG.normal(size=(2, 3, 3, 3, 3)).astype("float32")
    network = from_jax(model, IMAGE, params={"a": w[0], "b": w[1]})
    assert steps(network).count("transpose") == 1


# --- inputs and outputs -------------------------------------------------------------------------


def test_several_inputs_and_outputs():
    def model(x, y):
        return {"a": x @ W + (y**2).sum(1) @ W, "b": (x, jnp.tanh(x))}

    network = from_jax(model, (V, M))
    assert network.input_shapes == ((6,), (4, 6))
    assert network.output_shapes == ((5,), (6,), (6,))


def test_batch_axis():
    last = from_jax(lambda x: W.T @ x, V.T, batch_axis=1)
    assert (last.input_shape, last.output_shape) == ((6,), (5,))
    last = from_jax(lambda x: W.T @ x, V.T, batch_axis=-1)
    assert steps(last) == ["dense"]
    one = from_jax(lambda x: x @ W, V[0], batch_axis=None)
    assert steps(one) == ["dense"]


def test_an_example_of_many_samples_is_traced_at_one():
    x = np.zeros((7, 6), "float32")
    network = from_jax(lambda x: jnp.reshape(x @ W, (x.shape[0], 5)), x)
    assert steps(network) == ["dense"]
    assert network(np.ones((3, 6), "float32")).shape == (3, 5)


def test_a_jax_array_as_example():
    assert steps(from_jax(lambda x: x @ W, jnp.zeros((2, 6)))) == ["dense"]
