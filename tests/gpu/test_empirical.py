"""The contraction's arrays and the random signs, in NumPy and, with a device, in CuPy."""

import numpy as np
import pytest

from tangency.gpu.empirical import DeviceAlgebra, signs
from tangency.gpu.engines import HostEngine, engine_for
from tangency.gpu.errors import PlanError
from tangency.models import from_layers
from tangency.theory.ntk import empirical_ntk, project_ntk


def test_algebra_keeps_type_and_device(rng):
    algebra = DeviceAlgebra(HostEngine(), np.float32)
    a, b = (rng.normal(size=(n, 4)).astype(np.float32) for n in (3, 5))
    product = algebra.einsum("ip,jp->ij", algebra.array(a), algebra.array(b))
    np.testing.assert_allclose(algebra.host(product), a @ b.T, rtol=1e-6)
    assert product.dtype == np.float32
    swapped = algebra.einsum("iajb->jbia", rng.normal(size=(2, 3, 4, 5)))
    assert swapped.shape == (4, 5, 2, 3)
    assert algebra.einsum("ij...->ji...", rng.normal(size=(2, 3, 4))).shape == (3, 2, 4)
    index = np.array([[0, -1, 2]])
    same = algebra.same(index[0], index)
    assert same.dtype == np.float32
    np.testing.assert_array_equal(same[:, 0], np.diag([1.0, 0.0, 1.0]))  # -1 trains no row


def test_signs_are_independent_and_belong_to_their_key():
    drawn = signs(3000, 300, (0, 1), dtype=np.float64)
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    assert abs(drawn.mean()) < 5 / np.sqrt(drawn.size)
    columns = drawn.T @ drawn / np.sqrt(3000)
    rows = drawn @ drawn.T / np.sqrt(300)
    for gram in (columns, rows):
        off = gram[~np.eye(len(gram), dtype=bool)]
        # Of a normal distribution: variance 1, fourth moment 3, none beyond 6 in some millions.
        assert abs(off.std() - 1) < 0.02
        assert abs((off**4).mean() - 3) < 0.1
        assert np.abs(off).max() < 6.5
    for key in ((0, 2), (1, 1)):
        assert abs((drawn * signs(3000, 300, key)).mean()) < 5 / np.sqrt(drawn.size)


def test_signs_are_the_same_everywhere():
    # The first of two keys, written down: whoever changes the hash changes everyone's features.
    first = [[-1, -1, 1, 1, 1, -1, -1, -1], [-1, 1, -1, -1, -1, 1, 1, -1]]
    assert signs(2, 8, (0, 0)).tolist() == first
    assert np.array_equal(signs(7, 33, (3,)), signs(9, 33, (3,))[:7])
    assert np.array_equal(signs(7, 33, (3,)), signs(7, 64, (3,))[:, :33])
    with pytest.raises(PlanError, match="2\\^37"):
        signs(2**33, 1, (0,))


def test_whole_kernels_by_cupys_rules(cupy_stand_in, rng):
    """Arrays of the host and of the device do not mix, and what is fetched was computed."""
    cupy_stand_in.unpackbits = lambda a: np.unpackbits(a.view(np.ndarray)).view(type(a))
    layers = [(rng.normal(size=(6, 4)), rng.normal(size=6)), (rng.normal(size=(3, 6)), None)]
    network, x = from_layers(layers, "tanh"), rng.normal(size=(9, 4))
    for outputs in ("trace", "full", "diagonal", "sum"):
        device, host = (
            empirical_ntk(network, x, outputs=outputs, batch_size=5, device=d).ntk
            for d in (None, "cpu")
        )
        assert type(device) is np.ndarray
        np.testing.assert_allclose(device, host, rtol=1e-12, atol=1e-12)
    device, host = (project_ntk(network, x, features=40, device=d) for d in ("cuda", "cpu"))
    np.testing.assert_allclose(device.features, host.features, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
def test_device_equals_host(rng):
    engine = engine_for("cuda")
    for key in ((0, 0), (5, 9)):
        host, device = signs(100, 70, key), signs(100, 70, key, xp=engine.xp)
        assert np.array_equal(host, device.get())
    left, right = rng.normal(size=(6, 3, 4)), rng.normal(size=(5, 3, 4))
    two = [DeviceAlgebra(e, np.float64) for e in (HostEngine(), engine)]
    for path in ("npi,mpi->nm", "npi,mqi->npmq", "npi,mpi->nmp"):
        host, device = (a.host(a.einsum(path, a.array(left), a.array(right))) for a in two)
        np.testing.assert_allclose(device, host, rtol=1e-12, atol=1e-12)
