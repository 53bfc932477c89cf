"""Infinite-width kernels: the fused code against neural-tangents.

CPU seconds of one thread, both sides in one run where neural-tangents can be run: in this
interpreter, or in another one that is named by --peer or the variable NEURAL_TANGENTS_PYTHON (its
pins stand in tests/theory/golden). Elsewhere the peer's figure is the one that was measured
before, on another machine, and the row says so.

    python benchmarks/ntk.py [--quick] [--json] [--peer PYTHON]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tangency.theory.kernels import infinite_kernel
from tangency.theory.kernels.cntk import FusedConv
from tangency.theory.kernels.fused import FusedDense
from tangency.theory.kernels.gram_engine import gram
from tangency.theory.kernels.layers import Conv, Dense, GlobalAvgPool
from tangency.theory.kernels.layers_activations import Relu
from tangency.theory.kernels.layers_branches import serial

#: neural-tangents, jitted, CPU seconds on two AVX2 cores: what stands where it cannot be run
STORED = {"dense": 0.274, "conv": 13.1}
PEER = """
import json, os, sys, time, types
try:
    import neural_tangents
except ImportError:
    for name in [n for n in sys.modules if n.startswith("neural_tangents")]:
        del sys.modules[name]
    stub = "neural_tangents.experimental"
    sys.modules[stub] = types.ModuleType(stub)
import jax
import numpy as np
from neural_tangents import stax
case = sys.argv[1]
rng = np.random.default_rng(0)
if case == "dense":
    layers = [stax.Dense(1, W_std=2**0.5), stax.Relu()] * 3
    x = rng.normal(size=(2000, 784)).astype(np.float32)
    kernel = stax.serial(*layers, stax.Dense(1))[2]
    run, repeats = jax.jit(lambda x: kernel(x, None, "ntk")), 4
else:
    layers = [stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5), stax.Relu()] * 21
    x = rng.normal(size=(2, 1, 32, 32, 3)).astype(np.float32)
    kernel = stax.serial(*layers, stax.GlobalAvgPool(), stax.Dense(1))[2]
    run, repeats = jax.jit(lambda x: kernel(x[0], x[1], "ntk")), 1
run(x).block_until_ready()
times = []
for _ in range(repeats):
    begin = time.process_time()
    value = run(x).block_until_ready()
    times.append(time.process_time() - begin)
