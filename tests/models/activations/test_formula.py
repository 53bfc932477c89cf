"""Digests of formulas: equal in any process for one formula, different for two."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tangency.models import InputError
from tangency.models.activations import Activation, get, names, registry
from tangency.models.activations.formula import traced
from tangency.models.activations.registry import is_of_catalogue

FORMULAS = [
    lambda nx, x: nx.sin(x),
    lambda nx, x: nx.sin(3.0 * x),
    lambda nx, x: nx.sin(3 * x),
    lambda nx, x: nx.sin(np.nextafter(3.0, 4.0).item() * x),
    lambda nx, x: nx.sin(np.float64(3.0) * x),
    lambda nx, x: nx.sin(np.float32(3.0) * x),
    lambda nx, x: nx.cos(x),
    lambda nx, x: x - 1.0,
    lambda nx, x: 1.0 - x,
    lambda nx, x: x / 2.0,
    lambda nx, x: 2.0 / x,
    lambda nx, x: -x,
    lambda nx, x: x,
    lambda nx, x: 1.0,
    lambda nx, x: 1.0 + 0.0 * x,
    lambda nx, x: nx.where(x > 0.0, x, 0.0),
    lambda nx, x: nx.where(x >= 0.0, x, 0.0),
    lambda nx, x: nx.where(x < 0.0, x, 0.0),
    lambda nx, x: nx.where(x == 0.0, x, 0.0),
    lambda nx, x: nx.where(x != 0.0, x, 0.0),
    lambda nx, x: nx.where((x > 0.0) & (x < 1.0), x, 0.0),
    lambda nx, x: nx.where((x > 0.0) | (x < 1.0), x, 0.0),
    lambda nx, x: nx.maximum(x, 0.0),
    lambda nx, x: nx.minimum(x, 0.0),
    lambda nx, x: nx.maximum(x, -0.0),
    lambda nx, x: nx.maximum(0.0, x),
    lambda nx, x: x * nx.pi,
    lambda nx, x: x * nx.constant(3.0),
    lambda nx, x: x * 3.0,
    lambda nx, x: x * nx.sqrt(2.0),
    lambda nx, x: x * nx.sqrt(3.0),
    lambda nx, x: x**2,
    lambda nx, x: x**3,
    lambda nx, x: x + (x + 1.0),
    lambda nx, x: (x + x) + 1.0,
    lambda nx, x: np.tanh(x),
    lambda nx, x: nx.tanh(x),
    lambda nx, x: np.where(x > 0.0, x, 2.0),
    lambda nx, x: x * np.array([1.0, 2.0]),
    lambda nx, x: x * np.array([[1.0, 2.0]]),
    lambda nx, x: x * float("nan"),
    lambda nx, x: x * float("inf"),
]


def digest(formula):
    return traced("it", formula).digest


def test_two_formulas_have_two_digests():
    found = [digest(f) for f in FORMULAS]
    assert len(set(found)) == len(FORMULAS)
    assert found == [digest(f) for f in FORMULAS]
    assert len({get(name).digest for name in names()}) == len(names())


def test_the_text_of_a_formula_does_not_count():
    def written(nx, x, *, factor=3.0):
        inner = x * factor
        return nx.where(inner > 0.0, nx.exp(inner), 0.0)

    def other_words(vocabulary, argument):
        three = float("3")
        step = argument * three
        positive = step > 0.0
        return vocabulary.where(positive, vocabulary.exp(step), 0.0)

    assert digest(written) == digest(other_words)


@pytest.mark.parametrize(
    "formula",
    [
        lambda nx, x: x if x > 0.0 else 0.0 * x,
        lambda nx, x: max(x, 0.0),
        lambda nx, x: {1.0: 2.0}.get(x, 0.0) * x,
        lambda nx, x: x * (1.0 if x in (0.0, 1.0) else 2.0),
        lambda nx, x: float(x) * x,
        lambda nx, x: np.frompyfunc(abs, 1, 1)(x),
        lambda nx, x: np.vectorize(abs, otypes=[float])(x),
        lambda nx, x: x.astype(float),
        lambda nx, x: nx.bessel(x),
        lambda nx, x: __import__("math").sin(x),
        lambda nx, x: __import__("jax").numpy.sin(x),
        lambda nx, x: x * 1j,
        lambda nx, x: x * object(),
        lambda nx, x: "x".join(x),
    ],
)
def test_what_cannot_be_followed_is_refused(formula):
    record = Activation("strange", formula)
    with pytest.raises(InputError, match="activation 'strange': its formula cannot be followed"):
        _ = record.digest
    assert record == record
    assert record != Activation("strange", formula)


def test_a_new_process_finds_the_same():
    code = """
    from tangency.models.activations import Activation

    def build(nx, x):  # other text, other constants' order, the same formula
        half = 1.0 / 2.0
        return x + nx.sin(x) * half

    print(Activation("wob", build, kinks=(0.5,)).digest)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    here = Activation("wob", lambda nx, x: x + nx.sin(x) * 0.5, kinks=(0.5,))
    assert out.strip() == here.digest
    assert here == Activation("wob", lambda nx, x: x + nx.sin(x) * 0.5, kinks=(0.5,), source="me")


@pytest.mark.parametrize(
    "claim",
    [
        {"derivative": lambda nx, x: nx.cos(x)},
        {"kinks": (0.0,)},
        {"jumps": (0.0,)},
        {"limits": ((-1.0, 0.0), (1.0, 0.0)), "core": (-30.0, 30.0)},
        {"domain": (0.0, 1.0)},
        {"poles": (0.0,)},
        {"period": 1.0},
        {"single_use": ("value",)},
        {"staircase": True},
        {"parity": "odd"},
        {"homogeneous": 1},
        {"params": (("a", 1.0),)},
    ],
)
def test_what_a_record_claims_belongs_to_it(claim):
    def value(nx, x):
        return nx.sin(x)

    assert Activation("own", value) != Activation("own", value, **claim)


def test_the_catalogue_is_told_from_its_namesakes():
    assert all(is_of_catalogue(get(name)) for name in registry._OURS)
    assert is_of_catalogue(get("leaky_relu", negative_slope=0.3))
    assert not is_of_catalogue(Activation("relu", lambda nx, x: 2.0 * nx.maximum(x, 0.0)))
    assert not is_of_catalogue(Activation("relu", get("relu").value, params=(("a", 1.0),)))
    assert not is_of_catalogue(Activation("own", get("relu").value))
