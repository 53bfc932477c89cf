"""Where kernels run: a GPU through CuPy, or the host through g++; both behind one interface."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tangency.gpu.errors import DeviceError, PlanError
from tangency.gpu.host import build
from tangency.gpu.task import DenseTask

__all__ = ["CudaEngine", "Engine", "HostEngine", "available_devices", "engine_for"]

Array = Any  # of NumPy or of CuPy

_INSTALL = "pip install 'tangency[cuda13]' (or [cuda12], by the driver)"


class Engine(Protocol):
    """What a device does for a kernel."""

    @property
    def xp(self) -> Any:
        """NumPy or CuPy."""

    def dense(self, source: str, task: DenseTask, shape: tuple[int, int]) -> None:
        """Run the dense kernel of a source on one tile."""

    def images(self, source: str, arrays: tuple[Array, ...], sizes: tuple[Any, ...]) -> None:
        """Run the images kernel: pointers, then (pairs, displacements, channels, depth, share)."""

    def launch(
        self, source: str, name: str, task: ctypes.Structure, threads: int, block: int
    ) -> None:
        """Run ``name`` of a source, whose only argument is a structure, on so many threads."""

    def pointer(self, array: Array | None) -> int | None:
        """The address of an array, None for None."""

    def fetch(self, array: Array) -> Callable[[], np.ndarray[Any, Any]]:
        """Begin to copy an array to the host; the function returned waits and hands it over."""


@dataclass(frozen=True)
class HostEngine:
    """The sources compiled by g++: for tests, and the ``cpu`` of this room."""

    folder: str | Path | None = None
    xp: Any = field(default=np, repr=False)

    def dense(self, source: str, task: DenseTask, shape: tuple[int, int]) -> None:
        """As of :class:`Engine`."""
        build(source, folder=self.folder).dense_host(ctypes.byref(task))

    def images(self, source: str, arrays: tuple[Array, ...], sizes: tuple[Any, ...]) -> None:
        """As of :class:`Engine`."""
        pairs, displacements, channels, depth, share = sizes
        real = ctypes.c_float if share.dtype == np.float32 else ctypes.c_double
        build(source, folder=self.folder).images_host(
            *(ctypes.c_void_p(self.pointer(a)) for a in arrays),
            ctypes.c_longlong(pairs), displacements, channels, depth, real(share),
        )  # fmt: skip

    def launch(
        self, source: str, name: str, task: ctypes.Structure, threads: int, block: int
    ) -> None:
        """As of :class:`Engine`."""
        getattr(build(source, folder=self.folder), f"{name}_host")(ctypes.byref(task))

    def pointer(self, array: Array | None) -> int | None:
        """As of :class:`Engine`."""
        if array is None:
            return None
        if not array.flags.aligned:
            raise PlanError("an array is not aligned")
        return int(array.ctypes.data)

    def fetch(self, array: Array) -> Callable[[], np.ndarray[Any, Any]]:
        """As of :class:`Engine`."""
        copy = array.copy()
        return lambda: copy


@dataclass(frozen=True)
class CudaEngine:
    """The sources compiled by NVRTC through CuPy, for the current device."""

    xp: Any = field(init=False, repr=False)
    _copies: Any = field(init=False, repr=False)
    _kernels: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        cupy = _cupy()
        object.__setattr__(self, "xp", cupy)
        object.__setattr__(self, "_copies", cupy.cuda.Stream(non_blocking=True))

    def kernel(self, source: str, name: str) -> Any:
        """A compiled kernel; CuPy keeps it on disk between runs."""
        key = source, name
        if key not in self._kernels:
            module = self.xp.RawModule(code=source, options=("-std=c++17",), backend="nvrtc")
            self._kernels[key] = module.get_function(name)
        return self._kernels[key]

    def dense(self, source: str, task: DenseTask, shape: tuple[int, int]) -> None:
        """As of :class:`Engine`."""
        argument = self.xp.asarray(np.frombuffer(bytes(task), np.uint8))
        rows, columns = shape
        # Blocks along the rows are the second axis of a grid, which ends at 65,535.
        if rows > 32 * 65535:
            raise PlanError(f"a tile of {rows} rows: at most {32 * 65535}")
        grid = (-(-columns // 32), -(-rows // 32))
        self.kernel(source, "dense_kernel")(grid, (32, 8), (argument,))

    def images(self, source: str, arrays: tuple[Array, ...], sizes: tuple[Any, ...]) -> None:
        """As of :class:`Engine`."""
        pairs, displacements, channels, depth, share = sizes
        scalars = (
            np.int64(pairs), np.int32(displacements), np.int32(channels), np.int32(depth), share
        )  # fmt: skip
        grid = (-(-pairs * displacements // 4),)
        self.kernel(source, "images_kernel")(grid, (128,), (*arrays, *scalars))

    def launch(
        self, source: str, name: str, task: ctypes.Structure, threads: int, block: int
    ) -> None:
        """As of :class:`Engine`."""
        if not threads:
            return
        blocks = -(-threads // block)
        if blocks >= 2**31:
            raise PlanError(f"{threads} threads in one launch: at most {block} times 2^31")
        # The structure goes into memory of the device; it is freed behind the kernel in its stream.
        argument = self.xp.asarray(np.frombuffer(bytes(task), np.uint8))
        self.kernel(source, f"{name}_kernel")((blocks,), (block,), (argument,))

    def pointer(self, array: Array | None) -> int | None:
        """As of :class:`Engine`."""
        return None if array is None else int(array.data.ptr)

    def fetch(self, array: Array) -> Callable[[], np.ndarray[Any, Any]]:
        """Copy on a stream of its own, to pinned memory, while the next tile is computed."""
        cupy = self.xp
        done = cupy.cuda.get_current_stream().record()
        self._copies.wait_event(done)
        memory = cupy.cuda.alloc_pinned_memory(array.nbytes)
        host = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
        array.get(stream=self._copies, out=host, blocking=False)
        copied = self._copies.record()

        def wait(_kept: Array = array) -> np.ndarray[Any, Any]:
            # The function keeps the array: its memory is not used again under the copy.
            copied.synchronize()
            return host

        return wait


def available_devices() -> tuple[str, ...]:
    """``("cuda", "cpu")`` where a GPU and CuPy are there, else ``("cpu",)``."""
    try:
        _cupy()
    except DeviceError:
        return ("cpu",)
    return ("cuda", "cpu")


def engine_for(device: str | None = None) -> Engine:
    """The engine of a device; by default the GPU where there is one.

    Raises
    ------
    PlanError
        If the device is neither "cpu" nor "cuda".
    DeviceError
        If it is "cuda" and CuPy, a driver or a GPU is missing; the message says what to install.
    """
    if device is None:
        device = available_devices()[0]
    if device == "cuda":
        return CudaEngine()
    if device == "cpu":
        return HostEngine()
    raise PlanError(f"device = {device!r}: it is 'cpu', 'cuda' or None for what is there")


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(f"device='cuda' needs CuPy: {_INSTALL}") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(f"CuPy finds no CUDA driver ({error}): use device='cpu'") from error
    if count == 0:
        raise DeviceError("CuPy finds a driver and no GPU: use device='cpu'")
    try:
        # CuPy's wheels hold neither, and it asks for them no sooner than with the first product.
        _ = cupy.cuda.cublas
        cupy.cuda.nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        lost = str(error).split("\n")[0]
        raise DeviceError(f"CuPy finds no cuBLAS or NVRTC ({lost}): {_INSTALL}") from error
    return cupy
