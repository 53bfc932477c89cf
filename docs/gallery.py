"""Pages of the gallery: the papers with their verdicts, the notebooks with their outputs."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

from tangency.theory.verdict import Verdict, read_verdict

__all__ = ["write_notebooks", "write_papers"]

_SHOWN = (".md", ".png", ".svg", ".json", ".py")


def write_papers(source: Path, folder: Path) -> list[str]:
    """Copy each paper's page and plots, the verdict above them, and write an index."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, found = [], []
    for paper in sorted(path.parent for path in source.glob("*/README.md")):
        target = folder / paper.name
        target.mkdir()
        for path in sorted(paper.iterdir()):
            if path.suffix in _SHOWN and path.is_file():
                shutil.copy(path, target / path.name)
        # Renamed, so that the folder of a paper opens at its page.
        title, _, rest = (target / "README.md").read_text(encoding="utf-8").partition("\n")
        (target / "README.md").unlink()
        written = paper / "verdict.json"
        verdict = read_verdict(written) if written.is_file() else None
        text = f"{title}\n\n{_box(verdict)}\n{_present(rest, target)}"
        (target / "index.md").write_text(text, encoding="utf-8")
        rows.append(_row(paper.name, title.lstrip("# "), verdict, target))
        found.append(paper.name)
    lines = ["# Papers", "", _ABOUT, ""]
    if rows:
        lines += ["| paper | verdict | plot |", "| --- | --- | --- |", *rows, ""]
    lines += _toctree([f"{name}/index" for name in found], hidden=bool(found))
    (folder / "index.md").write_text("\n".join(lines), encoding="utf-8")
    return found


def write_notebooks(source: Path, folder: Path) -> list[str]:
    """Copy the notebooks as they were executed, and write an index with a picture of each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, found = [], []
    for path in sorted(source.glob("*.ipynb")):
        shutil.copy(path, folder / path.name)
        title, picture = _first(path)
        plot = ""
        if picture is not None:
            (folder / f"{path.stem}.png").write_bytes(picture)
            plot = f"![{_plain(title)}]({path.stem}.png)"
        rows.append(f"| [{_plain(title)}]({path.name}) | {plot} |")
        found.append(path.stem)
    lines = ["# Notebooks", "", "Executed where they were written; the outputs are theirs.", ""]
    if not found:
        lines += ["There are none yet.", ""]
    else:
        lines += ["| notebook | one of its plots |", "| --- | --- |", *rows, ""]
        lines += _toctree(found, hidden=True)
    (folder / "index.md").write_text("\n".join(lines), encoding="utf-8")
    return found


def _first(notebook: Path) -> tuple[str, bytes | None]:
    """The heading of a notebook, and the first picture among its outputs."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    title = "".join(cells[0]["source"]).partition("\n")[0].lstrip("# ")
    for cell in cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {}).get("image/png")
            if data is not None:
                return title, base64.b64decode("".join(data))
    return title, None


_ABOUT = """Theorems of the field, reproduced with tangency's own modules. Each page has the claim
in plain words, the code that measures it, the plot, and a verdict: whether the target was met is
computed from what was measured. Targets were fixed before the runs; where one changed after an
earlier run, the page says so. `tangency papers run NAME --quick` runs one again."""


def _word(verdict: Verdict | None) -> str:
    return "not run" if verdict is None else "passed" if verdict.passed else "failed"


def _box(verdict: Verdict | None) -> str:
    """The verdict as a box above the page."""
    if verdict is None:
        return ":::{note}\nNo full run has left a verdict yet.\n:::\n"
    kind = "tip" if verdict.passed else "warning"
    text = f"**Claim.** {_plain(verdict.claim)}\n\n**Target.** {_plain(verdict.target)}"
    lines = [line.strip() for line in str(verdict).splitlines()[3:]]
    if lines:
        text += "\n\n**Measured.**\n\n" + "\n".join(f"- {_plain(line)}" for line in lines)
    return f":::{{admonition}} Verdict: {_word(verdict)}\n:class: {kind}\n\n{text}\n:::\n"


def _row(name: str, title: str, verdict: Verdict | None, target: Path) -> str:
    plot = ""
    if (
        verdict is not None
        and verdict.figure is not None
        and (target / verdict.figure.name).is_file()
    ):
        plot = f"![{name}]({name}/{verdict.figure.name})"
    claim = "" if verdict is None else f"<br>{_plain(verdict.claim)}"
    return f"| [{_plain(title)}]({name}/index.md){claim} | {_word(verdict)} | {plot} |"


def _present(text: str, folder: Path) -> str:
    """The text without links to files that no run has written yet."""
    text = text.replace("/README.md)", "/index.md)")

    def keep(found: re.Match[str]) -> str:
        there = (folder / found[3]).exists() or found[3].endswith("/index.md")
        return found[0] if there else f"*Not drawn yet: {found[2]}.*" if found[1] else found[2]

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s:#]+)\)", keep, text)


def _plain(text: str) -> str:
    """Text that Markdown does not take for markup."""
    for sign in ("\\", "|", "*", "_", "`", "$", "<"):
        text = text.replace(sign, "\\" + sign)
    return text


def _toctree(pages: list[str], *, hidden: bool = False) -> list[str]:
    head = ["```{toctree}", ":maxdepth: 1", *([":hidden:"] if hidden else []), ""]
    return [*head, *pages, "```", ""]
