"""A stand-in for CuPy on NumPy, as strict as CuPy where a mistake would be silent here.

Arrays of the host and of the device do not mix. What is put on a stream other than the current one
happens as late as it may: when someone waits for it. Pinned memory and new arrays begin as NaN, so
that numbers read too early, and buffers written again too early, are seen in the result.
Kernels are the same sources built by g++.
"""

import contextlib
import ctypes
import types

import numpy as np
import scipy.linalg

from tangency.gpu.host import build
from tangency.gpu.task import DenseTask


class Array(np.ndarray):
    """An array of the device."""

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)

    def get(self, stream=None, out=None, blocking=True):
        out = np.empty(self.shape, self.dtype) if out is None else out

        def copy():
            out[...] = np.asarray(self.view(np.ndarray))

        if blocking or stream is None:
            assert stream is None
            copy()
        else:
            stream.put(copy)
        return out

    def set(self, value, stream=None):
        assert type(value) is np.ndarray
        assert value.flags.c_contiguous
        assert value.shape == self.shape
        assert value.dtype == self.dtype

        def copy():
            self.view(np.ndarray)[...] = value

        stream.put(copy) if stream is not None else copy()

    def __setitem__(self, key, value):
        _device(value)
        super().__setitem__(key, value)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        for one in (*inputs, *(out or ())):
            _device(one)
        plain = [x.view(np.ndarray) if isinstance(x, Array) else x for x in inputs]
        if out is not None:
            options["out"] = tuple(x.view(np.ndarray) for x in out)
        found = getattr(ufunc, method)(*plain, **options)
        return out[0] if out is not None else _wrapped(found)


def _device(value):
    if (type(value) is np.ndarray and value.ndim > 0) or isinstance(value, np.memmap):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")


def _wrapped(value):
    if isinstance(value, tuple):
        return type(value)(*map(_wrapped, value)) if hasattr(value, "_fields") else tuple(
            map(_wrapped, value)
        )  # fmt: skip
    return np.asarray(value).view(Array) if isinstance(value, np.ndarray | np.generic) else value


def _lifted(function, *, takes_host=False):
    def call(*arguments, **options):
        for one in () if takes_host else arguments:
            _device(one)
        plain = [a.view(np.ndarray) if isinstance(a, Array) else a for a in arguments]
        return _wrapped(function(*plain, **options))

    return call


class Event:
    """A place in the queue of a stream."""

    def __init__(self, stream=None, at=0):
        self.stream, self.at = stream, at

    def synchronize(self):
        if self.stream is not None:
            self.stream.run(self.at)


class Stream:
    """Work that is done when someone waits for it."""

    def __init__(self, non_blocking=False):
        self.queue, self.done = [], 0

    def put(self, work):
        self.queue.append(work)

    def run(self, until):
        while self.done < until:
            self.done += 1
            self.queue[self.done - 1]()

    def record(self, event=None):
        return Event(self, len(self.queue))

    def wait_event(self, event):
        self.put(event.synchronize)

    def synchronize(self):
        self.run(len(self.queue))


class Current(Stream):
    """The stream on which NumPy works: what it waits for is done at once."""

    def put(self, work):
        work()


_LINALG = ["ignore"]


@contextlib.contextmanager
def _errstate(linalg):
    _LINALG.append(linalg)
    try:
        yield
    finally:
        _LINALG.pop()


def _cholesky(matrix):
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        if _LINALG[-1] == "raise":
            raise
        return matrix.copy()  # what CuPy returns unless it is told to look


def _empty(shape, dtype=np.float64):
    dtype = np.dtype(dtype)
    fill = np.nan if dtype.kind == "f" else 0
    return np.full(shape, fill, dtype).view(Array)


class _Module:
    def __init__(self, code, options, backend):
        self.code = code

    def get_function(self, name):
        assert name == "dense_kernel"

        def launch(grid, block, arguments):
            task = DenseTask.from_buffer_copy(bytes(arguments[0].view(np.ndarray)))
            build(self.code).dense_host(ctypes.byref(task))

        return launch


def module(*, free=1 << 30):
    """Modules by name, to be put where Python looks for them."""
    current = Current()

    class NoDeviceError(RuntimeError):
        pass

    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1,
        CUDARuntimeError=NoDeviceError,
        memGetInfo=lambda: (free, free),
    )
    cuda = types.SimpleNamespace(
        runtime=runtime,
        cublas=None,
        nvrtc=types.SimpleNamespace(getVersion=lambda: (13, 0)),
        Stream=Stream,
        Event=Event,
        get_current_stream=lambda: current,
        alloc_pinned_memory=lambda size: bytearray(b"\xff" * size),
    )
    cupy = types.ModuleType("cupy")
    for name in ("arange", "eye", "trace", "maximum", "sqrt", "where", "isfinite", "stack", "tril",
                 "triu", "zeros_like", "zeros", "ones", "einsum", "concatenate", "matmul", "abs",
                 "exp", "diagonal", "ascontiguousarray", "pad"):  # fmt: skip
        setattr(cupy, name, _lifted(getattr(np, name)))
    # A copy to the device, as CuPy makes one of host memory; a view of what is there already.
    cupy.asarray = lambda a, dtype=None: (
        a.astype(dtype or a.dtype, copy=False)
        if isinstance(a, Array)
        else np.array(a, dtype).view(Array)
    )
    cupy.array = lambda a, dtype=None: np.array(a, dtype).view(Array)
    cupy.empty = _empty
    cupy.empty_like = lambda a: _empty(a.shape, a.dtype)
    cupy.ndarray = Array
    cupy.asnumpy = lambda a: np.array(a.view(np.ndarray))
    cupy.float32, cupy.float64 = np.float32, np.float64
    cupy.linalg = types.SimpleNamespace(
        cholesky=_lifted(_cholesky), eigh=_lifted(np.linalg.eigh), svd=_lifted(np.linalg.svd)
    )
    cupy.RawModule = _Module
    cupy.cuda = cuda
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(free_bytes=lambda: 0)
    cupyx = types.ModuleType("cupyx")
    cupyx.errstate = _errstate
    cupyx_scipy = types.ModuleType("cupyx.scipy")
    cupyx_linalg = types.ModuleType("cupyx.scipy.linalg")
    cupyx_linalg.solve_triangular = _lifted(scipy.linalg.solve_triangular)
    return {
        "cupy": cupy,
        "cupyx": cupyx,
        "cupyx.scipy": cupyx_scipy,
        "cupyx.scipy.linalg": cupyx_linalg,
    }
