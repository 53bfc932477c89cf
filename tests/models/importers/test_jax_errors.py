"""Each way in which an import from JAX fails gives one clear error."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tangency.models import InputError, UnsupportedError, from_jax

V = np.zeros((1, 6), "float32")
M = np.zeros((1, 4, 6), "float32")


UNSUPPORTED = {
    "argmax": (lambda x: x.argmax(-1), r"'argmax'.*index.*supported primitives are abs"),
    "cbrt": (jnp.cbrt, "'cbrt'"),
    "product of entries": (lambda x: x.prod(-1), "'reduce_prod'"),
    "while": (
        lambda x: lax.while_loop(lambda x: x.sum() > 0, lambda x: x - 1, x),
        "'while'.*input",
    ),
    "cond": (lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), "'cond'.*where"),
    "python branch": (lambda x: x if x.sum() > 0 else -x, "branches in Python"),
    "numpy": (lambda x: np.tanh(np.asarray(x)), "NumPy array"),
    "half": (lambda x: x.astype("float16") * 2, "'convert_element_type'.*float16"),
    "integer": (lambda x: jnp.round(x).astype(int) * 2.0, "'convert_element_type'.*int32"),
    "half in a relu": (lambda x: jnp.maximum(x.astype("bfloat16"), 0).astype(x.dtype), "bfloat16"),
    "ties away": (lax.round, "'round' with ties"),
    "argsort": (lambda x: jnp.argsort(x), "'sort'"),
    "index by input": (lambda x: x[:, jnp.argmax(x)], "'argmax'"),
    "scatter": (lambda x: x.at[:, 0].set(1.0), "'scatter'.*where"),
    "truth values": (lambda x: x > 0, "comparison"),
    "power of input": (lambda x: 2.0**x, "'pow'"),
    "constant": (lambda x: jnp.ones((1, 2)), "does not depend"),
    "mean of the batch": (lambda x: x.mean(0), "not the batch"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported(name):
    function, message = UNSUPPORTED[name]
    with pytest.raises(UnsupportedError, match=message):
        from_jax(function, V)


def test_samples_that_are_mixed():
    with pytest.raises(UnsupportedError, match="mixes its samples"):
        from_jax(lambda x: x - 0.5 * x.mean(0), V)


def test_three_dimensions():
    w = np.ones((3, 3, 3, 1, 1), "float32")
    numbers = ("NDHWC", "DHWIO", "NDHWC")

    def model(x):
        return lax.conv_general_dilated(x, w, (1, 1, 1), "SAME", dimension_numbers=numbers)

    with pytest.raises(UnsupportedError, match="3 spatial axes"):
        from_jax(model, np.zeros((1, 4, 4, 4, 1), "float32"))


EXAMPLES = {
    "integers": (np.zeros((1, 3), int), "example is int64"),
    "a list": ([[1.0, 2.0]], "is a list"),
    "nothing": ((), "give an array"),
    "not contiguous": (np.zeros((4, 6), "float32")[:, ::2], "not contiguous"),
    "empty": (np.zeros((0, 6), "float32"), "no axis may be empty"),
    "scalar": (np.zeros((), "float32"), "no batch axis"),
    "mixed": ((V, V.astype("float64")), "mixed"),
    "half": (V.astype("float16"), "float16"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name):
    example, message = EXAMPLES[name]
    with pytest.raises(InputError, match=message):
        from_jax(jnp.tanh, example)


def test_batch_axis_out_of_range():
    with pytest.raises(InputError, match="no batch axis 2"):
        from_jax(jnp.tanh, V, batch_axis=2)


def model(p, x):
    return x @ p["w"]


PARAMS = {
    "nan": (np.full((6, 2), np.nan, "float32"), "'w' has a NaN"),
    "infinite": (np.full((6, 2), np.inf, "float32"), "'w' has a NaN or infinite"),
    "wide": (np.ones((6, 2)), "'w' is float64 and the example float32"),
    "bfloat16": (jnp.ones((6, 2), "bfloat16"), "'w' is bfloat16"),
}


@pytest.mark.parametrize("name", PARAMS)
def test_parameters(name):
    w, message = PARAMS[name]
    with pytest.raises(InputError, match=message):
        from_jax(model, V, params={"w": w})


def test_infinite_masks():
    keep = np.tril(np.ones((4, 6), bool))
    with pytest.raises(InputError, match=r"infinite.*finfo"):
        from_jax(lambda x: jnp.where(keep, x, -jnp.inf), M)


def test_models_that_fail():
    with pytest.raises(InputError, match=r"fails on an input of shape \(1, 6\): TypeError"):
        from_jax(lambda x: x @ np.ones((3, 3), "float32"), V)
    with pytest.raises(InputError, match=r"fails on an input.*KeyError"):
        from_jax(model, V, params={})
    with pytest.raises(InputError, match="is a str: give a callable"):
        from_jax("model", V)
    with pytest.raises(InputError, match="no array"):
        from_jax(lambda x: None, V)


def test_modules_bring_their_parameters():
    import equinox as eqx

    linear = eqx.nn.Linear(6, 2, key=jax.random.key(0))
    with pytest.raises(InputError, match="brings its own"):
        from_jax(linear, V[0], params={}, batch_axis=None)


def test_a_module_of_one_sample_needs_batch_axis_none():
    import equinox as eqx

    linear = eqx.nn.Linear(6, 2, key=jax.random.key(0))
    with pytest.raises(InputError, match="fails on an input"):
        from_jax(linear, V)


def test_the_module_imports_without_jax():
    code = (
        "import sys, tangency.models.importers.jax; "
        "assert not {'jax', 'flax', 'equinox'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
