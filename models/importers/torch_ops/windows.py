"""Convolution, pooling and upsampling: ops on the last axes, channels before them."""

from __future__ import annotations

from typing import Any

from tangency.models.builder import Builder, Value
from tangency.models.importers.torch_ops.context import Call, Const, Missing, reads
from tangency.models.ops import AveragePool, Conv, ConvTranspose, MaxPool, Upsample

__all__: list[str] = []

Pairs = tuple[tuple[int, int], ...]


def _trailing(builder: Builder, value: Value, n: int) -> int:
    """A node whose last n axes are those of the value, as they are."""
    own = builder.nodes[value.node].shape
    if own == value.shape or (own == value.shape[1:] and len(own) >= n):
        return value.node
    inner = value.shape[0] == 1 and len(value.shape) > n
    return builder.laid_out(value, value.shape[1:] if inner else value.shape)


def _several(x: Any, n: int) -> tuple[int, ...]:
    listed = [x] if isinstance(x, int) else list(x)
    return tuple(int(i) for i in (listed * n if len(listed) == 1 else listed))


def _pairs(x: Any, n: int) -> Pairs:
    return tuple((p, p) for p in _several(x, n))


@reads("conv1d", "conv2d", "convolution", "_convolution", "conv_transpose1d", "conv_transpose2d")
def conv(call: Call) -> Value:
    value, weight, bias = call.value("input"), call["weight"], call.get("bias")
    call.require(isinstance(weight, Const), "its weight is computed from the input")
    n = len(weight.shape) - 2
    call.require(n in (1, 2), f"convolutions of {n} dimensions have no place, 1 and 2 have")
    dilation, stride = _several(call["dilation"], n), _several(call["stride"], n)
    padding, groups = _padding(call, weight.shape[2:], dilation), int(call["groups"])
    params = {"weight": call.param(weight, "weight")}
    if bias is not None:
        params["bias"] = call.param(bias, "bias")
    op: Conv | ConvTranspose = Conv(stride, padding, dilation, groups)
    if call.name.startswith("conv_transpose") or call.get("transposed", False):
        extra = _several(call["output_padding"], n)
        op = ConvTranspose(stride, padding, dilation, groups, extra)
    node = _trailing(call.builder, value, n + 1)
    fixed = call.fixed(weight=weight, bias=bias)
    return call.builder.emit(op, [node], params, view=call.out(), buffers=fixed)


def _padding(call: Call, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> Pairs:
    given, n = call["padding"], len(kernel)
    if given == "valid":
        return ((0, 0),) * n
    if given == "same":
        spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((s // 2, s - s // 2) for s in spans)
    return _pairs(given, n)


def _window(call: Call, n: int) -> tuple[tuple[int, ...], tuple[int, ...], Pairs]:
    size = _several(call["kernel_size"], n)
    stride = _several(call["stride"], n) if call.get("stride") else size
    return size, stride, _pairs(call["padding"], n)


@reads("max_pool1d", "max_pool2d", "max_pool1d_with_indices", "max_pool2d_with_indices")
def max_pool(call: Call) -> Any:
    n = int(call.name[8])
    size, stride, padding = _window(call, n)
    op = MaxPool(size, stride, padding, _several(call["dilation"], n))
    value = _pooled(call, op, n)
    return (value, Missing("the indices of max_pool")) if "indices" in call.name else value


@reads("avg_pool1d", "avg_pool2d")
def avg_pool(call: Call) -> Value:
    n = int(call.name[8])
    size, stride, padding = _window(call, n)
    call.require(call.get("divisor_override") is None, "divisor_override is not read")
    return _pooled(call, AveragePool(size, stride, padding, bool(call["count_include_pad"])), n)


def _pooled(call: Call, op: MaxPool | AveragePool, n: int) -> Value:
    value, b = call.value(), call.builder
    node = _trailing(b, value, n)
    shape = value.shape[:-n] + tuple(op.infer((b.nodes[node].shape,), {}))[-n:]
    want = call.shapes[0] if call.shape is None and call.shapes else call.out()
    call.require(shape == want, f"ceil_mode that gives {want[-n:]}, not {shape[-n:]}, is not read")
    return b.emit(op, [node], view=shape)


@reads(
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d"),
)
def adaptive(call: Call) -> Any:
    value, name = call.value(), call.name.lstrip("_")
    n = int(name[-2])
    size, space = _several(call["output_size"], n), value.shape[-n:]
    fits = all(s % o == 0 for s, o in zip(space, size, strict=True))
    call.require(fits, f"an input of {space} is not divided evenly by an output of {size}")
    window, padding = tuple(s // o for s, o in zip(space, size, strict=True)), ((0, 0),) * n
    node = _trailing(call.builder, value, n)
    view = value.shape[:-n] + size
    if "max" in name:
        op = MaxPool(window, window, padding, (1,) * n)
        return call.builder.emit(op, [node], view=view), Missing("the indices of max_pool")
    return call.builder.emit(AveragePool(window, window, padding), [node], view=view)


@reads(
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_linear1d", "upsample_bilinear2d"),
)
def upsample(call: Call) -> Value:
    value = call.value("input" if "input" in call.args else "self")
    n, linear = int(call.name[-2]), "linear" in call.name
    view = call.out()
    factors = call.get("scale_factors")
    if factors is not None:
        whole = all(
            o == s * f for o, s, f in zip(view[-n:], value.shape[-n:], factors, strict=True)
        )
        call.require(whole, f"a factor {factors} that rounds the size of the output is not read")
    corners = linear and bool(call["align_corners"])
    op = Upsample(view[-n:], "linear" if linear else "nearest", corners)
    return call.builder.emit(op, [_trailing(call.builder, value, n)], view=view)
