"""Implicit layers: proved bounds, well-posedness, sampled fixed points."""

from dataclasses import replace

import numpy as np
import pytest

from tangency.models.errors import InputError, NotProvedError, UnsupportedError
from tangency.verify.certificate import GroupSort, Householder, Matrix, Slopes
from tangency.verify.certificate.implicit import check_implicit, check_well_posed
from tangency.verify.lipschitz import Chain, bound_chain
from tangency.verify.lipschitz.implicit import implicit_bound


def layer(seed, n=8, m=4, p=3, norm=0.85):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(n, n))
    weight *= norm / np.linalg.norm(weight, 2)
    return weight, rng.normal(size=(n, m)), rng.normal(size=(p, n)), rng.normal(size=n)


def apply(activation, z):
    if activation == "maxmin":
        return -np.sort(-z.reshape(*z.shape[:-1], -1, 2), axis=-1).reshape(z.shape)
    low, high = {"relu": (0.0, 1.0)}.get(activation, activation)
    return np.where(z > 0, high * z, low * z)


def outputs(w, u, c, b, activation, x):
    z = np.zeros((len(x), len(w)))
    for _ in range(3000):
        z = 0.5 * z + 0.5 * apply(activation, z @ w.T + x @ u.T + b)
    np.testing.assert_allclose(z, apply(activation, z @ w.T + x @ u.T + b), atol=1e-10)
    return z @ c.T


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("activation", ["relu", "maxmin", (-0.1, 1.0), (0.2, 0.8)])
def test_between_sampled_quotients_and_the_naive_bound(activation, seed):
    w, u, c, b = layer(seed)
    found = implicit_bound(w, u, c, activation=activation, b=b)
    assert found.certified
    assert found.posed == "contraction"
    rng = np.random.default_rng(seed + 10)
    x, y = rng.normal(size=(2, 200, u.shape[1])) * 4
    y[:100] = x[:100] + 1e-3 * y[:100]
    apart = outputs(w, u, c, b, activation, x) - outputs(w, u, c, b, activation, y)
    quotient = (np.linalg.norm(apart, axis=1) / np.linalg.norm(x - y, axis=1)).max()
    assert quotient <= found.upper
    assert found.lower is not None
    assert found.lower <= found.upper < 0.5 * found.product
    assert found.ratio < 1.7
    slope = max(abs(s) for s in activation) if isinstance(activation, tuple) else 1.0
    sizes = [float(np.linalg.norm(part, 2)) for part in (c, u, w)]
    naive = sizes[0] * sizes[1] * slope / (1 - slope * sizes[2])
    assert found.product == pytest.approx(naive, rel=1e-8)


@pytest.mark.parametrize("activation", ["relu", "maxmin", GroupSort(4), (-0.1, 1.0)])
def test_without_feedback_it_is_the_engine_s_chain(activation):
    w, u, c, _ = layer(3)
    found = implicit_bound(0 * w, u, c, activation=activation, attack=False)
    chain = Chain.from_matrices([u, c], activation)
    assert found.upper == pytest.approx(bound_chain(chain, attack=False).upper, rel=1e-5)


def test_linear_layer_is_its_norm():
    w, u, c, _ = layer(4)
    found = implicit_bound(w, u, c, activation=(1.0, 1.0))
    exact = float(np.linalg.norm(c @ np.linalg.solve(np.eye(8) - w, u), 2))
    assert found.upper == pytest.approx(exact, rel=1e-5)
    assert found.lower == pytest.approx(exact, rel=1e-9)


def test_monotone_layers_need_no_small_weight():
    rng = np.random.default_rng(0)
    w, u, c, b = layer(5)
    skew = rng.normal(size=(8, 8))
    w = skew - skew.T - 2 * np.eye(8)
    found = implicit_bound(w, u, c, b=b)
    assert found.posed == "monotone"
    assert found.product == float("inf")
    assert found.lower is not None
    assert found.ratio < 2
    with pytest.raises(NotProvedError, match="not proved well-posed"):
        implicit_bound(w, u, c, activation="maxmin")


