"""Kernels on the device: fully connected, of images, and of networks with strides and pools."""

import statistics
import time

import numpy as np

from tangency.gpu.dense import DenseKernel
from tangency.gpu.images import ImagesKernel
from tangency.gpu.images_plan import ImageLayer
from tangency.gpu.plans import Activation, Dense
from tangency.gpu.reference import dense_reference, images_reference
from tangency.gpu.tiles import tile_slices
from tangency.theory import kernels
from tangency.theory.kernels.backend_cuda import DeviceBackend

NEURAL_TANGENTS_V100 = 2.7e-3  # seconds a pair, 21 layers, 32 x 32, GAP; its README, float32
DEPTH = 4  # layers of the dense plan


def relu_plan(depth=DEPTH):
    plan = []
    for _ in range(depth):
        plan += [Dense(len(plan) - 1, 2.0, 0.0, 2.0), Activation(len(plan))]
    return (*plan, Dense(len(plan) - 1))


def samples(n, d):
    """Normal numbers, drawn in float32 for speed."""
    return np.random.default_rng(0).standard_normal((n, d), dtype=np.float32).astype(np.float64)


def dense_rows(device, sizes, ceilings):
    """Symmetric, float64 products and float32 recursion; the plain forms pass over the tile."""
    xp, (n, d) = device.xp, sizes.dense
    x = samples(n, d)
    kernel = DenseKernel(relu_plan(), np.float32, device.name, sizes.tile)
    batch = kernel.batch(x)
    out = xp.empty((n, n), np.float32)
    tiles = list(tile_slices(n, n, sizes.tile, symmetric=True))

    def products():
        for here, there in tiles:
            batch.rows.unit[here] @ batch.rows.unit[there].T

    def whole():
        for here, there in tiles:
            kernel.tile_into(
                batch, here, batch, there, {"ntk": out[here, there]}, {"ntk": out[there, here]}
            )

    gemm, both = device.timed(products), device.timed(whole)
    recursion = max(both - gemm, 1e-9)
    some = slice(0, min(n, 300))
    _, exact = dense_reference(relu_plan(), x[some], x[some])
    off = ~np.eye(len(exact), dtype=bool)
    error = float((np.abs(device.to_host(out[some, some]) - exact)[off] / exact[off]).max())
    moved = 8 * n * n / 2 + 4 * n * n  # half the products are read, the whole kernel is written
    least = moved / ceilings["copy"]
    rows = [
        device.row(
            "dense: product and recursion against the product", both, gemm, "<= 1.5 x",
            both <= 1.5 * gemm and error <= 2e-6, n=n, d=d, layers=DEPTH, error=error,
            flops=n * n * d, of_gemm=n * n * d / gemm / ceilings["float64"]),
        device.row(
            "dense: recursion alone, against copying its bytes", recursion, least,
            ">= 0.6 of the copy", least >= 0.6 * recursion, bytes=moved),
    ]  # fmt: skip
    side = min(n, sizes.tile)
    unit = batch.rows.unit[:side].astype(np.float32)
    cos = unit @ unit.T
    share = (n / side) ** 2  # passes of an unfused form know no triangle
    plain = device.timed(lambda: plain_dense(xp, cos)) * share
    fast = plain >= 5 * recursion
    rows.append(device.row("dense: recursion, plain CuPy", recursion, plain, ">= 5 x", fast))
    by_jax = jax_dense(side)
    if by_jax is not None:
        by_jax, case = by_jax * share, "dense: recursion, JAX jit (one fused pass)"
        rows.append(device.row(case, recursion, by_jax, ">= 1 x", by_jax >= recursion))
    return rows


def plain_dense(xp, cos):
    """The ReLU recursion as people write it, on one tile of cosines."""
    s, t = cos, xp.zeros_like(cos)
    for _ in range(DEPTH):
        t = t + s
        c = xp.clip(s, -1, 1)
        theta = xp.arccos(c)
        s = (xp.sqrt(1 - c * c) + (np.pi - theta) * c) / np.pi
        t = t * (1 - theta / np.pi)
    return s, t + s


