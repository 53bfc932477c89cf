"""The checkpoint of a certified accuracy: what is read is proved again, and nothing is lost."""

import hashlib
import io
import json
import os
import resource
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from tangency.cli import main
from tangency.models import InputError, from_layers
from tangency.verify.bounds import accuracy, certify_robust
from tangency.verify.bounds.accuracy import certified_accuracy
from tangency.verify.bounds.records import Records

RNG = np.random.default_rng(3)
LAYERS = [(RNG.normal(size=(n, m)) / np.sqrt(m), RNG.normal(size=n)) for n, m in ((12, 5), (3, 12))]
NETWORK = from_layers(LAYERS, "relu")
X = RNG.normal(size=(12, 5))
LABELS = NETWORK.evaluate(X).argmax(axis=1)
EPS = [0.02, 0.2]
PLAIN = {"method": "crown", "attack": "corners", "batch": 4}
SEARCHED = PLAIN | {"method": "alpha-crown", "steps": 3}


def run(path=None, network=NETWORK, **options):
    return certified_accuracy(network, X, LABELS, EPS, checkpoint=path, **(PLAIN | options))


def same(one, two):
    for name in ("verified", "attacked", "prediction", "labels"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    for name in ("margin_lower", "margin_upper"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-12, atol=1e-12)


def tampered(path, change):
    """Alter the arrays of every record, with digests that fit."""
    records = Records(path, path.read_bytes().split()[2].decode())
    head = path.read_bytes().partition(b"\n")[0] + b"\n"
    names = list(records._places)
    arrays = [change(dict(records.read(name))) for name in names]
    path.write_bytes(head)
    records = Records(path, head.split()[2].decode())
    for name, own in zip(names, arrays, strict=True):
        records.add(name, own)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "ibp"},
        {"method": "forward"},
        {"plain": True, "clip": (-3.0, 3.0)},
        SEARCHED,
        SEARCHED | {"network": NETWORK.astype("float32")},
    ],
)
def test_what_is_read_is_proved_again_and_the_search_is_not_repeated(
    tmp_path, monkeypatch, options
):
    path = tmp_path / "run"
    whole = run(path, **options)
    assert whole.certified
    assert whole.verified.any()
    assert not whole.verified.all()
    monkeypatch.setattr(accuracy, "certify_robust", None)
    again = run(path, **options)
    assert again.certified
    assert not again.read.any()
    same(again, whole)
    assert os.listdir(tmp_path) == ["run"]


def test_a_verdict_in_the_file_decides_nothing(tmp_path):
    """The review's case: set what says verified, and the accuracy rose and was called certified."""
    path = tmp_path / "run"
    whole = run(path)
    truth = [certify_robust(NETWORK, X, LABELS, e, method="crown", attack="none") for e in EPS]

    def claim(arrays):
        n = len(arrays["points"])
        return arrays | {"verified": np.ones(n, bool), "attacked": np.zeros(n, bool)}

    tampered(path, claim)
    again = run(path)
    same(again, whole)
    assert again.certified

    tampered(path, lambda arrays: arrays | {"margin_lower": np.full(len(arrays["points"]), 9.0)})
    believed = run(path)
    assert not believed.certified
    assert believed.read.all()
    assert believed.as_dict()["read_from_checkpoint"] == believed.read.size
    assert not np.array_equal(believed.verified[1], truth[1].verified)


@pytest.mark.parametrize("factor", [-1.0, 0.0, 3.0])
def test_altered_slopes_and_points_prove_less_and_never_falsely(tmp_path, factor):
    path = tmp_path / "run"
    whole = run(path, **SEARCHED)

    def change(arrays):
        slopes = {name: factor * v for name, v in arrays.items() if name.startswith("slopes")}
        assert slopes
        return arrays | slopes | {"points": arrays["points"] + 10.0}

    tampered(path, change)
    again = run(path, **SEARCHED)
    assert again.certified
    assert (again.margin_lower <= whole.margin_upper).all()
    assert (again.margin_lower <= whole.margin_lower + 1e-9).all()
    # Points outside of the balls refute nothing: the samples themselves stand in.
    spread = np.array([run(attack="none").margin_upper])
    np.testing.assert_allclose(again.margin_upper, spread[0], rtol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a | {"points": a["points"][:-1]},
        lambda a: a | {"points": a["points"].astype(complex)},
        lambda a: a | {"margin_lower": np.ones(len(a["points"]) - 1)},
        lambda a: a | {"margin_lower": np.full(len(a["points"]), np.nan)},
        lambda a: {k: v for k, v in a.items() if k != "nodes"},
        lambda a: {k: v for k, v in a.items() if k != "method"},
        lambda a: a | {"method": np.array("believe")},
        lambda a: a | {"nodes": a["nodes"] + 1},
        lambda a: a | {"nodes": np.zeros(3)},
        lambda a: a | {k: v[..., :-1] for k, v in a.items() if k.startswith("slopes")},
        lambda a: a | {k: np.full_like(v, np.nan) for k, v in a.items() if k.startswith("slopes")},
    ],
)
def test_records_of_other_shapes_are_refused(tmp_path, change):
    path = tmp_path / "run"
    run(path, **SEARCHED)
    tampered(path, change)
    with pytest.raises(InputError, match="the checkpoint is damaged"):
        run(path, **SEARCHED)


