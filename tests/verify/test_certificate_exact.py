"""The check in rational arithmetic agrees with the check in float64, and is sharper."""

import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tangency.models import from_layers
from tangency.models.errors import InputError, MissingPackageError, NotProvedError
from tangency.verify import check, lipschitz_bound
from tangency.verify.certificate import (
    ChainWitness,
    GroupSort,
    Householder,
    Matrix,
    Residual,
    Slopes,
    check_chain,
)
from tangency.verify.certificate.exact import LARGEST, check_exact
from tangency.verify.certificate.product import ProductWitness, check_product
from tangency.verify.checking import certificate_of
from tangency.verify.lipschitz import Chain
from tangency.verify.lipschitz.engine.search import engine_bound

pytest.importorskip("flint", reason="needs the extra [exact]")
RNG = np.random.default_rng(5)
MIXED = Slopes(np.array([0.0, 1.0, 0.5, -0.2]), np.array([1.0, 1.0, 0.5, 1.1]))


def holds(checker, weights, activations, witness):
    try:
        return checker(weights, activations, witness) == witness.bound
    except NotProvedError:
        return False


@pytest.mark.parametrize("seed", range(20))
def test_both_modes_agree(seed):
    rng = np.random.default_rng(seed)
    activation = ["relu", "maxmin", "leaky_relu", "tanh", "groupsort3"][seed % 5]
    shapes = pairwise([[3, 6, 2], [9, 6, 6, 2], [2, 6, 6, 6, 1], [5, 6, 12]][seed % 4])
    network = from_layers([rng.standard_normal((b, a)) for a, b in shapes], activation)
    bound = lipschitz_bound(network, attack=False)
    certificate = certificate_of(bound, network)
    assert check(certificate, network).holds
    found = check(certificate, network, exact=True)
    assert found.holds
    assert found.exact
    assert found.bound == bound.upper
    for factor in (1 + 1e-9, 1 - 1e-12, 1 - 1e-9, 1 - 1e-6, 1 - 1e-3, 0.5):
        value = bound.upper * factor
        other = replace(
            certificate,
            claim=replace(certificate.claim, bound=value),
            witness=replace(certificate.witness, bound=value),
        )
        in_floats, in_rationals = (check(other, network, exact=e).holds for e in (False, True))
        assert in_rationals or not in_floats
        assert in_floats or not in_rationals or abs(factor - 1) <= 1e-9


@pytest.mark.parametrize(
    "activation",
    [
        GroupSort(2),
        GroupSort(4),
        Householder(RNG.standard_normal((2, 2))),
        Slopes(-0.3, 1.1),
        MIXED,
        Residual(GroupSort(2)),
        Residual(Slopes(0.0, 1.0), Matrix(RNG.standard_normal((4, 4)))),
    ],
    ids=lambda a: type(a).__name__,
)
@pytest.mark.parametrize("norm", ["2", "1", "inf"])
def test_layers_and_norms(activation, norm):
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal(shape) for shape in ((4, 3), (4, 4), (2, 4))]
    chain = Chain(tuple(map(Matrix, weights)), (GroupSort(2), activation))
    for output, margin in (("2", ()), ("1", ()), ("inf", ()), ("margin", (1, 0))):
        found = engine_bound(chain, norm=norm, output=output, margin=margin)
        if found is None:
            continue
        witness = found.witness
        for factor, wanted in ((1.0, True), (1 - 1e-5, False)):
            other = replace(witness, bound=witness.bound * factor)
            for checker in (check_chain, check_exact):
                assert holds(checker, chain.weights, chain.activations, other) is wanted


@pytest.mark.parametrize("checker", [check_chain, check_exact])
def test_the_norms_of_one_matrix(checker):
    weights = [Matrix(np.array([[3.0, 0.0], [0.0, 4.0]]))]
    more = 1 + 1e-9

    def true(bound, **parts):
        entries = 2 if parts.get("output") == "inf" else 1
        assert holds(
            checker, weights, [], ChainWitness(bound * more, (0,) * entries, (), (), **parts)
        )
        less = ChainWitness(bound * (1 - 1e-6), (0,) * entries, (), (), **parts)
        assert not holds(checker, weights, [], less)

    square = np.diag([9.0, 16.0]) * (1 + 1e-10)
    true(4.0)
    true(5.0, norm="inf", head=(np.diagonal(square).copy(),))
    true(4.0, norm="1", head=(square,))
    tails = np.array([25 / 9, 25 / 16]) * (1 + 1e-12)  # sqrt(9 + 16): the l1 norm from l2
    true(5.0, output="1", tail=(tails,))
    true(4.0, output="inf")
    true(5.0, output="margin", margin=(0, 1))
    for wrong in (
        {"norm": "3"},
        {"output": "3"},
        {"norm": "2", "head": (square,)},
        {"norm": "inf", "head": (-np.diagonal(square),)},
        {"norm": "1", "head": (square + np.array([[0.0, 1.0], [0.0, 0.0]]),)},
        {"output": "margin"},
        {"output": "margin", "margin": (0, 2)},
        {"margin": (0, 1)},
        {"output": "1"},
        {"output": "1", "tail": (np.array([1.5, 1.5]),)},
        {"output": "1", "tail": (np.array([-1.0, 1.0]),)},
        {"tail": (tails,)},
    ):
        assert not holds(checker, weights, [], ChainWitness(100.0, (0,), (), (), **wrong)), wrong


