"""Every op against PyTorch's functional form, in NumPy and in JAX, at one sample and a batch."""

from __future__ import annotations

import numpy as np
import pytest

from tangency.models import InputError, activations
from tangency.models.network import precision
from tangency.models.ops import (
    OPS,
    Activate,
    Add,
    AveragePool,
    BatchNorm,
    Broadcast,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Extremum,
    Gather,
    GroupSort,
    Householder,
    LayerNorm,
    LogSumExp,
    MatMul,
    MaxPool,
    Pad,
    Prelu,
    Product,
    Quotient,
    Reduce,
    ReduceExtremum,
    Reshape,
    Scale,
    Select,
    Slice,
    Softmax,
    Subtract,
    Transpose,
    Upsample,
    jax_backend,
    numpy_backend,
)

torch = pytest.importorskip("torch")
F = torch.nn.functional
RNG = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def same2(n: int) -> tuple[tuple[int, int], ...]:
    return ((n, n), (n, n))


def householder(x, v):
    groups = x.reshape(x.shape[0], *v.shape)
    out = groups.clone()
    for i in range(len(x)):
        for g in range(len(v)):
            along = float(groups[i, g] @ v[g])
            if along <= 0:
                out[i, g] = groups[i, g] - 2 * along * v[g]
    return out.reshape(x.shape)


V = array(3, 2)
V /= np.linalg.norm(V, axis=1, keepdims=True)

