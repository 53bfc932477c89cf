"""Every notebook runs as a script, and its committed page shows the code that runs."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
NAMES = [source.stem for source in SOURCES]


def _import_names(text):
    return set(re.findall(r"^\s*(?:import|from) (torch|sklearn|onnx)\b", text, re.MULTILINE))


def _cells(text):
    """Kind and text of the cells of a percent script, without its header."""
    body = re.sub(r"\A# ---\n.*?\n# ---\n", "", text, flags=re.DOTALL)
    parts = re.split(r"^# %%(.*)\n", body, flags=re.MULTILINE)
    assert not parts[0].strip()
    for mark, content in zip(parts[1::2], parts[2::2], strict=True):
        content = content.strip("\n")
        if "[markdown]" in mark:
            content = "\n".join(line[1:].removeprefix(" ") for line in content.splitlines())
            yield "markdown", content
        else:
            yield "code", content


def _page(source):
    return json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))


def test_there_are_six_and_the_index_names_them():
    assert len(SOURCES) == 6
    index = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert all(f"{name}.ipynb" in index and f"{name}.py" in index for name in NAMES)


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_a_notebook_runs_as_a_script(source, tmp_path):
    text = source.read_text(encoding="utf-8")
    for package in _import_names(text):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    assert re.search(r"^\s*assert ", list(_cells(text))[-1][1], re.MULTILINE)
    done = subprocess.run(
        [sys.executable, str(source)],
        cwd=ROOT,
        env={**os.environ, "MPLBACKEND": "agg", "MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_the_page_shows_the_script(source):
    shown = [(cell["cell_type"], "".join(cell["source"])) for cell in _page(source)["cells"]]
    assert shown == list(_cells(source.read_text(encoding="utf-8")))


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_the_page_was_executed_to_its_end(source):
    page = _page(source)
    code = [cell for cell in page["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not any(o["output_type"] == "error" or o.get("name") == "stderr" for o in outputs)
    pictures = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert pictures
    for picture in pictures:
        # Width in pixels of a PNG: 80 to the inch, and no page is wider than 15 inches.
        header = base64.b64decode("".join(picture)[:64])
        assert int.from_bytes(header[16:20], "big") <= 1200
    assert source.with_suffix(".ipynb").stat().st_size < 400_000


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_the_page_says_nothing_of_the_machine(source):
    page = _page(source)
    assert page["metadata"]["kernelspec"]["name"] == "python3"
    assert set(page["metadata"]) <= {"jupytext", "kernelspec"}
    assert not any(cell["metadata"] for cell in page["cells"])
    for cell in page["cells"]:
        for output in cell.get("outputs", []):
            texts = [output.get("text", ""), output.get("data", {}).get("text/plain", "")]
            words = "".join("".join(text) for text in texts)
            assert not re.search(r"/(home|work|root|usr|tmp|opt)\b|/shared/", words)
