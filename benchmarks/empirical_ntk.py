"""Empirical tangent kernels: ours in JAX and in torch against torch.func's Jacobian contraction.

The peer is the contraction of PyTorch's own tutorial: ``vmap(jacrev(f))`` of all parameters, then
one einsum a parameter. Every run is a process of its own, on one thread, so that its peak memory is
its own: the memory said is what the process grew by after the model, the samples and a run on two
of them were there. Times are CPU seconds of a second run (the first compiles); for the peer of the
first, as it compiles nothing.

    python benchmarks/empirical_ntk.py [--quick] [--json] [--n N]

--quick takes fewer samples, for which no ratio is asked.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

CASES = ("mlp", "resnet")


def torch_model(case):
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if case == "mlp":
        widths = (784, 512, 512, 10)
        layers = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*layers[:-1]), (784,)

    class Block(nn.Module):
        def __init__(self, a, b, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(a, b, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(b)
            self.conv2 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(b)
            self.short = nn.Identity() if a == b else nn.Conv2d(a, b, 1, stride, bias=False)

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + self.short(x))

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    return model.eval(), (3, 32, 32)


def contraction(model, x):
    """Kernel (n, n, K, K) as PyTorch's tutorial on neural tangent kernels computes it."""
    import torch
    from torch.func import functional_call, jacrev, vmap

    params = {k: v.detach() for k, v in model.named_parameters()}

    def one(params, sample):
        return functional_call(model, params, (sample[None],))[0]

    jacobians = vmap(jacrev(one), (None, 0))(params, x)
    flat = [j.flatten(2) for j in jacobians.values()]
    return sum(torch.einsum("Naf,Mbf->NMab", j, j) for j in flat)


def peak():
    """Largest resident size of this process so far, in MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(side, case, n, path):
    import numpy as np
    import torch

    model, shape = torch_model(case)
    x = torch.randn((n, *shape), generator=torch.Generator().manual_seed(1))
    if side == "peer":

        def call(x):
            return contraction(model, x).detach().numpy()
    else:
        from tangency.theory import empirical_ntk

        network, take = model, x
        if side == "jax":
            from tangency.models import from_torch

            network, take = from_torch(model, x[:1]), x.numpy()
        x = take

        def call(x):
            return empirical_ntk(network, x, outputs="full").ntk

    call(x[:2])
    before = peak()
    seconds = []
    for _ in range(1 if side == "peer" else 4):
        start = time.process_time()
        kernel = call(x)
        seconds.append(time.process_time() - start)
    np.save(path, kernel)
    print(json.dumps({"cpu": min(seconds), "mib": peak() - before, "first": seconds[0]}))


def run(side, case, n, path):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    threads = {name: "1" for name in names}
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
    command = [sys.executable, "-W", "ignore", __file__, "--child", side, case, str(n), str(path)]
    done = subprocess.run(
        command,
        env={**os.environ, **threads, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode:
        raise RuntimeError(f"{side} on {case}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def row(case, ours, peer, target, met):
    return {"case": case, "ours": ours, "peer": peer, "ratio": ours / peer if peer else None,
            "target": target, "met": bool(met)}  # fmt: skip


def compare(case, n, asked):
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        paths = {side: Path(folder) / f"{side}.npy" for side in ("peer", "torch", "jax")}
        got = {side: run(side, case, n, path) for side, path in paths.items()}
        kernels = {side: np.load(path).astype(np.float64) for side, path in paths.items()}
    limits = {"torch": 0.2, "jax": 0.06}
    for side in ("torch", "jax"):
        name = f"{case}, n={n}, full, {side}"
        ours, peer = got[side], got["peer"]
        if case == "mlp":
            target = f"<= {limits[side]} CPU s"
            met = ours["cpu"] <= limits[side]
        else:
            target = "ratio <= 0.2"
            met = ours["cpu"] <= 0.2 * peer["cpu"]
        if not asked:
            target, met = "none at this size", True
        yield row(f"{name}: CPU s", ours["cpu"], peer["cpu"], target, met)
        yield row(f"{name}: peak MiB", ours["mib"], peer["mib"],
                  "ratio <= 0.5" if asked else "none at this size",
                  not asked or ours["mib"] <= 0.5 * peer["mib"])  # fmt: skip
        scale = np.abs(kernels["peer"]).max()
        error = float(np.abs(kernels[side] - kernels["peer"]).max() / scale)
        yield row(f"{name}: difference", error, None, "<= 1e-5", error <= 1e-5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under 50 s")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--n", type=int, help="samples instead of 100 and 64")
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--child", nargs=4, metavar="SIDE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        side, case, n, path = options.child
        child(side, case, int(n), path)
        return 0
    sizes = {"mlp": 20, "resnet": 8} if options.quick else {"mlp": 100, "resnet": 64}
    rows = []
    for case in (options.case,) if options.case else CASES:
        n = options.n or sizes[case]
        rows += compare(case, n, n == {"mlp": 100, "resnet": 64}[case])
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    machine = {"platform": platform.platform(), "cpus": os.cpu_count(), "load": load}
    for r in rows:
        r["machine"] = machine
    if options.json:
        print(json.dumps(rows))
        return 0
    print(f"{'case':46} {'ours':>12} {'peer':>12} {'ratio':>10}  target")
    for r in rows:
        peer, ratio = (f"{v:.4g}" if v is not None else "" for v in (r["peer"], r["ratio"]))
        state = "" if r["met"] else "  MISSED"
        print(f"{r['case']:46} {r['ours']:12.4g} {peer:>12} {ratio:>10}  {r['target']}{state}")
    print(machine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
