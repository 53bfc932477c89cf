"""Many machines: two local workers, one of them killed; nothing is lost."""

import json
import os
import shutil
import signal
import sys
import types
import warnings
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest

from tangency.gpu import cluster
from tangency.gpu.cluster import gram_on_cluster, ridge_on_cluster, run_manifest
from tangency.gpu.errors import DeviceError, PlanError

N, TILE = 96, 12


def tile(here, there, kill=None):
    """A tile of the matrix; with ``kill`` the first worker that comes to the sixth goes down."""
    if kill and (here.start, there.start) == (0, 5 * TILE) and not os.path.exists(kill):
        with open(kill, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    i, j = np.arange(N)[here], np.arange(N)[there]
    return np.exp(-0.05 * (i[:, None] - j) ** 2)


def never(here, there):
    raise AssertionError("a finished tile is computed again")


def certify(row):
    if row.get("kill") and not os.path.exists(row["kill"]):
        with open(row["kill"], "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)  # the worker goes down in the middle of a job
    return {"bound": row["x"] ** 2}


@contextmanager
def two_workers(folder):
    pytest.importorskip("zarr")
    distributed = pytest.importorskip("distributed")
    # The workers need not find the tests: the functions of this file are sent whole.
    pytest.importorskip("cloudpickle").register_pickle_by_value(sys.modules[__name__])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        local = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
            local_directory=str(folder), silence_logs=60,
        )  # fmt: skip
        with local, distributed.Client(local) as client:
            yield client


@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_loses_nothing(tmp_path):
    path = tmp_path / "k.zarr"
    with two_workers(tmp_path / "dask") as client:
        before = set(client.run(os.getpid).values())
        killing = partial(tile, kill=str(tmp_path / "down"))
        store = gram_on_cluster(client, killing, path, N, tile=TILE, what="test")
        assert before - set(client.run(os.getpid).values())
        serial = tile(slice(0, N), slice(0, N))
        assert np.array_equal(store[:], serial)

        # A second call finds everything there; another matrix is refused.
        gram_on_cluster(client, never, path, N, tile=TILE, what="test")
        with pytest.raises(PlanError, match="another matrix"):
            gram_on_cluster(client, tile, path, N, tile=TILE, what="other")

        right = np.random.default_rng(0).normal(size=N)
        solution = ridge_on_cluster(client, path, right, tile=40, ridge=0.1, tolerance=1e-10)
        assert solution.converged
        assert np.allclose((serial + 0.1 * np.eye(N)) @ solution.x, right, atol=1e-8)

        manifest = tmp_path / "jobs.jsonl"
        rows = [{"name": f"job{k}", "x": k} for k in range(6)]
        rows[3]["kill"] = str(tmp_path / "killed")
        manifest.write_text("\n".join(map(json.dumps, rows)))
        found = run_manifest(certify, manifest, tmp_path / "results", client=client)
        assert (tmp_path / "killed").exists()
        assert found == [{"bound": k * k} for k in range(6)]

        # A function that no worker can import is an error, and not a call without an end.
        away = types.ModuleType("away")
        away.job = types.FunctionType(certify.__code__, {}, "job")
        away.job.__module__, away.job.__qualname__ = "away", "job"
        with patch.dict(sys.modules, away=away), pytest.raises(DeviceError, match="'away'"):
            run_manifest(away.job, manifest, tmp_path / "others", client=client)


def test_a_manifest_here_skips_what_is_there(tmp_path):
    manifest, results, ran = tmp_path / "jobs.jsonl", tmp_path / "results", []
    manifest.write_text("\n".join(json.dumps({"name": f"j{k}", "x": k}) for k in range(4)) + "\n")

    def job(row):
        ran.append(row["name"])
        if len(ran) == 3:
            raise KeyboardInterrupt
        return certify(row)

    with pytest.raises(KeyboardInterrupt):
        run_manifest(job, manifest, results)
    assert run_manifest(job, manifest, results) == [{"bound": k * k} for k in range(4)]
    assert ran == ["j0", "j1", "j2", "j2", "j3"]
    (results / "j1.json").write_bytes(b"\xff garbage")
    with pytest.raises(PlanError, match=r"j1\.json is no result"):
        run_manifest(job, manifest, results)
    for text in ("garbage", "[]"):
        manifest.write_text(text)
        with pytest.raises(PlanError, match="one JSON object a line"):
            run_manifest(job, manifest, results)
    manifest.write_text('{"name": "../j"}\n')
    with pytest.raises(PlanError, match="unique name"):
        run_manifest(job, manifest, results)


def test_no_dask_says_what_to_install():
    try:
        import distributed  # noqa: F401
    except ImportError:
        with pytest.raises(DeviceError, match=r"tangency\[cluster\]"):
            gram_on_cluster(None, tile, "k.zarr", N, tile=TILE, what="k")
    else:
        with pytest.raises(PlanError, match="Client"):
            gram_on_cluster(None, tile, "k.zarr", N, tile=TILE, what="k")


class Scaled:
    """Tiles that say themselves which matrix they are of."""

    def __init__(self, factor):
        self.factor = factor
        self.fingerprint = f"scaled by {factor}"

    def __call__(self, here, there):
        i, j = np.arange(20)[here], np.arange(20)[there]
        return self.factor * np.minimum(i[:, None], j)


@contextmanager
def one_thread():
    """A cluster in this process."""
    distributed = pytest.importorskip("distributed")
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 1}
    with distributed.Client(**options, dashboard_address=None) as client:
        yield client


