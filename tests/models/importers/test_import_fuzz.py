"""Random formulas and near misses of every template: the import is the formula, or is refused.

A formula is a tree. NumPy evaluates it in float64, and JAX, PyTorch and ONNX get it as a model;
the imported network, in float64 too, is compared at inputs that make the difference large: a grid
over all scales and around the formula's constants, then a few steps of local search.

``TANGENCY_FUZZ=2000`` sets the number of random formulas for each framework.
"""

import os
import warnings

import numpy as np
import pytest

from tangency.models import UnsupportedError, from_jax, from_onnx, from_torch

COUNT = int(os.environ.get("TANGENCY_FUZZ", "40"))
WIDTH = 4
RNG = np.random.default_rng(12)
MATRIX = RNG.standard_normal((WIDTH, WIDTH)).astype("float32")


def c(value):
    """A constant, one of float32, so that all frameworks have the same."""
    return ("c", float(np.float32(value)))


x = ("x",)


def relu(t):
    return ("max", t, c(0))


def clip(t, low, high):
    return ("min", ("max", t, c(low)), c(high))


def mul(a, b):
    return ("mul", a if isinstance(a, tuple) else c(a), b if isinstance(b, tuple) else c(b))


def add(a, b):
    return ("add", a, b if isinstance(b, tuple) else c(b))


def norm(t, eps=1e-5, least=None):
    d = ("sub", t, ("mean", t))
    var = ("mean", mul(d, d))
    return ("div", d, ("sqrt", add(var, eps) if least is None else ("max", var, c(least))))


def gelu(t, scale=2**0.5):
    return mul(mul(0.5, t), add(("erf", ("div", t, c(scale))), 1.0))


def gelu_tanh(t, cubic=0.044715):
    inner = add(t, mul(cubic, mul(t, mul(t, t))))
    return mul(mul(0.5, t), add(("tanh", mul((2 / np.pi) ** 0.5, inner)), 1.0))


def where(a, b, yes, no):
    """``yes`` where a > b."""
    return ("where", a, b if isinstance(b, tuple) else c(b), yes, no)


dense = ("dense", x)
sigmoid = ("sigmoid", x)

