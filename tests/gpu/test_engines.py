"""Devices: what is missing is said, and how to install it."""

import builtins
import sys
import types

import pytest

from tangency.gpu import engines
from tangency.gpu.errors import DeviceError, PlanError
from tangency.gpu.host import build


def test_no_cupy_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest, **options):
        if name == "cupy":
            raise ImportError("no cupy")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(DeviceError, match=r"tangency\[cuda13\]"):
        engines.engine_for("cuda")
    assert engines.available_devices() == ("cpu",)
    assert isinstance(engines.engine_for(), engines.HostEngine)


class NoDriverError(RuntimeError):
    pass


def fake_cupy(count, missing=None):
    def devices():
        if count is None:
            raise NoDriverError("cudaErrorInsufficientDriver")
        return count

    class Cuda:
        runtime = types.SimpleNamespace(getDeviceCount=devices, CUDARuntimeError=NoDriverError)

        def __getattr__(self, name):
            if name == missing:
                raise ImportError(f'Failure finding "lib{name}.so"\n  in many folders')
            return types.SimpleNamespace(getVersion=lambda: (13, 0))

    return types.SimpleNamespace(cuda=Cuda())


def test_no_driver_and_no_device(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(None))
    with pytest.raises(DeviceError, match="no CUDA driver"):
        engines.engine_for("cuda")
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(0))
    with pytest.raises(DeviceError, match="no GPU"):
        engines.engine_for("cuda")
    for name in ("cublas", "nvrtc"):
        monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1, name))
        with pytest.raises(DeviceError, match=rf'finding "lib{name}.so"\): pip install'):
            engines.engine_for("cuda")
        assert engines.available_devices() == ("cpu",)
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    assert engines.available_devices() == ("cuda", "cpu")


def test_unknown_device_and_no_compiler(monkeypatch, tmp_path):
    with pytest.raises(PlanError, match="'cpu', 'cuda'"):
        engines.engine_for("tpu")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"g\+\+"):
        build("int f() { return 1; }")
