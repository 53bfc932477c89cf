"""``tangency batch``: the commands of a manifest, here or on many machines."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from tangency.cli.common import OutputPath, Progress, emit, round_up

__all__ = ["Job", "command"]

_START = "import sys; from tangency.cli import main; sys.exit(main())"
_ANSWERS = {0: "answered", 1: "not proved"}
_WRITTEN = ("--out", "--plot")  # options of the commands that name a file to write


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
        inputs = self._inputs(row["run"])
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
        result = {
            "name": row["name"],
            "run": row["run"],
            "inputs": inputs,
            "status": done.returncode,
            "answer": answer,
            "error": done.stderr.strip() if answer is None or done.returncode >= 2 else "",
            "seconds": round(time.perf_counter() - begun, 3),
        }
        return result | {"digest": _digest(result)}

    def read(self, row: dict[str, Any], result: dict[str, Any], path: Path) -> dict[str, Any]:
        """The result of an earlier call, marked as such; refused where it is not the row's.

        Raises
        ------
        InputError
            If it was edited, or is of another command or of other contents of its files.
        """
        from tangency.models.errors import InputError

        held = {key: value for key, value in result.items() if key != "digest"}
        differs = ""
        if result.get("digest") != _digest(held):
            differs = "is no result as batch wrote it"
        elif held["run"] != row["run"]:
            differs = f"is of another command than row {row['name']!r}"
        else:
            now = self._inputs(row["run"])
            names = sorted({name for name, _ in now.items() ^ held["inputs"].items()})
            if names:
                differs = f"is of other contents of {', '.join(names)} than are there now"
        if differs:
            raise InputError(f"{path} {differs}: delete it, or give another folder")
        return result | {"read": str(path)}

    def _inputs(self, run: list[str]) -> dict[str, str]:
        """SHA-256 of every file that a command names, by its name; not of those that it writes.

        The files beside an ONNX model that keep its weights are of its contents.
        """
        from tangency.models.errors import TangencyError
        from tangency.models.importers.onnx_read import weight_files

        found: dict[str, str] = {}
        for before, argument in pairwise(["", *run]):
            option, equals, value = argument.partition("=")
            name = value if equals and option.startswith("--") else argument
            if before in _WRITTEN or (equals and option in _WRITTEN):
                continue
            file = Path(self.folder, name)
            found |= _hash(file, name)
            if ".onnx" in file.name and name in found:
                with suppress(TangencyError):  # no model: the command says so
                    for beside in weight_files(file):
                        found |= _hash(file.parent / beside, str(Path(name).parent / beside))
        return found


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
    again: what an earlier call proved is read from its file, and said to be. A result of another
    command, of other contents of the files that the row names, or one that was edited is refused.
    Delete a result's file to run its row anew.

    Exit status: 0 all rows were answered; 1 some were not proved; 2 bad input, here or in a row;
    3 an unexpected error, likewise.
    """
    from tangency.gpu.cluster import run_manifest
    from tangency.gpu.errors import DeviceError, PlanError
    from tangency.models.errors import InputError, MissingPackageError

    _check_rows(manifest)
    job = Job(str(manifest.resolve().parent))
    client = None
    try:
        if scheduler is not None:
            client = _client(scheduler)
        with Progress("rows") as progress:
            found = run_manifest(
                job,
                manifest,
                results,
                client=client,
                threads=jobs,
                progress=progress,
                reuse=lambda row, kept: job.read(row, kept, results / f"{row['name']}.json"),
            )
    except PlanError as error:
        raise InputError(str(error)) from None
    except DeviceError as error:
        raise MissingPackageError(str(error)) from None
    finally:
        if client is not None:
            client.close()
    worst = max((row["status"] for row in found), default=0)
    lines = [_line(row) for row in found]
    lines.append(f"{len(found)} rows, {sum(r['status'] == 0 for r in found)} answered: {results}")
    emit(as_json, {"rows": found, "results": str(results)}, "\n".join(lines))
    if worst:
        raise SystemExit(min(worst, 3))


def _hash(file: Path, name: str) -> dict[str, str]:
    with suppress(OSError, ValueError):  # no name of a file, or none that can be read
        if file.is_file():
            with file.open("rb") as data:
                return {name: hashlib.file_digest(data, "sha256").hexdigest()}
    return {}


def _digest(result: dict[str, Any]) -> str:
    """Of a result's content: an edit by accident shows."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def _check_rows(manifest: Path) -> None:
    """A manifest that cannot be run is refused, by its line."""
    from tangency.models.errors import InputError

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
        if "read" in row:
            kind = f"{'proved' if kind == 'certified' else 'estimated'} on an earlier run"
        words.append(f"upper {round_up(answer['upper'])}  {kind}")
    found = [answer.get(key) for key in ("verdict", "holds")]
    words += [str(value) for value in found if isinstance(value, str | bool)]
    words += row["error"].splitlines()[-1:] if row["status"] else []
    words += [f"read from {row['read']}"] if "read" in row else []
    return "  ".join(words)
