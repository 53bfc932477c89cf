"""The documentation: its code runs, every public name has a page, Sphinx does not warn."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
GUIDES = [DOCS / "quickstart.md", *sorted((DOCS / "guides").glob("*.md"))]


@pytest.fixture
def docs(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))


def public_names() -> list[tuple[str, str]]:
    """What the packages of the wheel export, but for the tables of the importers' readers."""
    pytest.importorskip("sklearn")  # the estimators
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = config["tool"]["setuptools"]["packages"]
    readers = ("tangency.cli", "tangency.models.importers.onnx_ops")
    readers += ("tangency.models.importers.torch_ops",)
    found = []
    for package in packages:
        if package not in readers:
            names = getattr(import_module(package), "__all__", ())
            found += [(package, name) for name in names if name != "__version__"]
    return found


def test_every_public_name_has_a_page(docs, tmp_path):
    from api_pages import write_api

    names = public_names()
    write_api(tmp_path)
    pages = {path.stem: path.read_text() for path in tmp_path.glob("*.md")}
    directives = r"^\.\. (?:autoclass|autofunction|py:data):: (\S+)$"
    documented = [d for text in pages.values() for d in re.findall(directives, text, re.MULTILINE)]
    assert len(names) > 200
    assert len(documented) == len(set(documented))
    for package, name in names:
        link = re.search(rf":py:obj:`{name} <(\S+)>`", pages[package])
        assert link, f"{package}.{name} is not on its page"
        assert link[1] in documented, f"{package}.{name} is documented nowhere"
        home, _, there = link[1].rpartition(".")
        assert getattr(import_module(home), there) is getattr(import_module(package), name)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_code_of_a_guide_runs(page, monkeypatch, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("sklearn")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("x : (N, *shape) or (*shape) array", r"x : (N, \*shape) or (\*shape) array"),
        ("``|A| <= (n, *d)`` of |A - c|", r"``|A| <= (n, *d)`` of \|A - c\|"),
        ("a *starred* word, :math:`|x|_2`", "a *starred* word, :math:`|x|_2`"),
        ("LipSDP [1]_ and 2 * 3", "LipSDP [1] and 2 * 3"),
    ],
)
def test_docstrings_become_restructured_text(docs, written, read):
    from docstrings import escaped

    assert escaped(written) == read


def test_code_and_formulas_in_docstrings_are_left_alone(docs):
    from docstrings import process

    code = [">>> f(*a)", "    .. math:: |x|", "", "        |y| *z", "", "    .. [2] A *b"]
    lines = list(code)
    process(None, "function", "f", None, None, lines)
    assert lines == [*code[:5], r"    #. A \*b"]


@pytest.mark.parametrize("passed", [True, False])
def test_the_page_of_a_paper_states_the_computed_verdict(docs, tmp_path, passed):
    from gallery import write_papers

    paper = tmp_path / "papers" / "2000_author_word"
    paper.mkdir(parents=True)
    verdict = {"name": paper.name, "claim": "a_b < c", "measured": {}, "target": "1 %"}
    verdict |= {"passed": passed, "figure": "figure.png"}
    (paper / "verdict.json").write_text(json.dumps(verdict))
    text = "# A title\n\n![curve](figure.png) [verdict.json](verdict.json) [x](https://x.org)\n"
    (paper / "README.md").write_text(text)
    assert write_papers(paper.parent, tmp_path / "out") == [paper.name]
    page = (tmp_path / "out" / paper.name / "index.md").read_text()
    word = "passed" if passed else "failed"
    assert f"Verdict: {word}" in page
    assert "Not drawn yet: curve" in page  # no run has left the plot
    assert "[verdict.json](verdict.json) [x](https://x.org)" in page
    index = (tmp_path / "out" / "index.md").read_text()
    assert f"[A title]({paper.name}/index.md)<br>a\\_b \\< c | {word} |" in index


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(find_spec, ("sphinx", "myst_nb", "furo"))), reason="needs the extra [docs]"
)
def test_the_pages_build_without_warnings(tmp_path):
    command = [sys.executable, str(DOCS / "build.py"), str(tmp_path), "--activations", "relu"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    html = tmp_path / "html"
    raw = (html / "objects.inv").read_bytes().split(b"\n", 4)[4]
    documented = {line.split()[0] for line in zlib.decompress(raw).decode().splitlines()}
    for package, name in public_names():
        tails = {entry for entry in documented if entry.rpartition(".")[2] == name}
        assert tails, f"{package}.{name} is not in the built pages"
    for page in GUIDES:
        assert (html / page.relative_to(DOCS)).with_suffix(".html").is_file()
