"""Tiles: every entry once, resumed after a kill, in memory and on disk."""

import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tangency.gpu.dense import DenseKernel
from tangency.gpu.errors import PlanError
from tangency.gpu.journal import Journal
from tangency.gpu.plans import Activation, Dense
from tangency.gpu.stores import open_store
from tangency.gpu.tiles import fill, tile_slices


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 40))
def test_tiles_cover_once(n1, n2, tile):
    count = np.zeros((n1, n2), int)
    for here, there in tile_slices(n1, n2, tile):
        count[here, there] += 1
    assert (count == 1).all()
    square = np.zeros((n1, n1), int)
    for here, there in tile_slices(n1, n1, tile, symmetric=True):
        square[here, there] += 1
        if here != there:
            square[there, here] += 1
    assert (square == 1).all()


def products(n):
    a = np.random.default_rng(0).normal(size=(n, n))
    return a + a.T


def test_progress_and_both_forms_of_tiles():
    truth, told = products(23), []
    for wait in (False, True):
        store = np.zeros((23, 23))

        def compute(here, there, wait=wait):
            tile = truth[here, there]
            return (lambda: tile) if wait else tile

        fill(store, compute, tile=5, symmetric=True, progress=told.append)
        assert np.array_equal(store, truth)
    assert [p.done for p in told] == [*range(1, 16)] * 2
    assert told[-1].total == 15
    assert told[-1].left == 0.0


def test_a_run_goes_on_behind_what_is_finished(tmp_path):
    truth, asked = products(20), []
    journal = Journal(tmp_path / "journal", {"data": "a", "tile": 6})

    def compute(here, there, stop=None):
        asked.append((here.start, there.start))
        if len(asked) == stop:
            raise KeyboardInterrupt
        return truth[here, there]

    store = open_store(tmp_path / "k.npy", (20, 20), np.float64, 6)
    with pytest.raises(KeyboardInterrupt):
        fill(store, lambda h, t: compute(h, t, 5), tile=6, symmetric=True, journal=journal)
    # A kill may leave half a line.
    with journal.path.open("a") as file:
        file.write("\n12 1")
    first = len(journal.finished())
    assert 0 < first < 10
    asked.clear()
    again = open_store(tmp_path / "k.npy", (20, 20), np.float64, 6)
    fill(again, compute, tile=6, symmetric=True, journal=journal)
    assert len(asked) == 10 - first
    assert np.array_equal(np.load(tmp_path / "k.npy"), truth)
    with pytest.raises(PlanError, match="another matrix"):
        Journal(journal.path, {"data": "b", "tile": 6}).finished()
    with pytest.raises(PlanError, match="holds"):
        open_store(tmp_path / "k.npy", (21, 20), np.float64, 6)


def test_after_another_start_only_what_was_forced_to_disk_counts(tmp_path, monkeypatch):
    truth, asked = products(20), []
    journal = Journal(tmp_path / "journal", {"data": "a"}, {"tile": 6})

    def compute(here, there):
        asked.append((here.start, there.start))
        return truth[here, there]

    store = open_store(tmp_path / "k.npy", (20, 20), np.float64, 6)
    fill(store, compute, tile=6, symmetric=True, journal=journal)
    lines = journal.path.read_text().split("\n")
    assert lines[-2] == "on disk 10"
    # A machine that went down with four tiles on disk and three more that it had noted.
    tiles = [line for line in lines[1:] if line[:1].isdigit()]
    journal.path.write_text("\n".join([lines[0], *tiles[:4], "on disk 4", *tiles[4:7], "12"]))
    assert len(Journal(journal.path, {"data": "a"}).finished()) == 7  # a kill alone
    asked.clear()
    monkeypatch.setattr("tangency.gpu.journal._start_of_the_system", lambda: "another")
    store[12:, 12:] = -1.0
    again = Journal(journal.path, {"data": "a"})
    assert len(again.finished()) == 4
    assert again.head()["notes"]["tile"] == 6
    fill(store, compute, tile=6, symmetric=True, journal=again)
    assert len(asked) == 6
    assert np.array_equal(store, truth)
    assert len(Journal(journal.path, {"data": "a"}).finished()) == 10


def test_forcing_takes_a_tenth_of_the_time(tmp_path, monkeypatch):
    forced, store = [], open_store(tmp_path / "k.npy", (20, 20), np.float64, 2)
    real = np.memmap.flush

    def slow(self):
        forced.append(time.monotonic())
        time.sleep(0.02)
        real(self)

    monkeypatch.setattr(np.memmap, "flush", slow)
    for threads in (1, 3):
        journal = Journal(tmp_path / f"journal{threads}", {})
        truth = products(20)
        forced.clear()

        def compute(here, there, truth=truth):
            time.sleep(0.004)
            return truth[here, there]

        fill(store, compute, tile=2, journal=journal, threads=threads)
        assert np.array_equal(store, truth)
        assert len(forced) >= 2  # the first tile, and the last
        gaps = np.diff(forced)[:-1]
        assert (gaps >= 9 * 0.02).all()
        assert len(journal.finished()) == 100


SCRIPT = """
import sys
import numpy as np
from pathlib import Path
from tangency.gpu.journal import Journal
from tangency.gpu.stores import open_store
from tangency.gpu.tiles import fill
folder, stop = Path(sys.argv[1]), int(sys.argv[2])
store = open_store(folder / "k.npy", (40, 40), np.float64, 5)
def compute(here, there):
    i, j = np.arange(40)[here], np.arange(40)[there]
    return np.cos(i[:, None] * j + 0.1)
def wait(now):
    if now.done == stop:
        print(now.done, flush=True)
        sys.stdin.read()
journal = Journal(folder / "journal", {"n": 40})
fill(store, compute, tile=5, symmetric=True, journal=journal, progress=wait)
"""


def test_killed_and_started_again(tmp_path):
    run = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*run, "9"], **pipes) as child:
        assert child.stdout.readline() == b"9\n"
        child.kill()
    assert len(Journal(tmp_path / "journal", {"n": 40}).finished()) == 9
    subprocess.run([*run, "-1"], check=True)
    i = np.arange(40)
    assert np.array_equal(np.load(tmp_path / "k.npy"), np.cos(i[:, None] * i + 0.1))


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_a_kernel_through_tiles_is_the_kernel(rng):
    plan = (Dense(-1, 2.0), Activation(0), Dense(1))
    x = rng.normal(size=(50, 6))
    kernel, store = DenseKernel(plan, np.float64, "cpu", tile=64), np.zeros((50, 50))
    fill(store, kernel.tiles(x), tile=20, symmetric=True)
    assert np.allclose(store, kernel(x, get="ntk")["ntk"], rtol=1e-14)
    assert np.array_equal(store, store.T)
