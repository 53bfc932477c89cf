"""Execute the notebooks: each ``<name>.py`` runs in a fresh kernel and gives ``<name>.ipynb``.

    python notebooks/execute.py [name ...]

needs the extra [notebooks]. What depends on the machine or on the hour is left out (kernel
versions, timings, random cell names), so that the same code and outputs give the same file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def execute(source: Path) -> Path:
    """Run one notebook and write it with its outputs beside the source."""
    notebook = jupytext.read(source)
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(HERE)}},
    ).execute()
    notebook.metadata = nbformat.from_dict(
        {"jupytext": {"formats": "py:percent,ipynb"}, "kernelspec": KERNEL}
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for place, cell in enumerate(notebook.cells):
        cell.id = f"cell-{place:02d}"
        cell.metadata = nbformat.from_dict({})
    text = nbformat.writes(notebook)
    for private in (str(HERE.parent), str(Path.home())):
        if len(private) > 1 and private in text:
            raise ValueError(f"{source.name}: an output holds the machine's path {private}")
    target = source.with_suffix(".ipynb")
    target.write_text(text + "\n", encoding="utf-8")
    return target


if __name__ == "__main__":
    os.environ.pop("MPLBACKEND", None)  # the kernel draws into the page
    chosen = sys.argv[1:]
    for path in sorted(HERE.glob("[0-9]*.py")):
        if not chosen or path.stem in chosen:
            written = execute(path)
            sys.stderr.write(f"{written.name}: {written.stat().st_size / 1000:.0f} kB\n")
