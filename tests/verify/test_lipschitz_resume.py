"""Searches that are cut off and go on: checkpoints, and the bounds that a search passes."""

import ast
import os
import signal
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from tangency.models import from_layers
from tangency.models.errors import InputError
from tangency.verify import Box, lipschitz_bound
from tangency.verify.lipschitz import Chain, GroupSort, Householder, Matrix, Residual, Slopes
from tangency.verify.lipschitz import bound_chain as bound
from tangency.verify.lipschitz.engine.assemble import assemble
from tangency.verify.lipschitz.engine.checkpoint import Checkpoint, Point, fingerprint
from tangency.verify.lipschitz.engine.objective import Objective
from tangency.verify.lipschitz.engine.search import engine_bound


def chain_of(sizes, seed=0, activation="relu"):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((b, a)) for a, b in pairwise(sizes)]
    return Chain.from_matrices(weights, activation)


def interrupted_at(monkeypatch, count):
    """Raise an interrupt inside one of the evaluations of the search."""
    real, calls = Objective.evaluate, []

    def late(self, *args):
        calls.append(1)
        if len(calls) == count:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(Objective, "evaluate", late)


@pytest.mark.parametrize(
    ("norm", "output"), [(2, 2), ("inf", 2), (1, "inf"), (2, 1), ("inf", ("margin", 0, 2))]
)
def test_goes_on_from_where_it_was_interrupted(norm, output, tmp_path, monkeypatch):
    chain, file = chain_of((4, 10, 10, 3)), tmp_path / "search.ckpt"
    options = {"norm": norm, "output": output, "attack": False}
    with monkeypatch.context() as patch:
        interrupted_at(patch, 30)
        first = bound(chain, checkpoint=file, **options)
    assert not first.finished
    assert sorted(p.name for p in tmp_path.iterdir()) == ["search.ckpt"]
    before = []
    second = bound(
        chain, checkpoint=file, progress=lambda value, _: before.append(value), **options
    )
    whole = bound(chain, **options)
    assert second.finished
    assert second.upper <= first.upper
    assert whole.upper < first.upper  # there was something left to do
    assert second.upper == pytest.approx(whole.upper, rel=3e-6)
    if output != "inf":  # the first thing that it knows is where the other ended
        assert before[0] <= first.history[-2][1] * (1 + 1e-12)
    third = bound(chain, checkpoint=file, **options)
    assert third.upper <= second.upper * (1 + 1e-9)


