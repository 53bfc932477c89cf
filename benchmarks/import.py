"""Seconds that a fresh process takes: import, --help, the README's first certificate.

    python benchmarks/import.py [--quick] [--json]

Each figure is the median wall-clock time of whole processes, after one that warms the file cache.
The peer of an import is that of jax in the same environment, of the certificate the import of
cvxpy alone, which its search needs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "from tangency.cli import main; main()"
MODEL = str(ROOT / "examples" / "digits_maxmin.onnx")
#: case -> (ours, peer, target in seconds)
CASES = {
    "import tangency": (["-c", "import tangency"], ["-c", "import jax"], 0.3),
    "tangency --help": (["-c", COMMAND, "--help"], None, 0.5),
    "tangency certify examples/digits_maxmin.onnx": (
        ["-c", COMMAND, "certify", MODEL],
        ["-c", "import cvxpy"],
        10.0,
    ),
}


def seconds(arguments: list[str] | None, runs: int) -> float | None:
    """Median time of a process of this interpreter."""
    if arguments is None:
        return None
    times = []
    for i in range(runs + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        if i:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer runs, under 50 s")
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    options = parser.parse_args()
    runs = 1 if options.quick else 5
    rows = []
    for case, (arguments, peer_arguments, target) in CASES.items():
        ours, peer = seconds(arguments, runs), seconds(peer_arguments, runs)
        assert ours is not None
        rows.append(
            {
                "case": case,
                "ours": ours,
                "peer": peer,
                "ratio": None if peer is None else ours / peer,
                "target": target,
                "met": ours <= target,
                "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, "
                f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}",
            }
        )
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'case':46} {'ours s':>8} {'peer s':>8} {'ratio':>6} {'target s':>8}  met")
    for row in rows:
        peer = "" if row["peer"] is None else f"{row['peer']:.2f}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        met = "yes" if row["met"] else "NO"
        print(
            f"{row['case']:46} {row['ours']:8.2f} {peer:>8} {ratio:>6} {row['target']:8.1f}  {met}"
        )
    print(rows[0]["machine"])


if __name__ == "__main__":
    main()
