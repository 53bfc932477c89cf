"""Recognition by structure: exact forms, near misses of every template, in three front ends."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.special
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
    "softmax of a clipped difference": (
        lambda x: jax.nn.softmax(jnp.maximum(x - x.max(-1, keepdims=True), -50.0)),
        ["reduce_extremum", "reshape", "subtract", "clip", "softmax"],
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


# --- piecewise linear functions, against their evaluation in rationals ----------------------------

numbers = st.integers(-128, 128).map(lambda k: Fraction(k, 16))  # floats hold them exactly


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


# --- all rewritings, against evaluation with many digits ------------------------------------------


class Mp:
    """The vocabulary for mpmath's numbers."""

    exp, log, sqrt, erf, tanh, sin = (
        getattr(mpmath, f) for f in ("exp", "log", "sqrt", "erf", "tanh", "sin")
    )
    expm1, log1p, erfc, cosh = mpmath.expm1, mpmath.log1p, mpmath.erfc, mpmath.cosh
    abs, maximum, minimum, sign = abs, max, min, mpmath.sign

    @staticmethod
    def sigmoid(x):
        return 1 / (1 + mpmath.exp(-x))

    @staticmethod
    def softplus(x):
        return mpmath.log1p(mpmath.exp(x))

    @staticmethod
    def where(condition, a, b):
        return a if condition else b


def evaluated(poly, x):
    """A normal form at a point."""
    total = mpmath.mpf(0)
    for monomial, c in poly.terms:
        part = mpmath.mpf(c.numerator) / c.denominator
        for atom, n in monomial:
            if atom.kind == "x":
                value = x
            elif atom.kind == "inverse":
                value = 1 / evaluated(atom.args[0], x)
            else:
                value = getattr(Mp, atom.kind)(evaluated(atom.args[0], x))
            part *= value**n
        total += part
    return total


def smooth(depth):
    """Formulas of (nx, x) over the whole vocabulary."""
    c = st.integers(-16, 16).map(lambda k: k / 4.0)
    line = st.tuples(c, c).map(lambda p: lambda nx, x: p[0] * x + p[1])
    leaf = st.just(lambda nx, x: x) | line | line.map(lambda f: lambda nx, x: nx.exp(f(nx, x)))
    if depth == 0:
        return leaf
    inner = smooth(depth - 1)

    def of(f, name):
        return lambda nx, x: getattr(nx, name)(f(nx, x))

    def over(f, g):
        return lambda nx, x: f(nx, x) / (1.0 + nx.abs(g(nx, x)))

    def logistic(f):
        return lambda nx, x: nx.log(1.0 + nx.exp(f(nx, x))) - 1.0 / (1.0 + nx.exp(-f(nx, x)))

    named = ("sigmoid", "tanh", "softplus", "erf", "erfc", "sin", "abs", "expm1", "cosh")
    pair = st.tuples(inner, inner)
    return st.one_of(
        inner,
        st.tuples(leaf, st.sampled_from(named)).map(lambda p: of(*p)),
        leaf.map(logistic),
        pair.map(lambda p: lambda nx, x: p[0](nx, x) * p[1](nx, x)),
        pair.map(lambda p: lambda nx, x: p[0](nx, x) - p[1](nx, x)),
        pair.map(lambda p: lambda nx, x: nx.maximum(p[0](nx, x), p[1](nx, x))),
        pair.map(lambda p: over(*p)),
        st.tuples(line, inner, inner).map(
            lambda p: lambda nx, x: nx.where(p[0](nx, x) > 0.5, p[1](nx, x), p[2](nx, x))
        ),
    )


@settings(max_examples=200, deadline=None)
@given(smooth(3), st.lists(numbers, min_size=3, max_size=5))
def test_rewritings_are_identities(formula, points):
    try:
        form = form_of(formula)
    except NoFormError:
        return  # the sign of what bends
    with mpmath.workdps(400):
        binary = (c for c in form.cuts if c.denominator.bit_count() == 1)
        for at in (*points, *binary):  # the others are rounded, and lie on either side
            x = mpmath.mpf(at.numerator) / at.denominator
            try:
                want = formula(Mp, x)
            except (ZeroDivisionError, OverflowError):
                continue
            got = evaluated(form.at(at), x) if at in form.cuts else None
            piece = next(form.between((at,)))
            got = evaluated(piece, x) if got is None else got
            assert abs(got - want) <= mpmath.mpf(10) ** -100 * (1 + abs(want))


