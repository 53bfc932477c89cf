"""The Gram engine: tiles equal the whole, files, and going on after a kill."""

import errno
import json
import os
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tangency.models import from_layers
from tangency.models.activations import Activation as Record
from tangency.models.errors import InputError, MissingPackageError
from tangency.theory.kernels import infinite_kernel
from tangency.theory.kernels.backend import MAKERS, KernelBackend, backend_of
from tangency.theory.kernels.cntk import FusedConv
from tangency.theory.kernels.fused import FusedDense
from tangency.theory.kernels.gram_engine import gram as gram_anywhere
from tangency.theory.kernels.layers import Conv, Dense, Dropout, GlobalAvgPool
from tangency.theory.kernels.layers_activations import Activation as Act
from tangency.theory.kernels.layers_activations import Relu
from tangency.theory.kernels.layers_attention import Attention
from tangency.theory.kernels.layers_branches import serial

# The CPU's own tests: those of a GPU are in tests/gpu.
gram = partial(gram_anywhere, device="cpu")
NET = serial(Dense(8, 1.4, 0.2), Relu(), Dense(8, 1.4), Relu(), Dense())
KERNEL = infinite_kernel(NET)
REFERENCE = infinite_kernel(NET, method="reference")


def samples(n=50, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 9))


@pytest.mark.parametrize("tile", [7, 16, 64])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_tiles_equal_the_whole(tile, n_jobs):
    x, y = samples(), samples(23, seed=1)
    for other in (None, y):
        whole = REFERENCE(x, other)
        found = gram(KERNEL, x, other, tile=tile, n_jobs=n_jobs)
        for kind in ("nngp", "ntk"):
            np.testing.assert_allclose(getattr(found, kind), getattr(whole, kind), rtol=1e-13)
        assert found.symmetric == (other is None)
    alone = gram(KERNEL, x, get="ntk", tile=tile, dtype=np.float32)
    assert alone.dtype == np.float32
    assert np.array_equal(alone, alone.T)
    np.testing.assert_allclose(alone, REFERENCE(x, get="ntk"), rtol=2e-6)


def test_a_function_is_a_kernel_and_is_called_for_one_triangle():
    calls = []

    def linear(a, b):
        calls.append(a.shape[0] * b.shape[0])
        return a @ b.T

    x = samples(20)
    np.testing.assert_allclose(gram(linear, x, get="nngp", tile=5), x @ x.T, atol=1e-14)
    assert sum(calls) == 10 * 25


def test_files_and_their_record(tmp_path):
    x, seen = samples(), []
    path = tmp_path / "k.npy"
    first = gram(KERNEL, x, get="ntk", out=path, tile=16, progress=lambda *a: seen.append(a))
    assert seen == [(i, 10) for i in range(1, 11)]
    assert isinstance(first, np.memmap)
    np.testing.assert_allclose(np.load(path), REFERENCE(x, get="ntk"), rtol=1e-13)
    # All tiles are finished: nothing is computed again.
    seen.clear()
    gram(KERNEL, x, get="ntk", out=path, tile=16, progress=lambda *a: seen.append(a))
    assert seen == []
    both = gram(KERNEL, x, out=tmp_path / "two.npy", tile=16)
    assert np.array_equal(np.load(tmp_path / "two.ntk.npy"), first)
    assert np.array_equal(np.load(tmp_path / "two.nngp.npy"), both.nngp)


@pytest.mark.parametrize("change", ["data", "kernel", "tile", "dtype"])
def test_the_record_of_another_matrix_is_refused(tmp_path, change):
    x, path = samples(), tmp_path / "k.npy"
    gram(KERNEL, x, get="ntk", out=path, tile=16)
    kernel = infinite_kernel(serial(Dense(8), Relu(), Dense())) if change == "kernel" else KERNEL
    y = x + (np.arange(50) == 49)[:, None] * 1e-9 if change == "data" else x
    options = {
        "tile": 8 if change == "tile" else 16,
        "dtype": np.float32 if change == "dtype" else np.float64,
    }
    with pytest.raises(InputError, match="another matrix"):
        gram(kernel, y, get="ntk", out=path, **options)
    again = gram(kernel, y, get="ntk", out=path, overwrite=True, **options)
    np.testing.assert_allclose(again, kernel(y, get="ntk"), rtol=2e-6)