def jax_dense(side):
    """Seconds of the same in JAX on its GPU; None where JAX sees none."""
    try:
        import jax
        import jax.numpy as jnp

        device = jax.devices("gpu")[0]
    except (ImportError, RuntimeError):
        return None
    cos = jax.device_put(jnp.full((side, side), 0.3), device)
    run = jax.jit(lambda c: plain_dense(jnp, c))
    jax.block_until_ready(run(cos))
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        jax.block_until_ready(run(cos))
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def images_rows(device, sizes, ceilings):
    """Pairs of images through 3 x 3 convolutions, global average pooling."""
    xp, pairs, depth = device.xp, sizes.pairs, sizes.depth
    x = np.random.default_rng(0).normal(size=(64, 3, sizes.image, sizes.image))
    layers = (ImageLayer(),) * depth
    s, t = images_reference(layers, x[0], x[1])
    # The published figure is of one case alone; at other sizes there is nothing to set beside it.
    same = (depth, sizes.image) == (21, 32)
    peer = NEURAL_TANGENTS_V100 if same else None
    beside = ", against neural-tangents on a V100" if same else ""
    rows = []
    for dtype in (np.float32, np.float64):
        kernel = ImagesKernel(layers, dtype=dtype, device=device.name, pairs=pairs)
        batch = kernel.batch(x)
        index = np.random.default_rng(1).integers(0, 64, size=(pairs, 2))
        seconds = device.timed(lambda k=kernel, b=batch, i=index: k.values(b, b, i)) / pairs
        _, ntk = kernel.values(batch, batch, np.array([[0, 1]]))
        error = float(abs(ntk[0] / (s + t).mean() - 1))
        name = np.dtype(dtype).name
        single = dtype == np.float32
        limit, times, near = (1e-4, 10, 2e-6) if single else (1e-3, 2.7, 1e-12)
        target = f"<= {limit * 1e6:.0f} us"
        met = seconds <= limit and error <= near
        if same:
            target += f" and >= {times} x"
            met = met and NEURAL_TANGENTS_V100 >= times * seconds
        rows.append(
            device.row(
                f"images: {depth} layers, GAP, {name}, a pair{beside}", seconds, peer, target, met,
                error=error)
        )  # fmt: skip
    a, b = xp.asarray(x[0], np.float32), xp.asarray(x[1], np.float32)
    plain = device.timed(lambda: images_reference(layers, a, b, xp))
    ours = rows[0]["ours"]
    rows.append(
        device.row("images: a pair, plain CuPy", ours, plain, ">= 10 x", plain >= 10 * ours)
    )
    return rows


def strided_rows(device, sizes, ceilings):
    """A network with a pool, a strided convolution and GELUs, against the compiled loops here."""
    side = sizes.image
    conv = kernels.Conv(8, (3, 3), padding="SAME", W_std=1.4, b_std=0.1)
    strided = kernels.Conv(8, (3, 3), (2, 2), padding="SAME", W_std=1.4, b_std=0.1)
    layers = kernels.serial(
        conv, kernels.Relu(), conv, kernels.Relu(), kernels.AvgPool((2, 2), (2, 2)),
        conv, kernels.Relu(), strided, kernels.Gelu(), kernels.GlobalAvgPool(), kernels.Dense(1),
    )  # fmt: skip
    kernel = kernels.infinite_kernel(layers, method="reference" if device.host else "auto")
    x = np.random.default_rng(2).normal(size=(sizes.strided, side, side, 3))
    backend = DeviceBackend(kernel.plan(x.shape[1:]), np.float32, device.name)
    backend.tile(x[:2], get="ntk")  # compiled, and its tables made
    count = len(x) * (len(x) + 1) // 2
    ours = device.wall(lambda: backend.tile(x, get="ntk")) / count
    few, truth = x[:3], []
    kernel(x[:2], get="ntk")  # its loops compiled
    peer = device.wall(lambda: truth.append(kernel(few, get="ntk")))
    peer /= len(few) * (len(few) + 1) // 2
    error = float(np.abs(backend.tile(few, get="ntk").ntk / truth[0] - 1).max())
    return [
        device.row(
            f"strided and pooled, {side} x {side}, a pair, against all cores of this machine",
            ours, peer, ">= 20 x", peer >= 20 * ours and error <= 2e-6, error=error, pairs=count)
    ]  # fmt: skip
