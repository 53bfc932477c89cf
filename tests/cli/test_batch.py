"""``tangency batch``: rows of a manifest as processes, kept results, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tangency.cli import cli
from tangency.models import from_layers
from tangency.models.errors import InputError

pytest.importorskip("onnx", reason="the example is an ONNX file")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def write(folder, *rows):
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def run(path, *options):
    arguments = ["batch", str(path), "--out", str(path.parent / "results"), *map(str, options)]
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def folder(tmp_path):
    shutil.copy(EXAMPLES / "digits_maxmin.onnx", tmp_path / "net.onnx")
    return tmp_path


def test_certificates_of_a_manifest_and_what_is_there_is_kept(folder):
    rows = [
        {
            "name": "proved",
            "run": ["certify", "net.onnx", "--method", "product", "--out", "p.cert"],
        },
        {"name": "checked", "run": ["inspect", "net.onnx"]},
        {"name": "missing", "run": ["inspect", "no.onnx"]},
    ]
    answer = run(write(folder, *rows), "--jobs", 2, "--json")
    assert answer.exit_code == 2, answer.output
    found = json.loads(answer.stdout)["rows"]
    assert [row["status"] for row in found] == [0, 0, 2]
    assert found[0]["answer"]["certified"] is True
    assert "no.onnx" in found[2]["error"]
    assert (folder / "p.cert").is_file()

    # The second call runs nothing that has a result, and says what it has only read.
    kept = folder / "results" / "checked.json"
    before = kept.stat().st_mtime_ns
    (folder / "results" / "missing.json").unlink()
    rows[2]["run"] = ["check", "p.cert", "net.onnx"]
    answer = run(write(folder, *rows))
    assert answer.exit_code == 0, answer.output
    assert kept.stat().st_mtime_ns == before
    assert json.loads((folder / "results" / "missing.json").read_text())["answer"]["holds"] is True
    proved, checked, ran = answer.output.splitlines()[-4:-1]
    assert proved.endswith(f"proved on an earlier run  read from {folder / 'results/proved.json'}")
    assert checked.endswith("checked.json")
    assert "read from" not in ran
    assert "certified" not in answer.output
    found = json.loads(run(write(folder, *rows), "--json").stdout)["rows"]
    assert [Path(row["read"]).name for row in found] == [f"{row['name']}.json" for row in rows]
    assert "3 rows, 3 answered" in answer.output

    # A result of another command is not taken for this one's.
    rows[0]["run"] = ["inspect", "net.onnx"]
    answer = run(write(folder, *rows))
    assert isinstance(answer.exception, InputError)
    assert "another command" in str(answer.exception)


def product(folder, scale):
    """A network whose constant is the square of its scale."""
    from_layers([scale * np.eye(2)] * 2, "relu").save(folder / "m.tangency")


@pytest.mark.parametrize("option", [["--out", "m.cert"], ["--out=m.cert"]])
def test_a_result_is_of_the_files_that_its_row_names(tmp_path, option):
    product(tmp_path, 1.0)
    row = {"name": "one", "run": ["certify", "m.tangency", "--method", "product", *option]}
    path = write(tmp_path, row)
    for _ in range(3):  # what a row writes itself is no input of it
        answer = run(path, "--json")
        assert json.loads(answer.stdout)["rows"][0]["answer"]["upper"] == pytest.approx(1.0)
    product(tmp_path, 5.0)
    answer = run(path)
    assert isinstance(answer.exception, InputError)
    assert "one.json is of other contents of m.tangency" in str(answer.exception)


def test_weights_beside_an_onnx_model_are_of_its_contents(folder, monkeypatch):
    onnx = pytest.importorskip("onnx")
    options = {"save_as_external_data": True, "location": "net.weights", "size_threshold": 0}
    onnx.save(onnx.load(folder / "net.onnx"), folder / "net.onnx", **options)
    done = subprocess.CompletedProcess([], 0, '{"upper": 1.0, "certified": true}', "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    path = write(folder, {"name": "one", "run": ["certify", "net.onnx"]})
    assert [run(path).exit_code for _ in range(2)] == [0, 0]
    weights = bytearray((folder / "net.weights").read_bytes())
    weights[0] ^= 1
    (folder / "net.weights").write_bytes(weights)
    assert "other contents of net.weights" in str(run(path).exception)


def test_a_file_that_was_missing_and_came_is_another_input(tmp_path, monkeypatch):
    done = subprocess.CompletedProcess([], 2, "", "m.tangency: no such file")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    path = write(tmp_path, {"name": "one", "run": ["inspect", "m.tangency"]})
    assert run(path).exit_code == 2
    product(tmp_path, 1.0)
    answer = run(path)
    assert "other contents of m.tangency" in str(answer.exception)


@pytest.mark.parametrize(
    "edit",
    [
        lambda found: found["answer"].update(upper=0.5),
        lambda found: found.update(error=3),
        lambda found: found.pop("status"),
        lambda found: found.pop("digest"),
        lambda found: found.clear(),
    ],
)
def test_a_result_that_was_edited_is_refused_before_a_row_is_run(tmp_path, edit, monkeypatch):
    done = subprocess.CompletedProcess([], 0, '{"upper": 1.0, "certified": true}', "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    row = {"name": "one", "run": ["certify", "m.tangency", "--method", "product"]}
    assert run(write(tmp_path, row)).exit_code == 0
    kept = tmp_path / "results" / "one.json"
    found = json.loads(kept.read_text())
    edit(found)
    kept.write_text(json.dumps(found))
    answer = run(write(tmp_path, {"name": "two", "run": ["inspect", "m"]}, row))
    assert isinstance(answer.exception, InputError)
    assert "one.json is no result as batch wrote it" in str(answer.exception)
    assert not (tmp_path / "results" / "two.json").exists()


@pytest.mark.parametrize("out", ["jobs.jsonl", "jobs.jsonl/results", "/proc/none"])
def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path, out):
    path = write(tmp_path, {"name": "one", "run": ["inspect", "m"]})
    answer = CliRunner().invoke(cli, ["batch", str(path), "--out", str(tmp_path / out)])
    assert isinstance(answer.exception, InputError)
    assert out in str(answer.exception)


def test_an_unexpected_error_of_a_row_is_no_answer(folder, monkeypatch):
    def crash(*args, **options):
        return subprocess.CompletedProcess(args, 3, '{"error": "ValueError: x"}', "Traceback\nx")

    monkeypatch.setattr(subprocess, "run", crash)
    answer = run(write(folder, {"name": "a", "run": ["inspect", "net.onnx"]}), "--json")
    assert answer.exit_code == 3
    (row,) = json.loads(answer.stdout)["rows"]
    assert (row["status"], row["error"]) == (3, "Traceback\nx")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1: not JSON"),
        ('{"name": "a"}', "line 1: give"),
        ('\n{"name": "a", "run": "certify"}', "line 2: give"),
        ('{"name": "a", "run": ["batch", "x"]}', "does not run batches"),
        ('{"name": "../a", "run": ["inspect"]}', "unique name"),
    ],
)
def test_a_wrong_manifest_is_refused_by_its_line(tmp_path, text, said):
    path = tmp_path / "jobs.jsonl"
    path.write_text(text, encoding="utf-8")
    answer = run(path)
    assert isinstance(answer.exception, InputError)
    assert said in str(answer.exception)


def test_no_manifest_and_no_scheduler(tmp_path):
    answer = run(tmp_path / "none.jsonl")
    assert isinstance(answer.exception, InputError)
    assert "cannot be read" in str(answer.exception)
    pytest.importorskip("distributed")
    path = write(tmp_path, {"name": "a", "run": ["inspect", "x"]})
    answer = run(path, "--scheduler", "tcp:/nowhere")
    assert isinstance(answer.exception, InputError)
    assert "--scheduler" in str(answer.exception)


@pytest.mark.filterwarnings("ignore")
def test_workers_of_a_scheduler_run_the_rows(folder):
    distributed = pytest.importorskip("distributed")
    path = write(folder, *({"name": f"row{k}", "run": ["inspect", "net.onnx"]} for k in range(2)))
    with distributed.LocalCluster(
        n_workers=1, processes=False, dashboard_address=None, silence_logs=60
    ) as cluster:
        answer = run(path, "--scheduler", cluster.scheduler_address, "--json")
    assert answer.exit_code == 0, answer.output
    assert [row["status"] for row in json.loads(answer.stdout)["rows"]] == [0, 0]


def test_a_killed_batch_goes_on_where_it_was(folder):
    """The second row stands in the opening of a pipe, so that the kill falls there."""
    pipe = folder / "claim.cert"
    os.mkfifo(pipe)
    rows = [
        {"name": "first", "run": ["inspect", "net.onnx"]},
        {"name": "second", "run": ["check", "claim.cert", "net.onnx"]},
    ]
    manifest = write(folder, *rows)
    command = [sys.executable, "-c", "from tangency.cli import main; main()", "batch", manifest]
    with subprocess.Popen(
        [*command, "--out", folder / "results"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as child:
        with pipe.open("wb"):  # opens when the second row has come to read
            os.killpg(child.pid, signal.SIGKILL)
    assert os.listdir(folder / "results") == ["first.json"]
    before = (folder / "results" / "first.json").stat()
    pipe.unlink()
    pipe.write_bytes(b"no certificate")
    answer = run(manifest, "--json")
    assert answer.exit_code == 2
    found = json.loads(answer.stdout)["rows"]
    assert [row["status"] for row in found] == [0, 2]
    assert (folder / "results" / "first.json").stat().st_mtime_ns == before.st_mtime_ns