def test_a_scaling_may_make_a_contraction():
    w = np.array([[0.0, 100.0], [1e-3, 0.0]])  # norm 100, but D W D^-1 has norm 0.32
    found = implicit_bound(w, np.eye(2), np.eye(2), activation=(-1.0, 1.0))
    assert found.posed == "contraction"
    assert 100.0 < found.upper < 200.0
    assert found.lower == pytest.approx(found.upper, rel=0.2)


def test_ill_posed_layers_are_refused():
    eye = np.eye(3)
    for weight in (eye, 2 * eye):
        with pytest.raises(NotProvedError, match=r"one solution for each h.*not below 1"):
            implicit_bound(weight, eye, eye)
    with pytest.raises(NotProvedError, match="not proved well-posed"):
        implicit_bound(1.001 * eye, eye, eye, activation="abs")


def test_tampered_witnesses_are_refused():
    for activation, constraint in (("relu", Slopes(0.0, 1.0)), ("maxmin", GroupSort(2))):
        w, u, c, _ = layer(6)
        proof = implicit_bound(w, u, c, activation=activation, attack=False).proof
        parts = [Matrix(part) for part in (w, u, c)]
        assert check_implicit(*parts, constraint, proof) == proof.bound
        negative = proof.multipliers.copy()
        negative[0] *= -1
        for wrong, reason in (
            (replace(proof, bound=proof.bound * (1 - 1e-4)), "the bound"),
            (replace(proof, bound=float("nan")), "not a positive finite"),
            (replace(proof, multipliers=negative), "the multipliers"),
            (replace(proof, multipliers=proof.multipliers[1:]), "finite numbers"),
            (replace(proof, posed="hope"), "unknown condition"),
            (replace(proof, scaling=-proof.scaling), "not positive"),
        ):
            with pytest.raises(NotProvedError, match=reason):
                check_implicit(*parts, constraint, wrong)
        with pytest.raises(NotProvedError, match="the fixed point"):
            check_implicit(Matrix(2.0 * w), *parts[1:], constraint, proof)
        with pytest.raises(NotProvedError, match="the bound"):
            check_implicit(parts[0], Matrix(2.0 * u), parts[2], constraint, proof)


def test_conditions_that_do_not_apply():
    small = Matrix(0.1 * np.eye(2))
    with pytest.raises(NotProvedError, match="slopes that are not negative"):
        check_well_posed(small, Slopes(-1.0, 1.0), "monotone", np.ones(2))
    with pytest.raises(NotProvedError, match="constant on each group"):
        check_well_posed(small, GroupSort(2), "contraction", np.array([1.0, 2.0]))


def test_scales_and_zeros():
    w, u, c, _ = layer(7)
    plain = implicit_bound(w, u, c, attack=False).upper
    for factor in (1e-40, 1e40):
        scaled = implicit_bound(w, factor * u, c / factor, attack=False)
        assert scaled.upper == pytest.approx(plain, rel=1e-5)
        assert implicit_bound(w, factor * u, c, attack=False).upper == pytest.approx(
            plain * factor, rel=1e-5
        )
    assert implicit_bound(w, u, 0 * c).upper < 1e-300


def test_refusals():
    w, u, c, _ = layer(0)
    with pytest.raises(InputError, match="do not fit"):
        implicit_bound(w, u.T, c)
    with pytest.raises(InputError, match="b must be 8 finite numbers"):
        implicit_bound(w, u, c, b=np.zeros(3))
    with pytest.raises(InputError, match="unknown solver"):
        implicit_bound(w, u, c, solver="mosek")
    with pytest.raises(UnsupportedError, match="slopes and GroupSort"):
        implicit_bound(w, u, c, activation=Householder(np.ones((4, 2))))
    with pytest.raises(InputError, match="at most 150 neurons"):
        implicit_bound(np.zeros((151, 151)), np.zeros((151, 2)), np.zeros((2, 151)))
