"""Plans on sites: what is refused, what is held, and where entries lie."""

import ctypes
import shutil

import numpy as np
import pytest

from tangency.gpu.errors import PlanError
from tangency.gpu.host import build
from tangency.gpu.plans import Activation, Dense, Series, Sum
from tangency.gpu.sites import SitesKernel
from tangency.gpu.sites_plan import (
    Convolution,
    Factor,
    Flattening,
    Pooling,
    SitesPlan,
    window_table,
)
from tangency.gpu.sites_program import make_program
from tangency.gpu.sites_task import SitesTask, StageTask
from tangency.gpu.sources import sites_source, stage_source

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

WINDOW = window_table((2, 2))


@pytest.mark.parametrize(
    ("layers", "word"),
    [
        ((), "a layer or more"),
        ((Dense(0),), "earlier layers"),
        ((Convolution(-1, WINDOW, 2.0),), "sites left"),
        ((Convolution(-1, WINDOW + 4), Flattening(0)), "-1 to 3"),
        ((Pooling(-1, np.ones((1, 3))),), "on 4 sites"),
        ((Flattening(-1), Sum((0, -1), (1.0, 1.0))), "joins"),
        ((Flattening(-1), Sum((0,), (1.0, 1.0))), "2 weights"),
        ((Flattening(-1), Activation(0, "tanh", ())), "none of"),
        ((Flattening(-1), Series(0, np.tanh, far=(1024,))), "far orders"),
        ((object(),), "one of"),
    ],
)
def test_a_wrong_plan_is_named(layers, word):
    with pytest.raises(PlanError, match=word):
        SitesKernel(layers, 4, device="cpu")


def test_wrong_samples_and_options_are_named(rng):
    layers = (Convolution(-1, WINDOW), Series(0, np.tanh), Flattening(1), Factor(2, 2.0))
    kernel = SitesKernel(layers, 4, np.float64, "cpu")
    for x in (rng.normal(size=(2, 5, 1)), rng.normal(size=(2, 4)), np.full((1, 4, 1), np.nan)):
        with pytest.raises(PlanError, match="finite"):
            kernel.batch(x)
    with pytest.raises(PlanError, match="memory"):
        SitesKernel(layers, 4, device="cpu", memory=0.0)
    with pytest.raises(PlanError, match="46,340"):
        SitesPlan((Flattening(-1),), 50_000)


def test_programs_hold_no_more_than_they_need():
    """A chain holds two states; a mean behind a stage never comes to memory."""
    grid = (4, 4)
    table = window_table(grid)
    body = [Convolution(-1, table, grid=grid), Activation(0), Convolution(1, table, grid=grid),
            Activation(2)]  # fmt: skip
    mean = Pooling(3, np.full((1, 16), 1 / 16))
    plan = SitesPlan((*body, mean, Dense(4)), 16)
    assert make_program(plan, (5,)).widest(plan) == 1 + 16
    steps = make_program(plan, (5,), stages=False)
    assert [one.result for one in steps.launches] == [-1, 1, 3, 4, 5]
    assert steps.widest(plan) == 2 * 256
    flat = SitesPlan((*body, Flattening(3), Dense(4)), 16)
    assert make_program(flat, (5,)).widest(flat) == 2 * 16


def test_entries_are_numbered_in_64_bits():
    """Where an entry lies, far beyond 2^32 of them: by the same code, built for the host alone."""
    probe = """
    extern "C" long long task_size() { return sizeof(sites_task); }
    extern "C" long long probe(const sites_task* t, long long index, int* p, int* q) {
        const place at = place_of(*t, index);
        *p = at.p;
        *q = at.q;
        return entry_one(*t, at.pair, at.p, at.q);
    }"""
    library = build(sites_source(np.float32) + probe)
    library.task_size.restype = library.probe.restype = ctypes.c_longlong
    assert library.task_size() == ctypes.sizeof(SitesTask)
    sites = 46340
    square = sites * sites
    task = SitesTask(entries_out=square, entries_one=square, sites_in=sites, sites_out=sites,
                     full_one=1, full_out=1)  # fmt: skip
    p, q = ctypes.c_int(), ctypes.c_int()
    for index in (0, square - 1, 7 * square + 3 * sites + 5, 10**12 * square // 10**6):
        at = library.probe(
            ctypes.byref(task), ctypes.c_longlong(index), ctypes.byref(p), ctypes.byref(q)
        )
        assert at == index
        assert (p.value, q.value) == divmod(index % square, sites)
    text = stage_source(8, 6, np.float64, from_memory=True, to_memory=True)
    text += 'extern "C" long long task_size() { return sizeof(stage_task); }'
    stage = build(text).task_size
    stage.restype = ctypes.c_longlong
    assert stage() == ctypes.sizeof(StageTask)
