"""The benchmark of the GPU runs, on the host where there is none, and its answers are right."""

import ctypes
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tangency.gpu.engines import available_devices
from tangency.gpu.host import build

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
PLAIN = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
C = {np.int64: ctypes.c_longlong, np.int32: ctypes.c_int, np.float32: ctypes.c_float,
     np.float64: ctypes.c_double}  # fmt: skip
FIELDS = {"case", "ours", "peer", "ratio", "target", "met"}


def run(*options):
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@PLAIN
def test_every_case_runs_on_the_host():
    done = run("--host", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    first = {row["case"].split(":")[0].split(" ")[0] for row in rows}
    assert first == {"dense", "images", "strided", "Gram", "empirical", "conjugate", "Cholesky"}
    errors = [row["error"] for row in rows if "error" in row]
    assert len(errors) >= 7
    assert max(errors) < 1e-5  # float32 kernels; what is judged on a device is in the script
    for row in rows:
        assert row.keys() >= FIELDS
        assert row["ours"] > 0
        assert row["met"] is None  # the host is no measure
        assert row["target"]


class Launches:
    """A module of CuPy whose kernels are those of g++; arguments are what the kernels declare."""

    def __init__(self, code, options, backend):
        self.code = code

    def get_function(self, name):
        function = getattr(build(self.code), name.replace("_kernel", "_host"))

        def launch(grid, block, arguments):
            assert all(type(n) is int and 0 < n < 2**31 for n in grid + block)
            assert all(n < 65536 for n in grid[1:])
            passed = []
            for one in arguments:
                if isinstance(one, np.ndarray):
                    assert one.flags.c_contiguous
                    passed.append(ctypes.c_void_p(one.data.ptr))
                else:  # of exactly the kernel's type: CuPy passes the bytes as they are
                    passed.append(C[type(one)](one.item()))
            function(*passed)

        return launch


def complete(cupy):
    """What the script needs of CuPy beside what :mod:`tangency.gpu` does; all takes 1 ms."""

    def lifted(function):
        def call(*arguments, **options):
            assert all(isinstance(a, cupy.ndarray) or np.ndim(a) == 0 for a in arguments)
            plain = [a.view(np.ndarray) if isinstance(a, cupy.ndarray) else a for a in arguments]
            out = options.pop("out", None)
            found = np.asarray(function(*plain, **options)).view(cupy.ndarray)
            if out is None:
                return found
            out.view(np.ndarray)[...] = found
            return out

        return call

    for name in ("arccos", "clip", "arctan2", "cos", "sin", "matmul"):
        setattr(cupy, name, lifted(getattr(np, name)))
    cupy.copyto = lambda to, a: to.__setitem__(..., a)
    cupy.RawModule, cupy.__version__ = Launches, "0"
    pool = SimpleNamespace(free_all_blocks=lambda: None, free_bytes=lambda: 0)
    cupy.get_default_memory_pool = cupy.get_default_pinned_memory_pool = lambda: pool
    event = SimpleNamespace(record=lambda: None, synchronize=lambda: None)
    cupy.cuda.Event, cupy.cuda.get_elapsed_time = (lambda: event), (lambda *_: 1.0)
    cupy.cuda.Device = lambda: SimpleNamespace(id=0)
    runtime = cupy.cuda.runtime
    runtime.getDeviceProperties = lambda device: {"name": b"stand-in"}
    runtime.driverGetVersion = runtime.runtimeGetVersion = lambda: 0


@PLAIN
def test_every_case_as_on_a_device(cupy_stand_in, monkeypatch, capsys):
    complete(cupy_stand_in)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    names = ("gpu", "gpu_device", "gpu_kernels", "gpu_solvers")
    try:
        script, device = (importlib.import_module(name) for name in names[:2])
        monkeypatch.setattr(script, "QUICK", device.HOST)
        assert script.main(["--quick", "--json"]) == 0
    finally:
        for name in names:
            sys.modules.pop(name, None)
    rows = json.loads(capsys.readouterr().out)
    assert max(row["error"] for row in rows if "error" in row) < 1e-5
    for row in rows:
        assert row["met"] in (True, False)


@pytest.mark.skipif("cuda" in available_devices(), reason="there is a GPU")
def test_without_a_device_it_says_so():
    done = run("--quick")
    assert done.returncode == 2
    assert "needs CuPy" in done.stderr or "CUDA" in done.stderr
    assert done.stdout == ""


@pytest.mark.gpu
def test_small_sizes_on_the_device():
    done = run("--quick", "--json")
    assert done.returncode == 0, done.stderr
    assert all(row["error"] < 1e-5 for row in json.loads(done.stdout) if "error" in row)
