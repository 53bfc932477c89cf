"""Beyond one kernel: the host and the disk, the empirical kernel, and two solvers."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from gpu_kernels import relu_plan, samples

from tangency.gpu.cholesky import cholesky, cholesky_solve
from tangency.gpu.dense import DenseKernel
from tangency.gpu.gradients import nystrom, solve
from tangency.gpu.journal import Journal
from tangency.gpu.stores import open_store
from tangency.gpu.tiles import fill, tile_slices
from tangency.models import from_layers
from tangency.theory import empirical_ntk
from tangency.theory.ntk.device import DeviceModel
from tangency.theory.ntk.jax_kernel import JaxModel

FEATURES = 256  # of the samples of what is solved
OUTPUTS = 10  # right-hand sides


def store_rows(device, sizes, ceilings):
    """A Gram matrix into memory of the host and to disk, while the next tile is computed."""
    xp, n, tile = device.xp, sizes.host, sizes.tile
    kernel = DenseKernel(relu_plan(), np.float32, device.name, tile)
    x = samples(n, FEATURES)
    batch, buffer = kernel.batch(x), xp.zeros((min(n, tile),) * 2, np.float32)
    tiles = list(tile_slices(n, n, tile, symmetric=True))

    def part(here, there):
        return buffer[: here.stop - here.start, : there.stop - there.start]

    def computed():
        for here, there in tiles:
            kernel.tile_into(batch, here, batch, there, {"ntk": part(here, there)})

    store = np.zeros((n, n), np.float32)
    compute = kernel.tiles(x)

    def copied():
        fill(store, lambda *at: device.engine.fetch(part(*at)), tile=tile, symmetric=True)

    def both():
        fill(store, compute, tile=tile, symmetric=True)

    copied()
    first, second = device.timed(computed), device.wall(copied)
    both()
    ours = device.wall(both)
    triangle = sum(4 * (h.stop - h.start) * (t.stop - t.start) for h, t in tiles)
    bus = triangle / ceilings["to_host"]
    error = float(np.abs(store - store.T).max())
    rows = [
        device.row(
            "Gram to host memory, against computing first and copying then", ours, first + second,
            "<= 1.2 x the slower of the two", ours <= 1.2 * max(first, second) and error == 0.0,
            n=n, compute=first, copy=second, bytes_per_s=store.nbytes / ours),
        device.row(
            "Gram to host memory: copies and their mirrors, against the bus alone", second, bus,
            ">= 0.25 of it", bus >= 0.25 * second, bytes_per_s=triangle / second),
    ]  # fmt: skip
    n = sizes.disk
    with tempfile.TemporaryDirectory() as folder:
        seconds = []
        memory = store[:n, :n]
        for name, source in (("a", lambda here, there: memory[here, there]), ("b", compute)):
            disk = open_store(Path(folder, f"{name}.npy"), (n, n), np.float32, tile)
            journal = Journal(Path(folder, name), {"n": n})
            seconds.append(
                device.wall(
                    lambda d=disk, s=source, j=journal: fill(
                        d, s, tile=tile, symmetric=True, journal=j
                    )
                )
            )
        error = float(np.abs(disk - memory).max() / memory.max())
    rows.append(
        device.row(
            "Gram to disk with a journal, against writing it from memory", seconds[1], seconds[0],
            "<= 1.2 x", seconds[1] <= 1.2 * seconds[0] and error <= 1e-6, n=n, error=error,
            bytes_per_s=4 * n * n / seconds[1])
    )  # fmt: skip
    return rows


def empirical_rows(device, sizes, ceilings):
    """The empirical kernel of a fully connected network: one tile's products, and all of it."""
    rng, n = np.random.default_rng(3), sizes.empirical
    network = from_layers(
        [
            (rng.standard_normal((m, k), np.float32) / np.float32(k**0.5), np.zeros(m, np.float32))
            for k, m in pairwise(sizes.widths)
        ],
        "relu",
    )
    x = rng.standard_normal((n, sizes.widths[0]), np.float32)
    model, outputs = DeviceModel(JaxModel(network), device.engine), sizes.widths[-1]
    eye = np.eye(outputs, dtype=np.float32)
    memory = 1 << 32  # all samples in one tile
    tile = model.sites(x, eye, outputs="trace", n=n, chunk=n)
    seconds = device.timed(lambda: model.product(tile, tile, "trace"))
    flops = 2 * n * n * sum(k + outputs * m for k, m in pairwise(sizes.widths))
    least = flops / ceilings["float32"]
    tile = None

    def run(name):
        return empirical_ntk(network, x, memory=memory, device=name)

    if device.host:
        first, second = model.whole(x, eye, outputs="trace", chunk=n) / outputs, run("cpu").ntk
    else:
        first, second = run("cuda").ntk, run("cpu").ntk
    error = float(np.abs(first - second).max() / np.abs(second).max())
    cpu = device.wall(lambda: run("cpu"))
    ours = cpu if device.host else device.wall(lambda: run("cuda"))
    return [
        device.row(
            "empirical kernel: products of one tile, against the product ceiling", seconds, least,
            ">= 0.5 of it", least >= 0.5 * seconds, n=n, flops=flops),
        device.row(
            "empirical kernel: passes on the CPU and products here, against all on the CPU", ours,
            cpu, ">= 2 x", cpu >= 2 * ours and error <= 1e-5, n=n, error=error),
    ]  # fmt: skip


