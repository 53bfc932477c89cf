"""Lipschitz bounds: the engine against cvxpy with SCS and Clarabel, ECLipsE-Fast and the product.

The same networks and one run for all sides; times of the engine include the rigorous check. The
networks are those of ECLipsE's generator (4-[w]*(l-1)-1, Gaussian, spectral norms U(0.4, 1.8), by
seed) and the MaxMin networks of Pauli et al. (2024), where ../shared/data is present.

    python benchmarks/lipschitz.py [--quick] [--json] [--plot FILE]
"""

import argparse
import json
import os
import platform
import sys
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
        for solver in ("clarabel", "scs"):
            peer, peer_seconds, _ = solved(chain, solver=solver)
            name = f"{depth}x{width} relu"
            yield row(f"{name}: bound, peer cvxpy+{solver}", ours.upper, peer.upper,
                      "ratio <= 1.0002", ours.upper <= 1.0002 * peer.upper)  # fmt: skip
            yield row(f"{name}: seconds, peer cvxpy+{solver}", seconds, peer_seconds,
                      "ratio < 1", seconds < peer_seconds, cpu=cpu)  # fmt: skip


def against_closed_forms(cases):
    """Compare with ECLipsE-Fast and the product on deep networks."""
    for depth, width, limit in cases:
        chain = generated(depth, width)
        fast, fast_seconds, _ = solved(chain, method="eclipse_fast")
        ours, seconds, cpu = solved(chain, time_limit=0.8 * limit)
        name = f"{depth}x{width} relu"
        yield row(f"{name}: bound, peer ECLipsE-Fast", ours.upper, fast.upper, "ratio < 1",
                  ours.upper < fast.upper, product=ours.product, gap=ours.gap)  # fmt: skip
        yield row(f"{name}: seconds, peer ECLipsE-Fast", seconds, fast_seconds,
                  f"ours <= {limit} s", seconds <= limit, cpu=cpu)  # fmt: skip
        begin = time.perf_counter()
        check_chain(chain.weights, chain.activations, ours.witness)
        check = time.perf_counter() - begin
        yield row(f"{name}: seconds of the check", check, None, "<= 1 s", check <= 1.0)


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
    parser.add_argument("--quick", action="store_true", help="under 50 s")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", metavar="FILE")
    options = parser.parse_args()
    small = [(2, 20), (3, 20)] if options.quick else [(2, 80), (3, 20), (5, 20), (5, 30)]
    deep = RANDOM[:2] if options.quick else RANDOM
    solved(generated(2, 8))  # imports
    rows = list(against_published(MAXMIN))
    rows += against_solvers(small)
    rows += against_closed_forms(deep)
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
