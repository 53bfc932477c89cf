"""Products, spectra and random features against the kernel itself."""

from __future__ import annotations

import numpy as np
import pytest

from tangency.models import InputError, from_layers
from tangency.theory.ntk import NTKOperator, empirical_ntk, project_ntk, spectrum
from tangency.theory.ntk.spectra import lanczos

RNG = np.random.default_rng(5)


def jax_case():
    layers = [(RNG.standard_normal((m, n)), RNG.standard_normal(m)) for n, m in ((4, 8), (8, 3))]
    return from_layers(layers, "tanh"), RNG.standard_normal((10, 4))


def torch_case():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(
        nn.Conv1d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 3)
    )
    return module.double(), torch.randn(10, 1, 4, dtype=torch.float64)


CASES = pytest.mark.parametrize("case", [jax_case, torch_case])


@CASES
def test_products_are_those_of_the_matrix(case):
    model, x = case()
    matrix = empirical_ntk(model, x, outputs="full").matrix
    operator = NTKOperator(model, x, batch_size=4)
    assert operator.shape == matrix.shape == (30, 30)
    v = RNG.standard_normal((30, 2))
    np.testing.assert_allclose(operator @ v, matrix @ v, rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(operator @ v[:, 0], matrix @ v[:, 0], rtol=1e-10, atol=1e-9)
    from scipy.sparse.linalg import cg

    solved, info = cg(operator.as_scipy(), matrix @ v[:, 0], rtol=1e-12, maxiter=400)
    assert info == 0
    np.testing.assert_allclose(matrix @ solved, matrix @ v[:, 0], rtol=1e-7, atol=1e-7)


@CASES
def test_top_eigenvalues_are_those_of_the_matrix(case):
    model, x = case()
    result = empirical_ntk(model, x, outputs="full")
    found = spectrum(NTKOperator(model, x), top=5)
    np.testing.assert_allclose(found.top, result.eigenvalues[:5], rtol=1e-8)
    assert (np.abs(found.top - result.eigenvalues[:5]) <= found.residual + 1e-9).all()
    assert found.products <= 4 * 30
    assert found.plot().axes[0].get_title() == "top eigenvalues"


def test_few_steps_give_residuals_that_hold_and_a_density_of_the_right_moments():
    values = np.concatenate([np.linspace(0.5, 1.5, 300), [10.0, 20.0]])
    basis = np.linalg.qr(RNG.standard_normal((302, 302)))[0]
    matrix = (basis * values) @ basis.T
    found = spectrum(matrix, top=2, steps=12, starts=20)
    near = np.abs(found.top[:, None] - values).min(1)
    assert (near <= found.residual + 1e-12).all()
    assert found.top[0] == pytest.approx(20, abs=1e-3)
    assert found.weights.sum() == pytest.approx(1)
    assert found.trace == pytest.approx(values.sum(), rel=0.05)
    grid = np.logspace(-2, 2, 2000)
    density = found.density(grid, width=0.05)
    area = float(np.sum((density[1:] + density[:-1]) / 2 * np.diff(np.log10(grid))))
    assert area == pytest.approx(1, abs=1e-2)
    middle = density[(grid > 0.4) & (grid < 1.8)].max()
    assert middle > 20 * density[(grid > 3) & (grid < 7)].max()


def test_lanczos_stops_at_an_invariant_subspace():
    matrix = np.diag([3.0, 3.0, 1.0, 1.0])
    diagonal, beside, basis = lanczos(matrix, np.ones(4), 4)
    assert len(diagonal) == len(beside) == len(basis) == 2
    found = spectrum(matrix, top=3, steps=4, starts=1)
    np.testing.assert_allclose(found.top, [3, 1], atol=1e-12)


@CASES
@pytest.mark.parametrize("outputs", ["full", "sum"])
def test_features_estimate_the_kernel_within_their_error(case, outputs):
    model, x = case()
    exact = empirical_ntk(model, x, outputs=outputs).matrix
    errors = []
    for k in (400, 6400):
        found = project_ntk(model, x, features=k, outputs=outputs, seed=1)
        assert found.features.shape == (10, len(exact) // 10, k)
        error = np.linalg.norm(found.matrix - exact) / np.linalg.norm(exact)
        assert 0.3 * found.error < error < 3 * found.error
        errors.append(error)
    assert errors[1] < 0.06
    assert errors[1] < 0.6 * errors[0]


@CASES
def test_features_of_chunks_are_those_of_the_whole(case):
    model, x = case()
    whole = project_ntk(model, x, features=32)
    parts = project_ntk(model, x, features=32, memory=9000)
    np.testing.assert_allclose(parts.features, whole.features, rtol=1e-9, atol=1e-10)
    other = project_ntk(model, x, features=32, seed=1)
    assert np.abs(other.features - whole.features).max() > 0.1


def test_what_is_refused():
    model, x = jax_case()
    for call, says in [
        (lambda: NTKOperator(model, x, batch_size=0), "batch_size=0"),
        (lambda: NTKOperator(model, x) @ np.ones(7), "a vector of 7 entries"),
        (lambda: project_ntk(model, x, features=0), "features=0"),
        (lambda: project_ntk(model, x, outputs="trace"), "outputs='trace'"),
        (lambda: spectrum(np.ones((2, 3))), "2 x 3"),
        (lambda: spectrum(np.eye(2), top=0), "top=0"),
        (lambda: spectrum(np.eye(2)).density([-1.0]), "positive eigenvalues"),
    ]:
        with pytest.raises(InputError, match=says):
            call()
