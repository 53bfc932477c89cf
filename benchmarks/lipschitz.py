"""Lipschitz bounds: the engine against cvxpy with SCS and Clarabel, ECLipsE and the product.

The same networks and one run for all sides; times of the engine include the rigorous check. The
networks are those of ECLipsE's generator (4-[w]*(l-1)-1, Gaussian, spectral norms U(0.4, 1.8), by
seed) and the MaxMin networks of Pauli et al. (2024), where ../shared/data is present.

ECLipsE is the package eclipse-nn of its authors, in a process of its own, where an interpreter that
has it is named by --eclipse or the variable ECLIPSE_PYTHON (pip install eclipse-nn, in an
environment of its own: it brings torch and cvxpy); elsewhere our own closed form of ECLipsE-Fast,
and the case says so. Its numbers are not proved.

    python benchmarks/lipschitz.py [--quick | --long] [--json] [--plot FILE] [--eclipse PYTHON]

--long adds 5x40 by Clarabel (minutes), 50x500 and 50x1000.
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

import numpy as np

from tangency.verify.certificate import check_chain
from tangency.verify.lipschitz import Chain, bound_chain

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "maxmin"
#: case, table 1.7's number with the sums eliminated, seconds
MAXMIN = [
    ("weights_l2_2fc_16", 22.0744, 3.0),
    ("weights_l2_2fc_64", 72.768, 3.0),
    ("weights_l2_5fc_32", 193.185, 3.0),
    ("weights_l2_8fc_32", 309.203, 3.0),
    ("weights_l2_18fc_64", 14641.0, 15.0),
]
#: depth, width, seconds that the search may take
RANDOM = [(10, 80, 3.0), (20, 80, 5.0), (50, 80, 15.0), (100, 80, 40.0)]
#: Networks so large that no time is asked for but the search's own and a check of as long.
LARGE = [(50, 500, 40.0), (50, 1000, 75.0)]
#: What eclipse-nn's interpreter runs: weights from a file, a method, one line of JSON.
PEER = """
import json, sys, time
import numpy as np, torch
from eclipse_nn import LipConstEstimator
with np.load(sys.argv[1]) as file:
    weights = [torch.tensor(file[f"arr_{i}"]) for i in range(len(file.files))]
begin = time.perf_counter()
bound = LipConstEstimator(weights=weights).estimate(sys.argv[2])
print(json.dumps([float(bound), time.perf_counter() - begin]))
"""


def generated(depth, width):
    rng = np.random.default_rng(7 * width + 13 * depth)
    weights = []
    for a, b in pairwise([4, *[width] * (depth - 1), 1]):
        w = rng.standard_normal((b, a))
        weights.append(w * (rng.uniform(0.4, 1.8) / np.linalg.norm(w, 2)))
    return Chain.from_matrices(weights)


def row(case, ours, peer, target, met, **more):
    ratio = ours / peer if peer else None
    return {"case": case, "ours": ours, "peer": peer, "ratio": ratio, "target": target,
            "met": bool(met), **more}  # fmt: skip


def solved(chain, **options):
    """Return the bound, wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = bound_chain(chain, attack=False, **options)
    return found, time.perf_counter() - wall, time.process_time() - cpu


def against_solvers(sizes):
    """Compare bound and seconds with the general solvers of the same inequality."""
    import cvxpy  # noqa: F401  (its import is not counted)

    for depth, width in sizes:
        chain = generated(depth, width)
        ours, seconds, cpu = solved(chain)
        for solver in ("clarabel", "scs") if chain.hidden <= 150 else ("clarabel",):
            peer, peer_seconds, _ = solved(chain, solver=solver, hidden_limit=chain.hidden)
            name = f"{depth}x{width} relu"
            yield row(f"{name}: bound, peer cvxpy+{solver}", ours.upper, peer.upper,
                      "ratio <= 1.0002", ours.upper <= 1.0002 * peer.upper)  # fmt: skip
            yield row(f"{name}: seconds, peer cvxpy+{solver}", seconds, peer_seconds,
                      "ratio < 1", seconds < peer_seconds, cpu=cpu)  # fmt: skip


def eclipse(chain, method, python, limit=120.0):
    """Return the bound and seconds of eclipse-nn, or None where it is not to be had in time."""
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        np.savez(path, *[w.midpoint for w in chain.weights])
        command = [python, "-W", "ignore", "-c", PEER, str(path), method]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit, check=True
            )
            return json.loads(done.stdout.splitlines()[-1])
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            return None