print(json.dumps(min(times)))
"""


def peer_seconds(case, interpreter):
    """CPU seconds of neural-tangents on one core; None where it does not run."""
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [interpreter, "-c", PEER, case]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True,
                              env=environment)  # fmt: skip
        return float(done.stdout.strip().split("\n")[-1])
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def best(run, repeats):
    run()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return min(times)


def row(case, ours, peer, target, met, **more):
    ratio = ours / peer if peer else None
    return {"case": case, "ours": ours, "peer": peer, "ratio": ratio, "target": target,
            "met": bool(met), **more}  # fmt: skip


def relus(depth, *behind):
    return serial(*[Dense(1, 2**0.5), Relu()] * depth, *behind)


def dense(peer):
    x = np.random.default_rng(0).normal(size=(2000, 784)).astype(np.float32)
    plan = infinite_kernel(relus(3, Dense())).plan((784,))
    theirs, live = (peer, True) if peer else (STORED["dense"], False)
    said = "" if live else " (peer: stored figure)"
    kinds = {
        "symmetric": (FusedDense(plan), None),
        "symmetric, recursion float32": (FusedDense(plan, np.float32, np.float32), None),
        "symmetric, all float64": (FusedDense(plan, np.float64), None),
        "two batches": (FusedDense(plan), x.copy()),
        "two batches, recursion float32": (FusedDense(plan, np.float32, np.float32), x.copy()),
    }
    for name, (kernel, other) in kinds.items():
        ours = best(lambda k=kernel, o=other: k(x, o, get="ntk"), 3)
        case = f"dense ReLU, 3 hidden, d=784, n=2000, CPU s, {name}{said}"
        yield row(case, ours, theirs, 0.48, ours / theirs <= 0.48)


def conv(peer):
    layers = [Conv(1, (3, 3), W_std=2**0.5), Relu()] * 21
    plan = infinite_kernel(serial(*layers, GlobalAvgPool(), Dense())).plan((32, 32, 3))
    x, y = np.random.default_rng(0).normal(size=(2, 1, 32, 32, 3))
    single, double = FusedConv(plan, np.float32), FusedConv(plan, np.float64)
    theirs, said = (peer, "") if peer else (STORED["conv"], " (peer: stored figure)")
    ours = best(lambda: single(x, y), 5)
    yield row(f"CNTK 32x32, 21 layers, GAP, a pair, CPU s{said}", ours, theirs, 0.070,
              ours <= 0.070)  # fmt: skip
    ours = best(lambda: double(x, y), 3)
    yield row(f"the same in float64{said}", ours, theirs, None, True)
    gap = abs(single(x, y).ntk[0, 0] / double(x, y).ntk[0, 0] - 1.0)
    yield row("the same: float32 against float64, relative", gap, None, 1e-6, gap <= 1e-6)


def smooth():
    one, two = np.linalg.qr(np.random.default_rng(0).normal(size=(784, 2)))[0].T
    angle = 1.587e-4 * np.arange(400)[:, None]
    x = 28.0 * (np.cos(angle) * one + np.sin(angle) * two)
    plan = infinite_kernel(relus(10, Dense())).plan((784,))
    matrix = FusedDense(plan)(x, get="ntk").astype(np.float64)
    found = np.linalg.eigvalsh(matrix)[0] / np.diag(matrix).mean()
    # The peer's: ntk.md, 4.4, measured in float32
    yield row("smooth data, L=10, float32: least eigenvalue / mean diagonal (peer: stored)", found,
              -4.3e-3, 1.26e-4, abs(found / 1.26e-4 - 1.0) <= 0.02)  # fmt: skip


def streamed(n):
    import resource

    x = np.random.default_rng(0).normal(size=(n, 784)).astype(np.float32)
    kernel = infinite_kernel(relus(3, Dense()))
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        out = Path(folder) / "k.npy"
        gram(kernel, x, get="ntk", out=out, dtype=np.float32, n_jobs=2, device="cpu")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield row(f"n={n}, d=784 to a memory-map, 2 threads: peak GiB with the mapped pages", peak,
              None, 4.0, peak <= 4.0, seconds=wall, cpu=cpu)  # fmt: skip


def main():
    # CPU time is compared: threads that wait for one another would count.
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if any(os.environ.get(name) != value for name, value in single.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **single})
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under 50 s: a smaller memory-map")
    parser.add_argument("--json", action="store_true", help="print rows for programs")
    default = os.environ.get("NEURAL_TANGENTS_PYTHON", sys.executable)
    parser.add_argument("--peer", default=default, help="an interpreter with neural-tangents")
    options = parser.parse_args()
    machine = f"{platform.processor() or platform.machine()}, load {os.getloadavg()[0]:.1f}"
    rows = []
    # The peer's convolutional kernel takes a quarter of a minute, and as much to compile.
    conv_peer = None if options.quick else peer_seconds("conv", options.peer)
    parts = [
        dense(peer_seconds("dense", options.peer)),
        conv(conv_peer),
        smooth(),
        streamed(5000 if options.quick else 20_000),
    ]
    for part in parts:
        for found in part:
            rows.append({**found, "machine": machine})
            if not options.json:
                peer = "-" if found["peer"] is None else f"{found['peer']:.4g}"
                ratio = "-" if found["ratio"] is None else f"{found['ratio']:.3f}"
                print(f"{found['case']:86}{found['ours']:11.4g}{peer:>9}{ratio:>9}"
                      f"  {'met' if found['met'] else 'missed'}", flush=True)  # fmt: skip
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