#: Every row of the issue's table of misread models, and near misses of the other templates.
FIXED = {
    "relu(.02 x + .3)": relu(add(mul(0.02, x), 0.3)),
    **{f"{k} relu(x)": mul(k, relu(x)) for k in (0.05, 0.02, 0.01, 0.001)},
    **{f"relu({k} x)": relu(mul(k, x)) for k in (0.05, 0.02, 0.01, 0.001)},
    "h + .01 relu(h W)": add(x, mul(0.01, relu(dense))),
    "relu with another slope": ("sub", relu(x), relu(("sub", ("div", x, c(10)), c(4)))),
    "relu to 50": where(mul(x, x), 2500, c(0), relu(x)),
    "sigmoid to 40": where(("div", x, c(10)), 4, c(0), sigmoid),
    **{f"softmax of a clip at {k}": ("softmax", clip(x, -k, k)) for k in (1, 10, 30, 100)},
    "scores clipped": ("softmax", clip(mul(3, dense), -10, 10)),
    "log of clipped softmax": ("log", ("max", ("softmax", x), c(1e-7))),
    "clipped log softmax": clip(("log_softmax", x), -100, 0),
    "norm of a clip": norm(clip(relu(dense), -20, 20)),
    "norm with least variance": norm(x, least=1e-8),
    "1e5 tanh(1e-5 x)": mul(1e5, ("tanh", mul(1e-5, x))),
    "min(.01 x + .5, 1)": ("min", add(mul(0.01, x), 0.5), c(1)),
    "x / (1 + 1e-9 x^2)": ("div", x, add(mul(1e-9, mul(x, x)), 1.0)),
    "gelu, another cubic": gelu_tanh(x, 0.04471502),
    "gelu, another root": gelu(x, 1.41421),
    "gelu": gelu(x),
    "gelu by tanh": gelu_tanh(x),
    "hardswish then clip": ("min", mul(x, clip(add(("div", x, c(6)), 0.5), 0, 1)), c(2e6)),
    "hardsigmoid": clip(add(("div", x, c(6)), 0.5), 0, 1),
    "hardtanh": clip(x, -1, 1),
    "relu6": clip(x, 0, 6),
    "relu clipped far out": ("min", relu(x), c(5000)),
    "leaky": ("max", mul(0.1, x), x),
    "leaky, zero below": where(x, -100, ("max", mul(0.1, x), x), c(0)),
    "silu": mul(x, sigmoid),
    "silu, almost": mul(x, ("sigmoid", mul(1.0001, x))),
    "silu, clipped": mul(x, ("sigmoid", clip(x, -40, 40))),
    "softplus": ("log", add(("exp", x), 1.0)),
    "softplus, clipped": ("log", add(("exp", ("min", x, c(20))), 1.0)),
    "softmax of relu": ("softmax", relu(x)),
    "clipped softmax": ("max", ("softmax", x), c(1e-6)),
    "norm": norm(x),
    "norm of relu": norm(relu(dense)),
    "clipped norm": clip(norm(x), -1.5, 1.5),
    "swish beta": mul(x, ("sigmoid", mul(1.702, x))),
    "tanh of small": mul(1e3, ("tanh", mul(1e-3, x))),
    "floor": ("floor", ("div", x, c(7))),
    "elu": where(x, 0, x, ("sub", ("exp", ("min", x, c(0))), c(1))),
    "elu, cut": where(x, -30, where(x, 0, x, ("sub", ("exp", ("min", x, c(0))), c(1))), c(0)),
    "triangle": ("max", ("sub", c(1), ("abs", ("sub", x, c(31)))), c(0)),
}


def random_tree(rng, depth):
    """A formula of a few steps, with constants of many sizes."""

    def number():
        return float(np.float32(rng.choice([-1, 1]) * 10 ** rng.uniform(-3, 2.5)))

    def part(d):
        if d <= 0:
            return [x, dense, mul(number(), x), add(mul(number(), x), number())][rng.integers(4)]
        t = part(d - 1)
        low, high = sorted((number(), number()))
        made = [
            lambda: relu(t),
            lambda: mul(number(), relu(t)),
            lambda: clip(t, low, high),
            lambda: ("min", t, c(number())),
            lambda: ("max", t, c(number())),
            lambda: add(mul(number(), t), number()),
            lambda: ("tanh", t),
            lambda: ("sigmoid", t),
            lambda: ("abs", t),
            lambda: mul(t, ("sigmoid", mul(number(), t))),
            lambda: where(t, number(), t, mul(number(), t)),
            lambda: where(mul(t, t), abs(number()), c(number()), t),
            lambda: ("softmax", clip(t, low, high)),
            lambda: ("softmax", t),
            lambda: clip(("log_softmax", t), -abs(number()), 0),
            lambda: norm(clip(t, low, high), 1e-3),
            lambda: gelu_tanh(t, 0.044715 * (1 + 10 ** rng.uniform(-6, -1))),
            lambda: gelu(t, 2**0.5 * (1 + 10 ** rng.uniform(-6, -1))),
            lambda: mul(abs(number()) * 100, ("tanh", mul(1 / (abs(number()) * 100), t))),
            lambda: ("div", t, add(mul(abs(number()) * 1e-6, mul(t, t)), 1.0)),
            lambda: add(t, part(d - 2)),
            lambda: ("exp", ("min", t, c(0))),
        ]
        return made[rng.integers(len(made))]()

    return part(depth)


# --- evaluation and models --------------------------------------------------------------------


