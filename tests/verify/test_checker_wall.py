"""The checker's wall: no file that ``tangency check`` executes lies in a room that searches."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tangency
from tangency.models import Builder, activations, from_layers
from tangency.models.ops import Add, Conv, Dense, Reshape
from tangency.verify import (
    Ball,
    Box,
    ImplicitLayer,
    bound,
    certify_robust,
    lipschitz_bound,
    write_certificate,
)
from tangency.verify.lipschitz.conv import conv_bound
from tangency.verify.lipschitz.implicit import implicit_bound

ROOT = Path(__file__).resolve().parents[2]
BOX = Box(np.array([-1.0, -1.0]), np.array([1.0, 0.5]))

#: ``tangency check`` with each file noted in which code begins to run, of functions and of modules.
TRACED = """
import json, sys, threading
ran, inside = set(), []
def begun(frame, event, argument):
    if event == "call":
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        if function == "check" and file.endswith("checking.py"):
            inside.append(True)
        ran.add((file, bool(inside)))
threading.setprofile(begun)
sys.setprofile(begun)
from tangency.cli import main
sys.argv = ["tangency", "check", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    status = stop.code
sys.setprofile(None)
print(json.dumps([status or 0, sorted(ran), sorted(sys.modules)]))
"""


def dense(name: str = "relu") -> Any:
    rng = np.random.default_rng(0)
    shapes = [(6, 2), (6, 6), (2, 6)]
    return from_layers([(rng.standard_normal(s), rng.standard_normal(s[0])) for s in shapes], name)


def residual() -> Any:
    rng = np.random.default_rng(1)
    b = Builder("float64")

    def layer(x: Any, rows: int, columns: int, k: int) -> Any:
        weight = rng.standard_normal((rows, columns)) / 2
        return b.dense(x, weight, rng.standard_normal(rows), keys=(f"w{k}", f"b{k}"))

    x = layer(b.input((1, 2)), 4, 2, 0)
    y = b.activation(layer(x, 5, 4, 1), activations.get("tanh"))
    return b.finish([layer(b.elementwise(Add(), x, layer(y, 4, 5, 2)), 2, 4, 3)])


def convolutional() -> Any:
    rng = np.random.default_rng(2)
    b = Builder("float64")
    x = b.input((1, 1, 4, 4))
    for k, (i, o) in enumerate(((1, 2), (2, 2))):
        params = {"weight": (f"w{k}", rng.standard_normal((o, i, 3, 3)))}
        x = b.emit(Conv((1, 1), ((1, 1), (1, 1))), [x], params)
        x = b.activation(x, activations.get("leaky_relu"))
    x = b.emit(Reshape((32,)), [x])
    return b.finish([b.emit(Dense(), [x], {"weight": ("d", rng.standard_normal((2, 32)))})])


def frequencies() -> tuple[Any, Any]:
    network = convolutional()
    return conv_bound(network, attack=False, time_limit=None, rtol=1e-2), network


def implicit() -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    shapes = ((5, 5), (5, 3), (2, 5))
    layer = ImplicitLayer(*(0.2 * rng.standard_normal(shape) for shape in shapes))
    return implicit_bound(layer.W, layer.U, layer.C, attack=False), layer


def robust() -> tuple[Any, Any]:
    network, x = dense(), np.random.default_rng(4).uniform(-1.0, 1.0, (4, 2))
    labels = network.evaluate(x).argmax(axis=1)
    return certify_robust(network, x, labels, 1e-3, method="crown", attack="none"), network


def lipschitz(network: Any, **options: Any) -> tuple[Any, Any]:
    return lipschitz_bound(network, attack=False, **options), network


def outputs(method: str, region: Any = BOX) -> tuple[Any, Any]:
    network = dense()
    return bound(network, region, method=method), network


KINDS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "chain": lambda: lipschitz(dense()),
    "product": lambda: lipschitz(dense("maxmin"), method="product"),
    "residual": lambda: lipschitz(residual()),
    "frequencies": frequencies,
    "implicit": implicit,
    "local": lambda: lipschitz(dense("maxmin"), box=BOX),
    "local residual": lambda: lipschitz(residual(), box=BOX),
    "branch": lambda: lipschitz(dense(), box=BOX, branch=True, max_boxes=4),
    "outputs ibp": lambda: outputs("ibp"),
    "outputs crown": lambda: outputs("crown"),
    "outputs forward": lambda: outputs("forward"),
    "outputs alpha": lambda: outputs("alpha-crown"),
    "outputs ball": lambda: outputs("crown", Ball(np.zeros(2), 0.1)),
    "robust": robust,
}


def contract() -> dict[str, list[str]]:
    """The contract of the wall that the linter holds."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[dict[str, Any]] = config["tool"]["importlinter"]["contracts"]
    (wall,) = (c for c in found if c["name"].startswith("the checker's wall"))
    assert "allow_indirect_imports" not in wall
    assert "ignore_imports" not in wall
    return wall


def within(module: str, rooms: list[str]) -> bool:
    return any(f"{module}.".startswith(f"{room}.") for room in rooms)


def module_of(file: str) -> str | None:
    """The dotted name of a file of the package; None for one of another."""
    for folder in Path(tangency.__file__).parent, ROOT:
        if Path(file).is_relative_to(folder):
            parts = Path(file).relative_to(folder).with_suffix("").parts
            name = ".".join(("tangency", *parts))
            return name.removesuffix(".__init__")
    return None


def test_every_room_of_verify_stands_on_one_side():
    wall = contract()
    folder = ROOT / "verify"
    rooms = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/*.py")}
    sides = [name for side in ("source_modules", "forbidden_modules") for name in wall[side]]
    listed = [n.removeprefix("tangency.verify.") for n in sides if n.startswith("tangency.verify.")]
    assert sorted(listed) == sorted(rooms - {"__init__"})


@pytest.mark.parametrize("kind", KINDS)
def test_a_check_executes_no_file_of_the_search(kind, tmp_path):
    found, model = KINDS[kind]()
    write_certificate(tmp_path / "it.cert", found, model)
    model.save(tmp_path / "it.npz")
    done = subprocess.run(
        [sys.executable, "-c", TRACED, tmp_path / "it.cert", tmp_path / "it.npz"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    verdict, *_, traced = done.stdout.splitlines()
    assert verdict.startswith("holds: ")
    status, ran, modules = json.loads(traced)
    assert status == 0

    executed = {name for file, _ in ran if (name := module_of(file)) is not None}
    working = {name for file, inside in ran if inside and (name := module_of(file)) is not None}
    rooms = contract()
    assert "tangency.verify.certificate.rebuild" in executed
    assert "tangency.verify.checking_models" in working  # the check was seen at work
    assert not {name for name in executed if within(name, rooms["forbidden_modules"])}
    of_verify = {name for name in executed if within(name, ["tangency.verify"])}
    walled = {name for name in of_verify if within(name, rooms["source_modules"])}
    assert of_verify - walled == {"tangency.verify"}  # its __init__, which imports nothing
    heavy = {"jax", "scipy", "torch", "cvxpy", "scs", "clarabel", "numba"}
    assert not heavy & set(modules)
    print(f"{kind}: the check runs functions of {len(working)} files: {', '.join(sorted(working))}")