def test_nothing_is_lost_when_the_process_is_killed(tmp_path):
    file = tmp_path / "search.ckpt"
    code = f"""
import sys
import numpy as np
from tangency.verify.lipschitz import Chain, bound_chain
from tangency.verify.lipschitz.engine import checkpoint
checkpoint._EVERY = 0.0
rng = np.random.default_rng(0)
sizes = [4] + [40] * 14 + [1]
weights = [rng.standard_normal((b, a)) / 6 for a, b in zip(sizes, sizes[1:])]
told = []
def tell(bound, seconds):
    told.append(bound)
    if bound < 0.8 * told[0]:
        print(repr(told), flush=True)
        sys.stdin.read()  # in the midst of the search, until the process is killed
bound_chain(Chain.from_matrices(weights), checkpoint={str(file)!r}, progress=tell, rtol=1e-12,
            time_limit=None, attack=False)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        told = ast.literal_eval(process.stdout.readline())  # an empty line if it has ended
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    rng = np.random.default_rng(0)
    sizes = [4] + [40] * 14 + [1]
    chain = Chain.from_matrices([rng.standard_normal((b, a)) / 6 for a, b in pairwise(sizes)])
    passed = []

    def first(value, seconds):
        passed.append(value)
        raise KeyboardInterrupt

    resumed = bound(chain, checkpoint=file, time_limit=None, attack=False, progress=first)
    assert resumed.certified
    assert passed[0] < 0.9 * told[0]  # it does not begin at the beginning
    # The last point told was not written yet; the one before was, or a better one.
    assert passed[0] <= told[-2] * (1.0 + 1e-9)


def test_files_of_something_else_are_refused(tmp_path):
    chain, file = chain_of((3, 6, 2)), tmp_path / "search.ckpt"
    bound(chain, checkpoint=file, attack=False)
    with pytest.raises(InputError, match=r"search\.ckpt.* another network"):
        bound(chain_of((3, 6, 2), seed=1), checkpoint=file)
    with pytest.raises(InputError, match=r"the constant l2 -> l2, not linf -> l2"):
        bound(chain, norm="inf", checkpoint=file)
    with pytest.raises(InputError, match="method 'lipsdp'"):
        bound(chain, method="product", checkpoint=file)
    with pytest.raises(InputError, match="does not exist"):
        bound(chain, checkpoint=tmp_path / "nowhere" / "file")
    (tmp_path / "text").write_text("no numbers")
    with pytest.raises(InputError, match="not a checkpoint"):
        bound(chain, checkpoint=tmp_path / "text")
    cut = file.read_bytes()[:-40]
    file.write_bytes(cut)
    with pytest.raises(InputError, match="not a checkpoint"):
        bound(chain, checkpoint=file)
    network = from_layers([w.midpoint for w in chain.weights], "relu")
    with pytest.raises(InputError, match="leave the box"):
        lipschitz_bound(network, box=Box(-np.ones(3), np.ones(3)), checkpoint=tmp_path / "new")


def test_fingerprints_tell_all_apart_that_a_bound_depends_on():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((6, 6)), rng.standard_normal((2, 6))
    normals = np.ones((3, 2))
    kinds = [
        Slopes(0.0, 1.0),
        Slopes(np.zeros(6), np.r_[np.ones(5), 2.0]),
        GroupSort(2),
        GroupSort(3),
        Householder(normals),
        Householder(2 * normals),
        Residual(Slopes(0.0, 1.0), Matrix(np.eye(6))),
        Residual(Slopes(0.0, 1.0), Matrix(2 * np.eye(6))),
        Residual(GroupSort(2), Matrix(np.eye(6))),
    ]
    chains = [Chain((Matrix(a), Matrix(b)), (kind,)) for kind in kinds]
    chains.append(Chain((Matrix(a, np.full((6, 6), 1e-12)), Matrix(b)), (kinds[0],)))
    assert len({fingerprint(chain) for chain in chains}) == len(chains)


def test_points_move_between_scales(tmp_path):
    chain = chain_of((3, 8, 8, 2))
    weights = [w.midpoint for w in chain.weights]
    assembly = assemble(weights, chain.activations, (0, 0, 0))
    objective = Objective(assembly.layers, assembly.last, norm="inf")
    theta = np.random.default_rng(0).standard_normal(objective.size)
    file = Checkpoint(tmp_path / "file", chain, "q")
    file.keep(0, Point(theta, 1e-3, 1.0, assembly.exponents), last=True)
    again = Checkpoint(tmp_path / "file", chain, "q")
    shift = np.array([1, -2, 3])
    moved = again.start(0, tuple(np.array(assembly.exponents) + shift), objective.parts)
    # |df|^2 <= dx^T Y dx: a layer's storage has the square of the scales of all later ones
    expected = [-2 * sum(shift), -2 * (-2 + 3), -2 * 3]
    for part, power in zip(objective.parts, expected, strict=False):
        np.testing.assert_allclose(moved.theta[part] - theta[part], power * np.log(2.0))
    same = again.start(0, assembly.exponents, objective.parts)
    np.testing.assert_array_equal(same.theta, theta)
    assert same.mu == 1e-3


def test_the_search_is_in_the_result_and_in_the_picture():
    chain = chain_of((4, 12, 12, 3))
    found = bound(chain)
    seconds, bounds = zip(*found.history, strict=True)
    assert len(bounds) > 3
    assert list(seconds) == sorted(seconds)
    assert bounds[-1] == found.lipsdp == found.upper
    assert all(b < a for a, b in pairwise(bounds[:-1]))
    assert bounds[-1] == pytest.approx(bounds[-2], rel=1e-3)
    bars, search = found.plot().axes
    assert len(bars.patches) == 3
    assert len(search.lines) == 4
    assert search.lines[0].get_ydata()[-1] == found.upper
    assert {line.get_label() for line in search.lines[2:]} == {
        "product of norms",
        "attained by attack",
    }
    assert len(bound(chain, method="product").plot().axes) == 1
    rows = engine_bound(chain, norm="2", output="inf")
    assert rows.history
    assert rows.history[-1][1] == pytest.approx(rows.witness.bound, rel=1e-3)