def test_tiles_that_are_gone_from_a_store_are_not_returned(tmp_path):
    zarr = pytest.importorskip("zarr")
    path, kernel = tmp_path / "k.zarr", Scaled(1.0)
    with one_thread() as client:
        want = gram_on_cluster(client, kernel, path, 20, tile=8)[:]
        for chunk in (path / "c" / "1" / "1", path / "c" / "2" / "1"):
            chunk.unlink()
        with pytest.warns(UserWarning, match="2 of 6 finished tiles"):
            assert np.array_equal(gram_on_cluster(client, kernel, path, 20, tile=8)[:], want)
        shutil.rmtree(path)
        zarr.create_array(path, shape=(20, 20), dtype="float64", chunks=(8, 8))
        with pytest.raises(PlanError, match="holds none of them"):
            gram_on_cluster(client, kernel, path, 20, tile=8)


def test_two_calls_do_not_fill_one_store(tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    path, real = tmp_path / "k.zarr", cluster.write
    with one_thread() as client:

        def write(name, head):  # the other call comes between the look and the writing
            monkeypatch.setattr(cluster, "write", real)
            for overwrite in (False, True):
                with pytest.raises(PlanError, match=f"in use by process {os.getpid()}"):
                    gram_on_cluster(client, Scaled(2.0), path, 20, tile=8, overwrite=overwrite)
            real(name, head)

        monkeypatch.setattr(cluster, "write", write)
        found = gram_on_cluster(client, Scaled(1.0), path, 20, tile=8)[:]
    assert np.array_equal(found, Scaled(1.0)(slice(0, 20), slice(0, 20)))


def test_the_matrix_of_another_kernel_is_not_returned(tmp_path):
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "k.zarr"
    with one_thread() as client:
        with pytest.raises(PlanError, match="which kernel and data"):
            gram_on_cluster(client, lambda a, b: Scaled(1.0)(a, b), path, 20, tile=8)
        assert not path.exists()
        one = gram_on_cluster(client, Scaled(1.0), path, 20, tile=8)[:]
        assert np.array_equal(gram_on_cluster(client, Scaled(1.0), path, 20, tile=8)[:], one)
        with pytest.raises(PlanError, match=r"scaled by 1\.0"):
            gram_on_cluster(client, Scaled(2.0), path, 20, tile=8)
        two = gram_on_cluster(client, Scaled(2.0), path, 20, tile=8, overwrite=True)[:]
        assert np.array_equal(two, 2.0 * one)
        (tmp_path / "k.tiles" / "what.json").write_bytes(b"\xff garbage")
        with pytest.raises(PlanError, match="garbage"):
            gram_on_cluster(client, Scaled(2.0), path, 20, tile=8)
        mine = tmp_path / "mine.zarr"
        zarr.save_array(str(mine), np.eye(20))
        with pytest.raises(PlanError, match="nothing says of what"):
            gram_on_cluster(client, Scaled(1.0), mine, 20, tile=8)
        assert np.array_equal(zarr.open_array(str(mine), mode="r")[:], np.eye(20))
