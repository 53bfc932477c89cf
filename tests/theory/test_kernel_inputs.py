"""What is no kernel and what are no samples: one clear line of ours, wherever it is given."""

from __future__ import annotations

import numpy as np
import pytest

import tangency
from tangency.models import InputError
from tangency.theory.kernels import Dense, Relu, as_kernel, gram, infinite_kernel, serial
from tangency.theory.ntk import alignment, empirical_ntk, spectrum
from tangency.theory.prediction import NTKRegressor, kernel_ridge, noise_floor

X = np.random.default_rng(0).normal(size=(5, 3))
Y = X[:, 0]
NET = tangency.from_layers([np.eye(3), np.ones((1, 3))], "relu")
KERNEL = infinite_kernel(serial(Dense(8), Relu(), Dense(1)))


class Model:
    """As modules of the frameworks are: called with samples."""

    def __call__(self, x):
        return x


class Kernelled:
    """A module that is a kernel all the same."""

    def forward(self, x1, x2):
        return x1 @ x2.T

    __call__ = forward


TAKERS = {
    "as_kernel": as_kernel,
    "gram": lambda given: gram(given, X, get="ntk"),
    "regressor": lambda given: NTKRegressor(given).fit(X, Y),
}


@pytest.mark.parametrize("taker", TAKERS.values(), ids=TAKERS)
@pytest.mark.parametrize("model", [NET, Model(), lambda x: x], ids=["network", "model", "function"])
def test_a_model_is_no_kernel_and_the_error_names_its_kernels(taker, model):
    with pytest.raises(InputError, match=r"is no kernel: .*infinite_kernel.*empirical_ntk"):
        taker(model)


def test_layers_are_no_kernel():
    for layers in (Dense(3), serial(Dense(3), Relu()), [Dense(3), Relu()]):
        with pytest.raises(InputError, match=r"give infinite_kernel\(layers\)"):
            as_kernel(layers)


def test_what_takes_two_batches_is_a_kernel():
    for given in (Kernelled(), lambda x1, x2: x1 @ x2.T, lambda *x: x[0] @ x[1].T):
        found = gram(given, X, get="ntk")
        np.testing.assert_allclose(found, X @ X.T, rtol=1e-12)


def test_a_torch_module_is_no_kernel():
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()).double()
    for taker in TAKERS.values():
        with pytest.raises(InputError, match="from_torch"):
            taker(module)
    with pytest.raises(InputError, match=r"Sequential is neither.*from_torch"):
        infinite_kernel(module)


@pytest.mark.parametrize("given", [NET, KERNEL, Model()], ids=["network", "kernel", "model"])
def test_what_is_no_matrix(given):
    with pytest.raises(InputError, match=r"train is a .* and no array: give its Gram matrix"):
        kernel_ridge(given, Y)
    with pytest.raises(InputError, match=r"one is a .*: an array of real numbers"):
        alignment(given, np.eye(3))
    with pytest.raises(InputError, match=r"gram is a .*: an array of real numbers"):
        noise_floor(given)
    with pytest.raises(InputError, match="is no operator: give NTKOperator"):
        spectrum(given, top=1)


CALLS = {
    "kernel": lambda x: KERNEL(x),
    "cross": lambda x: KERNEL(X, x),
    "diagonal": KERNEL.diagonal,
    "gram": lambda x: gram(KERNEL, x),
    "gram cross": lambda x: gram(KERNEL, X, x),
    "empirical": lambda x: empirical_ntk(NET, x),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("x", "says"),
    [
        (X + 1j, "complex128"),
        (np.zeros((5, 0)), r"\(5, 0\)"),
        ("data.npy", "x.? is a str"),
        (np.array([[None, "a", 1]]), "object"),
    ],
    ids=["complex", "no features", "path", "objects"],
)
def test_what_are_no_samples(call, x, says):
    with pytest.raises(InputError, match=says):
        call(x)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_tensor_that_requires_a_gradient(call):
    torch = pytest.importorskip("torch")
    x = torch.tensor(X, requires_grad=True)
    with pytest.raises(InputError, match=r"detach\(\)"):
        call(x)
    with pytest.raises(InputError, match=r"y is a Tensor and no array.*detach\(\)"):
        kernel_ridge(np.eye(5), x[:, 0])


def test_all_real_numbers_are_samples():
    """Integers, lists, half precision and what JAX rounds to: by their values."""
    import jax.numpy as jnp

    whole = np.arange(15).reshape(5, 3)
    want = KERNEL(whole.astype(float), get="ntk")
    forms = (whole, whole.tolist(), whole.astype("float16"), jnp.asarray(whole, "bfloat16"))
    for x in (*forms, np.asfortranarray(whole, dtype=float)):
        np.testing.assert_allclose(KERNEL(x, get="ntk"), want, rtol=1e-12)
        np.testing.assert_allclose(gram(KERNEL, x, get="ntk"), want, rtol=1e-12)