def evaluated(tree, nx, value, memo=None):
    """The tree in a namespace of functions."""
    memo = {} if memo is None else memo
    if id(tree) not in memo:
        kind, *args = tree
        if kind == "x":
            out = value
        elif kind == "c":
            out = args[0]
        else:
            out = nx[kind](*(evaluated(a, nx, value, memo) for a in args))
        memo[id(tree)] = out
    return memo[id(tree)]


ARITHMETIC = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
}


def numpy_functions():
    from scipy.special import erf, expit, log_softmax, softmax

    return {
        **ARITHMETIC,
        **{k: getattr(np, k) for k in ("exp", "log", "tanh", "sqrt", "abs", "floor")},
        "max": np.maximum,
        "min": np.minimum,
        "sigmoid": expit,
        "erf": erf,
        "softmax": lambda t: softmax(t, axis=-1),
        "log_softmax": lambda t: log_softmax(t, axis=-1),
        "mean": lambda t: t.mean(-1, keepdims=True),
        "dense": lambda t: t @ MATRIX.astype(float),
        "where": lambda a, b, yes, no: np.where(a > b, yes, no),
    }


def by_jax(tree):
    import jax
    import jax.numpy as jnp

    functions = {
        **ARITHMETIC,
        **{k: getattr(jnp, k) for k in ("exp", "log", "tanh", "sqrt", "abs", "floor")},
        "max": jnp.maximum,
        "min": jnp.minimum,
        "sigmoid": jax.nn.sigmoid,
        "erf": jax.scipy.special.erf,
        "softmax": jax.nn.softmax,
        "log_softmax": jax.nn.log_softmax,
        "mean": lambda t: t.mean(-1, keepdims=True),
        "dense": lambda t: t @ MATRIX,
        "where": lambda a, b, yes, no: jnp.where(a > b, yes, no),
    }
    return from_jax(lambda v: evaluated(tree, functions, v), np.zeros((1, WIDTH), "float32"))


def by_torch(tree):
    torch = pytest.importorskip("torch")
    matrix = torch.from_numpy(MATRIX)

    def tensor(v):
        return v if isinstance(v, torch.Tensor) else torch.tensor(v, dtype=torch.float32)

    functions = {
        **ARITHMETIC,
        **{k: getattr(torch, k) for k in ("exp", "log", "tanh", "sqrt", "abs", "floor")},
        "max": lambda a, b: torch.clamp(a, min=b),
        "min": lambda a, b: torch.clamp(a, max=b),
        "sigmoid": torch.sigmoid,
        "erf": torch.erf,
        "softmax": lambda t: torch.softmax(t, -1),
        "log_softmax": lambda t: torch.log_softmax(t, -1),
        "mean": lambda t: t.mean(-1, keepdim=True),
        "dense": lambda t: t @ matrix,
        "where": lambda a, b, yes, no: torch.where(a > b, tensor(yes), tensor(no)),
    }

    class Model(torch.nn.Module):
        def forward(self, v):
            return evaluated(tree, functions, v)

    return from_torch(Model(), torch.zeros(1, WIDTH))


