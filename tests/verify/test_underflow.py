"""Where the processor flushes subnormals to zero nothing is proved: it says so instead."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest

from tangency.models import from_layers
from tangency.verify import lipschitz_bound, write_certificate
from tangency.verify.certificate.directed import require_gradual_underflow

#: Machine code that loads the control register of float arithmetic from its argument, and the bits
#: of that register: rounding to nearest, no traps, and what flushes (results; operands; both).
REGISTER = {
    "x86_64": (bytes.fromhex("0fae17 c3"), {"results": 0x9F80, "operands": 0x1FC0, "both": 0x9FC0}),
    "aarch64": (bytes.fromhex("00441bd5 c0035fd6"), {"both": 1 << 24}),
}
FLUSHED = """
import ctypes, mmap, sys
import numpy as np
def flush(code, bits):
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    word = ctypes.c_uint64(bits)
    by_value = len(code) > 4  # msr fpcr, x0; ret, and not: ldmxcsr [rdi]; ret
    argument = word if by_value else ctypes.cast(ctypes.byref(word), ctypes.c_void_p)
    call = ctypes.CFUNCTYPE(None, type(argument))
    call(ctypes.addressof(ctypes.c_char.from_buffer(page)))(argument)
"""


def register() -> tuple[bytes, dict[str, int]]:
    machine = platform.machine()
    if machine not in REGISTER or sys.platform == "win32":
        pytest.skip(f"no machine code here that sets the register of {machine}")
    return REGISTER[machine]


def run(mode: str, work: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own after its subnormals have been switched off."""
    code, modes = register()
    if mode not in modes:
        pytest.skip(f"this processor cannot flush {mode} alone")
    text = FLUSHED + work.replace("FLUSH", f"flush({code!r}, {modes[mode]})")
    done = subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "PermissionError" in done.stderr and "mmap.mmap" in done.stderr:
        pytest.skip("this system lets no process write code of its own")
    return done


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flushed")
    network = from_layers([np.array([[1.0, 2.0], [0.5, -1.0]]), np.ones((1, 2))], "relu")
    network.save(folder / "it.npz")
    write_certificate(folder / "it.cert", lipschitz_bound(network, attack=False), network)
    return folder


MODES = ["results", "operands", "both"]


@pytest.mark.parametrize("mode", MODES)
def test_a_check_is_refused(mode, files):
    work = """
from tangency.cli import main
import tangency.verify.checking
FLUSH
sys.argv = ["tangency", "check", *sys.argv[1:]]
main()
"""
    done = run(mode, work, files / "it.cert", files / "it.npz")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "flushes subnormal numbers to zero" in done.stderr
    assert "-ffast-math" in done.stderr
    assert not done.stdout


PATHS = {
    "lipschitz": "tangency.lipschitz_bound(network, attack=False)",
    "implicit": "implicit_bound([[-3.0]], [[1.0]], [[1.0]], attack=False)",
    "product": "tangency.lipschitz_bound(network, method='product', attack=False)",
    "local": "tangency.lipschitz_bound(network, box=box, attack=False)",
    "conv": "conv_norm_bound(ConvLayer(np.ones((2, 1, 3, 3)), (1, 1)), (4, 4))",
    "ibp": "tangency.bound(network, box)",
    "crown": "tangency.bound(network, box, method='crown')",
    "forward": "tangency.bound(network, box, method='forward')",
    "robust": "tangency.certify_robust(network, x, [0], 0.1, attack='none')",
    "jacobian": "tangency.jacobian_bounds(network, box)",
    "slopes": "tangency.local_lipschitz(network, box)",
    "monotone": "tangency.certify_monotone(network, box, increasing=[0])",
}


def test_no_certified_path_begins():
    work = f"""
import tangency
from tangency.verify.certificate.conv_norm import conv_norm_bound
from tangency.verify.certificate.conv_symbol import ConvLayer
from tangency.verify.lipschitz.implicit import implicit_bound
network = tangency.from_layers([np.array([[1.0, 2.0], [0.5, -1.0]]), np.ones((2, 2))], "relu")
x = np.zeros((1, 2))
box = tangency.Box(x - 1.0, x + 1.0)
FLUSH
for name, path in {PATHS!r}.items():
    try:
        eval(path)
    except tangency.UnsupportedError as error:
        assert "flushes subnormal numbers" in str(error), (name, error)
    else:
        raise AssertionError(name)
"""
    done = run("both", work)
    assert done.returncode == 0, done.stderr


def test_it_is_the_thread_that_counts():
    work = """
import threading
from tangency.verify.certificate.directed import require_gradual_underflow
refused = []
def other():
    FLUSH
    try:
        require_gradual_underflow()
    except NotImplementedError:
        refused.append(True)
thread = threading.Thread(target=other)
thread.start()
thread.join()
require_gradual_underflow()
assert refused
"""
    done = run("both", work)
    assert done.returncode == 0, done.stderr


def test_here_nothing_is_flushed():
    require_gradual_underflow()
