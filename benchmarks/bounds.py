"""Output bounds in JAX against auto_LiRPA: seconds, tightness, memory and compilations.

The networks, boxes and the peer's bounds are those of ../shared/data/bounds_reference.npz (where it
is present; cases are left out where it is not): float32, one thread, CPU seconds after
compilation, the best of three runs. The peer's seconds are its stored ones, from another run on a
like machine; where auto_LiRPA is installed its CROWN is run live too. Bounds are estimates in
float32, not proofs; the seconds of the proof in rigorous float64 stand beside them.

    python benchmarks/bounds.py [--quick] [--json]
"""

import argparse
import gzip
import importlib.util
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ.setdefault("XLA_FLAGS", ONE_THREAD)

import numpy as np  # noqa: E402

from tangency import verify  # noqa: E402
from tangency.models import Builder, load  # noqa: E402
from tangency.models.activations import get  # noqa: E402
from tangency.models.ops import Activate, Conv, Dense, Reshape  # noqa: E402
from tangency.verify import Box  # noqa: E402
from tangency.verify.bounds.search import JaxEngine, optimised  # noqa: E402
from tangency.verify.rigorous.numpy_engine import NumpyEngine  # noqa: E402
from tangency.verify.rigorous.schedule import intermediate  # noqa: E402
from tangency.verify.rigorous.sets import InputSet  # noqa: E402

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
#: network, its seconds allowed for CROWN's margins, for alpha's, and alpha's steps
CASES = {"mlp": (0.44, 1.5, 100), "cnn": (3.5, 10.0, 50), "mnistfc2": (0.067, 0.38, 100)}


def row(case, ours, peer, target, met, **more):
    ours, peer = float(ours), None if peer is None else float(peer)
    ratio = ours / peer if peer else None
    return {"case": case, "ours": ours, "peer": peer, "ratio": ratio, "target": target,
            "met": bool(met), **more}  # fmt: skip


def timed(job, runs=3):
    """Return the result and the least CPU seconds of some runs after one that compiles."""
    begin = time.process_time()
    job()
    first, best = time.process_time() - begin, np.inf
    for _ in range(runs):
        begin = time.process_time()
        found = job()
        best = min(best, time.process_time() - begin)
    return found, best, first


def read(data, name):
    """Return the network, its input set, and the margins that are bounded."""
    b = Builder("float32")
    x = data[f"{name}/x"]
    v = b.input((1, *x.shape[1:]))
    count = sum(key.startswith(f"{name}/W") for key in data)
    for k in range(count):
        w = data[f"{name}/W{k}"]
        params = {"weight": (f"w{k}", w), "bias": (f"b{k}", data[f"{name}/b{k}"])}
        if w.ndim == 4:
            v = b.emit(Conv((2, 2), ((1, 1), (1, 1)), (1, 1), 1), [v], params)
        else:
            v = b.emit(Reshape((w.shape[1],)), [v])
            v = b.emit(Dense(), [v], params)
        v = b.emit(Activate(get("relu")), [v]) if k < count - 1 else v
    network = b.finish([v])
    network(x)  # JAX starts
    ends = (data[f"{name}/{end}"].astype(np.float64) for end in ("xl", "xu"))
    return network, InputSet(*ends), data[f"{name}/C"]


def margins(network, box, spec, method, plain=True, engine=JaxEngine):
    made, (end,) = engine(network, [box]), network.structure.outputs
    before = network.structure.nodes[end].inputs
    known = intermediate(made, before, method=method, plain=plain)
    return made.sweep(end, known, spec=spec, upper=False)[0], made, known, end


def interval(network, box, spec):
    """IBP of the margins, the last layer joined to them."""
    made, (end,) = JaxEngine(network, [box]), network.structure.outputs
    before = network.structure.nodes[end].inputs
    low, high = intermediate(made, before, method="crown-ibp")[before[0]]
    w, b = (network.weights[p.key] for p in network.structure.nodes[end].params)
    a = spec @ w
    middle, radius = (low + high)[..., None] / 2, (high - low)[..., None] / 2
    return (a @ middle - np.abs(a) @ radius)[..., 0] + spec @ b