def test_a_torn_last_line_and_lost_tiles_are_made_again(tmp_path):
    x, path = samples(), tmp_path / "k.npy"
    want = np.array(gram(KERNEL, x, get="ntk", out=path, tile=16))
    record = tmp_path / "k.npy.tiles"
    lines = record.read_text().split("\n")
    assert json.loads(lines[0])["tangency_gram"] == 1
    tiles = [line for line in lines[1:] if line[:1].isdigit()]
    record.write_text("\n".join([lines[0], *tiles[:3]]) + "\n32 3")  # three, and a torn line
    lost = np.load(path, mmap_mode="r+")
    lost[16:, 16:] = -1.0
    lost[:16, 48:] = lost[48:, :16] = -1.0
    lost.flush()
    seen = []
    found = gram(KERNEL, x, get="ntk", out=path, tile=16, progress=lambda *a: seen.append(a))
    assert len(seen) == 7
    assert np.array_equal(found, want)


def test_zarr(tmp_path):
    zarr = pytest.importorskip("zarr")
    x = samples()
    found = gram(KERNEL, x, out=tmp_path / "k.zarr", tile=16, n_jobs=2)
    stored = zarr.open_group(str(tmp_path / "k.zarr"), mode="r")
    for kind in ("nngp", "ntk"):
        np.testing.assert_allclose(stored[kind][:], getattr(REFERENCE(x), kind), rtol=1e-13)
    assert found.ntk.chunks == (16, 16)
    seen = []
    gram(KERNEL, x, out=tmp_path / "k.zarr", tile=16, progress=lambda *a: seen.append(a))
    assert seen == []


def test_zarr_missing_says_how_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingPackageError, match=r"tangency\[cluster\]"):
        gram(KERNEL, samples(), out=tmp_path / "k.zarr")


def test_blocks_are_taken_before_the_first_tile(tmp_path):
    """A hole in a memory map on a full disk kills the process that writes there."""
    path, held = tmp_path / "k.npy", []

    def product(a, b):
        held.append(path.stat().st_blocks * 512)
        return a @ b.T

    gram(product, samples(300), get="ntk", out=path, tile=100, key="a")
    assert min(held) >= 300 * 300 * 8


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_is_an_error_and_leaves_what_was_there(tmp_path, monkeypatch, there):
    path = tmp_path / "k.npy"
    if there:
        np.save(path, np.eye(3))
    before = [(p.name, p.read_bytes()) for p in tmp_path.iterdir()]
    few = np.broadcast_to(np.zeros(9), (1_000_000, 9))
    with pytest.raises(InputError, match=r"8e\+03 GB for 1 matrix file.*GB free"):
        gram(KERNEL, few, get="ntk", out=path, overwrite=True, tile=2048)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == before

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # Room that is gone between the look and the use.
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"no room on the disk.*No space left"):
        gram(KERNEL, samples(), get="ntk", out=path, overwrite=True)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_the_engines_is_not_written_over(tmp_path):
    x, path = samples(), tmp_path / "train.npy"
    np.save(path, x)
    with pytest.raises(InputError, match=r"train.npy is there, and no record of tiles"):
        gram(KERNEL, x, get="ntk", out=path)
    np.save(tmp_path / "two.nngp.npy", x)
    with pytest.raises(InputError, match=r"two.nngp.npy is there"):
        gram(KERNEL, x, out=tmp_path / "two.npy")
    mapped = np.load(path, mmap_mode="r")
    for given in (mapped, mapped[:20], np.asarray(mapped)[5:]):
        for options in ({}, {"overwrite": True}):
            with pytest.raises(InputError, match=r"train.npy holds the samples themselves"):
                gram(KERNEL, given, get="ntk", out=path, **options)
            with pytest.raises(InputError, match=r"train.npy holds the samples themselves"):
                gram(KERNEL, x, given, get="ntk", out=path, **options)
    assert np.array_equal(np.load(path), x)
    gram(KERNEL, x, get="ntk", out=path, overwrite=True)
    assert np.load(path).shape == (50, 50)
    zarr = pytest.importorskip("zarr")
    zarr.save_array(str(tmp_path / "k.zarr"), x)
    with pytest.raises(InputError, match=r"k.zarr is there"):
        gram(KERNEL, x, get="ntk", out=tmp_path / "k.zarr")
    assert np.array_equal(zarr.open_array(str(tmp_path / "k.zarr"), mode="r")[:], x)


