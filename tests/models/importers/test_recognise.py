"""Recognition by structure: exact forms, near misses of every template, in three front ends."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tangency
from tangency.models import from_jax, from_onnx, from_torch
from tangency.models.importers._recognise.piecewise import Namespace, Piecewise, Term
from tangency.models.importers._recognise.templates import exact, form_of, record_of
from tangency.models.importers._recognise.terms import NoFormError, entry
from tangency.models.network import precision

V32 = np.zeros((1, 6), "float32")
V64 = np.zeros((1, 6))
#: Both signs, tiny and huge, and what the formulas below have for kinks.
POINTS = np.array(
    [s * v for v in (0, 1e-6, 0.1, 1, 2.5, 3, 6, 15, 40, 50.5, 100, 1e3, 1e4) for s in (-1, 1)]
)


def kinds(network):
    return [
        node.op.activation.name if node.op.kind == "activation" else node.op.kind
        for node in network.structure.nodes[1:]
    ]


def text(formula, **how):
    return form_of(formula, **how).text


# --- the model that is imported is the model ------------------------------------------------------

W = np.random.default_rng(0).standard_normal((6, 6))


def norm(x, spread=lambda v: v + 1e-6):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(spread(((x - mean) ** 2).mean(-1, keepdims=True)))


MISREAD = {
    "relu(a x + b)": (lambda x: jax.nn.relu(0.02 * x + 0.3), ["scale", "constant", "add", "relu"]),
    "c relu": (lambda x: 0.05 * jax.nn.relu(x), ["relu", "scale"]),
    "relu(c x)": (lambda x: jax.nn.relu(0.001 * x), ["scale", "relu"]),
    "residual": (lambda x: x + 0.01 * jax.nn.relu(x @ W), ["dense", "relu", "scale", "add"]),
    "two relus": (lambda x: jax.nn.relu(x) - jax.nn.relu(x / 10 - 4), None),
    "where x^2": (lambda x: jnp.where(x * x > 2500, 0, jax.nn.relu(x)), None),
    "where x/10": (lambda x: jnp.where(x / 10 > 4, 0, jax.nn.sigmoid(x)), None),
    "softmax of a clip": (
        lambda x: jax.nn.softmax(jnp.clip(x, -10, 10)),
        ["hardtanh", "softmax"],
    ),
    "log of a raised softmax": (
        lambda x: jnp.log(jnp.maximum(jax.nn.softmax(x), 1e-7)),
        ["softmax", "clip", "log"],
    ),
    "clipped log-softmax": (
        lambda x: jnp.clip(jax.nn.log_softmax(x), -100, 0),
        ["log_sum_exp", "reshape", "subtract", "hardtanh"],
    ),
    "norm of a clip": (
        lambda x: norm(jnp.clip(jax.nn.relu(x @ W), -20, 20)),
        ["dense", "hardtanh", "layer_norm"],
    ),
    "norm with a raised variance": (lambda x: norm(x, lambda v: jnp.maximum(v, 1e-8)), None),
    "1e5 tanh": (lambda x: 1e5 * jnp.tanh(1e-5 * x), ["scale", "tanh", "scale"]),
    "minimum": (lambda x: jnp.minimum(0.01 * x + 0.5, 1), ["scale", "constant", "add", "clip"]),
    "rational": (lambda x: x / (1 + 1e-9 * x**2), None),
}


@pytest.mark.parametrize("name", MISREAD)
def test_what_was_misread(name):
    model, steps = MISREAD[name]
    network = from_jax(model, V64)
    if steps is not None:
        assert kinds(network) == steps
    else:
        assert not {"layer_norm", "snake", "hardsigmoid"} & set(kinds(network))
        assert len(kinds(network)) > 1
    rows = np.stack([POINTS[i : i + 6] for i in range(0, 21, 3)] + [np.full(6, 3.0)])
    with precision("float64"):
        want = np.asarray(model(rows))
    assert np.isfinite(want).all()
    np.testing.assert_allclose(network.evaluate(rows), want, rtol=1e-9, atol=1e-9)


def test_a_wrong_class_is_no_longer_proved():
    def model(x):
        return jax.nn.relu(0.02 * x + 0.3) @ np.float32([[1, -1], [0, 0]]) + np.float32([0, 3])

    x = np.float32([[100, 0]])
    network = from_jax(model, x)
    assert np.argmax(model(x)) == 0
    wrong, right = (
        tangency.certify_robust(network, x, np.array([label]), 0.01) for label in (1, 0)
    )
    assert not wrong.verified.any()
    assert right.verified.all()


def test_a_slope_beyond_the_first_kink_is_in_the_bound():
    def model(x):
        relu = jax.nn.relu
        return (relu(x) + 20 * relu(0.1 * x - 4)) @ np.float32([[1], [1]])

    network = from_jax(model, np.zeros((1, 2), "float32"))
    bound = tangency.lipschitz_bound(network, method="product", attack=False)
    assert bound.certified
    assert bound.upper >= 3 * math.sqrt(2)


# --- the engine -----------------------------------------------------------------------------------

EQUAL = {
    "sigmoid": [
        lambda nx, x: nx.sigmoid(x),
        lambda nx, x: 1.0 / (1.0 + nx.exp(-x)),
        lambda nx, x: nx.exp(x) / (nx.exp(x) + 1.0),
        lambda nx, x: 0.5 * (1.0 + nx.tanh(x / 2.0)),
        lambda nx, x: 1.0 - nx.sigmoid(-x),
    ],
    "tanh": [
        lambda nx, x: nx.tanh(x),
        lambda nx, x: (nx.exp(x) - nx.exp(-x)) / (nx.exp(x) + nx.exp(-x)),
        lambda nx, x: (1.0 - nx.exp(-2.0 * x)) / (1.0 + nx.exp(-2.0 * x)),
        lambda nx, x: 2.0 * nx.sigmoid(2.0 * x) - 1.0,
    ],
    "softplus": [
        lambda nx, x: nx.softplus(x),
        lambda nx, x: nx.log(1.0 + nx.exp(x)),
        lambda nx, x: nx.maximum(x, 0.0) + nx.log1p(nx.exp(-nx.abs(x))),
        lambda nx, x: x - nx.log(nx.sigmoid(x)),
        lambda nx, x: -nx.log(1.0 - nx.sigmoid(x)),
        lambda nx, x: x + nx.softplus(-x),
    ],
    "relu": [
        lambda nx, x: nx.maximum(x, 0.0),
        lambda nx, x: (x + nx.abs(x)) / 2.0,
        lambda nx, x: nx.where(x > 0.0, x, 0.0),
        lambda nx, x: nx.where(x >= 0.0, x, 0.0),
        lambda nx, x: x - nx.minimum(x, 0.0),
        lambda nx, x: nx.maximum(3.0 * x, 0.0) / 3.0,
    ],
    "elu": [
        lambda nx, x: nx.where(x > 0.0, x, nx.expm1(x)),
        lambda nx, x: nx.where(x > 0.0, x, nx.exp(nx.minimum(x, 0.0)) - 1.0),
        lambda nx, x: nx.maximum(x, 0.0) + nx.expm1(nx.minimum(x, 0.0)),
    ],
    "erf": [lambda nx, x: nx.erf(x), lambda nx, x: 1.0 - nx.erfc(x), lambda nx, x: -nx.erf(-x)],
    "polynomial": [
        lambda nx, x: x * (x**2 - 3.0),
        lambda nx, x: x**3 - 3.0 * x,
        lambda nx, x: (x - 1.0) * (x + 2.0) * (x - 1.0) - 2.0,
    ],
}


@pytest.mark.parametrize("name", EQUAL)
def test_formulas_of_one_function_have_one_form(name):
    first, *others = map(text, EQUAL[name])
    assert others == [first] * len(others)


DIFFERENT = [
    (lambda nx, x: x / x, lambda nx, x: 0.0 * x + 1.0),  # not at 0
    (lambda nx, x: nx.sqrt(x) ** 2, lambda nx, x: x),  # not below 0
    (lambda nx, x: nx.exp(nx.log(x)), lambda nx, x: x),
    (lambda nx, x: nx.where(x > 0.0, 1.0, 0.0), lambda nx, x: nx.where(x >= 0.0, 1.0, 0.0)),
    (lambda nx, x: nx.sigmoid(x), lambda nx, x: nx.sigmoid(-x)),
    (lambda nx, x: nx.maximum(x, 0.0), lambda nx, x: nx.maximum(x, 5e-324)),
]


@pytest.mark.parametrize("pair", DIFFERENT)
def test_what_is_equal_on_a_part_alone_is_not_equal(pair):
    a, b = map(text, pair)
    assert a != b


def broken(nx, x):
    return x if x == 0 else 2.0 * x


@pytest.mark.parametrize(
    "formula",
    [
        broken,
        lambda nx, x: max(x, 0.0),
        lambda nx, x: nx.where(x * x > 1.0, x, 0.0),
        lambda nx, x: nx.sqrt(2.0) * x,
        lambda nx, x: x * nx.pi,
        lambda nx, x: x**0.5,
    ],
)
def test_what_is_not_seen_has_no_form(formula):
    with pytest.raises(NoFormError):
        form_of(formula)


# --- piecewise linear functions, against their evaluation in rationals ------------------------------

numbers = st.fractions(min_value=-8, max_value=8, max_denominator=16)


def trees(depth):
    """Formulas as (evaluated in Fraction, in Terms)."""
    if depth == 0:
        affine = st.tuples(numbers, numbers).map(
            lambda c: (lambda x: c[0] * x + c[1], lambda x: x * float(c[0]) + float(c[1]))
        )
        return affine | st.just((lambda x: x, lambda x: x))
    inner = trees(depth - 1)
    nx = Namespace(constants=False)

    def two(exactly, formally):
        return st.tuples(inner, inner).map(
            lambda p: (
                lambda x: exactly(p[0][0](x), p[1][0](x)),
                lambda x: formally(p[0][1](x), p[1][1](x)),
            )
        )

    def chosen(p):
        (a, f), (b, g), (c, h) = p
        return (
            lambda x: b(x) if a(x) > 0 else c(x),
            lambda x: nx.where(f(x) > 0.0, g(x), h(x)),
        )

    return (
        inner
        | two(max, nx.maximum)
        | two(min, nx.minimum)
        | two(lambda a, b: a - b, lambda a, b: a - b)
        | st.tuples(inner, numbers).map(
            lambda p: (lambda x: abs(p[0][0](x)) + p[1], lambda x: nx.abs(p[0][1](x)) + float(p[1]))
        )
        | st.tuples(inner, inner, inner).map(chosen)
    )


dyadic = st.integers(-128, 128).map(lambda k: Fraction(k, 16))
numbers = dyadic  # floats hold them exactly


@settings(max_examples=150, deadline=None)
@given(trees(3), st.lists(st.fractions(min_value=-1000, max_value=1000), max_size=6))
def test_piecewise_linear_functions_are_exact(pair, others):
    exactly, formally = pair
    try:
        term = formally(Term(Piecewise((entry(),)), exact))
    except NoFormError:
        return  # more kinks than any template has
    form = term.value
    points = [*others, *form.cuts, Fraction(-(10**6)), Fraction(10**6), Fraction(0)]
    for x in points:
        assert form.at(x).number == exactly(x)
    for i, cut in enumerate(form.cuts):  # no cut is left at which nothing happens
        left, right = form.pieces[i], form.pieces[i + 1]
        assert left != right or form.points[i].number != left.line[0] + left.line[1] * cut


# --- three front ends -----------------------------------------------------------------------------


class Jax:
    exp, log, tanh, abs, erf = jnp.exp, jnp.log, jnp.tanh, jnp.abs, jax.lax.erf
    sigmoid, maximum, minimum, sign = jax.nn.sigmoid, jnp.maximum, jnp.minimum, jnp.sign

    @staticmethod
    def where(x, y, a, b):
        return jnp.where(x > y, a, b)

    @classmethod
    def network(cls, formula):
        return from_jax(lambda x: formula(cls, x), V32)


class Torch:
    @classmethod
    def network(cls, formula):
        torch = pytest.importorskip("torch")

        class nx:
            exp, log, tanh, abs, erf = torch.exp, torch.log, torch.tanh, torch.abs, torch.erf
            sigmoid, sign = torch.sigmoid, torch.sign

            @staticmethod
            def maximum(x, c):
                return torch.clamp(x, min=c)

            @staticmethod
            def minimum(x, c):
                return torch.clamp(x, max=c)

            @staticmethod
            def where(x, y, a, b):
                return torch.where(x > y, a, b)

        class Model(torch.nn.Module):
            def forward(self, x):
                return formula(nx, x)

        return from_torch(Model(), torch.zeros(1, 6))


class Onnx:
    """Values that write nodes."""

    def __init__(self, graph, name):
        self.graph, self.name = graph, name

    @classmethod
    def network(cls, formula):
        onnx = pytest.importorskip("onnx")
        from onnx import TensorProto, helper

        graph = ([], [])
        out = formula(cls, cls(graph, "x"))
        graph[0][-1].output[0] = "y"
        assert out.name
        shape = ["n", 6]
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "xy"]
        made = helper.make_graph(graph[0], "g", ends[:1], ends[1:], graph[1])
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 10
        onnx.checker.check_model(model)
        return from_onnx(model)

    def node(self, op, *inputs):
        from onnx import helper, numpy_helper

        nodes, constants = self.graph
        names = []
        for value in inputs:
            if not isinstance(value, Onnx):
                array = np.asarray(value, "float32")
                value = Onnx(self.graph, f"c{len(constants)}")
                constants.append(numpy_helper.from_array(array, value.name))
            names.append(value.name)
        name = f"v{len(nodes)}"
        nodes.append(helper.make_node(op, names, [name], name=name))
        return Onnx(self.graph, name)

    def __add__(self, other):
        return self.node("Add", self, other)

    def __sub__(self, other):
        return self.node("Sub", self, other)

    def __mul__(self, other):
        return self.node("Mul", self, other)

    def __truediv__(self, other):
        return self.node("Div", self, other)

    def __radd__(self, other):
        return self.node("Add", other, self)

    def __rsub__(self, other):
        return self.node("Sub", other, self)

    def __rmul__(self, other):
        return self.node("Mul", other, self)

    def __rtruediv__(self, other):
        return self.node("Div", other, self)

    def __neg__(self):
        return self.node("Neg", self)

    def __pow__(self, n):
        return self.node("Pow", self, float(n))

    exp, log, tanh = (lambda x, op=op: x.node(op, x) for op in ("Exp", "Log", "Tanh"))
    abs, erf, sigmoid = (lambda x, op=op: x.node(op, x) for op in ("Abs", "Erf", "Sigmoid"))
    sign = lambda x: x.node("Sign", x)  # noqa: E731

    @staticmethod
    def maximum(x, c):
        return x.node("Max", x, c)

    @staticmethod
    def minimum(x, c):
        return x.node("Min", x, c)

    @staticmethod
    def where(x, y, a, b):
        return x.node("Where", x.node("Greater", x, y), a, b)


FRAMEWORKS = {"jax": Jax, "torch": Torch, "onnx": Onnx}

#: Name of the record, formula of (nx, x, constants), its constants.
FORMULAS = {
    "gelu": (lambda nx, x, a, b: a * x * (1.0 + nx.erf(x * b)), (0.5, math.sqrt(0.5))),
    "gelu_tanh": (
        lambda nx, x, a, b, c: a * x * (1.0 + nx.tanh(b * (x + c * x**3))),
        (0.5, math.sqrt(2 / math.pi), 0.044715),
    ),
    "silu": (lambda nx, x, a, b: x / (a + nx.exp(-b * x)), (1.0, 1.0)),
    "quick_gelu": (lambda nx, x, a: x * nx.sigmoid(a * x), (1.702,)),
    "sigmoid": (lambda nx, x, a, b: a / (b + nx.exp(-x)), (1.0, 1.0)),
    "softplus": (lambda nx, x, a: nx.log(a + nx.exp(x)), (1.0,)),
    "mish": (lambda nx, x, a: x * nx.tanh(nx.log(a + nx.exp(x))), (1.0,)),
    "softsign": (lambda nx, x, a: x / (a + nx.abs(x)), (1.0,)),
    "tanhshrink": (lambda nx, x, a: x - nx.tanh(a * x), (1.0,)),
    "hardswish": (
        lambda nx, x, a, b, c: x * nx.minimum(nx.maximum(x + a, 0.0), b) / c,
        (3.0, 6.0, 6.0),
    ),
    "selu": (
        lambda nx, x, a, b: nx.maximum(x, 0.0) * a + (nx.exp(nx.minimum(x, 0.0)) - 1.0) * b * a,
        (1.0507009873554805, 1.6732632423543772),
    ),
    "softshrink": (
        lambda nx, x, a, b: nx.sign(x) * nx.maximum(nx.abs(x) - a, 0.0) + nx.abs(x) * b,
        (0.5, 0.0),
    ),
    "relu": (lambda nx, x, a: a * (x + nx.abs(x)), (0.5,)),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_by_hand_is_its_record(name, framework):
    formula, constants = FORMULAS[name]
    network = FRAMEWORKS[framework].network(lambda nx, x: formula(nx, x, *constants))
    assert kinds(network) == [name]


def nudged(c, how):
    c = np.float32(c)
    if how == "ulp":
        return float(np.nextafter(c, np.float32(9)))
    return float(c + np.float32(1e-6)) if how == "1e-6" else float(-c)


MISSES = [
    (name, i, how)
    for name, (_, constants) in FORMULAS.items()
    for i, c in enumerate(constants)
    for how in ("ulp", "1e-6", "sign")
    # 1 ulp from sqrt(2/pi) is what jnp.sqrt(2/jnp.pi) is, 0 has no other sign, and a threshold or
    # a rate may be any number.
    if not (c == 0 and how == "sign") and (name, i) not in {("softshrink", 0), ("silu", 1)}
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("how", ["ulp", "1e-6", "sign"])
def test_near_misses_are_what_they_are(framework, how):
    for name, i, kind in MISSES:
        if kind != how:
            continue
        formula, constants = FORMULAS[name]
        moved = tuple(nudged(c, how) if j == i else c for j, c in enumerate(constants))
        nx = Namespace(constants=True)
        x = Term(Piecewise((entry(),)), lambda c: Fraction(float(np.float32(c))))
        try:
            form = formula(_Formal(nx), x, *moved).value
        except (NoFormError, ZeroDivisionError):
            continue
        found = record_of(form, "float32")
        assert found is None or found.name != name, (name, i)
        assert found is None or FRAMEWORKS[framework]


class _Formal:
    """The vocabulary of the formulas above for Terms."""

    def __init__(self, nx):
        self.nx = nx

    def __getattr__(self, name):
        return getattr(self.nx, name)

    def where(self, x, y, a, b):
        return self.nx.where(x > y, a, b)
