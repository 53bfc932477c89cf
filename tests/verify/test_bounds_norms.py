"""Robustness in l2 and l1 balls: against closed forms, rationals, sampling and the checker."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from tangency.models import Builder, InputError, activations, from_layers
from tangency.verify import Ball, Box, bound, certify_robust, check, write_certificate
from tangency.verify.bounds.accuracy import certified_accuracy
from tangency.verify.bounds.perturbations import Perturbations

NORMS = ("inf", "2", "1")


def problem(seed: int = 0, *, dtype: str = "float64"):
    rng = np.random.default_rng(seed)
    sizes = [(12, 6), (8, 12), (3, 8)]
    layers = [
        (
            (rng.normal(size=s) / np.sqrt(s[1])).astype(dtype),
            (0.2 * rng.normal(size=s[0])).astype(dtype),
        )
        for s in sizes
    ]
    x = rng.random((20, 6))
    mean = from_layers(layers, "relu").evaluate(x.astype(dtype)).mean(axis=0)
    layers[-1] = layers[-1][0], layers[-1][1] - mean  # so that margins of all sizes are there
    network = from_layers(layers, "relu")
    return network, x, network.astype("float64").evaluate(x).argmax(axis=1)


def is_inside(point, x, eps, norm, clip=None) -> bool:
    """In exact arithmetic."""
    away = [abs(Fraction(float(p)) - Fraction(float(c))) for p, c in zip(point, x, strict=True)]
    size = {"inf": max(away), "1": sum(away), "2": sum(a * a for a in away)}[norm]
    fits = clip is None or all(clip[0] <= p <= clip[1] for p in point)
    return fits and size <= (Fraction(eps) ** 2 if norm == "2" else Fraction(eps))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_of_a_linear_classifier_both_sides_meet_the_closed_form(norm, method):
    """margin = w . x + b - eps |w|_q with the dual norm q, and it is attained."""
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(2, 9)), rng.normal(size=2)
    x = rng.normal(size=(30, 9))
    network = from_layers([(weight, bias)])
    labels = network.evaluate(x).argmax(axis=1)
    found = certify_robust(network, x, labels, 0.3, norm=norm, method=method)
    w, b = weight[labels] - weight[1 - labels], bias[labels] - bias[1 - labels]
    dual = np.linalg.norm(w, ord={"inf": 1, "2": 2, "1": np.inf}[norm], axis=1)
    truth = (w * x).sum(axis=1) + b - 0.3 * dual
    np.testing.assert_allclose(found.margin_upper, truth, atol=1e-9)
    if method == "crown" or norm == "inf":  # intervals see only the box around a ball
        np.testing.assert_allclose(found.margin_lower, truth, atol=1e-9)
        assert (found.verified ^ found.attacked).all()
    assert 0 < found.attacked.mean() < 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("attack", ["pgd", "corners"])
@pytest.mark.parametrize("norm", NORMS)
def test_points_of_the_attack_are_in_the_ball_exactly(norm, attack, dtype):
    network, x, labels = problem(2, dtype=dtype)
    for eps, clip in ((0.5, None), (0.5, (0.0, 1.0)), (1e-13, None)):
        found = certify_robust(network, x, labels, eps, norm=norm, attack=attack, clip=clip)
        for point, centre in zip(found.points, x, strict=True):
            assert is_inside(point, centre, eps, norm, clip)
        attained = network.astype("float64").evaluate(found.points)
        own = np.take_along_axis(attained, labels[:, None], axis=1)[:, 0]
        np.put_along_axis(attained, labels[:, None], -np.inf, axis=1)
        np.testing.assert_allclose(found.margin_upper, own - attained.max(axis=1), atol=1e-9)


@pytest.mark.parametrize("eps", [3e-310, 1e-200, 1e-16, 0.1, 1e3])
@pytest.mark.parametrize("norm", NORMS)
def test_what_is_called_inside_is_inside_exactly(norm, eps):
    rng = np.random.default_rng(4)
    x = rng.random((40, 5)) * np.array([0.0, 1e-300, 1e-8, 1.0, 1.0])
    balls = Perturbations(x, eps, norm, None)
    away = rng.normal(size=x.shape)
    away /= np.linalg.norm(away, ord=float(norm), axis=1, keepdims=True)
    border = x + eps * away * (1 + 2e-15 * rng.normal(size=(40, 1)))
    far = x + rng.normal(size=x.shape)
    for points in (border, far, balls.corners(rng)):
        brought = balls.inside(points)
        for p, q, c, holds in zip(points, brought, x, balls.holds(points), strict=True):
            assert is_inside(q, c, eps, norm)
            assert is_inside(p, c, eps, norm) or not holds
            assert np.array_equal(p, q) or not holds
    if eps >= 0.1:  # and nothing is given away: what is near the border stays there
        reach = np.linalg.norm(balls.inside(border) - x, ord=float(norm), axis=1)
        assert (reach >= eps * (1 - 1e-12)).all()


@pytest.mark.parametrize("method", ["ibp", "crown", "alpha-crown"])
def test_no_sample_of_the_ball_refutes_what_is_verified(method):
    network, x, labels = problem(5)
    rng = np.random.default_rng(6)
    shares = []
    for norm in NORMS:
        eps, clip = 0.1, (0.0, 1.0)
        found = certify_robust(
            network, x, labels, eps, norm=norm, method=method, clip=clip, steps=3
        )
        assert found.norm == norm
        assert found.as_dict()["norm"] == f"l{norm}"
        assert not (found.verified & found.attacked).any()
        assert (found.margin_lower <= found.margin_upper).all()
        shares.append(found.certified_accuracy)
        for _ in range(200):
            away = rng.normal(size=x.shape) * (rng.random(x.shape) < rng.random())
            size = np.linalg.norm(away, ord=float(norm), axis=1, keepdims=True)
            points = np.clip(x + eps * away / np.where(size > 0, size, 1), *clip)
            y = network.evaluate(points)
            own = np.take_along_axis(y, labels[:, None], axis=1)[:, 0]
            np.put_along_axis(y, labels[:, None], -np.inf, axis=1)
            assert (own - y.max(axis=1) >= found.margin_lower - 1e-9).all()
    # l1 balls lie in l2 balls, and those in boxes
    assert shares == sorted(shares)
    assert method == "ibp" or shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize("norm", ["2", "1"])
def test_a_certificate_of_samples_in_batches(norm, tmp_path):
    network, x, labels = problem(7)
    path = tmp_path / "robust.cert"
    how = {"norm": norm, "method": "alpha-crown", "steps": 3, "batch": 8, "clip": (0.0, 1.0)}
    found = certify_robust(network, x, labels, 0.1, **how)
    assert 0 < found.verified.sum() < len(x)
    write_certificate(path, found, network)
    believed = {"x": x, "y": labels, "clip": (0.0, 1.0)}
    checked = check(path, network, eps=0.1, norm=norm, **believed)
    assert checked.holds, checked.reason
    assert checked.samples == tuple(np.flatnonzero(found.verified))
    for eps, other in ((0.1001, norm), (0.1, "inf"), (0.1, "2" if norm == "1" else "inf")):
        assert not check(path, network, eps=eps, norm=other, **believed)


def test_a_run_of_another_norm_has_another_checkpoint(tmp_path):
    network, x, labels = problem(8)
    path = tmp_path / "run"
    how = {"method": "crown", "batch": 8, "checkpoint": path}
    first = certified_accuracy(network, x, labels, [0.1, 0.4], norm=2, **how)
    again = certified_accuracy(network, x, labels, [0.1, 0.4], norm="2", **how)
    assert again.certified
    np.testing.assert_allclose(again.margin_lower, first.margin_lower, rtol=1e-12)
    np.testing.assert_array_equal(again.margin_upper, first.margin_upper)
    alone = certify_robust(network, x, labels, 0.4, norm="2", method="crown")
    np.testing.assert_array_equal(first.verified[1], alone.verified)
    assert again.as_dict()["norm"] == "l2"
    assert "_{2}" in again.plot().axes[0].get_xlabel()
    for norm in ("1", "inf"):
        with pytest.raises(InputError, match="another network, data set, radii or options"):
            certified_accuracy(network, x, labels, [0.1, 0.4], norm=norm, **how)


@pytest.mark.parametrize("norm", [3, "two", None, "linf"])
def test_other_norms_are_refused(norm):
    network, x, labels = problem()
    with pytest.raises(InputError, match="give inf, 2 or 1"):
        certify_robust(network, x, labels, 0.1, norm=norm)


# --- bounds of outputs as they are ----------------------------------------------------------------


def test_bounds_take_memory_of_the_outputs_not_of_their_square():
    n = 4000
    b = Builder("float64")
    network = b.finish([b.activation(b.input((1, n)), activations.get("relu"))])
    box = Box(np.full(n, -1.0), np.full(n, 2.0))
    bound(network, box, method="ibp")
    tracemalloc.start()
    found = bound(network, box, method="ibp")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 * n * n / 20
    assert (found.lower == 0.0).all()
    np.testing.assert_allclose(found.upper, 2.0)


def test_bounds_as_they_are_still_have_certificates(tmp_path):
    network, x, _ = problem(9)
    for region in (Box.around(x, 0.1), Ball(x, 0.1)):
        for method in ("ibp", "crown"):
            found = bound(network, region, method=method)
            assert found.statement.spec is None
            write_certificate(tmp_path / "b.cert", found, network)
            checked = check(tmp_path / "b.cert", network)
            assert checked.holds, checked.reason
