"""The published inequalities in cvxpy, and the engine beside them."""

from itertools import pairwise

import numpy as np
import pytest

from tangency.models.errors import InputError, UnsupportedError
from tangency.verify.lipschitz import (
    Chain,
    GroupSort,
    Householder,
    Residual,
    attack,
    bound_chain,
)
from tangency.verify.lipschitz.reference import maxmin_as_relu, reference_bound


def random_chain(seed, activation, widths=(3, 6, 6, 1)):
    rng = np.random.default_rng(seed)
    matrices = [rng.normal(size=(m, n)) for n, m in pairwise(widths)]
    return Chain.from_matrices(matrices, activation)


def engine(chain, **options):
    return bound_chain(chain, attack=False, rtol=1e-8, **options).upper


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("activation", ["maxmin", GroupSort(3)])
def test_theorem_1_tends_to_the_engine_from_above(activation, seed):
    chain = random_chain(seed, activation)
    best = engine(chain)
    found = reference_bound(chain)
    # The engine's value is the limit of P -> infinity, which no multipliers attain.
    assert best * (1 - 1e-6) <= found.value <= best * (1 + 1e-3)
    assert not found.proved
    assert found.residual < 1e-3
    without = reference_bound(chain, free=False)
    assert without.value >= best * (1 - 1e-6)
    assert without.value >= found.value * (1 - 1e-3)


def test_dropping_p_and_s_loses():
    chain = random_chain(0, "maxmin")
    assert reference_bound(chain, free=False).value > 1.2 * reference_bound(chain).value


def test_theorem_1_of_householder():
    normals = np.random.default_rng(4).normal(size=(3, 2))
    chain = random_chain(0, Householder(normals))
    best = engine(chain)
    assert best * (1 - 1e-6) <= reference_bound(chain).value <= best * (1 + 1e-3)


@pytest.mark.parametrize("slopes", ["relu", (-0.2, 1.0), (0.25, 0.75)])
@pytest.mark.parametrize("solver", ["clarabel", "scs"])
def test_lipsdp_neuron_equals_the_engine(slopes, solver):
    chain = random_chain(1, slopes, widths=(3, 5, 5, 2))
    assert reference_bound(chain, solver=solver).value == pytest.approx(engine(chain), rel=2e-5)


def test_lipsdp_layer_is_weaker_than_neuron():
    chain = random_chain(2, "relu")
    layer, neuron = (reference_bound(chain, form=form).value for form in ("layer", "neuron"))
    assert neuron * 1.01 < layer < bound_chain(chain, method="product", attack=False).upper


@pytest.mark.parametrize("activation", ["maxmin", "relu"])
def test_infinity_norm_equals_the_engine(activation):
    for seed in range(2):
        chain = random_chain(seed, activation)
        best = engine(chain, norm="inf")
        found = reference_bound(chain, norm="inf")
        assert best * (1 - 1e-6) <= found.value <= best * (1 + 1e-3)
        assert reference_bound(chain, norm="inf", free=False).value >= best * (1 - 1e-6)


def test_residual_block_equals_the_engine():
    rng = np.random.default_rng(5)
    block = Residual(GroupSort(2))
    matrices = [rng.normal(size=s) for s in ((4, 4), (4, 4), (2, 4))]
    chain = Chain.from_matrices(matrices, [block, block])
    best = engine(chain)
    assert best * (1 - 1e-6) <= reference_bound(chain).value <= best * (1 + 1e-3)


@pytest.mark.parametrize(
    ("form", "expected"), [("one_relu", 1), ("two_relu", 2**0.5), ("skip_free", 2)]
)
def test_rewritings_of_maxmin(form, expected):
    written = maxmin_as_relu(form)
    x = np.random.default_rng(0).normal(size=(50, 2))
    np.testing.assert_allclose(written(x), -np.sort(-x, axis=1), atol=1e-14)
    single = Chain.from_matrices([np.eye(2), np.eye(2)], "maxmin")
    assert reference_bound(single, rewriting=written).value == pytest.approx(expected, abs=1e-3)
    assert reference_bound(single).value == pytest.approx(1.0, abs=1e-3)


def test_the_maximum_alone_without_skip():
    written = maxmin_as_relu("skip_free_max")
    x = np.random.default_rng(0).normal(size=(50, 2))
    np.testing.assert_allclose(written(x)[:, 0], x.max(axis=1), atol=1e-14)
    chain = Chain.from_matrices([written.inner, written.outer], "relu")
    assert reference_bound(chain).value == pytest.approx(2.0, abs=1e-3)
    assert bound_chain(chain, attack=False).upper == pytest.approx(2.0, abs=1e-3)


def test_rewritings_are_ordered_on_networks():
    chain = random_chain(3, "maxmin")
    forms = ("one_relu", "two_relu", "skip_free")
    one, two, free = (reference_bound(chain, rewriting=maxmin_as_relu(f)).value for f in forms)
    assert engine(chain) * (1 - 1e-6) <= one < two < free


def test_the_unsound_network_form_is_never_certified():
    """The coupled multipliers give .9512 here; two points attain 2.4000."""
    hidden = np.array([[-1.119, 0.936], [1.792, -1.008], [1.565, -1.399], [0.322, -0.505]])
    output = np.array([[-0.258, 0.987, -0.679, -1.59]])
    chain = Chain.from_matrices([hidden, output], "relu")
    lower = attack(chain)
    assert lower == pytest.approx(2.4000, abs=2e-3)
    for form in ("neuron", "layer"):
        for solver in ("clarabel", "scs"):
            assert reference_bound(chain, form=form, solver=solver).value >= lower * (1 - 1e-5)
    assert reference_bound(chain).value == pytest.approx(2.4001, abs=1e-3)
    for method in ("lipsdp", "eclipse_fast", "product"):
        found = bound_chain(chain, method=method, attack=False)
        assert found.certified
        assert found.upper >= lower
    for solver in ("engine", "clarabel", "scs"):
        assert bound_chain(chain, solver=solver, attack=False).upper >= lower
    with pytest.raises(UnsupportedError, match="LipSDP-Network couples neurons"):
        reference_bound(chain, form="network")


def test_refusals():
    chain = random_chain(0, "maxmin", widths=(2, 4, 2))
    with pytest.raises(UnsupportedError, match="one output"):
        reference_bound(chain, norm="inf")
    with pytest.raises(InputError, match="unknown form"):
        reference_bound(chain, form="column")
    with pytest.raises(InputError, match="unknown solver"):
        reference_bound(chain, solver="mosek")
    with pytest.raises(InputError, match="unknown form"):
        maxmin_as_relu("three")
    with pytest.raises(UnsupportedError, match="groups of two"):
        reference_bound(random_chain(0, GroupSort(3)), rewriting=maxmin_as_relu())
