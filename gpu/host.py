"""The kernels on the host: the very same sources, compiled by g++ and called through ctypes.

For tests and for reading along, not for speed: a machine without a GPU has the compiled loops of
``tangency.theory.kernels``.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tangency.gpu.errors import DeviceError

__all__ = ["build", "compiler"]


def compiler() -> str | None:
    """The path of g++, or None."""
    return shutil.which("g++")


def build(source: str, *, folder: str | Path | None = None, options: tuple[str, ...] = ()) -> Any:
    """Compile a program for the host and load it.

    Parameters
    ----------
    source : str
        From :mod:`.sources`.
    folder : path, optional
        Where compiled programs are kept; by default one of this user's in the temporary folder.
    options : tuple of str
        For g++.

    Raises
    ------
    DeviceError
        If there is no g++, or it refuses the source.
    """
    path = compiler()
    if path is None:
        raise DeviceError("the host build of the kernels needs g++; install it (apt install g++)")
    if folder is None:
        folder = Path(tempfile.gettempdir()) / f"tangency-kernels-{os.getuid()}"
    folder = Path(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise DeviceError(f"{folder} belongs to another user: give folder=")
    # -Wno-psabi: vectors of 1024 bits are passed by reference in inlined code, which g++ remarks.
    flags = (
        "-x",
        "c++",
        "-std=c++17",
        "-O2",
        "-march=native",
        "-w",
        "-Wno-psabi",
        "-shared",
        "-fPIC",
    )
    key = hashlib.sha256("\0".join([source, *flags, *options]).encode()).hexdigest()[:24]
    target = folder / f"{key}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            text, made = Path(scratch) / "kernel.cu", Path(scratch) / "kernel.so"
            text.write_text(source, encoding="utf-8")
            command = [path, *flags, *options, str(text), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise DeviceError(f"g++ refused the kernel source: {done.stderr[:2000]}")
            os.replace(made, target)
    return ctypes.CDLL(str(target))
