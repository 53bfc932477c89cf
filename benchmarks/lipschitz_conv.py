"""Convolutional Lipschitz bounds by frequencies: a deep net in 60 s, and the unrolled engine.

The networks are seeded (He's initialisation, 3x3, zero padding, ReLU or MaxMin). Seconds include
the rigorous check; `product` is the product of proved norms of the layers, `lower` the norm of a
Jacobian.

    python benchmarks/lipschitz_conv.py [--quick] [--json]
"""

import argparse
import json
import os
import time
from itertools import pairwise

import numpy as np

from tangency.models import Builder, activations
from tangency.models.ops import Conv, GroupSort
from tangency.verify.lipschitz import lipschitz_bound
from tangency.verify.lipschitz.conv import check_conv, conv_bound

#: channels, side of the image, seconds of search, activation
SMALL = [
    ((2, 3, 3), 5, 10.0, "relu"),
    ((2, 3, 3, 3), 8, 10.0, "relu"),
    ((1, 4, 4, 4), 10, 20.0, "relu"),
    ((2, 4, 4, 4), 6, 10.0, "maxmin"),
]
LARGE = [
    ((3, *[8] * 16), 14, 30.0, "relu"),
    ((3, *[16] * 8), 14, 30.0, "maxmin"),
    ((3, *[32] * 16), 14, 50.0, "relu"),
]


def generated(channels, side, kind="relu", seed=0):
    rng = np.random.default_rng(seed)
    b = Builder("float64")
    x = b.input((1, channels[0], side, side))
    for k, (i, o) in enumerate(pairwise(channels)):
        if k:
            relu = activations.get("relu")
            x = b.activation(x, relu) if kind == "relu" else b.emit(GroupSort(2), [x])
        weight = rng.standard_normal((o, i, 3, 3)) * np.sqrt(2 / (9 * i))
        x = b.emit(Conv((1, 1), ((1, 1), (1, 1))), [x], {"weight": (f"w{k}", weight)})
    return b.finish([x])


def measured(channels, side, seconds, kind, unroll):
    network = generated(channels, side, kind)
    wall, cpu = time.perf_counter(), time.process_time()
    found = conv_bound(network, time_limit=seconds, attack=False)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    checking = time.perf_counter()
    for run, witness in found.witnesses:
        check_conv(run.layers, run.activations, run.size, witness)
    checking = time.perf_counter() - checking
    peer = None
    if unroll:
        peer = lipschitz_bound(network, attack=False, time_limit=60.0).upper
    lower = conv_bound(network, time_limit=1e-3).lower
    return {
        "case": f"{len(channels) - 1} layers, {channels[-1]} channels, {side}x{side} {kind}",
        "upper": found.upper, "lower": lower, "product": found.product, "unrolled": peer,
        "seconds": wall, "cpu": cpu, "check": checking, "finished": found.finished,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small networks only")
    parser.add_argument("--json", action="store_true", help="print rows for programs")
    options = parser.parse_args()
    cases = [(*case, True) for case in SMALL]
    if not options.quick:
        cases += [(*case, False) for case in LARGE]
    rows = []
    if not options.json:
        print(f"load {os.getloadavg()[0]:.1f}")
        print(f"{'case':42}{'upper':>12}{'unrolled':>12}{'product':>12}{'lower':>12}"
              f"{'s':>7}{'cpu s':>7}{'check s':>9}")  # fmt: skip
    for case in cases:
        row = measured(*case)
        rows.append(row)
        if not options.json:
            peer = "-" if row["unrolled"] is None else f"{row['unrolled']:.5g}"
            print(f"{row['case']:42}{row['upper']:12.5g}{peer:>12}{row['product']:12.5g}"
                  f"{row['lower']:12.4g}{row['seconds']:7.1f}{row['cpu']:7.1f}"
                  f"{row['check']:9.2f}", flush=True)  # fmt: skip
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
