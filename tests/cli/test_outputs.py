"""What a command writes: looked at before the work, and no answer is lost where it fails after."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import click
import numpy as np
import pytest

import tangency
from tangency.cli import COMMANDS, main
from tangency.cli.common import OutputPath

FULL = Path("/dev/full")
NAMES = ("out", "plot", "page", "results", "checkpoint")


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tangency", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return call


def outputs(command: click.Command) -> list[click.Parameter]:
    return [p for p in command.params if p.name in NAMES]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_output_is_looked_at_first(name, run, tmp_path):
    """The model is not there either, and what is said is that the output cannot be written."""
    command = import_module(f"tangency.cli.{COMMANDS[name][0]}").command
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    for option in outputs(command):
        kind = option.type
        assert isinstance(kind, OutputPath), option.name
        suffix = ".png" if kind.suffixes else ".npz"
        bad = ["file/x"] if kind.folder else [f"no/x{suffix}", f"folder{suffix}", f"file/x{suffix}"]
        for path in bad:
            code, text, err = run(name, "nowhere.onnx", option.opts[0], tmp_path / path)
            assert (code, text) == (2, ""), (option.name, path)
            assert f"{path}: cannot be written" in err


def test_what_is_a_file_is_no_folder(run, tmp_path):
    path = tmp_path / "file"
    path.touch()
    for command in (("certify", "x.onnx"), ("batch", "x.jsonl")):
        code, _, err = run(*command, "--out", path)
        assert code == 2
        assert "Not a directory" in err


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=s) for s in ((4, 3), (2, 4))]
    tangency.from_layers(layers, "relu").save(folder / "net.tangency")
    np.savez(folder / "data.npz", x=rng.normal(size=(3, 3)), y=np.array([0, 1, 0]))
    for name in ("full.npz", "full.cert", "full.json", "full.png"):
        (folder / name).symlink_to(FULL)
    return folder


@pytest.mark.skipif(not FULL.exists(), reason="this system has no full device")
@pytest.mark.parametrize(
    "words",
    [
        "bounds NET --box 0:1 --method ibp --out full.npz",
        "bounds NET --box 0:1 --method ibp --out full.cert",
        "bounds NET --box 0:1 --method ibp --plot full.png",
        "bounds NET --data DATA --eps 0.1 --attack none --out full.npz",
        "bounds NET --data DATA --eps 0.1 --attack none --plot full.png",
        "certify NET --method product --out full.cert",
        "certify NET --method product --out full.json",
        "certify NET --method product --plot full.png",
        "certify NET --method product --local DATA --eps 0.1 --limit 1 --out full.cert",
        "certify NET --method product --local DATA --eps 0.1 --out full.npz",
        "certify NET --data DATA --eps 0.1 --out full.npz",
        "kernel NET --data DATA --out full.npz",
        "ntk NET --data DATA --out full.npz",
        "inspect NET --out full.npz",
        "inspect NET --plot full.png",
        "activations relu --plot full.png",
    ],
)
def test_an_answer_is_printed_when_the_disk_is_full(words, place, run, monkeypatch):
    monkeypatch.chdir(place)
    words = words.replace("NET", "net.tangency").replace("DATA", "data.npz")
    code, text, err = run(*words.split(), "--json")
    assert code == 2
    assert "No space left" in err
    answer = json.loads(text)
    assert answer["tangency"]
    if "--out full.npz" in words and "inspect" not in words:
        assert answer["out"] is None
    if "full.cert" in words:
        assert (answer["results"][0] if "--local" in words else answer)["certificate"] is None


def test_what_nobody_foresaw_is_told_after_the_answer(place, run, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr("tangency.cli.bounds_answers.save_plot", lambda *_: 1 / 0)
    code, text, err = run("bounds", "net.tangency", "--box", "0:1", "--plot", "x.png", "--json")
    assert code == 3
    assert json.loads(text)["certified"] is True
    assert "ZeroDivisionError" in err


def test_no_certificate_to_write_is_told_after_the_answer(place, run, monkeypatch):
    monkeypatch.chdir(place)
    how = ("--data", "data.npz", "--eps", "100", "--out", "x.cert", "--json")
    code, text, err = run("certify", "net.tangency", *how)
    assert code == 1
    assert json.loads(text)["certified_accuracy"] == 0.0
    assert "no sample was proved robust" in err
