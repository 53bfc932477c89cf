"""Build the documentation: ``python docs/build.py [FOLDER]``, by default ``build/docs``.

The pages that are written by hand lie here. The API, the gallery and the activations' datasheets
follow from the code, the papers and the notebooks of the checkout: they are written beside copies
of the others in ``FOLDER/source`` and never committed. A warning of Sphinx is an error.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))  # the modules beside this one

__all__ = ["assemble", "build"]


def assemble(source: Path, activations: Iterable[str] | None = None) -> Path:
    """Put all pages together in a folder, which is made anew.

    Parameters
    ----------
    source : Path
    activations : names, optional
        Of the datasheets; by default the whole catalogue.
    """
    from api_pages import write_api
    from gallery import write_notebooks, write_papers

    from tangency.theory.propagation import write_datasheets

    if source.exists():
        shutil.rmtree(source)
    source.mkdir(parents=True)
    for page in (HERE / "conf.py", *sorted(HERE.rglob("*.md"))):
        target = source / page.relative_to(HERE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, target)
    write_api(source / "api")
    write_papers(ROOT / "papers", source / "papers")
    write_notebooks(ROOT / "notebooks", source / "notebooks")
    write_datasheets(source / "activations", activations)
    return source


def build(folder: Path, activations: Iterable[str] | None = None) -> Path:
    """Build the pages as HTML; returns the first one.

    Raises
    ------
    SystemExit
        If Sphinx warns or fails.
    """
    from sphinx.cmd.build import main

    source, pages = assemble(folder / "source", activations), folder / "html"
    status = main(["-q", "-W", "--keep-going", "-E", "-b", "html", str(source), str(pages)])
    if status:
        raise SystemExit(status)
    return pages / "index.html"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "docs")
    parser.add_argument("--activations", nargs="*", help="of the datasheets; by default all")
    arguments = parser.parse_args()
    sys.stdout.write(f"{build(arguments.folder, arguments.activations)}\n")