def has_eclipse(python):
    """Whether an interpreter has the package."""
    if not python:
        return False
    try:
        done = subprocess.run([python, "-c", "import eclipse_nn"], capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def against_eclipse(sizes, python):
    """Compare with ECLipsE, which solves one inequality a layer, on small networks."""
    for depth, width in sizes:
        chain = generated(depth, width)
        peer = eclipse(chain, "ECLipsE", python)
        if peer is None:
            continue
        ours, seconds, cpu = solved(chain)
        name = f"{depth}x{width} relu"
        yield row(f"{name}: bound, peer eclipse-nn ECLipsE", ours.upper, peer[0],
                  "ratio <= 1", ours.upper <= peer[0])  # fmt: skip
        yield row(f"{name}: seconds, peer eclipse-nn ECLipsE", seconds, peer[1],
                  "ratio < 1", seconds < peer[1], cpu=cpu)  # fmt: skip


def against_closed_forms(cases, python, checked=1.0):
    """Compare with ECLipsE-Fast and the product on deep networks."""
    for depth, width, limit in cases:
        chain = generated(depth, width)
        peer = eclipse(chain, "ECLipsE_Fast", python)
        who = "eclipse-nn ECLipsE-Fast"
        if peer is None:
            fast, fast_seconds, _ = solved(chain, method="eclipse_fast")
            peer, who = (fast.upper, fast_seconds), "ECLipsE-Fast (our own)"
        ours, seconds, cpu = solved(chain, time_limit=0.8 * limit)
        name = f"{depth}x{width} relu"
        yield row(f"{name}: bound, peer {who}", ours.upper, peer[0], "ratio < 1",
                  ours.upper < peer[0], product=ours.product, gap=ours.gap)  # fmt: skip
        target = limit if checked is not None else 1.7 * limit
        yield row(f"{name}: seconds, peer {who}", seconds, peer[1],
                  f"ours <= {target} s", seconds <= target, cpu=cpu)  # fmt: skip
        begin = time.perf_counter()
        check_chain(chain.weights, chain.activations, ours.witness)
        check = time.perf_counter() - begin
        wanted = limit if checked is None else checked
        yield row(f"{name}: seconds of the check", check, None, f"<= {wanted} s", check <= wanted)


def against_published(cases):
    """Compare with the bounds of table 1.7 on trained MaxMin networks."""
    from scipy.io import loadmat

    for name, published, limit in cases:
        path = DATA / f"{name}.mat"
        if not path.exists():
            continue
        weights = [np.asarray(w, dtype=np.float64) for w in loadmat(path)["W"].ravel()]
        chain = Chain.from_matrices(weights, "maxmin")
        ours, seconds, cpu = solved(chain, time_limit=0.8 * limit)
        yield row(f"{name}: bound, peer NSR+ of the table", ours.upper, published,
                  "ratio <= 1.0002", ours.upper <= 1.0002 * published,
                  product=ours.product)  # fmt: skip
        yield row(f"{name}: seconds", seconds, None, f"<= {limit} s", seconds <= limit, cpu=cpu)


def draw(rows, path):
    from matplotlib.figure import Figure

    shown = [r for r in rows if "bound, peer" in r["case"] and r["ratio"]]
    figure = Figure(figsize=(8, 0.32 * len(shown) + 1), layout="constrained")
    axes = figure.add_subplot()
    axes.barh([r["case"].replace(": bound, peer", "\nagainst") for r in shown],
              [r["ratio"] for r in shown], color="tab:blue")  # fmt: skip
    axes.axvline(1.0, color="tab:orange")
    axes.set_xscale("log")
    axes.set_xlabel("our bound over the peer's")
    axes.tick_params(axis="y", labelsize=6)
    axes.invert_yaxis()
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="under 50 s")
    mode.add_argument("--long", action="store_true", help="5x40 by Clarabel, 50x500, 50x1000 too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", metavar="FILE")
    parser.add_argument("--eclipse", metavar="PYTHON", default=os.environ.get("ECLIPSE_PYTHON"),
                        help="an interpreter that has eclipse-nn [$ECLIPSE_PYTHON]")  # fmt: skip
    options = parser.parse_args()
    python = options.eclipse if has_eclipse(options.eclipse) else None
    if options.eclipse and python is None:
        parser.error(f"--eclipse {options.eclipse}: import eclipse_nn fails there")
    small = [(2, 20), (3, 20)] if options.quick else [(2, 80), (3, 20), (5, 20), (5, 30)]
    deep = RANDOM[:2] if options.quick else RANDOM
    solved(generated(2, 8))  # imports
    rows = list(against_published(MAXMIN))
    rows += against_solvers([*small, (5, 40)] if options.long else small)
    rows += against_eclipse(small if options.quick else [*small, (10, 20)], python)
    rows += against_closed_forms(deep, python)
    if options.long:
        rows += against_closed_forms(LARGE, python, checked=None)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    machine = {"platform": platform.platform(), "cpus": os.cpu_count(), "load": load}
    for r in rows:
        r["machine"] = machine
    if options.plot:
        draw(rows, options.plot)
    if options.json:
        print(json.dumps(rows))
        return 0
    print(f"{'case':58} {'ours':>12} {'peer':>12} {'ratio':>10}  target")
    for r in rows:
        peer, ratio = (f"{v:.6g}" if v is not None else "" for v in (r["peer"], r["ratio"]))
        state = "" if r["met"] else "  MISSED"
        print(f"{r['case']:58} {r['ours']:12.6g} {peer:>12} {ratio:>10}  {r['target']}{state}")
    print(machine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
