"""The checker of chains on every layer type and norm: what it refuses, and why."""

from dataclasses import replace

import numpy as np
import pytest

from tangency.models.errors import InputError, NotProvedError
from tangency.verify.certificate import (
    ChainWitness,
    GroupSort,
    Householder,
    Matrix,
    Residual,
    Slopes,
    check_chain,
)
from tangency.verify.certificate.reduction import reduce
from tangency.verify.lipschitz import Chain
from tangency.verify.lipschitz.engine.search import engine_bound


def activation_of(kind):
    rng = np.random.default_rng(7)
    return {
        "relu": Slopes(0.0, 1.0),
        "mixed": Slopes(
            np.array([0.0, -0.3, 0.2, 0.5, 0.1, 1.0]), np.array([1, 1.1, 1, 0.5, 2, 1])
        ),
        "maxmin": GroupSort(2),
        "groupsort": GroupSort(3),
        "householder": Householder(rng.standard_normal((2, 3))),
        "residual": Residual(GroupSort(2), Matrix(rng.standard_normal((6, 6)))),
        "identity": Residual(Slopes(0.0, 1.0)),
    }[kind]


KINDS = ["relu", "mixed", "maxmin", "groupsort", "householder", "residual", "identity"]


def proved(kind, norm="2", output="2"):
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal((6, 6)) for _ in range(3)] + [rng.standard_normal((2, 6))]
    activation = activation_of(kind)
    chain = Chain.from_matrices(weights, [activation] * 3)
    margin = (0, 1) if output == "margin" else ()
    found = engine_bound(chain, norm=norm, output=output, margin=margin, rtol=1e-4)
    assert found is not None
    return chain, found.witness


def refuse(chain, witness, word):
    with pytest.raises(NotProvedError, match=word):
        check_chain(chain.weights, chain.activations, witness)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("norm", "output"), [("2", "2"), ("1", "1"), ("inf", "inf"), ("inf", "margin")]
)
def test_tampered_witnesses_are_refused(kind, norm, output):
    chain, witness = proved(kind, norm, output)
    assert check_chain(chain.weights, chain.activations, witness) == witness.bound
    refuse(chain, replace(witness, bound=witness.bound * (1 - 1e-6)), "layer 1|exceeds")
    for k in range(3):
        flipped = list(witness.multipliers)
        flipped[k] = flipped[k].copy()
        flipped[k][np.argmax(flipped[k])] *= -1
        refuse(chain, replace(witness, multipliers=tuple(flipped)), f"layer {k + 1}: .*negative")
        # With linear neurons storages may be too large as well as too small: halve all of one.
        bent = list(witness.storage)
        bent[k] = 0.5 * bent[k]
        refuse(chain, replace(witness, storage=tuple(bent)), "not proved positive definite")
    first, second = chain.weights[:2]
    with pytest.raises(NotProvedError):
        check_chain((second, first, *chain.weights[2:]), chain.activations, witness)
    claimed = {"2": "1", "1": "2", "inf": "2"}[norm]
    refuse(chain, replace(witness, norm=claimed), "head")
    refuse(chain, replace(witness, norm="3"), "unknown norm|head")
    refuse(chain, replace(witness, exponents=witness.exponents[:-1]), "exponents")
    if witness.head:
        smaller = tuple(0.999 * h for h in witness.head)
        refuse(chain, replace(witness, head=smaller), "layer 1")
        refuse(chain, replace(witness, head=tuple(1.001 * h for h in witness.head)), "exceeds")
        refuse(chain, replace(witness, head=()), "head")
    if witness.tail:
        lower = (0.999 * witness.tail[0],)
        refuse(chain, replace(witness, tail=lower), "inverses")
        refuse(chain, replace(witness, tail=(1.01 * witness.tail[0],)), "last")
    if witness.margin:
        for wrong in ((), (0,), (0, 2), (-1, 0), (0.0, 1)):
            refuse(chain, replace(witness, margin=wrong), "margin")
        refuse(chain, replace(witness, output="2"), "margin")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_number_is_refused(kind):
    chain, witness = proved(kind)
    refuse(chain, replace(witness, bound=float("nan")), "not a positive")
    broken = tuple(np.full_like(q, np.nan) for q in witness.storage)
    refuse(chain, replace(witness, storage=broken), "not finite")
    refuse(chain, replace(witness, exponents=tuple(float(e) for e in witness.exponents)), "range")
    refuse(chain, replace(witness, output="frobenius"), "unknown norm")


def test_a_margin_is_not_a_norm_of_another_pair():
    rng = np.random.default_rng(2)
    weights = [
        rng.standard_normal((4, 3)),
        np.diag([1.0, 1.0, 100.0]) @ rng.standard_normal((3, 4)),
    ]
    chain = Chain.from_matrices(weights, "maxmin")
    found = engine_bound(chain, output="margin", margin=(0, 1))
    assert found is not None
    refuse(chain, replace(found.witness, margin=(0, 2)), "last")
    same = replace(found.witness, margin=(1, 0))
    assert check_chain(chain.weights, chain.activations, same) == found.witness.bound


@pytest.mark.parametrize("kind", ["groupsort", "householder", "maxmin"])
def test_reduction_encloses_the_exact_parts(kind):
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((6, 4))
    activation = activation_of(kind)
    count = activation.groups(6)
    form = reduce(activation, Matrix(weight), np.ones(count), name="layer 1")
    assert form.linear is not None
    assert form.spread is not None
    # The kept part and the free coordinates make up the whole: A + B V = W.
    whole = form.linear.midpoint + form.spread.midpoint @ form.inner.midpoint
    assert whole == pytest.approx(weight, abs=1e-14)
    if kind == "maxmin":  # nothing but sums of two weights is rounded
        assert np.max(form.inner.radius) < 1e-15
    # The free part is nonexpansive in the metric of the multipliers.
    squares = form.strength.midpoint[:, 0]
    z = form.inner.midpoint
    turned = np.linalg.norm(form.spread.midpoint @ z, axis=0) ** 2
    assert (squares[:, None] * z**2).sum(axis=0) == pytest.approx(turned, rel=1e-13)


def test_short_and_long_normals_are_the_same_reflection():
    rng = np.random.default_rng(4)
    weights = [rng.standard_normal((6, 4)), rng.standard_normal((2, 6))]
    normals = rng.standard_normal((2, 3))
    bounds = []
    for scale in (1.0, 2.0**40, 3e-30):
        chain = Chain.from_matrices(weights, [Householder(scale * normals)])
        found = engine_bound(chain)
        assert found is not None
        bounds.append(found.witness.bound)
    assert bounds == pytest.approx([bounds[0]] * 3, rel=1e-7)
    with pytest.raises(InputError, match="normal"):
        Householder(np.zeros((2, 3))).groups(6)


def test_uncertain_weights_cost_what_they_may():
    rng = np.random.default_rng(5)
    weights = [rng.standard_normal((4, 3)), rng.standard_normal((2, 4))]
    exact = Chain.from_matrices(weights, "maxmin")
    found = engine_bound(exact)
    assert found is not None
    loose = [Matrix(w, np.full(w.shape, 1e-3)) for w in weights]
    with pytest.raises(NotProvedError):
        check_chain(loose, exact.activations, found.witness)
    wide = replace(found.witness, bound=2.0 * found.witness.bound)
    assert isinstance(wide, ChainWitness)
    assert check_chain(exact.weights, exact.activations, wide) == wide.bound