WAITING = """
import sys
import numpy as np
from tangency.theory.kernels.gram_engine import gram

def wait(done, total):
    print(done, flush=True)
    if done == 5:
        sys.stdin.read()

x = np.random.default_rng(0).normal(size=(40, 6))
options = {"tile": 8, "key": "a", "progress": wait, "n_jobs": int(sys.argv[2])}
gram(lambda a, b: a @ b.T, x, get="ntk", out=sys.argv[1], **options)
"""


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_two_processes_do_not_fill_one_file_and_a_kill_loses_nothing(tmp_path, n_jobs):
    path = tmp_path / "k.npy"
    x, asked = np.random.default_rng(0).normal(size=(40, 6)), []

    def product(a, b):
        asked.append(1)
        return a @ b.T

    command = [sys.executable, "-c", WAITING, str(path), str(n_jobs)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as child:
        assert [int(child.stdout.readline()) for _ in range(5)] == [1, 2, 3, 4, 5]
        for overwrite in (False, True):
            with pytest.raises(InputError, match=f"in use by process {child.pid} on"):
                gram(product, x, get="ntk", out=path, tile=8, key="a", overwrite=overwrite)
        child.kill()
    found = gram(product, x, get="ntk", out=path, tile=8, key="a")
    # A second thread may have finished one tile more, and begun another.
    assert 15 - 5 - (n_jobs - 1) <= len(asked) <= 15 - 5
    np.testing.assert_allclose(found, x @ x.T, atol=1e-14)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["k.npy", "k.npy.tiles"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: b"\xff\xfe\x00" + text,
        lambda text: b"",
        lambda text: b"[1, 2]\n",
        lambda text: b'{"notes": 3}\n' + text,
        lambda text: text.replace(b"16 32 ", b"\x00\x01garbage "),
        lambda text: text.replace(b"16 32 ", b"16 33 "),
        lambda text: text.replace(b"on disk 10\n", b"on disk 11\n"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, damage):
    x, path, record = samples(), tmp_path / "k.npy", tmp_path / "k.npy.tiles"
    want = np.array(gram(KERNEL, x, get="ntk", out=path, tile=16))
    whole = record.read_bytes()
    record.write_bytes(damage(whole))
    assert record.read_bytes() != whole
    with pytest.raises(InputError, match=r"k.npy.tiles"):
        gram(KERNEL, x, get="ntk", out=path, tile=16)
    assert np.array_equal(np.load(path), want)
    again = gram(KERNEL, x, get="ntk", out=path, tile=16, overwrite=True)
    assert np.array_equal(again, want)
    path.write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"k.npy is no .npy file"):
        gram(KERNEL, x, get="ntk", out=path, tile=16)


def zeroed(path):
    np.save(path, np.zeros((50, 50)))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: os.truncate(path, 200), "cut short"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), "cut short"),
        (zeroed, "holds none of them"),
    ],
)
def test_a_matrix_that_was_cut_short_or_replaced_is_refused(tmp_path, damage, said):
    x, path = samples(), tmp_path / "k.npy"
    want = np.array(gram(KERNEL, x, get="ntk", out=path, tile=16))
    damage(path)
    left = path.read_bytes()
    with pytest.raises(InputError, match=said):
        gram(KERNEL, x, get="ntk", out=path, tile=16)
    assert path.read_bytes() == left  # it may be somebody's
    again = gram(KERNEL, x, get="ntk", out=path, tile=16, overwrite=True)
    assert np.array_equal(again, want)


# An entry above the diagonal, its mirror, a tile of the diagonal.
@pytest.mark.parametrize("at", [(3, 40), (40, 3), (20, 20)])
def test_a_tile_that_changed_is_computed_again(tmp_path, at):
    x, path, seen = samples(), tmp_path / "k.npy", []
    want = np.array(gram(KERNEL, x, get="ntk", out=path, tile=16))
    stored = np.load(path, mmap_mode="r+")
    stored[at] = np.nextafter(stored[at], 9)
    stored.flush()

    def again():
        return gram(KERNEL, x, get="ntk", out=path, tile=16, progress=lambda *a: seen.append(a))

    with pytest.warns(UserWarning, match="1 of 10 finished tiles"):
        assert np.array_equal(again(), want)
    assert seen == [(10, 10)]
    assert np.array_equal(again(), want)  # and it is known to be there now
    assert seen == [(10, 10)]