def test_exact_decides_where_rounding_cannot():
    one = np.eye(1)
    weights, slopes = [Matrix(one), Matrix(one)], [Slopes(0.0, 1.0)]
    close = 1 + 2.0**-52
    witness = ChainWitness(1 + 2.0**-50, (0, 0), (close * one[0],), (close * one,))
    assert not holds(check_chain, weights, slopes, witness)
    assert holds(check_exact, weights, slopes, witness)
    assert not holds(check_exact, weights, slopes, replace(witness, bound=1.0))


@pytest.mark.parametrize("checker", [check_product, check_exact])
def test_products(checker):
    matrix = np.array([[1.0, 2.0], [0.5, -1.0], [0.25, 3.0]])
    norm = float(np.linalg.norm(matrix, 2))
    weights, slopes = [Matrix(matrix), Matrix(np.array([[3.0, 0.0, 4.0]]))], [Slopes(-2.0, 1.0)]
    for first, second, bound, wanted in (
        (norm * (1 + 1e-9), 5.0, 10.001 * norm, True),
        (norm * (1 - 1e-9), 5.0, 10.001 * norm, False),
        (norm * (1 + 1e-9), 5.0 * (1 - 1e-15), 10.001 * norm, False),
        (norm * (1 + 1e-9), 5.0, 9.999 * norm, False),
        (norm * (1 + 1e-9), -5.0, 10.001 * norm, False),
        (np.inf, 5.0, np.inf, False),
        (np.nan, 5.0, 10.001 * norm, False),
    ):
        witness = ProductWitness(bound, (first, second))
        assert holds(checker, weights, slopes, witness) is wanted
    block = [Residual(Slopes(0.0, 1.0), Matrix(2 * np.eye(2)))]
    weights = [Matrix(np.eye(2)), Matrix(np.eye(2))]
    more = 1 + 1e-9
    assert holds(checker, weights, block, ProductWitness(3 * more**2, (more, more)))
    assert not holds(checker, weights, block, ProductWitness(2.99, (more, more)))


@pytest.mark.parametrize("exact", [False, True])
def test_products_in_other_norms(exact):
    network = from_layers([RNG.standard_normal((4, 3)), RNG.standard_normal((2, 4))], "relu")
    for norm in (1, 2, "inf"):
        for output in (1, 2, "inf", ("margin", 1, 0)):
            bound = lipschitz_bound(
                network, method="product", norm=norm, output=output, attack=False
            )
            certificate = certificate_of(bound, network)
            found = check(certificate, network, exact=exact)
            assert found.holds, found.reason
            assert f"|x - y|_{norm}" in found.claim
            assert certificate.claim.norm_in == str(norm)
            assert certificate.claim.norm_out in str(output)
            # The right product of norms, claimed for norms that ask more.
            for change in ({"norm": "inf"}, {"output": "1"}, {"output": "3"}, {"margin": (0, 5)}):
                witness = replace(certificate.witness, **change)
                same = all(getattr(certificate.witness, k) == v for k, v in change.items())
                checker = check_exact if exact else check_product
                chain = Chain.from_matrices(list(network.weights.values()), "relu")
                assert holds(checker, chain.weights, chain.activations, witness) == same


def test_what_exact_arithmetic_refuses(monkeypatch):
    rng = np.random.default_rng(0)
    wide = LARGEST // 2 + 1
    network = from_layers([rng.standard_normal((wide, wide)), np.ones((1, wide))], "relu")
    fake = ChainWitness(1e3, (0, 0), (np.full(wide, 1e3),), (np.ones((wide, wide)) + np.eye(wide),))
    bound = lipschitz_bound(network, method="product", attack=False)
    certificate = certificate_of(bound, network)
    with pytest.raises(InputError, match=r"layer 1: 130 rows are too many .* up to 128"):
        check(replace(certificate, witness=fake), network, exact=True)
    spread = [Matrix(np.eye(2), np.full((2, 2), 1e-9))]
    with pytest.raises(InputError, match="layer 1: its matrix is an enclosure"):
        check_exact(spread, [], ProductWitness(2.0, (2.0,)))
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'tangency\[exact\]'"):
        check(certificate, network, exact=True)
    assert check(certificate, network).holds
