"""Writing files: the old one or the new one, whole, whatever happens; locks; reserved blocks."""

import errno
import os
import resource
import stat
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import tangency
from tangency import files
from tangency.cli.certify_local import write_json
from tangency.cli.common import Outputs, save_arrays, save_plot
from tangency.gpu.errors import PlanError
from tangency.gpu.journal import Journal
from tangency.models import InputError, from_layers
from tangency.models.activations import get
from tangency.models.activations.plot import plot
from tangency.verify import ImplicitLayer
from tangency.verify.certificate.encoding import CertificateError
from tangency.verify.chain.chain import Chain
from tangency.verify.lipschitz.engine.checkpoint import Checkpoint, Point


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_cannot_be_written_is_seen_before(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "loose").symlink_to(tmp_path / "no" / "x")
    for path in ("new", "file"):
        files.require_writable(tmp_path / path)
    for path in ("new", "deep/new", "."):
        files.require_writable(tmp_path / path, folder=True)
    for path, folder, error in (
        ("no/x", False, FileNotFoundError),
        ("loose", False, FileNotFoundError),
        ("file/x", False, NotADirectoryError),
        (".", False, IsADirectoryError),
        ("file", True, NotADirectoryError),
        ("file/x", True, NotADirectoryError),
    ):
        with pytest.raises(error):
            files.require_writable(tmp_path / path, folder=folder)
    monkeypatch.setattr(os, "access", lambda place, _: place != tmp_path)
    for folder in (False, True):
        with pytest.raises(PermissionError):
            files.require_writable(tmp_path / "new", folder=folder)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["file", "loose"]


def test_what_was_there_stays_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "answer"
    path.write_bytes(b"old")

    def halfway():
        with files.replacing(path) as file:
            file.write(b"new, but ")
            full()

    with pytest.raises(OSError, match="No space"):
        halfway()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["answer"]


def test_a_limit_of_the_system_loses_nothing(tmp_path):
    """The file size that the system allows is reached in the middle, as a disk is filled."""
    path = tmp_path / "answer"
    path.write_bytes(b"old")
    code = """
    import resource, sys
    from tangency import files
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    try:
        files.write(sys.argv[1], b"x" * 1_000_000)
    except OSError as error:
        print(files.why(error))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "too large" in out
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["answer"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "answer"
    path.write_bytes(b"old")
    code = """
    import sys
    from tangency import files
    with files.replacing(sys.argv[1]) as file:
        file.write(b"new" * 100_000)
        file.flush()
        print("half", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as child:
        assert child.stdout.readline() == b"half\n"
        files.write(path, b"newer")  # names of unfinished files do not meet
        child.kill()
    assert path.read_bytes() == b"newer"


def test_modes_links_and_devices(tmp_path):
    new, kept, link = tmp_path / "new", tmp_path / "kept", tmp_path / "link"
    mask = os.umask(0o027)
    try:
        files.write(new, "text")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(new.stat().st_mode) == 0o640
    kept.write_bytes(b"")
    kept.chmod(0o604)
    link.symlink_to(kept)
    files.write(link, b"through the link")
    assert link.is_symlink()
    assert kept.read_bytes() == b"through the link"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o604
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    files.write(fifo, b"to a pipe")
    assert os.read(reader, 100) == b"to a pipe"
    os.close(reader)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    with pytest.raises(OSError, match="directory"):
        files.write(tmp_path, b"")


def test_a_file_that_may_not_be_written_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "kept"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda name, mode: os.fspath(name) != str(path))
    with pytest.raises(PermissionError):
        files.write(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_lock_on_a_full_disk_holds_without_a_name(tmp_path, monkeypatch):
    path = tmp_path / "work"
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with (
            files.locked(path),
            pytest.raises(BlockingIOError, match="in use by another process"),
            files.locked(path),
        ):
            pass
    assert os.listdir(tmp_path) == []


def test_a_lock_names_its_holder_and_goes_with_it(tmp_path):
    path = tmp_path / "work"
    code = """
    import sys
    from tangency import files
    with files.locked(sys.argv[1]):
        print("held", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as child:
        assert child.stdout.readline() == b"held\n"
        with (
            pytest.raises(BlockingIOError, match=f"in use by process {child.pid} on"),
            files.locked(path),
        ):
            pass
        child.kill()
    with (
        files.locked(path),
        pytest.raises(BlockingIOError, match=f"process {os.getpid()}"),
        files.locked(path),
    ):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("refused", [None, errno.EOPNOTSUPP, errno.EINVAL])
def test_reserved_blocks_are_there_and_hold_what_they_held(tmp_path, monkeypatch, refused):
    path, size = tmp_path / "matrix", 3 << 20
    with path.open("wb") as file:
        file.write(b"head")
        file.seek(2 << 20)
        file.write(b"middle")
        file.truncate(size)
    before = path.read_bytes()
    assert path.stat().st_blocks * 512 < size
    if refused:

        def none(*_):
            raise OSError(refused, os.strerror(refused))

        monkeypatch.setattr(os, "posix_fallocate", none)
    files.reserve(path, size)
    assert path.stat().st_blocks * 512 >= size
    assert path.read_bytes() == before


def test_no_room_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    path = tmp_path / "matrix"
    path.write_bytes(b"")
    with pytest.raises(OSError, match="No space"):
        files.reserve(path, 1 << 60)
    assert path.stat().st_size == 0
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        files.reserve(path, 1 << 20)


NETWORK = from_layers([np.eye(64), np.full((3, 64), 0.1)], "relu")


def certificate(path, found=[]):  # noqa: B006  (one search for both calls)
    found = found or [tangency.lipschitz_bound(NETWORK, attack=False)]
    tangency.write_certificate(path, found[0], NETWORK)


def checkpoint(path):
    chain = Chain.from_matrices([np.eye(64), np.ones((1, 64))])
    Checkpoint(path, chain, "l2", 1).keep(0, Point(np.zeros(4000), 1.0, 1.0, (0,)), last=True)


def implicit(path):
    ImplicitLayer(0.1 * np.eye(40), np.eye(40), np.eye(40)).save(path)


class Plotted:
    def plot(self):
        return plot(get("tanh"))


def output(path, how, *args, **named):
    """As a command writes it, and says afterwards what went wrong."""
    outputs = Outputs()
    outputs.write(path, how, *args, **named)
    outputs.emit(False, {}, "the answer")


WRITERS = {
    "certificate": ("a.cert", certificate),
    "network": ("a.tangency", NETWORK.save),
    "implicit layer": ("a.npz", implicit),
    "checkpoint": ("a.npz", checkpoint),
    "arrays": (
        "a.npz",
        lambda path: output(path, save_arrays, a=np.random.default_rng(0).normal(size=999)),
    ),
    "plot": ("a.png", lambda path: output(path, save_plot, Plotted())),
    "answer": ("a.json", lambda path: output(path, write_json, {"a": list(range(2000))})),
    "journal": ("a.tiles", lambda path: Journal(path, {"a": list(range(2000))}).finished()),
}


@pytest.mark.parametrize(("name", "writer"), WRITERS.values(), ids=WRITERS)
def test_every_writer_keeps_the_old_file_when_the_disk_fills(tmp_path, name, writer):
    path = tmp_path / name
    writer(path)
    whole = path.read_bytes()
    assert len(whole) > 512
    kept = path.with_name("kept")
    if name == "a.tiles":
        path.rename(kept)  # only what is not there is begun
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        with pytest.raises((InputError, CertificateError, PlanError), match="too large"):
            writer(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
