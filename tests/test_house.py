"""The house itself: packages, floors, public names, and what importing must not import."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tangency

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("models", "theory", "verify", "gpu")


def run(code: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def loaded_after(code: str) -> set[str]:
    names = run(f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))")
    return set(json.loads(names.splitlines()[-1]))


def test_every_package_is_listed_for_the_wheel():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(config["tool"]["setuptools"]["packages"])
    found = {"tangency", "tangency.cli"}
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join(["tangency", *init.parent.relative_to(ROOT).parts]))
    assert listed == found


def test_links_point_at_the_folders():
    for folder in FOLDERS:
        link = ROOT / "src" / "tangency" / folder
        if link.is_symlink():  # a checkout without symbolic links still builds and runs
            assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_not_importable_by_its_bare_name(folder, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"try:\n    import {folder}\nexcept ImportError as e:\n    print(e)\nelse:\n    print('no')"
    )
    assert f"tangency.{folder}" in run(code, tmp_path)


@pytest.mark.parametrize("module", ["tangency", *(f"tangency.{f}" for f in FOLDERS[:3])])
def test_public_names_exist_and_are_sorted(module):
    package = importlib.import_module(module)
    assert list(package.__all__) == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert tangency.__version__ == version("tangency")


HEAVY = {"jax", "cvxpy", "torch", "onnx", "scipy", "matplotlib", "cupy", "dask"}


@pytest.mark.parametrize(
    "code",
    [
        "import tangency",
        "import tangency.models.activations",
        "from tangency.models import Network, from_layers",
        "import tangency.verify.lipschitz, tangency.verify.bounds",
    ],
)
def test_imports_stay_light(code):
    assert not loaded_after(code) & HEAVY


def test_help_imports_neither_numpy_nor_jax():
    code = "import sys; sys.argv = ['tangency', '--help']\nfrom tangency.cli import cli\n"
    code += "try:\n    cli()\nexcept SystemExit:\n    pass"
    assert not loaded_after(code) & (HEAVY | {"numpy"})


def test_the_floors_hold():
    pytest.importorskip("importlinter", reason="needs the extra [lint]")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_names_this_machine():
    done = subprocess.run(["git", "ls-files", "-z"], capture_output=True, cwd=ROOT, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    words = [b"/" + b"work/", b"/" + b"tmp/bash", b"/" + b"root/"]
    for name in filter(None, done.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            assert not any(word in data for word in words), name
