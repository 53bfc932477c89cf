"""``tangency papers``: the reproductions of a checkout, their verdicts, and running one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from tangency._version import __version__
from tangency.cli.common import Outputs, emit
from tangency.files import write

if TYPE_CHECKING:
    from tangency.theory.verdict import Verdict

__all__ = ["command", "folder_of_papers", "load_reproduction", "write_index"]

_WIDEST = 170  # of a line of figures in the index


def folder_of_papers() -> Path:
    """The folder ``papers/`` of the checkout: of the working folder, or of this installation.

    Raises
    ------
    InputError
        If there is none: a wheel does not carry the papers.
    """
    from tangency.models.errors import InputError

    home = Path(__file__).resolve()
    for root in (Path.cwd(), *home.parents):
        if (root / "papers").is_dir() and (root / "src" / "tangency").is_dir():
            return root / "papers"
    raise InputError(
        "the papers are not part of an installed package: run this in a checkout of the repository"
    )


def load_reproduction(folder: Path) -> ModuleType:
    """The module ``reproduce.py`` of a paper's folder.

    Raises
    ------
    InputError
        If there is no such file.
    """
    from tangency.models.errors import InputError

    path = folder / "reproduce.py"
    if not path.is_file():
        near = ", ".join(name for name, _ in _reproductions(folder.parent))
        raise InputError(f"no paper is called {folder.name!r}; there are {near or 'none'}")
    spec = importlib.util.spec_from_file_location(f"reproduce_{folder.name}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def write_index(folder: Path) -> Path:
    """Write ``README.md`` of the gallery: a row a paper, from the verdicts that were computed."""
    rows = [
        "# Papers",
        "",
        "One folder a paper: the claim, the code that reproduces it with tangency's own modules,",
        "the plot, and a verdict that is computed. `tangency papers` lists them,",
        "`tangency papers run NAME --quick` runs one. This page is written by",
        "`tangency papers --index`.",
        "",
        "| paper | claim | verdict | measured | plot |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, verdict in _reproductions(folder):
        pictures = sorted((folder / name).glob("*.png"))
        if verdict is not None and verdict.figure is not None:
            pictures = [verdict.figure]
        source = f"{name}/{pictures[0].name}" if pictures else ""
        plot = f'<img src="{source}" width="260" alt="{name}">' if source else ""
        claim = "" if verdict is None else verdict.claim.replace("|", "\\|")
        cells = (
            f"[{_title(folder / name)}]({name}/README.md)<br>`{name}`",
            claim,
            _word(verdict),
            _figures(name, verdict),
            plot,
        )
        rows.append(f"| {' | '.join(cells)} |")
    path = folder / "README.md"
    write(path, "\n".join(rows) + "\n")
    return path


def _reproductions(folder: Path) -> list[tuple[str, Verdict | None]]:
    """Names of the papers, with the verdict of the last full run where there is one."""
    from tangency.theory.verdict import read_verdict

    found = []
    for path in sorted(folder.glob("*/reproduce.py")):
        written = path.parent / "verdict.json"
        found.append((path.parent.name, read_verdict(written) if written.is_file() else None))
    return found


def _title(folder: Path) -> str:
    """The heading of a paper's page."""
    page = folder / "README.md"
    if not page.is_file():
        return folder.name
    return page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").replace("|", "\\|")


def _figures(name: str, verdict: Verdict | None) -> str:
    """What was measured, for a cell of the table: the short lines, and where the others are."""
    if verdict is None:
        return ""
    lines = [line.strip() for line in str(verdict).splitlines()[3:]]
    short = [line.replace("|", "\\|") for line in lines if len(line) <= _WIDEST]
    if len(short) < len(lines):
        short.append(f"[all figures]({name}/verdict.json)")
    return "<br>".join(short)


def _word(verdict: Verdict | None) -> str:
    return "not run" if verdict is None else "passed" if verdict.passed else "failed"


@click.group(name="papers", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--index", is_flag=True, help="Write the page of all papers, papers/README.md.")
@click.pass_context
def command(context: click.Context, as_json: bool, index: bool) -> None:
    """List the papers that tangency reproduces, with their verdicts.

    The verdicts are those of the last full runs. The papers lie in a checkout of the repository,
    not in an installed package.
    """
    if context.invoked_subcommand is not None:
        return
    folder = folder_of_papers()
    found = _reproductions(folder)
    data: dict[str, Any] = {
        "tangency": __version__,
        "papers": [
            {"name": name, "verdict": None if v is None else v.as_dict()} for name, v in found
        ],
    }
    lines = []
    for name, verdict in found:
        lines.append(f"{_word(verdict):8}{name}")
        if verdict is not None:
            lines.append(f"        {verdict.claim}")
    if index:
        lines.append(f"written: {write_index(folder)}")
    emit(as_json, data, "\n".join(lines) or f"{folder} holds no papers")


@command.command(name="run")
@click.argument("name")
@click.option("--quick", is_flag=True, help="Under a minute, fewer samples; writes nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def run(name: str, quick: bool, as_json: bool) -> None:
    """Run the reproduction of the paper NAME; exit status 1 if it does not meet its target.

    A full run leaves the verdict and the plot in the paper's folder.
    """
    folder = folder_of_papers() / name
    verdict: Verdict = load_reproduction(folder).main(quick)
    files = Outputs()
    if not quick:
        files.write(folder / "verdict.json", write, verdict.to_json() + "\n")
    data = {"tangency": __version__, "quick": quick, "verdict": verdict.as_dict()}
    files.emit(as_json, data, str(verdict))
    if not verdict.passed:
        raise SystemExit(1)
