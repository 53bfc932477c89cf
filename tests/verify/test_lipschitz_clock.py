"""Time limits, by a clock that counts: no test here depends on how fast the machine is."""

from itertools import pairwise

import numpy as np
import pytest

from tangency.verify.lipschitz import Chain, bound_chain, clock, product_bound
from tangency.verify.lipschitz import bound as rooms
from tangency.verify.lipschitz.engine import recursion


class Ticks:
    """A clock that shows one second more each time it is read, and what its second costs."""

    def __init__(self, step=1.0):
        self.seconds, self.step = 0.0, step

    def __call__(self):
        self.seconds += self.step
        return self.seconds


@pytest.fixture
def ticking(monkeypatch):
    def start(step=1.0, speed=0.0):
        ticks = Ticks(step)
        for module in (clock, rooms):
            monkeypatch.setattr(module, "now", ticks)
        for name in ("assemble", "coarse", "search", "solve", "trace"):
            module = __import__(f"tangency.verify.lipschitz.engine.{name}", fromlist=["now"])
            if hasattr(module, "now"):
                monkeypatch.setattr(module, "now", ticks)
        from tangency.verify.lipschitz import product
        from tangency.verify.lipschitz.engine import search

        for module in (product, search):
            monkeypatch.setattr(module, "seconds_for", lambda operations: speed * operations)
        return ticks

    return start


def chain_of(sizes, seed=0):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((b, a)) / np.sqrt(a) for a, b in pairwise(sizes)]
    return Chain.from_matrices(weights)


@pytest.mark.parametrize("limit", [60.0, 400.0, 2000.0])
@pytest.mark.parametrize("attack", [False, True])
def test_no_more_readings_than_the_limit_allows(limit, attack, ticking):
    ticks = ticking()
    found = bound_chain(chain_of((4, *[20] * 12, 3)), time_limit=limit, attack=attack, rtol=1e-12)
    assert found.seconds <= 1.2 * limit + 2.0
    assert ticks.seconds <= 1.2 * limit + 2.0
    assert found.certified
    if limit >= 400.0:
        assert found.method == "lipsdp"
        assert found.upper < found.product


def test_each_layer_of_a_sweep_looks_at_the_clock(ticking, monkeypatch):
    real, done = recursion.eliminate, []
    ticks = ticking(0.0)
    chain = chain_of((4, *[20] * 12, 3))

    def slow(*args):  # a hundred seconds for a layer, once the search has found something
        if done:
            ticks.seconds += 100.0
            done.append(1)
        return real(*args)

    monkeypatch.setattr(recursion, "eliminate", slow)
    found = bound_chain(
        chain,
        time_limit=1000.0,
        attack=False,
        progress=lambda *_: done.append(0) if not done else None,
    )
    assert not found.finished
    assert found.method == "lipsdp"
    assert sum(done) <= 11  # layers: not a sweep more, of twelve


def test_a_proof_that_would_take_too_long_leaves_the_product(ticking):
    chain = chain_of((4, 20, 20, 3))
    ticking(0.0, 1.0)  # a second for each operation
    found = bound_chain(chain, time_limit=1000.0, attack=False)
    assert (found.method, found.finished, found.lipsdp) == ("product", False, None)
    ticking(0.0, 1e-9)
    found = bound_chain(chain, time_limit=1000.0, attack=False)
    assert (found.method, found.finished) == ("lipsdp", True)


def test_the_product_is_refined_as_far_as_there_is_time(ticking):
    chain = chain_of((30, 40, 50, 60))
    ticking(0.0, 1.0)
    exact, crude = product_bound(chain), product_bound(chain, seconds=1.0)
    true = float(np.prod([np.linalg.norm(w.midpoint, 2) for w in chain.weights]))
    sizes = [np.abs(w.midpoint) for w in chain.weights]
    simple = [min(np.sqrt(s.sum(0).max() * s.sum(1).max()), np.linalg.norm(s)) for s in sizes]
    assert exact == pytest.approx(true, rel=1e-9)
    assert crude == pytest.approx(float(np.prod(simple)), rel=1e-9)
    ticking(0.0, 1e-12)
    assert product_bound(chain, seconds=1.0) == exact


def test_an_interrupt_of_the_attack_keeps_the_proof(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(rooms, "search", interrupted)
    found = bound_chain(chain_of((3, 6, 2)))
    assert (found.method, found.lower, found.finished) == ("lipsdp", None, False)
