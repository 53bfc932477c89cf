"""Fixtures that several folders of tests share."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Continuous integration must give the same answer twice; everywhere else new examples are drawn.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture
def one_op_modules() -> dict[str, Any]:
    """The 59 one-op torch modules of tests/models/importers/one_op.py, with a sample's shape.

    Made anew for each test: ``module.double()`` changes a module in place.
    """
    pytest.importorskip("torch")
    path = Path(__file__).parent / "models" / "importers" / "one_op.py"
    spec = importlib.util.spec_from_file_location("tangency_tests_one_op", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: dict[str, Any] = module.one_op_modules()
    return made
