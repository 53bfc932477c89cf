import sys

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
def cupy_stand_in(monkeypatch, load_module):
    """CuPy as of ``stand_in.py``, imported by whoever imports CuPy."""
    found = load_module("gpu/stand_in.py").module()
    for name, made in found.items():
        monkeypatch.setitem(sys.modules, name, made)
    return found["cupy"]
