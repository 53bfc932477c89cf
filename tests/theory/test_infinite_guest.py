"""neural-tangents as a guest: its kernels are taken, and it runs on this JAX where installed."""

from collections import namedtuple
from importlib import util

import numpy as np
import pytest

from tangency.models import InputError, MissingPackageError
from tangency.theory import as_kernel, infinite_kernel
from tangency.theory.kernels import Dense, Erf, Relu, guest, import_neural_tangents, serial

INSTALLED = util.find_spec("neural_tangents") is not None
Pair = namedtuple("Pair", "nngp ntk")


def kernel_fn(x1, x2=None, get=("nngp", "ntk")):
    """What a kernel_fn looks like: a named tuple by a tuple of names."""
    x2 = x1 if x2 is None else x2
    s = x1 @ x2.T / x1.shape[1]
    return Pair(s, 2.0 * s + 1e-9 * np.arange(len(x2)))


def test_a_kernel_fn_is_a_kernel():
    x = np.random.default_rng(0).normal(size=(4, 3))
    kernel = as_kernel(kernel_fn)
    gram = kernel(x)
    assert gram.symmetric
    np.testing.assert_array_equal(gram.ntk, gram.ntk.T)
    np.testing.assert_array_equal(kernel(x, x[:2], get="nngp"), kernel_fn(x, x[:2]).nngp)
    np.testing.assert_allclose(kernel.diagonal(x, get="nngp"), np.diag(gram.nngp), rtol=1e-14)
    assert kernel(x, get=("ntk",)).nngp is None
    with pytest.raises(InputError, match="shape"):
        as_kernel(lambda x1, x2, get: Pair(np.zeros((2, 2, 3)), None))(x, get="nngp")


@pytest.mark.skipif(INSTALLED, reason="it is installed")
def test_not_installed():
    with pytest.raises(MissingPackageError, match="no-deps"):
        import_neural_tangents()


@pytest.mark.skipif(not INSTALLED, reason="pip install --no-deps neural-tangents frozendict")
def test_live():
    import jax

    nt = import_neural_tangents()
    assert nt is import_neural_tangents()
    from neural_tangents import stax

    layers = [stax.Dense(1, 1.3, 0.2), stax.Relu(), stax.Dense(1, 1.1), stax.Erf(), stax.Dense(1)]
    ours = serial(Dense(1, 1.3, 0.2), Relu(), Dense(1, 1.1), Erf(), Dense(1))
    x = np.random.default_rng(0).normal(size=(5, 3))
    with jax.enable_x64(True):
        peer = as_kernel(stax.serial(*layers)[2])
        assert isinstance(peer, guest.GuestKernel)
        for which in ("nngp", "ntk"):
            theirs, mine = (k(x[:3], x[3:], get=which) for k in (peer, infinite_kernel(ours)))
            np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    with pytest.raises(InputError, match="empirical_ntk"):
        nt.empirical_ntk_fn(lambda p, x: x)
