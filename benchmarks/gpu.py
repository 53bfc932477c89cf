"""Builds, checks and times the GPU kernels; beside each the same kernel in plain CuPy and in JAX.

Ceilings are measured first on the same device: copy bandwidth, and float32 and float64 products.
Every time is the median of runs between two events of the device. Results, with the machine and
the versions, go to ``benchmarks/results/gpu-<device>.json``. It takes under 8 minutes on an H200.

    python benchmarks/gpu.py [--quick] [--json] [--out FOLDER]

Without a GPU (or CuPy) it says so and ends with status 2; --quick takes small sizes.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from tangency.gpu.dense import DenseKernel
from tangency.gpu.engines import engine_for
from tangency.gpu.errors import DeviceError
from tangency.gpu.images import ImagesKernel
from tangency.gpu.images_plan import ImageLayer
from tangency.gpu.plans import Activation, Dense
from tangency.gpu.reference import dense_reference, images_reference

NEURAL_TANGENTS_V100 = 2.7e-3  # seconds a pair, 21 layers, 32 x 32, GAP; its README, float32


def relu_plan(depth):
    plan = []
    for _ in range(depth):
        plan += [Dense(len(plan) - 1, 2.0, 0.0, 2.0), Activation(len(plan))]
    return (*plan, Dense(len(plan) - 1))


def timed(xp, run, repeats=5):
    """Median seconds between two events of the device, after one run to warm up."""
    run()
    seconds = []
    for _ in range(repeats):
        first, last = xp.cuda.Event(), xp.cuda.Event()
        first.record()
        run()
        last.record()
        last.synchronize()
        seconds.append(xp.cuda.get_elapsed_time(first, last) / 1e3)
    return statistics.median(seconds)


def row(case, ours, peer=None, target=None, met=None, **more):
    ratio = None if peer is None else peer / ours
    return dict(case=case, ours=ours, peer=peer, ratio=ratio, target=target, met=met, **more)


def ceilings(xp, n):
    a = xp.zeros(1 << 28, xp.float32)
    b = xp.empty_like(a)
    copy = 2 * a.nbytes / timed(xp, lambda: xp.copyto(b, a))
    a = b = None  # 2 GB that the products do not need
    rates = {}
    for dtype in (np.float32, np.float64):
        m = xp.ones((n, n), dtype)
        out = xp.empty_like(m)
        rates[np.dtype(dtype).name] = (
            2 * n**3 / timed(xp, lambda m=m, o=out: xp.matmul(m, m, out=o), 3)
        )
    return copy, rates


def dense_case(xp, n, d, depth, copy, rates):
    """Symmetric, float64 products and float32 recursion; the plain forms pass over the tile."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((n, d), dtype=np.float32).astype(np.float64)
    kernel = DenseKernel(relu_plan(depth), np.float32, "cuda")
    batch = kernel.batch(x)
    tile = kernel.tile
    out = xp.empty((n, n), np.float32)

    def tiles():
        return [
            (slice(i, min(i + tile, n)), slice(j, min(j + tile, n)))
            for i in range(0, n, tile)
            for j in range(i, n, tile)
        ]

    def products():
        for here, there in tiles():
            batch.rows.unit[here] @ batch.rows.unit[there].T

    def whole():
        for here, there in tiles():
            kernel.tile_into(
                batch, here, batch, there, {"ntk": out[here, there]}, {"ntk": out[there, here]}
            )

    gemm, both = timed(xp, products, 3), timed(xp, whole, 3)
    recursion = max(both - gemm, 1e-9)
    some = slice(0, min(n, 300))
    _, exact = dense_reference(relu_plan(depth), x[some], x[some])
    off = ~np.eye(len(exact), dtype=bool)
    error = float((np.abs(out[some, some].get() - exact)[off] / exact[off]).max())
    moved = 8 * n * n / 2 + 4 * n * n  # half the products are read, the whole kernel is written
    rows = [
        row("dense: product and recursion against the product", both, gemm, "<= 1.5 x",
            both <= 1.5 * gemm, n=n, d=d, layers=depth, error=error,
            flops=n * n * d, of_gemm=n * n * d / gemm / rates["float64"]),
        row("dense: recursion alone, of the copy bandwidth", recursion, moved / copy,
            ">= 0.6", moved / copy / recursion >= 0.6, bytes=moved),
    ]  # fmt: skip
    side = min(n, 8192)
    plain_tile = batch.rows.unit[:side].astype(xp.float32) @ batch.rows.unit[:side].T.astype(
        xp.float32
    )
    share = (n / side) ** 2  # passes of an unfused form know no triangle
    plain = timed(xp, lambda: plain_dense(xp, plain_tile, depth), 3) * share
    rows.append(
        row("dense: recursion, plain CuPy", recursion, plain, ">= 5 x", plain >= 5 * recursion)
    )
    by_jax = jax_dense(side, depth)
    if by_jax is not None:
        rows.append(row("dense: recursion, JAX jit", recursion, by_jax * share))
    return rows