# --- three front ends -----------------------------------------------------------------------------


class Jax:
    exp, log, tanh, abs, erf = jnp.exp, jnp.log, jnp.tanh, jnp.abs, jax.lax.erf
    sigmoid, maximum, minimum, sign = jax.nn.sigmoid, jnp.maximum, jnp.minimum, jnp.sign

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


# --- near misses ----------------------------------------------------------------------------------


def found_for(name, constants):
    x = Term(Piecewise((entry(),)), lambda c: Fraction(float(np.float32(c))))
    try:
        form = FORMULAS[name][0](Namespace(constants=True), x, *constants).value
    except (NoFormError, ZeroDivisionError):
        return None
    record = record_of(form, "float32")
    return None if record is None else record.name


#: Constants that are parameters of a family, which may be any: (name, place).
FREE = {("softshrink", 0), ("silu", 1)}
PLACES = [
    (name, i) for name in FORMULAS for i in range(len(FORMULAS[name][1])) if (name, i) not in FREE
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(PLACES),
    # One unit beside sqrt(1/2) and sqrt(2/pi) is what their float32 arithmetic gives.
    st.integers(-2000, 2000).filter(lambda k: abs(k) > 1) | st.sampled_from([-(2**31), 2**23]),
)
def test_another_constant_is_another_function(place, units):
    name, i = place
    constants = list(FORMULAS[name][1])
    c = np.float32(constants[i])
    constants[i] = float(-c if units == -(2**31) else c + units * np.spacing(c))
    if constants[i] != float(c):
        assert found_for(name, constants) != name


@pytest.mark.parametrize("place", [p for p in PLACES if p[0] not in ("gelu", "gelu_tanh")])
@pytest.mark.parametrize("to", [-math.inf, math.inf])
def test_the_next_float_is_another_constant(place, to):
    name, i = place
    constants = list(FORMULAS[name][1])
    assert found_for(name, constants) == name
    constants[i] = float(np.nextafter(np.float32(constants[i]), np.float32(to)))
    assert found_for(name, constants) != name


def numpy_value(formula, constants, x):
    class nx:
        exp, log, tanh, abs, sign = np.exp, np.log, np.tanh, np.abs, np.sign
        sigmoid, erf = scipy.special.expit, scipy.special.erf
        maximum, minimum = np.maximum, np.minimum

    return formula(nx, x, *constants)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", FORMULAS)
def test_near_misses_are_imported_as_they_are(name, framework):
    """The last constant moved by 1e-6, and a clamp that acts far out."""
    formula, constants = FORMULAS[name]
    moved = (*constants[:-1], float(np.float32(constants[-1] + 1e-6)))

    def model(nx, x, *given):
        return nx.minimum(formula(nx, x, *given), 1000.0)

    network = FRAMEWORKS[framework].network(lambda nx, x: model(nx, x, *moved))
    assert kinds(network) != [name]
    x = np.concatenate([POINTS[np.abs(POINTS) < 80], [-20.0, 20.0]])
    x = np.concatenate([x, np.zeros(-len(x) % 6)]).reshape(-1, 6)
    want = numpy_value(model, [float(np.float32(c)) for c in moved], x)
    got = network.astype("float64").evaluate(x)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)


# --- composites -----------------------------------------------------------------------------------


def mean(x):
    return x.mean(-1, keepdims=True)


def total(x):
    return x.sum(-1, keepdims=True)


def top(x):
    return x.max(-1, keepdims=True)


