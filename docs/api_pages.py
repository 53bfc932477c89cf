"""Pages of the API, one a package, from what the packages export.

A name that several packages export is documented once, at home: in the package that its module
lies in. The others list it with a link.
"""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

from docstrings import escaped

import tangency

__all__ = ["INTERNAL", "homes", "public_packages", "write_api"]

#: Packages whose names are for tangency's own importers and commands.
INTERNAL = (
    "tangency.cli",
    "tangency.gpu.kernels",
    "tangency.models.importers.onnx_ops",
    "tangency.models.importers.torch_ops",
)


def public_packages() -> list[str]:
    """Names of the packages that export something to users."""
    found = [tangency.__name__]
    for info in pkgutil.walk_packages(tangency.__path__, "tangency."):
        if info.ispkg and info.name not in INTERNAL:
            found.append(info.name)
    return [name for name in sorted(found) if getattr(import_module(name), "__all__", ())]


def homes(packages: list[str]) -> dict[tuple[str, str], str]:
    """The package that documents each (package, name)."""
    exporters: dict[int, list[str]] = {}
    things: dict[tuple[str, str], Any] = {}
    for package in packages:
        module = import_module(package)
        for name in module.__all__:
            things[package, name] = thing = getattr(module, name)
            exporters.setdefault(id(thing), []).append(package)
    found = {}
    for key, thing in things.items():
        module_name = getattr(thing, "__module__", None) or ""

        def shared(package: str, module_name: str = module_name) -> tuple[int, int]:
            inside = f"{module_name}.".startswith(f"{package}.")
            return (package.count(".") if inside else -1, -package.count("."))

        named = [p for p in exporters[id(thing)] if (p, key[1]) in things]
        found[key] = max(named, key=shared)
    return found


def write_api(folder: Path) -> list[str]:
    """Write ``index.md`` and a page for each package; returns the packages."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = public_packages()
    home = homes(packages)
    for package in packages:
        (folder / f"{package}.md").write_text(_page(package, home), encoding="utf-8")
    toctree = "\n".join(packages)
    text = f"# API\n\nOne page a package.\n\n```{{toctree}}\n:maxdepth: 1\n\n{toctree}\n```\n"
    (folder / "index.md").write_text(text, encoding="utf-8")
    return packages


def _page(package: str, home: dict[tuple[str, str], str]) -> str:
    module = import_module(package)
    names = [name for name in module.__all__ if name != "__version__"]
    lines = [f"# {package}", "", "```{eval-rst}", f".. automodule:: {package}", "   :no-members:"]
    lines += ["", ".. list-table::", "   :widths: 30 70", ""]
    for name in names:
        link = f":py:obj:`{name} <{home[package, name]}.{name}>`"
        lines += [f"   * - {link}", f"     - {_summary(getattr(module, name))}"]
    for name in names:
        if home[package, name] == package:
            lines += ["", *_directive(f"{package}.{name}", getattr(module, name))]
    return "\n".join([*lines, "```", ""])


def _is_documented(thing: Any) -> bool:
    return inspect.isclass(thing) or inspect.isroutine(thing)


def _summary(thing: Any) -> str:
    """The first paragraph of a docstring; a constant has none of its own."""
    if not _is_documented(thing):
        return "Constant."
    text = (inspect.getdoc(thing) or "").split("\n\n")[0]
    return escaped(" ".join(text.split()))


def _directive(path: str, thing: Any) -> list[str]:
    if inspect.isclass(thing):
        return [f".. autoclass:: {path}", "   :members:"]
    if _is_documented(thing):
        return [f".. autofunction:: {path}"]
    shown = repr(thing)
    return [f".. py:data:: {path}", "", f"   ``{shown}``" if len(shown) < 200 else ""]