def gradients_rows(device, sizes, ceilings):
    """Conjugate gradients with a Nystrom preconditioner, the matrix on the device in float64."""
    xp, n = device.xp, sizes.gradients
    kernel = DenseKernel(relu_plan(), np.float64, device.name, sizes.tile)
    matrix = kernel(samples(n, FEATURES), get="ntk")["ntk"]
    ridge = 1e-3 * float(xp.trace(matrix)) / n
    right = xp.asarray(np.random.default_rng(4).standard_normal((n, OUTPUTS)))
    chosen = np.random.default_rng(5).choice(n, sizes.landmarks, replace=False)
    helper = []
    made = device.wall(lambda: helper.append(nystrom(matrix[:, xp.asarray(chosen)], chosen, xp=xp)))
    found = []

    def run():
        found.append(
            solve(
                lambda v: matrix @ v, right, ridge=ridge, preconditioner=helper[0],
                tolerance=1e-8, xp=xp,
            )
        )  # fmt: skip

    run()
    seconds = device.wall(run)
    products = found[-1].steps + 1  # and one for the residual
    least = products * matrix.nbytes / ceilings["copy"]
    flops = products * 2 * n * n * OUTPUTS
    return [
        device.row(
            "conjugate gradients, Nystrom: all steps, against reading the matrix as often", seconds,
            least, ">= 0.5 of it", least >= 0.5 * seconds and found[-1].converged, n=n,
            steps=found[-1].steps, preconditioner=made, error=found[-1].residual, flops=flops,
            of_gemm=flops / seconds / ceilings["float64"])
    ]  # fmt: skip


def factor_rows(device, sizes, ceilings):
    """The blocked Cholesky factor, of a matrix on the device and of one in the host's memory."""
    xp, rows = device.xp, []
    for small in (np.eye(64), xp.eye(64)):  # libraries loaded, small kernels compiled
        cholesky(small, block=16, xp=xp)
    cases = ((sizes.factor, sizes.block // 2, True), (sizes.out_of_core, sizes.block, False))
    for n, block, inside in cases:
        kernel = DenseKernel(relu_plan(), np.float64, device.name, sizes.tile)
        matrix = kernel(samples(n, FEATURES), get="ntk")["ntk"]
        ridge = 1e-3 * float(xp.trace(matrix)) / n
        truth = xp.asarray(np.random.default_rng(6).standard_normal(n))
        right = matrix @ truth + ridge * truth
        where = "on the device"
        if not inside:
            matrix, where = device.to_host(matrix), "in the host's memory"
        device.free()
        seconds = device.wall(
            lambda m=matrix, b=block, r=ridge: cholesky(m, block=b, ridge=r, xp=xp)
        )
        found = cholesky_solve(matrix, right, block=block, xp=xp)
        error = float(xp.abs(found - truth).max() / xp.abs(truth).max())
        flops = n**3 / 3
        gemm, read = flops / ceilings["float64"], 0.0
        if not inside:  # a panel is read and written once, and read by each behind it
            begins = range(0, n, block)
            panels = sum((n - k) * min(block, n) * (k // block) for k in begins)
            read = 8 * (panels + n * n) / ceilings["from_host"]
        least, what = max(gemm, read), "products" if gemm >= read else "copies"
        rows.append(
            device.row(
                f"Cholesky of a matrix {where}, against the least that products and copies take",
                seconds, least, ">= 0.5 of it", least >= 0.5 * seconds and error <= 1e-8, n=n,
                block=block, error=error, bound_by=what, of_gemm=gemm / seconds,
                flops_per_s=flops / seconds)
        )  # fmt: skip
        matrix = None
        device.free()
    return rows
