"""Fixtures that several folders of tests share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Continuous integration must give the same answer twice; everywhere else new examples are drawn.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def load_module() -> Callable[[str], Any]:
    """A function that loads a module of the tests, which are no package, by its path in here."""

    def load(place: str) -> Any:
        path = Path(__file__).parent / place
        spec = importlib.util.spec_from_file_location(f"tangency_tests_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def one_op_modules(load_module: Callable[[str], Any]) -> dict[str, Any]:
    """The 59 one-op torch modules of tests/models/importers/one_op.py, with a sample's shape.

    Made anew for each test: ``module.double()`` changes a module in place.
    """
    pytest.importorskip("torch")
    made: dict[str, Any] = load_module("models/importers/one_op.py").one_op_modules()
    return made