@pytest.mark.parametrize("options", [{"mode": "joint"}, {"rigorous": False}])
def test_what_nothing_proves_again_is_not_called_certified(tmp_path, options):
    path, options = tmp_path / "run", SEARCHED | options
    first = run(path, **options)
    assert first.certified == ("mode" in options)
    assert not first.read.any()
    again = run(path, **options)
    same(again, first)
    assert not again.certified
    assert again.read.all()


def test_the_command_says_what_is_not_proved(tmp_path, monkeypatch, capsys):
    model, data = tmp_path / "m.tangency", tmp_path / "d.npz"
    NETWORK.save(model)
    np.savez(data, x=X, y=LABELS)
    command = ["bounds", model, "--data", data, "--eps", "0.1", "--method", "alpha-crown"]
    command += ["--steps", 2, "--attack", "none", "--checkpoint", tmp_path / "run"]
    for mode, words in (("last", "certified"), ("joint", "unproved")):
        for _ in range(2):
            arguments = [*command[:-1], tmp_path / mode, "--mode", mode]
            monkeypatch.setattr(sys, "argv", ["tangency", *map(str, arguments)])
            with pytest.raises(SystemExit):
                main()
            text = capsys.readouterr().out
        assert f"alpha-crown, {words}" in text
        assert ("Proved: " in text) == (mode == "last")
        assert ("Not proved: of 12 verdicts 12 are read" in text) == (mode == "joint")


def test_every_cut_of_the_file_is_gone_on_from(tmp_path):
    whole, path = run(tmp_path / "run"), tmp_path / "cut"
    data = (tmp_path / "run").read_bytes()
    cuts = np.linspace(0, len(data), 25).astype(int).tolist()
    for cut in [*cuts, 1, 20, data.index(b"\n"), data.index(b"\n") + 9]:
        path.write_bytes(data[:cut])
        found = run(path)
        assert found.certified
        same(found, whole)


def test_damage_is_seen(tmp_path):
    path = tmp_path / "run"
    run(path)
    data = path.read_bytes()
    start = data.index(b"\n") + 1
    for place in [0, 5, 25, start, start + 4, start + 30, start + 100, len(data) - 1]:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(InputError, match=r"damaged|another network|not a checkpoint"):
            run(path)
    # An archive inside that is none, under a digest that fits.
    junk = b"PK\x03\x04 junk"
    line = f"0 0 : {len(junk)} {hashlib.sha256(b'0 0 : ' + junk).hexdigest()}\n".encode()
    path.write_bytes(data[:start] + line + junk)
    with pytest.raises(InputError, match="damaged"):
        run(path)
    # The format before, in which verdicts stood.
    old = io.BytesIO()
    np.savez(old, key=np.array("0" * 64), verified=np.ones(12, bool))
    path.write_bytes(old.getvalue())
    with pytest.raises(InputError, match="not a checkpoint of this version"):
        run(path)
    assert path.read_bytes() == old.getvalue()


def test_batches_are_appended_not_written_anew(tmp_path):
    """500 batches cost 500 writes of one batch, not of all that were before."""
    path, seen = tmp_path / "run", []

    def look(*_):
        seen.append((path.stat().st_ino, path.read_bytes()))

    certified_accuracy(NETWORK, X, LABELS, EPS, checkpoint=path, progress=look, **PLAIN)
    assert len(seen) == 6
    assert len({inode for inode, _ in seen}) == 1
    for (_, before), (_, after) in pairwise(seen):
        assert after.startswith(before)
        assert len(before) < len(after)


def test_a_full_disk_keeps_what_was_finished(tmp_path):
    path = tmp_path / "run"
    whole, sizes = run(), []

    def fill(done, total):
        sizes.append(path.stat().st_size)
        if len(sizes) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[-1] + 100, hard))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(InputError, match=r"run: cannot be written \(File too large\)"):
            certified_accuracy(NETWORK, X, LABELS, EPS, checkpoint=path, progress=fill, **PLAIN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == sizes[-1]
    same(run(path), whole)


CHILD = """
import sys
sys.path.insert(0, {folder!r})
from test_bounds_checkpoint import EPS, LABELS, NETWORK, PLAIN, X, certified_accuracy

def wait(done, total):
    print(done, flush=True)
    if done == 12:
        sys.stdin.read()

certified_accuracy(NETWORK, X, LABELS, EPS, checkpoint=sys.argv[1], progress=wait, **PLAIN)
"""


def test_a_second_process_is_told_and_a_kill_loses_nothing(tmp_path, monkeypatch):
    path, calls = tmp_path / "run", []
    code = CHILD.format(folder=os.path.dirname(__file__))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], **pipes) as child:
        assert [int(child.stdout.readline()) for _ in range(3)] == [4, 8, 12]
        with pytest.raises(InputError, match=f"in use by process {child.pid} on"):
            run(path)
        child.kill()
    true = accuracy.certify_robust

    def counted(*args, **named):
        calls.append(args[3])
        return true(*args, **named)

    monkeypatch.setattr(accuracy, "certify_robust", counted)
    found = run(path)
    assert calls == [EPS[1]] * 3
    assert found.certified
    same(found, run())
    assert os.listdir(tmp_path) == ["run"]
    assert json.dumps(found.as_dict())
