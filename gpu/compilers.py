"""What a kernel costs, told by the compiler without a device: registers, spills, instructions.

Instructions of Volta and later are 16 bytes each, so that the length of a kernel's code in the
cubin counts them; what one layer of one entry costs is the difference between two depths.
"""

from __future__ import annotations

import ctypes
import functools
import glob
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tangency.gpu.errors import DeviceError

__all__ = ["Cost", "cost_by_nvcc", "cost_by_nvrtc", "nvcc", "nvrtc"]

_INSTRUCTION = 16
_SIZED, _REGISTERS, _FRAME = 0x04, 0x2F, 0x11  # of the section .nv.info


@dataclass(frozen=True)
class Cost:
    """One kernel for one architecture.

    Attributes
    ----------
    registers : int
        Of a thread.
    frame : int
        Bytes of a thread's stack: spilled registers, and return addresses of called subroutines.
    instructions : int
        In the whole code, loops counted once, with up to 8 empty ones at its end.
    """

    registers: int
    frame: int
    instructions: int


def nvcc() -> str | None:
    """The path of nvcc, or None."""
    return shutil.which("nvcc")


def nvrtc() -> str | None:
    """The path of the NVRTC library of the wheel ``nvidia-cuda-nvrtc``, or None."""
    spec = find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        found = sorted(glob.glob(f"{folder}/**/libnvrtc.so.*", recursive=True))
        if found:
            return found[0]
    return None


def cost_by_nvcc(source: str, kernel: str, arch: str, *, defines: tuple[str, ...] = ()) -> Cost:
    """Compile for an architecture such as ``"sm_90"`` and read the cubin.

    Raises
    ------
    DeviceError
        If there is no nvcc, or it refuses the source.
    """
    return _cost(_cubin_by_nvcc(source, arch, defines), kernel)


@functools.lru_cache(maxsize=2)
def _cubin_by_nvcc(source: str, arch: str, defines: tuple[str, ...]) -> bytes:
    path = nvcc()
    if path is None:
        raise DeviceError("nvcc is not installed: the CUDA toolkit has it")
    with tempfile.TemporaryDirectory() as scratch:
        text, cubin = Path(scratch) / "kernel.cu", Path(scratch) / "kernel.cubin"
        text.write_text(source, encoding="utf-8")
        options = [f"-arch={arch}", "-std=c++17", "-cubin", *(f"-D{d}" for d in defines)]
        done = subprocess.run(
            [path, *options, str(text), "-o", str(cubin)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DeviceError(f"nvcc refused the kernel source: {done.stderr[:2000]}")
        return cubin.read_bytes()


def cost_by_nvrtc(source: str, kernel: str, arch: str, *, defines: tuple[str, ...] = ()) -> Cost:
    """As :func:`cost_by_nvcc`, by the library that CuPy uses; no driver is needed."""
    return _cost(_cubin_by_nvrtc(source, arch, defines), kernel)


@functools.lru_cache(maxsize=2)
def _cubin_by_nvrtc(source: str, arch: str, defines: tuple[str, ...]) -> bytes:
    path = nvrtc()
    if path is None:
        raise DeviceError("NVRTC is not installed: pip install nvidia-cuda-nvrtc")
    library = ctypes.CDLL(path)
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    options = [f"--gpu-architecture={arch}", "-std=c++17", *(f"-D{d}" for d in defines)]
    array = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    try:
        if library.nvrtcCompileProgram(program, len(options), array):
            log = _bytes_of(library, program, "ProgramLog")
            raise DeviceError(f"NVRTC refused the kernel source: {log[:2000].decode()}")
        return _bytes_of(library, program, "CUBIN")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _bytes_of(library: Any, program: Any, what: str) -> bytes:
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


def _cost(cubin: bytes, kernel: str) -> Cost:
    """From the sections of an ELF file of 64 bits: the code, and its count of registers."""
    offset = struct.unpack_from("<Q", cubin, 0x28)[0]
    size, count, names_at = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, offset + k * size) for k in range(count)]
    names = headers[names_at][4]
    by_name = {cubin[names + h[0] : cubin.index(b"\0", names + h[0])].decode(): h for h in headers}
    text = by_name.get(f".text.{kernel}")
    if text is None:
        raise DeviceError(f"the cubin has no kernel {kernel!r}")
    info = by_name[".nv.info"]
    told = _attributes(cubin[info[4] : info[4] + info[5]], _symbol(cubin, by_name, kernel))
    return Cost(told[_REGISTERS], told[_FRAME], text[5] // _INSTRUCTION)


def _symbol(cubin: bytes, sections: dict[str, Any], name: str) -> int:
    """The number of a symbol: attributes of all kernels of a program stand in one section."""
    table, names = sections[".symtab"], sections[".strtab"][4]
    for number, at in enumerate(range(table[4], table[4] + table[5], 24)):
        begin = names + struct.unpack_from("<I", cubin, at)[0]
        if cubin[begin : cubin.index(b"\0", begin)].decode() == name:
            return number
    raise DeviceError(f"the cubin has no symbol {name!r}")


def _attributes(info: bytes, symbol: int) -> dict[int, int]:
    """Attributes of one kernel: a head of 4 bytes, then a symbol and a number."""
    found: dict[int, int] = {}
    at = 0
    while at < len(info):
        form, key, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form != _SIZED:  # the number is the head's own
            continue
        if size == 8 and struct.unpack_from("<I", info, at)[0] == symbol:
            found[key] = struct.unpack_from("<II", info, at)[1]
        at += size
    return found
