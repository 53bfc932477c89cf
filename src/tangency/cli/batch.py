"""``tangency batch``: the commands of a manifest, here or on many machines."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from tangency.cli.common import OutputPath, Progress, emit, round_up

__all__ = ["Job", "command"]

_START = "import sys; from tangency.cli import main; sys.exit(main())"
_ANSWERS = {0: "answered", 1: "not proved"}


class Job:
    """A row of a manifest as a process of its own; pickled to the workers.

    Parameters
    ----------
    folder : str
        Where the process runs: paths in the manifest are relative to it.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The command, its exit status, its answer or what it said instead, and its seconds."""
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _START, *row["run"], "--json"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode < 0 or done.returncode >= 128:
            # Killed from outside: no answer of the command's own, so that it is run again.
            raise RuntimeError(f"row {row['name']!r}: killed, status {done.returncode}")
        try:
            answer = json.loads(done.stdout)
        except json.JSONDecodeError:
            answer = None
        return {
            "name": row["name"],
            "run": row["run"],
            "status": done.returncode,
            "answer": answer,
            "error": done.stderr.strip() if answer is None or done.returncode >= 2 else "",
            "seconds": round(time.perf_counter() - begun, 3),
        }


@click.command(name="batch")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "--out",
    "results",
    type=OutputPath(folder=True),
    required=True,
    help="Folder of the results, NAME.json for each row; what is there is not run again.",
)
@click.option("--jobs", default=1, metavar="N", help="Rows at once on this machine [default: 1].")
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Address of a Dask scheduler, whose workers run the rows: extra [cluster].",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(manifest: Path, results: Path, jobs: int, scheduler: str | None, as_json: bool) -> None:
    """Run every row of MANIFEST as a tangency command, and keep each answer in a file.

    MANIFEST has one JSON object a line: {"name": "digits", "run": ["certify",
    "examples/digits_maxmin.onnx"]}. The arguments are those of the command line; --json is added.
    Paths are relative to the manifest's folder, which the workers must see too. A row that
    was killed with its worker is run again; a call that was interrupted goes on when it is made
    again. Delete a result's file to run its row anew.

    Exit status: 0 all rows were answered; 1 some were not proved; 2 bad input, here or in a row;
    3 an unexpected error, likewise.
    """
    from tangency.gpu.cluster import run_manifest
    from tangency.gpu.errors import DeviceError, PlanError
    from tangency.models.errors import InputError, MissingPackageError

    asked = _rows(manifest)
    job = Job(str(manifest.resolve().parent))
    client = None
    try:
        if scheduler is not None:
            client = _client(scheduler)
        with Progress("rows") as progress:
            found = run_manifest(
                job, manifest, results, client=client, threads=jobs, progress=progress
            )
    except PlanError as error:
        raise InputError(str(error)) from None
    except DeviceError as error:
        raise MissingPackageError(str(error)) from None
    finally:
        if client is not None:
            client.close()
    _check_results(asked, results, found)
    worst = max((row["status"] for row in found), default=0)
    lines = [_line(row) for row in found]
    lines.append(f"{len(found)} rows, {sum(r['status'] == 0 for r in found)} answered: {results}")
    emit(as_json, {"rows": found, "results": str(results)}, "\n".join(lines))
    if worst:
        raise SystemExit(min(worst, 3))


def _rows(manifest: Path) -> list[dict[str, Any]]:
    """The rows; a manifest that cannot be run is refused, by its line."""
    from tangency.models.errors import InputError

    rows = []
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{manifest}: cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{manifest}, line {number}: not JSON: {error}") from None
        run = row.get("run") if isinstance(row, dict) else None
        if not isinstance(run, list) or not run or not all(isinstance(a, str) for a in run):
            raise InputError(
                f'{manifest}, line {number}: give {{"name": ..., "run": ["certify", ...]}}, '
                "with the arguments as a list of texts"
            )
        if run[0] == "batch":
            raise InputError(f"{manifest}, line {number}: a batch does not run batches")
        rows.append(row)
    return rows


def _check_results(asked: list[dict[str, Any]], results: Path, found: list[dict[str, Any]]) -> None:
    """A result that was there already must be that of its row."""
    from tangency.models.errors import InputError

    for row, kept in zip(asked, found, strict=True):
        if kept.get("run") != row["run"]:
            raise InputError(
                f"{results / row['name']}.json is of another command than row {row['name']!r}: "
                "delete it, or give another folder"
            )


def _client(address: str) -> Any:
    from tangency.models.errors import InputError, MissingPackageError

    try:
        from distributed import Client
    except ImportError:
        raise MissingPackageError(
            "--scheduler needs Dask: pip install 'tangency[cluster]'"
        ) from None
    try:
        connect: Any = Client
        return connect(address, timeout=10)
    except (OSError, ValueError) as error:
        raise InputError(f"--scheduler {address}: no scheduler answers there: {error}") from None


def _line(row: dict[str, Any]) -> str:
    said = _ANSWERS.get(row["status"], "error")
    answer = row["answer"] if isinstance(row["answer"], dict) else {}
    words = [f"{row['name']:24} {said:10}"]
    if isinstance(answer.get("upper"), float):
        kind = "certified" if answer.get("certified") else "estimate"
        words.append(f"upper {round_up(answer['upper'])}  {kind}")
    found = [answer.get(key) for key in ("verdict", "holds")]
    words += [str(value) for value in found if isinstance(value, str | bool)]
    words += row["error"].splitlines()[-1:] if row["status"] else []
    return "  ".join(words)