def against_stored(data, name):
    """Compare each method with the peer's stored bounds and seconds."""
    network, box, spec = read(data, name)
    size = f"{name} batch {len(spec)} float32"
    limit, alpha_limit, steps = CASES[name]
    jobs = [("IBP", lambda: interval(network, box, spec), None),
            ("CROWN-IBP", lambda: margins(network, box, spec, "crown-ibp")[0], None),
            ("CROWN", lambda: margins(network, box, spec, "crown")[0], limit)]  # fmt: skip
    for method, job, seconds in jobs:
        found, cpu, first = timed(job)
        stored, peer = data[f"{name}/{method}/mlb"], float(data[f"{name}/{method}/cpu_m"])
        allowed = seconds or peer
        yield row(f"{size} {method}: CPU s of margins", cpu, peer, f"<= {allowed:.3g} s",
                  cpu <= allowed, first=first)  # fmt: skip
        if method == "CROWN" and name == "mnistfc2":
            continue  # the stored one mixes in interval bounds: bounds.md, note (b)
        gap = np.abs(found - stored).max() / max(1.0, np.abs(stored).max())
        yield row(f"{size} {method}: relative distance of bounds", gap, None, "<= 1e-5",
                  gap <= 1e-5)  # fmt: skip
    (found, *_), cpu, _ = timed(lambda: margins(network, box, spec, "crown", plain=False))
    peer = float(data[f"{name}/CROWN/cpu_m"])
    yield row(f"{size} CROWN, intersected: CPU s of margins", cpu, peer, f"<= {limit} s",
              cpu <= limit, mean=float(found.mean()))  # fmt: skip
    goal = {"mnistfc2": 0.32}.get(name, float(data[f"{name}/CROWN/mlb"].mean()) - 1e-5)
    yield row(f"{size} CROWN, intersected: mean margin", found.mean(),
              float(data[f"{name}/CROWN/mlb"].mean()), f">= {goal:.4g}",
              found.mean() >= goal)  # fmt: skip
    for count in (20, steps):
        yield from against_alpha(data, name, size, network, box, spec, count, alpha_limit)
    wide = network.astype("float64")
    begin = time.process_time()
    proved = margins(wide, box, spec.astype(float), "crown", False, NumpyEngine)[0]
    cpu = time.process_time() - begin
    gap = np.abs(proved - found).max()
    yield row(f"{size} CROWN proved in float64: CPU s", cpu, float(data[f"{name}/CROWN-f64/cpu_m"]),
              "bounds within 1e-4 of float32's", gap <= 1e-4, distance=float(gap))  # fmt: skip


def against_alpha(data, name, size, network, box, spec, steps, limit):
    """alpha-CROWN of the last sweep, whole job; the peer takes 20 steps."""

    def job():
        _, engine, known, end = margins(network, box, spec, "crown", plain=name != "mnistfc2")
        return optimised(engine, end, known, spec=spec, steps=steps).lower

    found, cpu, first = timed(job, 1)
    stored, peer = data[f"{name}/alpha-fix/mlb"], float(data[f"{name}/alpha-fix/cpu_m"])
    title = f"{size} alpha last, {steps} steps"
    yield row(f"{title}: CPU s of margins", cpu, peer, f"<= {limit} s", cpu <= limit,
              first=first)  # fmt: skip
    yield row(f"{title}: mean margin, peer 20 steps", found.mean(), float(stored.mean()),
              ">= peer", found.mean() >= stored.mean() - 1e-5,
              looser=float((found < stored - 1e-4).mean()))  # fmt: skip


def mnist_box(index):
    """The box of a VNN-LIB property, (2, 784)."""
    path = DATA / "mnist_fc" / "vnnlib" / f"prop_{index}_0.03.vnnlib.gz"
    box = np.zeros((2, 784))
    text = gzip.open(path, "rt").read()
    for op, i, value in re.findall(r"\(assert \((<=|>=) X_(\d+) ([-\d.e]+)\)\)", text):
        box[int(op == "<="), int(i)] = float(value)
    return box


def against_published(name, goal, peer, seconds):
    """The trained networks of VNN-COMP at eps 0.03, mean margin at the cost of CROWN."""
    path = DATA / "mnist_fc" / "onnx" / f"mnist-net_{name}.onnx.gz"
    if not path.exists() or importlib.util.find_spec("onnx") is None:
        return
    network = load(path)
    ends = np.array([mnist_box(k) for k in range(15)]).swapaxes(0, 1)
    box = Box(*(np.array(end).reshape(15, *network.input_shape) for end in ends))
    # The label of each sample is the network's own prediction, as in the peer's figures.
    x = np.load(DATA / "bounds_reference.npz")["mnistfc2/x"].astype(network.dtype)
    labels = network.evaluate(x.reshape(box.shape)).argmax(axis=1)

    def estimates(**options):
        return verify.margins(network, box, labels, rigorous=False, **options)

    found, cpu, _ = timed(lambda: estimates(method="crown"))
    title = f"mnist_fc {name} batch 15"
    yield row(f"{title} CROWN, intersected: mean margin", found.mean(), peer, f">= {goal}",
              found.mean() >= goal, cpu=cpu, verified=int((found > 0).all(1).sum()))  # fmt: skip

    found, cpu, _ = timed(lambda: estimates(method="alpha-crown", steps=10))
    yield row(f"{title} alpha last, 10 steps: mean margin", found.mean(), peer,
              f">= {goal} at the peer's {seconds} CPU s of CROWN",
              found.mean() >= goal and cpu <= seconds, cpu=cpu,
              verified=int((found > 0).all(1).sum()))  # fmt: skip


