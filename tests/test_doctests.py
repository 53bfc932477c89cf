"""The examples in docstrings, module by module."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import tangency


def modules() -> list[str]:
    names = ["tangency"]
    for room in ("cli", "models", "theory", "verify", "gpu"):
        package = importlib.import_module(f"tangency.{room}")
        names.append(package.__name__)
        found = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        names += [info.name for info in found]
    return names


def test_the_front_door_has_examples():
    assert doctest.testmod(tangency).attempted > 0


@pytest.mark.parametrize("name", modules())
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