def by_onnx(tree):
    pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    nodes, tensors = [], [numpy_helper.from_array(MATRIX, "W")]

    def node(op, **attributes):
        def emit(*args):
            names = []
            for a in args:
                if isinstance(a, float):
                    tensors.append(numpy_helper.from_array(np.float32(a), f"c{len(tensors)}"))
                    a = tensors[-1].name
                names.append(a)
            nodes.append(helper.make_node(op, names, [f"t{len(nodes)}"], **attributes))
            return f"t{len(nodes) - 1}"

        return emit

    functions = {k: node(k.capitalize()) for k in (*ARITHMETIC, "max", "min", "exp", "log", "tanh")}
    functions |= {k: node(k.capitalize()) for k in ("sqrt", "abs", "floor", "sigmoid", "erf")}
    functions |= {
        "softmax": node("Softmax", axis=-1),
        "log_softmax": node("LogSoftmax", axis=-1),
        "mean": node("ReduceMean", axes=[-1], keepdims=1),
        "dense": lambda t: node("MatMul")(t, "W"),
        "where": lambda a, b, yes, no: node("Where")(node("Greater")(a, b), yes, no),
    }
    out = evaluated(tree, functions, "x")
    ends = [helper.make_tensor_value_info(n, 1, ["n", WIDTH]) for n in ("x", out)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return from_onnx(model)


# --- comparison ---------------------------------------------------------------------------------


def constants(tree):
    return [tree[1]] if tree[0] == "c" else [v for t in tree[1:] for v in constants(t)]


def worst(tree, network, rng):
    """The largest difference, as a part of the size of output, input and one; and its input."""
    functions, ours = numpy_functions(), network.astype("float64")
    sizes = np.abs(np.array([*constants(tree), 1.0]))
    sizes = sizes[sizes > 0]
    ratios = (sizes[:, None] / sizes[None]).reshape(-1)
    spots = np.concatenate([ratios, sizes, np.sqrt(sizes)])
    spots = np.concatenate([spots * f for f in (0.5, 0.999, 1.0, 1.001, 2.0)])
    spots = rng.choice(spots[spots < 1e6], 600)
    broad = 10 ** rng.uniform(-3, 6, (200, 1)) * rng.standard_normal((200, WIDTH))
    mixed = 10 ** rng.uniform(-3, 6, (200, WIDTH)) * rng.choice([-1, 1], (200, WIDTH))
    near = rng.choice(spots, (400, WIDTH)) * rng.choice([-1, 1], (400, WIDTH))
    flat = np.repeat(rng.choice(spots, (100, 1)), WIDTH, axis=1) * rng.choice([-1, 1], (100, 1))
    points = np.concatenate([broad, mixed, near, flat, np.zeros((1, WIDTH))])
    best, where_ = 0.0, points[0]
    for _ in range(4):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = np.broadcast_to(evaluated(tree, functions, points), points.shape)
            error = np.abs(ours.evaluate(points) - theirs)
            error = error / (1 + np.abs(theirs) + np.abs(points).max(axis=1, keepdims=True))
        error = np.where(np.isfinite(theirs), np.where(np.isnan(error), np.inf, error), 0.0)
        each = error.max(axis=1)
        top = np.argsort(each)[-20:]
        if each[top[-1]] > best:
            best, where_ = float(each[top[-1]]), points[top[-1]]
        steps = 1 + 10 ** rng.uniform(-6, 0, (400, WIDTH)) * rng.choice([-1, 1], (400, WIDTH))
        points = np.resize(points[top], (400, WIDTH)) * steps
    return best, where_


FRAMEWORKS = {"jax": by_jax, "torch": by_torch, "onnx": by_onnx}


def agrees(tree, framework, seed):
    """Whether the import is the formula; False where it is refused for what it cannot read."""
    try:
        network = FRAMEWORKS[framework](tree)
    except UnsupportedError as error:
        if "please report it" in str(error):
            pytest.fail(f"{tree}: {error}")
        return False
    found, point = worst(tree, network, np.random.default_rng(seed))
    assert found < 1e-6, (tree, found, point)
    return True


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", FIXED)
def test_near_misses(name, framework):
    assert agrees(FIXED[name], framework, 0)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("part", range(4))
def test_random_formulas(framework, part):
    read, wrong = 0, []
    for seed in range(part, COUNT, 4):
        rng = np.random.default_rng(seed)
        tree = random_tree(rng, int(rng.integers(1, 4)))
        if not constants(tree) and tree in (x, dense):
            continue
        try:
            read += agrees(tree, framework, seed)
        except (AssertionError, pytest.fail.Exception) as error:
            wrong.append((seed, str(error)))
    assert not wrong, f"{len(wrong)} of {COUNT // 4}: {wrong[:3]}"
    assert read > COUNT // 8
