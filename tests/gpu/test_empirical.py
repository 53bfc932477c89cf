import numpy as np
import pytest

from tangency.gpu.empirical import accumulate, project
from tangency.gpu.errors import PlanError


@pytest.mark.parametrize("sites", [None, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_layers_are_the_gradients_products(sites, bias, rng):
    shape = () if sites is None else (sites,)

    def gradients(a, b):
        """Of every weight, and of every bias, written out."""
        a, b = (v.reshape(len(v), -1, v.shape[-1]) for v in (a, b))
        weights = np.einsum("nsi,nso->nio", a, b).reshape(len(a), -1)
        return np.concatenate([weights, b.sum(axis=1)], axis=1) if bias else weights

    a1, b1 = rng.normal(size=(5, *shape, 3)), rng.normal(size=(5, *shape, 2))
    a2, b2 = rng.normal(size=(6, *shape, 3)), rng.normal(size=(6, *shape, 2))
    out = np.ones((5, 6))
    assert accumulate(out, a1, b1, a2, b2, bias=bias) is out
    assert np.allclose(out, 1 + gradients(a1, b1) @ gradients(a2, b2).T, rtol=1e-12)
    with pytest.raises(PlanError, match="layers"):
        accumulate(out, a1, b1[:4], a2, b2)


def test_projections_are_unbiased_and_add_up(rng):
    g = rng.normal(size=(6, 9000))
    count = 4000
    features = project(g, count)
    kernel, scale = g @ g.T, np.linalg.norm(g, axis=1)
    # The standard deviation of an entry is |g_i| |g_j| / sqrt(count) at most, times sqrt 2.
    error = np.abs(features @ features.T - kernel) / np.outer(scale, scale)
    assert error.max() < 5 * np.sqrt(2 / count)
    parts = project(g[:, :8192], count) + project(g[:, 8192:], count, first=8192)
    assert np.allclose(parts, features, atol=1e-9)
    assert not np.allclose(project(g, count, seed=1), features)
    with pytest.raises(PlanError, match="multiple"):
        project(g, 3, first=5)
