"""The README does what it says: its commands name real files, its code runs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def at_root():
    before = Path.cwd()
    os.chdir(ROOT)
    yield
    os.chdir(before)


def test_first_command_prints_what_the_readme_shows(at_root, monkeypatch, capsys):
    pytest.importorskip("onnx")
    from tangency.cli import main

    command, shown = BLOCKS[0][1], BLOCKS[1][1]
    arguments = command.split("/tangency ")[1].split()
    monkeypatch.setattr(sys, "argv", ["tangency", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code

    def facts(text: str) -> list[str]:
        # Times differ, and the last digits depend on the machine's linear algebra.
        lines = [line for line in text.strip().splitlines() if "  time " not in line]
        return [re.sub(r"(\d+\.\d{1,2})\d*", r"\1", line) for line in lines]

    assert facts(capsys.readouterr().out) == facts(shown)


def test_python_examples_run(at_root, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("jax")
    first, second, third = [body for language, body in BLOCKS if language == "python"][:3]
    names: dict[str, object] = {}
    exec(compile(first, "README.md", "exec"), names)
    second = second.replace("robust.cert", str(tmp_path / "robust.cert"))
    exec(compile(second, "README.md", "exec"), names)
    exec(compile(third, "README.md", "exec"), names)
    assert names["share"] > 0.8
    assert len(names["K"]) == len(names["x"])
    assert (names["steep"].lower <= names["steep"].upper).all()
    assert names["rises"].verdicts.size == 10
    assert (tmp_path / "robust.cert").exists()
    assert names["kernel"].shape == (100, 100)
    assert names["bound"].certified
    assert (names["logit_bounds"].lower <= names["logits"] + 1e-4).all()


def test_every_command_of_the_table_exists():
    from tangency.cli import COMMANDS

    named = set(re.findall(r"`tangency (\w+)", TEXT))
    assert named == set(COMMANDS)
