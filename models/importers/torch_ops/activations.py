"""Functions of one variable: the ATen op, and the record of the catalogue with its parameters."""

from __future__ import annotations

from math import log

from tangency.models.builder import Value
from tangency.models.importers.torch_ops.context import READERS, Call, Handler, reads
from tangency.models.importers.torch_ops.operands import multiply
from tangency.models.ops import Prelu, Product

__all__: list[str] = []

PLAIN = {
    **{
        name: name
        for name in (
            *("relu", "relu6", "selu", "silu", "mish", "hardswish", "hardsigmoid", "sigmoid"),
            *("tanh", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "square"),
            *("abs", "floor", "ceil", "sin", "cos", "tan", "sinh", "cosh", "asinh", "atanh"),
            *("erf", "sign"),
        )
    },
    "log_sigmoid": "logsigmoid",
    "special_expit": "sigmoid",
    "special_erf": "erf",
    "special_expm1": "expm1",
    "special_log1p": "log1p",
    "absolute": "abs",
    "sgn": "sign",
    "atan": "arctan",
    "arctan": "arctan",
    "asin": "arcsin",
    "arcsin": "arcsin",
    "acos": "arccos",
    "arccos": "arccos",
    "arcsinh": "asinh",
    "arctanh": "atanh",
}

WITH = {
    "leaky_relu": {"negative_slope": "negative_slope"},
    "celu": {"alpha": "alpha"},
    "softshrink": {"lambd": "lambd"},
    "hardshrink": {"lambd": "lambd"},
    "threshold": {"threshold": "threshold", "value": "value"},
}


def _plain(record: str) -> Handler:
    return lambda call: call.apply(record, call.value())


def _with(name: str, renamed: dict[str, str]) -> Handler:
    def read(call: Call) -> Value:
        given = {ours: float(call[theirs]) for ours, theirs in renamed.items()}
        return call.apply(name, call.value(), **given)

    return read


READERS.update({name: _plain(record) for name, record in PLAIN.items()})
READERS.update({name: _with(name, renamed) for name, renamed in WITH.items()})


@reads("hardtanh")
def hardtanh(call: Call) -> Value:
    low, high = float(call["min_val"]), float(call["max_val"])
    if (low, high) == (0.0, 6.0):
        return call.apply("relu6", call.value())
    return call.apply("hardtanh", call.value(), min_val=low, max_val=high)


@reads("elu")
def elu(call: Call) -> Value:
    plain = call["scale"] == 1 and call["input_scale"] == 1
    call.require(plain, "scale and input_scale other than 1 are not read")
    return call.apply("elu", call.value(), alpha=float(call["alpha"]))


@reads("gelu")
def gelu(call: Call) -> Value:
    return call.apply("gelu" if call["approximate"] == "none" else "gelu_tanh", call.value())


@reads("softplus")
def softplus(call: Call) -> Value:
    """The exact function: torch's is linear where beta x is above its threshold.

    At torch's own threshold of 20 they differ by less than exp(-20)/beta = 2.1e-9/beta, which is
    below the rounding of float32 there (x is 20/beta).
    """
    beta, threshold = float(call["beta"]), float(call["threshold"])
    call.require(
        threshold >= 20, f"threshold {threshold:g} is too low to be softplus: 20 or more is"
    )
    return call.apply("softplus", call.value(), beta=beta)


@reads("rrelu")
def rrelu(call: Call) -> Value:
    call.require(not call["training"], "it is in training mode, where it is random")
    slope = (float(call["lower"]) + float(call["upper"])) / 2
    return call.apply("leaky_relu", call.value(), negative_slope=slope)


@reads("round")
def rounded(call: Call) -> Value:
    call.require(not call.get("decimals", 0), "decimals other than 0 are not read")
    return call.apply("round", call.value())


@reads("log2", "log10")
def logarithm(call: Call) -> Value:
    out: Value = multiply(call, call.apply("log", call.value()), 1 / log(int(call.name[3:])))
    return out


@reads("exp2", "special_exp2")
def exp2(call: Call) -> Value:
    return call.apply("exp", multiply(call, call.value(), log(2)))


@reads("softsign", "tanhshrink")
def softsign(call: Call) -> Value:
    return call.apply(call.name, call.value())


@reads("logit")
def logit(call: Call) -> Value:
    raise call.refuse("has no place in the graph: leave it out and read the probability")


@reads("heaviside")
def heaviside(call: Call) -> Value:
    values = call.array(call["values"])
    call.require((values == 0).all(), "values at 0 other than 0 are not read")
    return call.apply("heaviside", call.value())


@reads("prelu", "_prelu_kernel")
def prelu(call: Call) -> Value:
    value, (key, slope) = call.value(), call.param(call["weight"], "weight")
    slope = slope.reshape(-1)
    trainable = call.const(call["weight"]).trainable
    if slope.size == 1 or len(value.shape) < 2:
        node, axis = value.node, 0
        if not call.builder.nodes[node].shape:
            node = call.builder.laid_out(value, (1,))
    else:
        node, (axis,) = call.builder.aligned(value, 1)
    params = {"slope": (key, slope)}
    return call.builder.emit(Prelu(axis), [node], params, view=value.shape, trainable=trainable)


@reads("glu")
def glu(call: Call) -> Value:
    from tangency.models.importers.torch_ops.indexing import cut

    value, axis = call.value(), call.axis()
    half = value.shape[axis] // 2
    first = cut(call.builder, value, axis, 0, half)
    gate = call.apply("sigmoid", cut(call.builder, value, axis, half, 2 * half))
    return call.builder.elementwise(Product(), first, gate)