def plain_dense(xp, cos, depth):
    """The ReLU recursion as people write it, on one tile of cosines."""
    s, t = cos, xp.zeros_like(cos)
    for _ in range(depth):
        t = t + s
        c = xp.clip(s, -1, 1)
        theta = xp.arccos(c)
        s = (xp.sqrt(1 - c * c) + (np.pi - theta) * c) / np.pi
        t = t * (1 - theta / np.pi)
    return s, t + s


def jax_dense(side, depth):
    """Seconds of the same in JAX on its GPU; None where JAX sees none."""
    try:
        import jax
        import jax.numpy as jnp

        device = jax.devices("gpu")[0]
    except (ImportError, RuntimeError):
        return None
    cos = jax.device_put(jnp.full((side, side), 0.3), device)
    run = jax.jit(lambda c: plain_dense(jnp, c, depth))
    jax.block_until_ready(run(cos))
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        jax.block_until_ready(run(cos))
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def images_case(xp, pairs, depth):
    x = np.random.default_rng(0).normal(size=(64, 3, 32, 32))
    layers = (ImageLayer(),) * depth
    rows = []
    for dtype in (np.float32, np.float64):
        kernel = ImagesKernel(layers, dtype=dtype, device="cuda", pairs=pairs)
        batch = kernel.batch(x)
        index = np.random.default_rng(1).integers(0, 64, size=(pairs, 2))
        seconds = timed(xp, lambda k=kernel, b=batch, i=index: k.values(b, b, i), 3) / pairs
        _, ntk = kernel.values(batch, batch, np.array([[0, 1]]))
        s, t = images_reference(layers, x[0], x[1])
        error = float(abs(ntk[0] / (s + t).mean() - 1))
        name = np.dtype(dtype).name
        target = "<= 100 us and >= 10 x" if dtype == np.float32 else None
        met = seconds <= 1e-4 and NEURAL_TANGENTS_V100 >= 10 * seconds if target else None
        rows.append(
            row(f"images: {depth} layers, GAP, {name}, a pair, against neural-tangents on a V100",
                seconds, NEURAL_TANGENTS_V100, target, met, error=error)
        )  # fmt: skip
    a, b = xp.asarray(x[0], xp.float32), xp.asarray(x[1], xp.float32)
    plain = timed(xp, lambda: images_reference(layers, a, b, xp), 3)
    rows.append(row("images: plain CuPy", rows[0]["ours"], plain))
    return rows


def machine(xp):
    properties = xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)
    return {
        "device": properties["name"].decode(),
        "driver": xp.cuda.runtime.driverGetVersion(),
        "cuda": xp.cuda.runtime.runtimeGetVersion(),
        "cupy": xp.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results"))
    options = parser.parse_args()
    try:
        xp = engine_for("cuda").xp
    except DeviceError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    copy, rates = ceilings(xp, 2048 if options.quick else 8192)
    n, d = (4096, 256) if options.quick else (50_000, 3072)
    rows = [
        *dense_case(xp, n, d, 4, copy, rates),
        *images_case(xp, 64 if options.quick else 2048, 21),
    ]
    where = machine(xp)
    where["ceilings"] = {"copy_bytes_per_s": copy, "flops_per_s": rates}
    result = {"machine": where, "rows": rows}
    if not options.quick:
        folder = Path(options.out)
        folder.mkdir(parents=True, exist_ok=True)
        name = where["device"].replace(" ", "-").lower()
        (folder / f"gpu-{name}.json").write_text(
            json.dumps(result, indent=1) + "\n", encoding="utf-8"
        )
    if options.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    lines = [f"{where['device']}: copy {copy / 1e12:.2f} TB/s, " + ", ".join(
        f"{k} {v / 1e12:.1f} Tflop/s" for k, v in rates.items())]  # fmt: skip
    for r in rows:
        ratio = "" if r["ratio"] is None else f"{r['ratio']:8.2f} x"
        peer = "" if r["peer"] is None else f"{r['peer']:.3e} s"
        verdict = {True: "met", False: "missed", None: ""}[r["met"]]
        lines.append(
            f"{r['case']:70} {r['ours']:.3e} s {peer:>12} {ratio} {r['target'] or ''} {verdict}"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
