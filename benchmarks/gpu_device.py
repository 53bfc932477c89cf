"""What ``benchmarks/gpu.py`` times: a GPU, or the host in its place to try the script itself."""

import platform
import statistics
import time
from dataclasses import dataclass

import numpy as np

from tangency.gpu.ahead import read_ahead
from tangency.gpu.engines import engine_for


@dataclass(frozen=True)
class Sizes:
    """How large each case is."""

    copy: int  # numbers of an array that is copied
    product: int  # rows of a square product
    dense: tuple[int, int]  # samples and features
    tile: int
    image: int  # rows and columns of an image
    depth: int  # convolutions
    pairs: int
    strided: int  # samples of the strided network
    host: int  # samples of the Gram matrix that goes to the host
    disk: int
    empirical: int
    widths: tuple[int, ...]
    gradients: int
    landmarks: int
    factor: int  # rows of the matrix that is factorised on the device
    out_of_core: int
    block: int


FULL = Sizes(
    copy=1 << 28, product=8192, dense=(50_000, 3072), tile=8192, image=32, depth=21, pairs=2048,
    strided=24, host=32_768, disk=16_384, empirical=4096, widths=(784, 1024, 1024, 10),
    gradients=32_768, landmarks=512, factor=32_768, out_of_core=40_960, block=8192,
)  # fmt: skip
QUICK = Sizes(
    copy=1 << 24, product=2048, dense=(4096, 256), tile=2048, image=32, depth=21, pairs=64,
    strided=8, host=4096, disk=2048, empirical=512, widths=(64, 256, 10), gradients=4096,
    landmarks=128, factor=4096, out_of_core=4096, block=1024,
)  # fmt: skip
HOST = Sizes(
    copy=1 << 10, product=32, dense=(80, 6), tile=32, image=4, depth=2, pairs=3, strided=2, host=60,
    disk=40, empirical=9, widths=(5, 6, 3), gradients=60, landmarks=10, factor=50, out_of_core=50,
    block=16,
)  # fmt: skip


class Device:
    """Arrays, clock and ceilings of the device.

    Parameters
    ----------
    host : bool
        NumPy and the kernels that g++ builds, where no target means anything.
    """

    def __init__(self, *, host=False):
        self.host, self.name = host, "cpu" if host else "cuda"
        self.engine = engine_for(self.name)
        self.xp = self.engine.xp

    def timed(self, run, repeats=3):
        """Median seconds of the device, after one run to warm up."""
        run()
        return statistics.median(self._once(run) for _ in range(repeats))

    def _once(self, run):
        if self.host:
            return self.wall(run)
        first, last = self.xp.cuda.Event(), self.xp.cuda.Event()
        first.record()
        run()
        last.record()
        last.synchronize()
        return self.xp.cuda.get_elapsed_time(first, last) / 1e3

    def wall(self, run):
        """Seconds on the wall of one run, for work of host and device together."""
        self.wait()
        begun = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - begun

    def wait(self):
        """Let the device end what it has begun."""
        if not self.host:
            self.xp.cuda.get_current_stream().synchronize()

    def to_host(self, array):
        """A NumPy array of the same numbers."""
        return np.array(array) if self.host else self.xp.asnumpy(array)

    def free(self):
        """Give back what earlier cases have left."""
        if not self.host:
            self.xp.get_default_memory_pool().free_all_blocks()
            self.xp.get_default_pinned_memory_pool().free_all_blocks()

    def row(self, case, ours, peer=None, target=None, met=None, **more):
        """One figure; ``peer`` is in seconds too, and the ratio says how many times ours goes."""
        ratio = None if peer is None else peer / ours
        met = None if met is None or self.host else bool(met)
        return dict(case=case, ours=ours, peer=peer, ratio=ratio, target=target, met=met, **more)

    def ceilings(self, sizes):
        """Bytes/s of copies on the device and to and from it, and products per second."""
        xp = self.xp
        a = xp.zeros(sizes.copy, xp.float32)
        b = xp.empty_like(a)
        found = {"copy": 2 * a.nbytes / self.timed(lambda: xp.copyto(b, a), 5)}
        n = sizes.product
        for dtype in (np.float32, np.float64):
            m = xp.ones((n, n), dtype)
            out = xp.empty_like(m)
            seconds = self.timed(lambda m=m, out=out: xp.matmul(m, m, out=out))
            found[np.dtype(dtype).name] = 2 * n**3 / seconds
        tile = xp.zeros((n, n), xp.float32)
        self.engine.fetch(tile)()  # the pinned memory is there from now on
        found["to_host"] = tile.nbytes / self.wall(lambda: self.engine.fetch(tile)())
        matrix = np.ones((n, n))
        strips = [(slice(0, n), slice(j, j + n // 4)) for j in range(0, n, n // 4)]

        def read():
            for _ in read_ahead(matrix, strips * 2, xp):
                pass

        read()
        found["from_host"] = 2 * matrix.nbytes / self.wall(read)
        return found

    def machine(self):
        """What it is, and the versions."""
        found = {"numpy": np.__version__, "python": platform.python_version()}
        if self.host:
            return {"device": f"host, {platform.machine()}", **found}
        runtime = self.xp.cuda.runtime
        properties = runtime.getDeviceProperties(self.xp.cuda.Device().id)
        return {
            "device": properties["name"].decode(),
            "driver": runtime.driverGetVersion(),
            "cuda": runtime.runtimeGetVersion(),
            "cupy": self.xp.__version__,
            **found,
        }