@pytest.mark.parametrize("damage", [Path.unlink, lambda chunk: chunk.write_bytes(b"no chunk")])
def test_a_chunk_of_a_zarr_that_is_gone_is_computed_again(tmp_path, damage):
    pytest.importorskip("zarr")
    x, path = samples(), tmp_path / "k.zarr"
    want = np.array(gram(KERNEL, x, get="ntk", out=path, tile=16))
    damage(path / "ntk" / "c" / "2" / "0")  # below the diagonal
    with pytest.warns(UserWarning, match="1 of 10 finished tiles"):
        assert np.array_equal(gram(KERNEL, x, get="ntk", out=path, tile=16)[:], want)


def test_zeros_of_either_sign_are_known_again(tmp_path):
    """A chunk of zeros is not written by zarr, and is read as +0.0."""
    pytest.importorskip("zarr")
    seen = []
    for _ in range(2):
        gram(
            lambda a, b: np.full((len(a), len(b)), -0.0), samples(4), get="ntk", key="zero", tile=2,
            out=tmp_path / "k.zarr", progress=lambda *a: seen.append(a),
        )  # fmt: skip
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("name", ["k.npy", "k.zarr"])
@pytest.mark.parametrize("limit", [64, 2000])
def test_a_limit_that_is_reached_leaves_no_matrix_without_an_owner(tmp_path, name, limit):
    resource = pytest.importorskip("resource")
    if name == "k.zarr":
        pytest.importorskip("zarr")
    x, path = samples(60), tmp_path / name
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(InputError, match="too large"):
            gram(KERNEL, x, out=path, tile=30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found = gram(KERNEL, x, out=path, tile=30)
    np.testing.assert_allclose(found.ntk[:], REFERENCE(x, get="ntk"), rtol=1e-13)


def test_no_room_for_the_second_matrix_takes_the_first_away(tmp_path, monkeypatch):
    real, calls = os.posix_fallocate, []

    def full(*where):
        calls.append(where)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*where)

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match="No space left"):
        gram(KERNEL, samples(), out=tmp_path / "k.npy")
    assert list(tmp_path.iterdir()) == []
    gram(KERNEL, samples(), out=tmp_path / "k.npy")


def waved(factor):
    return Record("wob", lambda nx, x: nx.sin(factor * x))


def test_kernels_of_one_name_are_told_apart_by_their_formulas(tmp_path):
    x = samples(6)
    one, again, two = (
        infinite_kernel(serial(Dense(8), Act(waved(k)), Dense())) for k in (1.0, 1.0, 3.0)
    )
    assert one.fingerprint == again.fingerprint != two.fingerprint
    gram(one, x, get="ntk", out=tmp_path / "W.npy")
    with pytest.raises(InputError, match="tiles of another matrix"):
        gram(two, x, get="ntk", out=tmp_path / "W.npy")
    one, two = (
        infinite_kernel(from_layers([np.eye(9), np.ones((1, 9))], waved(k))) for k in (1.0, 3.0)
    )
    gram(one, x, get="ntk", out=tmp_path / "N.npy")
    with pytest.raises(InputError, match="tiles of another matrix"):
        gram(two, x, get="ntk", out=tmp_path / "N.npy")


def attending(decay):
    options = {"position": "sum", "position_decay": decay}
    return infinite_kernel(serial(Attention(8, **options), GlobalAvgPool(), Dense()))


