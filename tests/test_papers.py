"""Every folder of papers/ reproduces in its quick form, and says what it is in one form."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tangency.cli import main
from tangency.cli.papers import folder_of_papers, load_reproduction, write_index
from tangency.models.errors import InputError
from tangency.theory.verdict import Verdict, read_verdict, reproduce

PAPERS = Path(__file__).resolve().parents[1] / "papers"
FOLDERS = sorted(path.parent for path in PAPERS.glob("*/reproduce.py"))
NAMES = [folder.name for folder in FOLDERS]

# A full run may miss its line; then the page says so under these words. Quick forms meet theirs.
MISSED = {"2024_wang_hierarchical": "What fails"}

# Quick forms of more than some ten seconds of processor time.
SLOW = {"2023_day_orthogonal", "2023_yang_kernel", "2024_mao_ibp", "2024_wang_hierarchical"}


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(f, id=f.name, marks=[pytest.mark.slow] if f.name in SLOW else [])
        for f in FOLDERS
    ],
)
def test_a_paper_reproduces(folder):
    start = time.process_time()
    verdict = load_reproduction(folder).main(True)
    assert isinstance(verdict, Verdict)
    assert verdict.passed is True, str(verdict)
    assert verdict.name == folder.name
    assert verdict.claim
    assert verdict.target
    assert verdict.measured
    json.loads(verdict.to_json())
    assert time.process_time() - start < 60.0


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_a_paper_has_its_page_and_its_plot(folder):
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "arxiv" in page.lower() or "openreview" in page.lower()
    pictures = list(folder.glob("*.png"))
    assert pictures
    assert all(picture.stat().st_size < 200_000 for picture in pictures)
    if (folder / "verdict.json").is_file():
        verdict = read_verdict(folder / "verdict.json")
        assert verdict.passed is (folder.name not in MISSED), str(verdict)
        assert folder.name not in MISSED or MISSED[folder.name] in page
        assert verdict.figure is None or verdict.figure.is_file()


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tangency", "papers", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return call


def test_the_command_lists_and_runs(run, tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    (checkout / "src" / "tangency").mkdir(parents=True)
    for name, holds in (("2000_good_word", True), ("2001_bad_word", False)):
        folder = checkout / "papers" / name
        folder.mkdir(parents=True)
        (folder / "reproduce.py").write_text(
            "from tangency.theory.verdict import Verdict\n"
            f"def main(quick):\n    return Verdict({name!r}, 'c', {{'x': 1.0}}, 't', {holds})\n"
        )
    monkeypatch.chdir(checkout)
    status, text, _ = run()
    assert status == 0
    assert text.splitlines() == ["not run 2000_good_word", "not run 2001_bad_word"] or (
        "2000_good_word" in text
    )
    assert run("run", "2000_good_word", "--quick")[0] == 0
    assert not (checkout / "papers" / "2000_good_word" / "verdict.json").exists()
    assert run("run", "2001_bad_word", "--quick")[0] == 1
    status, text, _ = run("run", "2000_good_word", "--json")
    assert json.loads(text)["verdict"]["passed"] is True
    status, text, _ = run("--json")
    listed = {p["name"]: p["verdict"] for p in json.loads(text)["papers"]}
    assert listed["2000_good_word"]["passed"] is True
    assert listed["2001_bad_word"] is None
    status, _, error = run("run", "2002_no_word")
    assert status == 2
    assert "2000_good_word" in error
    verdict = checkout / "papers" / "2000_good_word" / "verdict.json"
    long = json.loads(verdict.read_text()) | {"measured": {"x": 1.0, "all": list(range(60))}}
    verdict.write_text(json.dumps(long))
    page = write_index(checkout / "papers").read_text()
    assert "x: 1<br>[all figures](2000_good_word/verdict.json)" in page
    assert "| passed |" in page
    assert "| not run |" in page


def test_without_a_checkout_the_command_says_so(monkeypatch, tmp_path):
    import tangency.cli.papers as module

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site" / "tangency" / "papers.py"))
    with pytest.raises(InputError, match="checkout"):
        folder_of_papers()


def test_a_verdict_is_written_and_read(tmp_path, capsys):
    verdict = Verdict(
        "name",
        "claim",
        {"a": np.float64(1.5), "b": np.arange(2), "c": float("nan"), "d": {"e": (1, True)}},
        "target",
        True,
        tmp_path / "figure.png",
    )
    reproduce(lambda quick: verdict, tmp_path, [])
    printed = json.loads(capsys.readouterr().out)
    assert printed["measured"] == {"a": 1.5, "b": [0, 1], "c": None, "d": {"e": [1, True]}}
    back = read_verdict(tmp_path / "verdict.json")
    assert back.figure == tmp_path / "figure.png"
    assert back.as_dict() == verdict.as_dict()
    assert "a: 1.5" in str(verdict)


def test_a_failed_reproduction_exits_with_1(tmp_path, capsys):
    verdict = Verdict("name", "claim", {}, "target", False)
    with pytest.raises(SystemExit) as stop:
        reproduce(lambda quick: verdict, tmp_path, ["--quick"])
    assert stop.value.code == 1
    assert not (tmp_path / "verdict.json").exists()


def test_a_damaged_verdict_is_refused(tmp_path):
    (tmp_path / "verdict.json").write_text("{}")
    with pytest.raises(InputError, match="not a verdict"):
        read_verdict(tmp_path / "verdict.json")
    with pytest.raises(InputError):
        read_verdict(tmp_path / "nothing.json")