COMPOSITES = {
    "softmax": [
        lambda x: jnp.exp(x) / total(jnp.exp(x)),
        lambda x: jnp.exp(x - top(x)) / total(jnp.exp(x - top(x))),
        lambda x: jnp.exp(x - jax.nn.logsumexp(x, -1, keepdims=True)),
        lambda x: jnp.exp(x - mean(x)) / total(jnp.exp(x - mean(x))),
    ],
    "layer_norm": [
        lambda x: (x - mean(x)) / jnp.sqrt(mean((x - mean(x)) ** 2) + 1e-5),
        lambda x: (x - mean(x)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5),
        lambda x: (x - mean(x)) * jax.lax.rsqrt(mean(x * x) - mean(x) ** 2 + 1e-5),
        lambda x: (
            (x - mean(x)) * jax.lax.rsqrt(jnp.maximum(mean(x * x) - mean(x) ** 2, 0.0) + 1e-5)
        ),
        lambda x: x / jnp.sqrt(mean(x * x) + 1e-5),
    ],
    "log_sum_exp": [
        lambda x: jnp.log(total(jnp.exp(x)))[:, 0],
        lambda x: (top(x) + jnp.log(total(jnp.exp(x - top(x)))))[:, 0],
    ],
}
NEAR = {
    "eps in the sum": lambda x: jnp.exp(x - top(x)) / (1e-6 + total(jnp.exp(x - top(x)))),
    "two temperatures": lambda x: jnp.exp(x) / total(jnp.exp(1.0001 * x)),
    "a mean of exponentials": lambda x: jnp.exp(x) / mean(jnp.exp(x)),
    "eps outside": lambda x: (x - mean(x)) / (jnp.sqrt(mean((x - mean(x)) ** 2)) + 1e-5),
    "n - 1": lambda x: (x - mean(x)) / jnp.sqrt(x.var(-1, keepdims=True, ddof=1) + 1e-5),
    "raised": lambda x: (x - mean(x)) / jnp.sqrt(jnp.maximum(mean((x - mean(x)) ** 2), 1e-8)),
    "another centre": lambda x: (x - mean(x)) / jnp.sqrt(mean(x * x) + 1e-5),
    "a variance too small": lambda x: (
        (x - mean(x)) * jax.lax.rsqrt(jnp.maximum(mean(x * x) - 2 * mean(x) ** 2, 0.0) + 1e-5)
    ),
    "a squared sum": lambda x: jnp.log(total(jnp.exp(x)) ** 2 + 1e-9)[:, 0],
}


@pytest.mark.parametrize("name", COMPOSITES)
def test_composites(name):
    for model in COMPOSITES[name]:
        network = from_jax(model, V32)
        assert kinds(network)[0] == name
        assert set(kinds(network)) <= {name, "reshape"}


@pytest.mark.parametrize("name", NEAR)
def test_near_composites_stay_what_they_are(name):
    network = from_jax(NEAR[name], V64)
    assert not {"softmax", "layer_norm", "log_sum_exp"} & set(kinds(network))
    x = np.random.default_rng(0).standard_normal((4, 6)) * [[1e-3], [1.0], [10.0], [60.0]]
    with precision("float64"):
        want = np.asarray(NEAR[name](x))
    np.testing.assert_allclose(network.evaluate(x), want, rtol=1e-9, atol=1e-12)


def test_a_gain_that_lies_across_is_no_gain_of_the_norm():
    gain = np.random.default_rng(0).standard_normal((6, 6))
    x = np.zeros((1, 6, 6))

    def normed(x):
        m = x.mean((1, 2), keepdims=True)
        return (x - m) / jnp.sqrt(((x - m) ** 2).mean((1, 2), keepdims=True) + 1e-3)

    y = np.random.default_rng(1).standard_normal((3, 6, 6))
    for model, chain in (
        (lambda p, x: normed(x) * p["g"], ["layer_norm"]),
        (lambda p, x: jnp.swapaxes(jnp.swapaxes(normed(x), 1, 2) * p["g"], 1, 2), None),
        (lambda p, x: normed(x) * jnp.swapaxes(p["g"], 0, 1), ["layer_norm"]),
        (lambda p, x: normed(x * p["g"]), ["scale", "layer_norm"]),
    ):
        network = from_jax(model, x, params={"g": gain})
        assert chain is None or kinds(network) == chain
        with precision("float64"):
            want = np.asarray(model({"g": gain}, y))
        np.testing.assert_allclose(network.evaluate(y), want, rtol=1e-11)


def test_a_low_threshold_of_softplus_is_refused():
    torch = pytest.importorskip("torch")
    module = torch.nn.Softplus(beta=0.01, threshold=10)
    with pytest.raises(tangency.UnsupportedError, match="threshold 10 is too low"):
        from_torch(module, torch.zeros(1, 3))
