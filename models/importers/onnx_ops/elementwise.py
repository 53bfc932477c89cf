"""Activation functions: ONNX ops of one variable, by their records in the catalogue."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np

from tangency.models.builder import Value
from tangency.models.importers.onnx_ops.context import Call, Condition, Const, reads
from tangency.models.ops import Add, Extremum, Prelu, Select

__all__: list[str] = []

PLAIN = {
    "Abs": "abs",
    "Acos": "arccos",
    "Asin": "arcsin",
    "Asinh": "asinh",
    "Atan": "arctan",
    "Atanh": "atanh",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "HardSwish": "hardswish",
    "Log": "log",
    "Mish": "mish",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
}
SELU = (1.6732631921768188, 1.0507010221481323)  # ONNX's defaults, float32


@reads(*PLAIN)
def plain(call: Call) -> Value:
    return call.activate(call.var(0), PLAIN[call.op])


@reads("Identity", "Dropout")
def identity(call: Call) -> Any:
    if call.op == "Dropout":
        training = call.item(2)
        on = training is not None and not (isinstance(training, Const) and not training.array.any())
        if on or (call.opset < 7 and not call.attr("is_test", 0)):
            call.refuse("is in training mode; export the model in evaluation mode")
    return call.given(0)


@reads("Cast", "CastLike")
def cast(call: Call) -> Any:
    from onnx import TensorProto

    item, dtype = call.given(0), call.builder.dtype
    if call.op == "CastLike":
        like = call.given(1)
        target = str(like.array.dtype) if isinstance(like, Const) else dtype
    else:
        names = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}
        target = names.get(int(call.attr("to", 0)), f"ONNX type {call.attr('to')}")
    if target != dtype:
        call.refuse(f"casts to {target}; the whole network must be {dtype}")
    if isinstance(item, Condition):
        one, zero = (call.builder.constant(np.full((), v, dtype)) for v in (1.0, 0.0))
        return call.builder.elementwise(Select(item.strict), item.x, item.y, one, zero)
    return item


@reads("LeakyRelu")
def leaky_relu(call: Call) -> Value:
    return call.activate(call.var(0), "leaky_relu", negative_slope=call.number("alpha", 0.01))


@reads("Elu", "Celu")
def elu(call: Call) -> Value:
    return call.activate(call.var(0), call.op.lower(), alpha=call.number("alpha", 1.0))


@reads("Selu")
def selu(call: Call) -> Value:
    alpha, gamma = call.number("alpha", SELU[0]), call.number("gamma", SELU[1])
    # The constants are those of SELU rounded to float32: in a float32 network the exact are meant.
    if call.builder.dtype == "float32" and (alpha, gamma) == SELU:
        return call.activate(call.var(0), "selu")
    return _scaled(call, call.activate(call.var(0), "elu", alpha=alpha), gamma)


@reads("ThresholdedRelu")
def thresholded_relu(call: Call) -> Value:
    return call.activate(call.var(0), "threshold", threshold=call.number("alpha", 1.0), value=0.0)


@reads("HardSigmoid")
def hard_sigmoid(call: Call) -> Value:
    alpha, beta = call.number("alpha", 0.2), call.number("beta", 0.5)
    return call.activate(call.var(0), "hardsigmoid", alpha=alpha, beta=beta)


@reads("Shrink")
def shrink(call: Call) -> Value:
    lambd, bias = call.number("lambd", 0.5), call.number("bias", 0.0)
    if bias not in (0.0, lambd) or lambd < 0:
        call.refuse(f"lambd {lambd:g} with bias {bias:g}; bias must be 0 or lambd, lambd >= 0")
    return call.activate(call.var(0), "hardshrink" if bias == 0 else "softshrink", lambd=lambd)


@reads("Gelu")
def gelu(call: Call) -> Value:
    how = call.text("approximate", "none")
    names = {"none": "gelu", "tanh": "gelu_tanh"}
    if how not in names:
        call.wrong(f"approximate is {how!r}; 'none' and 'tanh' exist")
    return call.activate(call.var(0), names[how])


@reads("Swish")
def swish(call: Call) -> Value:
    alpha = call.number("alpha", 1.0)
    if alpha == 1.0:
        return call.activate(call.var(0), "silu")
    return call.activate(call.var(0), "swish", beta=alpha)


@reads("Clip")
def clip(call: Call) -> Value:
    ends = []
    for i, name, free in ((1, "min", -np.inf), (2, "max", np.inf)):
        end = call.attr(name, free)
        if call.item(i) is not None:
            array = call.float_array(call.const(i, name))
            if array.size != 1:
                call.wrong(f"{name} has shape {array.shape}: a scalar is needed")
            end = array.reshape(-1)[0]
        ends.append(float(end))
    low, high = ends
    if low != low or high != high or low > high:
        call.wrong(f"clips to [{low:g}, {high:g}], which is empty")
    info = np.finfo(call.builder.dtype)  # exporters write no bound as the largest number
    low = -np.inf if low <= info.min else low
    high = np.inf if high >= info.max else high
    x, b = call.var(0), call.builder
    if np.isfinite(low) and np.isfinite(high):
        if ends == [0.0, 6.0]:
            return call.activate(x, "relu6")
        return call.activate(x, "hardtanh", min_val=low, max_val=high)
    if low == 0.0:
        return call.activate(x, "relu")
    if np.isfinite(low):
        return b.elementwise(Extremum("max"), x, b.constant(np.full((), low, b.dtype)))
    if np.isfinite(high):
        return b.elementwise(Extremum("min"), x, b.constant(np.full((), high, b.dtype)))
    return x


@reads("Pow")
def power(call: Call) -> Value:
    base, exponent = call.given(0), call.given(1)
    if isinstance(base, Const):
        if base.array.size != 1 or not float(base.array.reshape(-1)[0]) > 0:
            call.refuse("a constant base must be one positive number")
        scaled = _scaled(call, call.var(1), log(float(call.float_array(base).reshape(-1)[0])))
        return call.activate(scaled, "exp")
    if not isinstance(exponent, Const):
        call.refuse("the exponent depends on the network's input; it must be constant")
    values = np.unique(exponent.array)
    if values.size != 1:
        call.refuse(f"the exponent has {values.size} different values; it must be one number")
    n, x = float(values[0]), call.var(0)
    names = {1.0: "identity", 2.0: "square", 3.0: "cube", 0.5: "sqrt", -1.0: "reciprocal"}
    names[-0.5] = "rsqrt"
    wide = np.broadcast_shapes(tuple(x.shape), exponent.shape)
    if wide != x.shape:
        x = call.builder.broadcast(x, call.bounded(wide))
    if n in names:
        return call.activate(x, names[n])
    if n != int(n) or not 0 < n <= 64:
        call.refuse(f"the exponent {n:g}: an integer from 1 to 64, 1/2, -1/2 or -1 is supported")
    return call.activate(x, "power", n=n)


@reads("PRelu")
def prelu(call: Call) -> Value:
    x, slope, b = call.var(0), call.weight(1, "slope"), call.builder
    shape = (1,) * (len(x.shape) - slope.array.ndim) + slope.shape
    if call.opset < 7 and len(x.shape) > 1 and slope.shape == x.shape[1:2]:  # one a channel
        shape = (1, *slope.shape, *(1,) * (len(x.shape) - 2))
    if len(shape) != len(x.shape) or any(
        s not in (1, n) for s, n in zip(shape, x.shape, strict=True)
    ):
        call.wrong(f"slope {slope.shape} does not broadcast to {x.shape}")
    wide = [i for i, s in enumerate(shape) if s != 1]
    if len(wide) > 1:  # a slope for each entry: relu(x) - slope * relu(-x)
        negative = call.activate(b.negate(x), "relu")
        scaled = b.scale(negative, -slope.array, key=slope.key, trainable=slope.trainable)
        return b.elementwise(Add(), call.activate(x, "relu"), scaled)
    node, axes = b.aligned(x, *wide) if wide else (x.node, (0,))
    params = {"slope": (slope.key, slope.array.reshape(-1))}
    return b.emit(Prelu(axes[0]), [node], params, view=x.shape, trainable=slope.trainable)


def _scaled(call: Call, value: Value, factor: float) -> Value:
    return call.builder.scale(value, np.asarray(factor, call.builder.dtype), trainable=False)
