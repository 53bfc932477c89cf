"""Builds, checks and times what runs on a GPU, beside plain forms, ceilings and the CPU.

Ceilings are measured first on the same device: copies, float32 and float64 products, the bus. Times
on the device are medians between two of its events; those with the host in them, on the wall.
Results, with the machine and the versions, go to ``benchmarks/results/gpu-<device>.json``. It is
made to take under 8 minutes on an H200, most of which are the host's.

    python benchmarks/gpu.py [--quick] [--json] [--out FOLDER] [--only WORD] [--host]

Without a GPU (or CuPy) it says so and ends with status 2; --quick takes small sizes. --host runs
every case in NumPy and in what g++ builds, at tiny sizes, to try this script: no target is judged.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from gpu_device import FULL, HOST, QUICK, Device
from gpu_kernels import dense_rows, images_rows, strided_rows
from gpu_solvers import empirical_rows, factor_rows, gradients_rows, store_rows

from tangency.gpu.errors import DeviceError

CASES = {
    "dense": dense_rows,
    "images": images_rows,
    "strided": strided_rows,
    "store": store_rows,
    "empirical": empirical_rows,
    "gradients": gradients_rows,
    "factor": factor_rows,
}


def table(machine, rows):
    ceilings = ", ".join(
        f"{name} {value / 1e12:.3g} T{'flop' if name.startswith('float') else 'B'}/s"
        for name, value in machine["ceilings"].items()
    )
    lines = [f"{machine['device']}: {ceilings}"]
    for r in rows:
        ratio = "" if r["ratio"] is None else f"{r['ratio']:8.2f} x"
        peer = "" if r["peer"] is None else f"{r['peer']:.3e} s"
        verdict = {True: "met", False: "missed", None: ""}[r["met"]]
        lines.append(
            f"{r['case']:78} {r['ours']:.3e} s {peer:>11} {ratio:>10} {r['target'] or ''} {verdict}"
        )
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, under 50 s")
    parser.add_argument("--json", action="store_true", help="rows as one list of JSON")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results"))
    parser.add_argument("--only", choices=CASES, help="one case")
    parser.add_argument("--host", action="store_true", help="NumPy in place of a GPU")
    options = parser.parse_args(arguments)
    try:
        device = Device(host=options.host)
    except DeviceError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sizes = HOST if options.host else QUICK if options.quick else FULL
    begun = time.perf_counter()
    machine, rows = device.machine(), []
    machine["ceilings"] = ceilings = device.ceilings(sizes)
    for name, case in CASES.items():
        if options.only in (None, name):
            device.free()
            rows += case(device, sizes, ceilings)
    machine["seconds"] = time.perf_counter() - begun
    if sizes is FULL and options.only is None:
        folder = Path(options.out)
        folder.mkdir(parents=True, exist_ok=True)
        name = machine["device"].replace(" ", "-").lower()
        text = json.dumps({"machine": machine, "rows": rows}, indent=1)
        (folder / f"gpu-{name}.json").write_text(text + "\n", encoding="utf-8")
    sys.stdout.write((json.dumps(rows) if options.json else table(machine, rows)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
