"""Datasheets: every record has one, and a page of them."""

from __future__ import annotations

import json

import pytest

from tangency.models.activations import Activation, names
from tangency.models.errors import InputError
from tangency.theory.propagation import datasheet, write_datasheets


@pytest.mark.parametrize("name", names())
def test_every_record_has_a_datasheet(name):
    sheet = datasheet(name)
    text = str(sheet)
    assert text.startswith("name")
    assert name in text
    assert ("universality class" in text) == (sheet.card.moments is not None)
    json.dumps(sheet.as_dict())


def test_the_numbers_of_relu():
    sheet = datasheet("relu")
    assert sheet.dual_values[1.0] == pytest.approx(0.5)
    assert sheet.dual_values[0.0] == pytest.approx(0.5 / 3.141592653589793)
    assert "closed form" in str(sheet)
    assert "44.41 / l^2" in str(sheet)
    assert sheet.as_dict()["universality"]["name"] == "scale-invariant"


@pytest.mark.parametrize(("name", "panels"), [("silu", 3), ("log", 1), ("sign", 3)])
def test_pictures(name, panels):
    figure = datasheet(name).plot()
    assert len(figure.axes) == panels
    assert figure.axes[0].get_xlabel() == "x"


def test_a_record_of_ones_own():
    own = Activation("wobble", lambda nx, x: x + nx.sin(x) / 2.0)
    assert "universality class" in str(datasheet(own))


def test_a_page(tmp_path):
    page = write_datasheets(tmp_path / "sheets", ["tanh", "relu_squared"])
    text = page.read_text()
    assert "## relu_squared" in text
    assert "![tanh](tanh.png)" in text
    assert "| maxmin | (a, b) -> (max(a, b), min(a, b)) | 1 | sum, norm, gradient norm |" in text
    assert (tmp_path / "sheets" / "tanh.png").stat().st_size > 5000
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_datasheets(tmp_path / "file", ["tanh"])


def test_the_command_prints_and_writes(tmp_path, monkeypatch, capsys):
    import sys

    from tangency.cli import main
    from tangency.theory.propagation import datasheets

    def run(*args: object) -> str:
        monkeypatch.setattr(sys, "argv", ["tangency", "activations", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        return capsys.readouterr().out

    assert "universality class" in run("tanh")
    found = json.loads(run("tanh", "--json"))["activation"]
    assert found["universality"]["weight_variance"] == 1.0
    run("tanh", "--plot", tmp_path / "tanh.png")
    assert (tmp_path / "tanh.png").stat().st_size > 5000
    monkeypatch.setattr(datasheets, "names", lambda: ("relu",))
    assert "index.md" in run("--page", tmp_path / "all")
    assert "## relu" in (tmp_path / "all" / "index.md").read_text()
