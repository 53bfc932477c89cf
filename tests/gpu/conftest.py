import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from tangency.gpu.engines import available_devices


def pytest_collection_modifyitems(items):
    """A test marked gpu is skipped, visibly, where there is no device."""
    absent = "cuda" not in available_devices()
    for item in items:
        if absent and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device, or no CuPy"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def cupy_stand_in(monkeypatch):
    """CuPy as of ``stand_in.py``, imported by whoever imports CuPy."""
    path = Path(__file__).with_name("stand_in.py")
    spec = importlib.util.spec_from_file_location("tangency_tests_stand_in", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.module()
    for name, made in found.items():
        monkeypatch.setitem(sys.modules, name, made)
    return found["cupy"]