def compilations(data):
    """Compilations of a second network of one structure, in another batch of the bucket."""
    import jax

    network, box, spec = read(data, "mnistfc2")
    margins(network, box, spec, "crown", plain=False)
    counted = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: counted.append(event) if "backend_compile" in event else None
    )
    other = network.replace({key: 0.9 * w for key, w in network.weights.items()})
    box = InputSet(box.lower[:12], box.upper[:12])
    margins(other, box, spec[:12], "crown", plain=False)
    yield row("compilations of a second network and batch", len(counted), None, "0", not counted)


def memory():
    """Peak memory of CROWN on a 784-256-256-10 network at batch 1,024, in a process of its own."""
    run = [sys.executable, __file__, "--memory"]
    peak = float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    yield row("mlp batch 1024 CROWN, all rows: GiB", peak, None, "<= 4", peak <= 4)


def measure_memory():
    data = np.load(DATA / "bounds_reference.npz")
    network, box, spec = read(data, "mlp")
    many = InputSet(np.tile(box.lower, (16, 1)), np.tile(box.upper, (16, 1)))
    margins(network, many, np.tile(spec, (16, 1, 1)), "crown")
    sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))


def live(data):
    """auto_LiRPA in the same run, where the user has it."""
    if importlib.util.find_spec("auto_LiRPA") is None:
        return
    import torch
    from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm

    torch.set_num_threads(1)
    network, box, spec = read(data, "mlp")
    layers = []
    for k in range(3):
        w, b = (torch.tensor(data[f"mlp/{v}{k}"]) for v in "Wb")
        layer = torch.nn.Linear(*reversed(w.shape))
        layer.weight.data, layer.bias.data = w, b
        layers += [layer, torch.nn.ReLU()]
    x = torch.tensor(data["mlp/x"])
    module = BoundedModule(torch.nn.Sequential(*layers[:-1]), x)
    low, high = (torch.tensor(data[f"mlp/{end}"]) for end in ("xl", "xu"))
    ball = BoundedTensor(x, PerturbationLpNorm(x_L=low, x_U=high))
    c = torch.tensor(spec)

    def crown():
        with torch.no_grad():
            return module.compute_bounds(x=(ball,), C=c, method="CROWN", bound_upper=False)[0]

    theirs, peer, _ = timed(crown)
    (ours, *_), cpu, _ = timed(lambda: margins(network, box, spec, "crown"))
    gap = float(np.abs(ours - theirs.numpy()).max())
    yield row("mlp batch 64 CROWN, auto_LiRPA live: CPU s of margins", cpu, peer, "ratio <= 1",
              cpu <= peer, distance=gap)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under 50 s: without the conv net")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        measure_memory()
        return 0
    rows = []
    if (DATA / "bounds_reference.npz").exists():
        data = dict(np.load(DATA / "bounds_reference.npz"))
        for name in CASES:
            if name != "cnn" or not options.quick:
                rows += against_stored(data, name)
        rows += against_published("256x2", 0.32, 0.262, 0.067)
        rows += against_published("256x4", -0.56, -2.849, 0.289)
        rows += compilations(data)
        rows += memory()
        rows += live(data)
    load_ = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    machine = {"platform": platform.platform(), "cpus": os.cpu_count(), "load": load_,
               "threads": 1}  # fmt: skip
    for r in rows:
        r["machine"] = machine
    if options.json:
        print(json.dumps(rows))
        return 0
    print(f"{'case':68} {'ours':>10} {'peer':>10} {'ratio':>8}  target")
    for r in rows:
        peer, ratio = (f"{v:.4g}" if v is not None else "" for v in (r["peer"], r["ratio"]))
        state = "" if r["met"] else "  MISSED"
        print(f"{r['case']:68} {r['ours']:10.4g} {peer:>10} {ratio:>8}  {r['target']}{state}")
    print(machine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
