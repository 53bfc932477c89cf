"""Wide, deep chains, where the time is enough for a few gradients: a small chain goes first."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tangency.verify.certificate import check_chain
from tangency.verify.lipschitz import Chain, Slopes, bound_chain
from tangency.verify.lipschitz.eclipse import eclipse_fast
from tangency.verify.lipschitz.engine.assemble import assemble
from tangency.verify.lipschitz.engine.beginning import begin_search
from tangency.verify.lipschitz.engine.coarse import coarse_start, takes_coarse
from tangency.verify.lipschitz.engine.objective import Objective
from tangency.verify.lipschitz.engine.search import engine_bound
from tangency.verify.lipschitz.scaling import norm_exponents, scaled_midpoints
from tangency.verify.lipschitz.spectra import spectral_norm, top_eigenvalue


def generated(depth, width, seed=0, activation="relu"):
    rng = np.random.default_rng(seed)
    sizes = [4, *[width] * (depth - 1), 1]
    weights = [rng.standard_normal((b, a)) for a, b in pairwise(sizes)]
    norms = rng.uniform(0.4, 1.8, depth)
    return Chain.from_matrices(
        [w * (s / np.linalg.norm(w, 2)) for w, s in zip(weights, norms, strict=True)], activation
    )


def assembled(chain):
    exponents = norm_exponents(chain)
    weights = scaled_midpoints(chain, exponents)
    form = assemble(weights, chain.activations, exponents)
    return weights, exponents, form, Objective(form.layers, form.last)


def test_far_below_the_closed_form_before_the_first_gradient():
    chain = generated(12, 200)
    weights, exponents, form, objective = assembled(chain)
    theta = coarse_start(form.layers, form.last, time_limit=1e9)
    square = objective.evaluate(theta, 1e-3).square
    start = math.sqrt(square) * 2.0 ** sum(form.exponents)
    closed = 2.0 ** (eclipse_fast(weights)[0] + sum(exponents))
    assert start < 0.6 * closed
    begun = begin_search(chain, weights, exponents, form, objective, time_limit=1e9)
    assert objective.evaluate(begun.theta, 1e-3).square <= square * (1 + 1e-9)


def test_proved_better_than_the_closed_form_after_a_few_steps():
    chain, seen = generated(12, 200, seed=1), []
    fast = bound_chain(chain, method="eclipse_fast", attack=False)

    def stop(bound, seconds):
        seen.append(bound)
        if len(seen) == 3:
            raise KeyboardInterrupt

    found = bound_chain(chain, progress=stop, time_limit=None)
    assert not found.finished
    check_chain(chain.weights, chain.activations, found.witness)
    assert found.lower <= found.upper < 0.6 * fast.upper
    assert found.upper < fast.product


@pytest.mark.parametrize("kind", ["low rank", "one row", "slopes"])
def test_a_poor_likeness_costs_tightness_alone(kind):
    chain = generated(6, 200, seed=2)
    rng = np.random.default_rng(3)
    weights = [w.midpoint.copy() for w in chain.weights]
    activation = "relu"
    if kind == "low rank":
        for k in (1, 2, 3):
            weights[k] = np.outer(rng.standard_normal(200), rng.standard_normal(200)) / 200
    elif kind == "one row":
        weights[2][:] *= 1e-3
        weights[2][7] *= 1e6  # what a choice of rows will not meet
    else:
        activation = Slopes(-0.1, 1.1)
    chain = Chain.from_matrices(weights, activation)
    weights, exponents, form, objective = assembled(chain)
    assert takes_coarse(form.layers)
    begun = begin_search(chain, weights, exponents, form, objective, time_limit=1e9)
    state = objective.evaluate(begun.theta, 1e-3)
    assert state is not None
    if kind != "slopes":  # never above the better of the closed forms
        closed = 2.0 ** (eclipse_fast(weights)[0] + sum(exponents))
        start = math.sqrt(state.square) * 2.0 ** sum(form.exponents)
        assert start <= 1.03 * closed
    found = bound_chain(chain, time_limit=0.5, attack=kind != "slopes")
    assert found.certified
    assert found.lower is None or found.lower <= found.upper


def test_no_time_at_all_still_gives_the_closed_form():
    chain = generated(10, 60, seed=4)
    fast = bound_chain(chain, method="eclipse_fast", attack=False)
    found = bound_chain(chain, time_limit=1e-6, attack=False)
    assert found.method == "lipsdp"
    assert not found.finished
    assert found.upper <= fast.upper * (1 + 1e-6)


def test_an_interrupt_of_the_small_chain_is_the_end(monkeypatch):
    from tangency.verify.lipschitz.engine import coarse

    real = coarse.minimise

    def stopped(*args, **options):
        return replace(real(*args, **options), finished=False)

    monkeypatch.setattr(coarse, "minimise", stopped)
    found = engine_bound(generated(4, 200), time_limit=1e9)
    assert not found.finished
    assert found.steps == 0


def test_narrow_or_linear_layers_go_without():
    for chain in (
        generated(4, 40),
        generated(4, 200, activation="maxmin"),
        Chain.from_matrices([w.midpoint for w in generated(2, 200).weights]),
    ):
        assert not takes_coarse(assembled(chain)[2].layers)


def test_eigenvalues_and_norms_of_large_matrices():
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((300, 260))
    gram = matrix @ matrix.T
    assert top_eigenvalue(gram) == pytest.approx(np.linalg.eigvalsh(gram)[-1], rel=1e-5)
    norm = np.linalg.norm(matrix, 2)
    assert 0.97 * norm <= spectral_norm(matrix) <= norm * (1 + 1e-12)
    assert spectral_norm(np.zeros((300, 300))) == 0.0
    assert top_eigenvalue(np.zeros((300, 300))) == 0.0
    one = np.zeros((300, 300))
    one[0, 0] = 4.0
    assert top_eigenvalue(one) == pytest.approx(4.0)