def test_functions_in_layers_are_part_of_the_fingerprint():
    kernels = [attending(lambda d, k=k: np.exp(-k * d)) for k in (1.0, 1.0, 2.0)]
    assert kernels[0].fingerprint == kernels[1].fingerprint != kernels[2].fingerprint
    assert kernels[0].fingerprint != attending(None).fingerprint
    code = """
    import numpy as np
    from tangency.theory.kernels import Attention, Dense, GlobalAvgPool, infinite_kernel, serial
    layer = Attention(8, position="sum", position_decay=lambda squared: np.exp(-1.0 * squared))
    print(infinite_kernel(serial(layer, GlobalAvgPool(), Dense())).fingerprint)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.strip() == kernels[0].fingerprint
    with pytest.raises(InputError, match="cannot be followed"):
        _ = attending(lambda d: np.exp(-d) if d.any() else d).fingerprint

    class Mine(Dense):
        pass

    with pytest.raises(InputError, match="Mine has no fingerprint"):
        _ = infinite_kernel(serial(Mine(8), Dense())).fingerprint


def test_options_are_checked(tmp_path):
    x = samples()
    for options, word in (
        ({"tile": 0}, "tile = 0"),
        ({"n_jobs": 0}, "n_jobs = 0"),
        ({"dtype": np.int32}, "float32 or float64"),
        ({"device": "abacus"}, "abacus"),
        ({"out": tmp_path / "k.csv"}, r"\.npy or \.zarr"),
        ({"out": ""}, "name.npy or name.zarr"),
        ({"get": "both"}, "get"),
    ):
        with pytest.raises(InputError, match=word):
            gram(KERNEL, x, **options)
    with pytest.raises(InputError, match="no fingerprint"):
        gram(lambda a, b: a @ b.T, x, get="ntk", out=tmp_path / "k.npy")
    with pytest.raises(InputError, match="equal samples"):
        gram(KERNEL, x, np.ones((3, 4)))


def test_an_error_in_a_thread_is_raised():
    def broken(a, b):
        raise ValueError("broken kernel")

    with pytest.raises(ValueError, match="broken kernel"):
        gram(broken, samples(), get="ntk", tile=8, n_jobs=2)


def test_backends(monkeypatch):
    assert isinstance(backend_of(KERNEL, (9,)).kernel, FusedDense)
    image = infinite_kernel(serial(Conv(8), Relu(), GlobalAvgPool(), Dense()))
    assert isinstance(backend_of(image, (4, 4, 2), dtype=np.float32).kernel, FusedConv)
    assert backend_of(REFERENCE, (9,)).kernel is REFERENCE
    other = infinite_kernel(serial(Dense(8), Relu(), Dropout(0.5), Dense()))
    assert backend_of(other, (9,)).kernel is other
    used = []

    class Device:
        def tile(self, x1, x2=None, *, get=("nngp", "ntk")):
            used.append(x1.shape)
            return KernelBackend(KERNEL).tile(x1, x2, get=get)

    monkeypatch.setitem(MAKERS, "abacus", lambda kernel, shape, dtype: Device())
    x = samples(20)
    np.testing.assert_allclose(
        gram(KERNEL, x, get="ntk", device="abacus", tile=10), REFERENCE(x, get="ntk"), rtol=1e-13
    )
    assert used == [(10, 9)] * 3


def test_samples_may_lie_in_a_file_and_a_result_must_where_it_is_large(tmp_path):
    x = samples()
    np.save(tmp_path / "x.npy", x)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    found = gram(KERNEL, stored, get="ntk", tile=16, out=tmp_path / "k.npy")
    np.testing.assert_array_equal(found, gram(KERNEL, x, get="ntk", tile=16))
    with pytest.raises(InputError, match=r"800000 GB.*out='name.npy'"):
        gram(KERNEL, np.broadcast_to(np.float64(1.0), (10**7, 9)), get="ntk")


def test_the_tile_of_a_run_that_goes_on_is_its_own(tmp_path):
    x, path, seen = samples(), tmp_path / "k.npy", []
    first = np.array(gram(KERNEL, x, get="ntk", out=path, tile=16))
    gram(KERNEL, x, get="ntk", out=path, memory=1e9, progress=lambda *a: seen.append(a))
    assert seen == []
    # Records made before there were notes are of the tile that was the default.
    record = tmp_path / "k.npy.tiles"
    gram(KERNEL, x, get="ntk", out=path, tile=2048, overwrite=True)
    head, *rest = record.read_text().split("\n")
    plain = {k: v for k, v in json.loads(head).items() if k != "notes"}
    record.write_text("\n".join([json.dumps(plain), *rest]))
    again = gram(KERNEL, x, get="ntk", out=path, progress=lambda *a: seen.append(a))
    assert seen == []
    np.testing.assert_allclose(again, first, rtol=1e-13)


def test_what_is_no_record_is_refused(tmp_path):
    (tmp_path / "k.npy.tiles").write_text("something else\n")
    with pytest.raises(InputError, match="no journal"):
        gram(KERNEL, samples(), get="ntk", out=tmp_path / "k.npy")
    gram(KERNEL, samples(), get="ntk", out=tmp_path / "j.npy")
    (tmp_path / "j.npy").unlink()
    with pytest.raises(InputError, match="gone"):
        gram(KERNEL, samples(), get="ntk", out=tmp_path / "j.npy")