CASES = {
    "dense": (Dense(), {"weight": array(4, 5), "bias": array(4)}, [(5,)], F.linear),
    "dense on a matrix": (Dense(), {"weight": array(4, 5)}, [(3, 5)], F.linear),
    "conv 2d": (
        Conv((2, 1), ((1, 1), (2, 2)), (1, 2), 2),
        {"weight": array(6, 2, 3, 2), "bias": array(6)},
        [(4, 7, 8)],
        lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2),
    ),
    "conv 1d": (
        Conv((2,), ((1, 1),), (1,), 1),
        {"weight": array(3, 2, 3), "bias": array(3)},
        [(2, 9)],
        lambda x, w, b: F.conv1d(x, w, b, 2, 1),
    ),
    "conv with leading axes": (
        Conv((1, 1), same2(0), (1, 1), 1),
        {"weight": array(3, 2, 2, 2)},
        [(5, 2, 4, 4)],
        lambda x, w: F.conv2d(x.flatten(0, 1), w).unflatten(0, (-1, 5)),
    ),
    "conv transpose 2d": (
        ConvTranspose((2, 3), ((1, 1), (0, 0)), (1, 2), 2, (1, 0)),
        {"weight": array(4, 3, 3, 2), "bias": array(6)},
        [(4, 5, 4)],
        lambda x, w, b: F.conv_transpose2d(x, w, b, (2, 3), (1, 0), (1, 0), 2, (1, 2)),
    ),
    "conv transpose 1d, cropped": (
        ConvTranspose((1,), ((2, 2),), (1,), 1, (0,)),
        {"weight": array(2, 3, 2)},
        [(2, 6)],
        lambda x, w: F.conv_transpose1d(x, w, None, 1, 2),
    ),
    "batch norm": (
        BatchNorm(0, 1e-3),
        {"mean": array(3), "var": np.abs(array(3)), "weight": array(3), "bias": array(3)},
        [(3, 4, 4)],
        lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b, eps=1e-3),
    ),
    "scale": (Scale(), {"scale": array(3, 1)}, [(3, 4)], lambda x, s: x * s),
    "scale, wider": (Scale(), {"scale": array(2, 3, 1)}, [(3, 4)], lambda x, s: x[:, None] * s),
    "divide": (Scale(True), {"scale": array(4)}, [(3, 4)], lambda x, s: x / s),
    "reshape": (Reshape((6, 2)), {}, [(3, 4)], lambda x: x.reshape(-1, 6, 2)),
    "transpose": (Transpose((2, 0, 1)), {}, [(2, 3, 4)], lambda x: x.permute(0, 3, 1, 2)),
    "slice": (Slice((1, 0), (4, 5), (2, 3)), {}, [(4, 5)], lambda x: x[:, 1:4:2, 0:5:3]),
    "gather": (Gather((3, 0, 3), 1), {}, [(2, 4)], lambda x: x[:, :, [3, 0, 3]]),
    "pad": (Pad(((1, 2), (0, 3)), 1.5), {}, [(2, 3)], lambda x: F.pad(x, (0, 3, 1, 2), value=1.5)),
    "concat": (Concat(1), {}, [(2, 3), (2, 1)], lambda x, y: torch.cat([x, y], 2)),
    "sum": (Reduce("sum", (0, 2)), {}, [(2, 3, 4)], lambda x: x.sum((1, 3))),
    "mean": (Reduce("mean", (-1,)), {}, [(2, 3)], lambda x: x.mean(-1)),
    "broadcast": (Broadcast((4, 2, 3)), {}, [(2, 1)], lambda x: x[:, None].expand(-1, 4, 2, 3)),
    "average pool": (
        AveragePool((3, 2), (2, 2), ((1, 1), (0, 0))),
        {},
        [(2, 7, 6)],
        lambda x: F.avg_pool2d(x, (3, 2), (2, 2), (1, 0)),
    ),
    "average pool of real entries": (
        AveragePool((3,), (2,), ((1, 1),), False),
        {},
        [(2, 7)],
        lambda x: F.avg_pool1d(x, 3, 2, 1, count_include_pad=False),
    ),
    "upsample nearest": (
        Upsample((7, 4)),
        {},
        [(2, 3, 2)],
        lambda x: F.interpolate(x, (7, 4), mode="nearest"),
    ),
    "upsample linear": (
        Upsample((7, 4), "linear"),
        {},
        [(2, 3, 2)],
        lambda x: F.interpolate(x, (7, 4), mode="bilinear"),
    ),
    "upsample corners": (
        Upsample((7, 4), "linear", True),
        {},
        [(2, 3, 2)],
        lambda x: F.interpolate(x, (7, 4), mode="bilinear", align_corners=True),
    ),
    "add": (Add(), {}, [(2, 3), (3,)], lambda x, y: x + y[:, None]),
    "subtract": (Subtract(), {}, [(2, 1), (3,)], lambda x, y: x - y[:, None]),
    "product": (Product(), {}, [(2, 3), (2, 3)], lambda x, y: x * y),
    "quotient": (Quotient(), {}, [(2, 3), (1, 3)], lambda x, y: x / y),
    "max": (Extremum("max"), {}, [(2, 3), (3,)], lambda x, y: torch.maximum(x, y[:, None])),
    "min": (Extremum("min"), {}, [(3,), (3,)], torch.minimum),
    "select": (
        Select(),
        {},
        [(3,), (1,), (3,), (3,)],
        lambda x, y, a, b: torch.where(x > y, a, b),
    ),
    "matmul": (MatMul(), {}, [(2, 3, 4), (4, 5)], lambda x, y: x @ y[:, None]),
    "activation": (Activate(activations.get("gelu")), {}, [(2, 3)], F.gelu),
    "prelu": (Prelu(0), {"slope": array(3)}, [(3, 4)], F.prelu),
    "prelu, one slope": (Prelu(0), {"slope": array(1)}, [(4,)], F.prelu),
    "max pool": (
        MaxPool((3, 2), (2, 1), ((1, 1), (0, 0)), (1, 2)),
        {},
        [(2, 7, 6)],
        lambda x: F.max_pool2d(x, (3, 2), (2, 1), (1, 0), (1, 2)),
    ),
    "reduce max": (ReduceExtremum("max", (0,)), {}, [(3, 2)], lambda x: x.amax(1)),
    "reduce min": (ReduceExtremum("min", (0, 1)), {}, [(3, 2)], lambda x: x.amin((1, 2))),
    "softmax": (Softmax(0), {}, [(3, 4)], lambda x: x.softmax(1)),
    "log sum exp": (LogSumExp((1,)), {}, [(3, 4)], lambda x: x.logsumexp(2)),
    "layer norm": (
        LayerNorm((-2, -1), 1e-4),
        {"weight": array(3, 4), "bias": array(3, 4)},
        [(2, 3, 4)],
        lambda x, w, b: F.layer_norm(x, (3, 4), w, b, 1e-4),
    ),
    "rms norm": (
        LayerNorm((-1,), 1e-4, False),
        {"weight": array(4)},
        [(3, 4)],
        lambda x, w: F.rms_norm(x, (4,), w, 1e-4),
    ),
    "group sort": (
        GroupSort(3, 0, False),
        {},
        [(6, 2)],
        lambda x: x.unflatten(1, (2, 3)).sort(2).values.flatten(1, 2),
    ),
    "maxmin": (
        GroupSort(),
        {},
        [(6,)],
        lambda x: x.unflatten(1, (3, 2)).sort(2, descending=True).values.flatten(1, 2),
    ),
    "householder": (Householder(), {"vectors": V}, [(6,)], householder),
}


def test_every_kind_has_a_case():
    kinds = {op.kind for op, *_ in CASES.values()} | {"input", "constant"}
    assert kinds == set(OPS)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("library", ["numpy", "jax"])
def test_op_agrees_with_torch(name, library):
    op, params, shapes, reference = CASES[name]
    xs = [array(5, *shape) for shape in shapes]
    want = reference(*map(torch.tensor, xs), *map(torch.tensor, params.values())).numpy()
    if library == "numpy":
        got = op.apply(numpy_backend(), params, *xs)
    else:
        with precision("float64"):
            import jax.numpy as jnp

            held = {k: jnp.asarray(v) for k, v in params.items()}
            got = np.asarray(op.apply(jax_backend(), held, *map(jnp.asarray, xs)))
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    inferred = op.infer(tuple(shapes), {k: v.shape for k, v in params.items()})
    assert got.shape == (5, *inferred)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c[0].affine])
def test_ops_called_affine_are_affine(name):
    op, params, shapes, _ = CASES[name]
    xs = [[array(1, *shape) for shape in shapes] for _ in range(2)]
    apply = lambda inputs: op.apply(numpy_backend(), params, *inputs)  # noqa: E731
    middle = [0.25 * a + 0.75 * b for a, b in zip(*xs, strict=True)]
    want = 0.25 * apply(xs[0]) + 0.75 * apply(xs[1])
    np.testing.assert_allclose(apply(middle), want, rtol=1e-10, atol=1e-10)


def test_float32_stays_float32():
    for op, params, shapes, _ in CASES.values():
        xs = [array(2, *shape).astype("float32") for shape in shapes]
        held = {k: v.astype("float32") for k, v in params.items()}
        assert op.apply(numpy_backend(), held, *xs).dtype == np.float32, op.kind


@pytest.mark.parametrize(
    ("op", "shapes", "params", "says"),
    [
        (Dense(), [(5,)], {"weight": (4, 6)}, r"takes 6 features.*\(5,\)"),
        (Conv(), [(3, 4, 4)], {"weight": (8, 4, 3, 3)}, "does not fit 3 channels"),
        (Conv(), [(3, 2, 2)], {"weight": (8, 3, 3, 3)}, "kernel .* larger than the input"),
        (Reshape((5,)), [(2, 3)], {}, r"\(2, 3\) cannot become \(5,\)"),
        (Transpose((0, 0)), [(2, 3)], {}, "not a permutation"),
        (Gather((4,), 0), [(3,)], {}, r"0\.\.2"),
        (Concat(0), [(2, 3), (2, 4)], {}, "differ off axis 0"),
        (Add(), [(2, 3), (4,)], {}, "do not broadcast"),
        (MatMul(), [(2, 3), (4, 5)], {}, "takes"),
        (GroupSort(4), [(6,)], {}, "groups of 4"),
        (Softmax(2), [(3,)], {}, "axis 2 is out of range"),
        (MaxPool((5,), (1,), ((0, 0),), (1,)), [(3,)], {}, "does not fit"),
    ],
)
def test_shapes_that_do_not_fit(op, shapes, params, says):
    with pytest.raises(InputError, match=says):
        op.infer(tuple(shapes), params)
