"""Recurrent cells, and recurrent layers unrolled over the time steps of the example."""

from __future__ import annotations

from typing import Any

from tangency.models.builder import Value
from tangency.models.importers.torch_ops.context import Call, Const, reads
from tangency.models.importers.torch_ops.indexing import cut
from tangency.models.importers.torch_ops.linear import affine
from tangency.models.importers.torch_ops.operands import add, multiply, subtract

__all__: list[str] = []

State = tuple[Any, ...]


def _linear(call: Call, x: Any, weight: Const, bias: Const | None) -> Any:
    if isinstance(x, Value):
        return affine(call, x, weight, bias)
    if bias is not None and _zero(x):
        return bias
    out = x.tensor @ weight.tensor.t()
    out = out if bias is None else out + bias.tensor
    learnt = x.trainable or (bias is not None and bias.trainable) or bool(x.tensor.any())
    return Const(out, learnt)


def _act(call: Call, name: str, x: Any) -> Any:
    if isinstance(x, Value):
        return call.apply(name, x)
    import torch

    return Const(getattr(torch, name)(x.tensor), x.trainable)


def _gates(call: Call, x: Any, count: int) -> list[Any]:
    axis = len(x.shape) - 1
    size = x.shape[axis] // count
    if isinstance(x, Const):
        return [Const(t, x.trainable) for t in x.tensor.split(size, axis)]
    return [cut(call.builder, x, axis, i * size, (i + 1) * size) for i in range(count)]


def _lstm_step(call: Call, xs: Any, state: State, hidden: Any) -> State:
    cell = state[1]
    i, f, g, o = _gates(call, add(call, xs, hidden), 4)
    kept = multiply(call, _act(call, "sigmoid", f), cell) if not _zero(cell) else None
    new = multiply(call, _act(call, "sigmoid", i), _act(call, "tanh", g))
    cell = new if kept is None else add(call, kept, new)
    return multiply(call, _act(call, "sigmoid", o), _act(call, "tanh", cell)), cell


def _gru_step(call: Call, xs: Any, state: State, hidden: Any) -> State:
    (h,) = state
    (xr, xz, xn), (hr, hz, hn) = _gates(call, xs, 3), _gates(call, hidden, 3)
    r = _act(call, "sigmoid", add(call, xr, hr))
    z = _act(call, "sigmoid", add(call, xz, hz))
    n = _act(call, "tanh", add(call, xn, multiply(call, r, hn)))
    # (1 - z) n + z h, with z in one product
    return (add(call, n, multiply(call, z, subtract(call, h, n))),)


def _step(kind: str) -> Any:
    if kind == "lstm":
        return _lstm_step
    if kind == "gru":
        return _gru_step
    return lambda call, xs, state, hidden: (_act(call, kind, add(call, xs, hidden)),)


def _zero(x: Any) -> bool:
    return isinstance(x, Const) and not bool(x.tensor.any())


@reads("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(call: Call) -> Any:
    kind = call.name.removesuffix("_cell").removeprefix("rnn_")
    hx = call["hx"]
    state = tuple(hx) if isinstance(hx, list | tuple) else (hx,)
    xs = _linear(call, call["input"], call["w_ih"], call.get("b_ih"))
    hidden = _linear(call, state[0], call["w_hh"], call.get("b_hh"))
    out = _step(kind)(call, xs, state, hidden)
    return out if kind == "lstm" else out[0]


@reads("lstm", "gru", "rnn_tanh", "rnn_relu")
def layers(call: Call) -> Any:
    kind, call_args = call.name.removeprefix("rnn_"), call.args
    call.require("data" not in call_args, "packed sequences have no place")
    call.require(not (call["train"] and call["dropout"] > 0), "dropout is in training mode")
    params, hx = list(call["params"]), call["hx"]
    states = list(hx) if isinstance(hx, list | tuple) else [hx]
    ways = 2 if call["bidirectional"] else 1
    each = 4 if call["has_biases"] else 2
    depth = int(call["num_layers"])
    call.require(len(params) == each * depth * ways, "a projection (proj_size) is not read")
    time = 1 if call["batch_first"] else 0
    xs = _unstacked(call, call["input"], time)
    ends: list[State] = []
    for layer in range(depth):
        runs = []
        for way in range(ways):
            k = layer * ways + way
            weights = [*params[each * k : each * (k + 1)], None, None][:4]
            start = tuple(_at(call, s, k) for s in states)
            outs, end = _run(call, kind, xs[::-1] if way else xs, weights, start)
            runs.append(outs[::-1] if way else outs)
            ends.append(end)
        xs = [_side_by_side(call, list(parts)) for parts in zip(*runs, strict=True)]
    stacked = _stacked(call, xs, time)
    return (stacked, *(_stacked(call, list(part), 0) for part in zip(*ends, strict=True)))


def _run(
    call: Call, kind: str, xs: list[Any], weights: list[Any], state: State
) -> tuple[list[Any], State]:
    w_ih, w_hh, b_ih, b_hh = weights
    step, outs = _step(kind), []
    for x in xs:
        driven = _linear(call, x, w_ih, b_ih)
        state = step(call, driven, state, _linear(call, state[0], w_hh, b_hh))
        outs.append(state[0])
    return outs, state


def _at(call: Call, x: Any, index: int, axis: int = 0) -> Any:
    if isinstance(x, Const):
        return Const(x.tensor.select(axis, index), x.trainable)
    piece = cut(call.builder, x, axis, index, index + 1)
    return call.builder.reshape(piece, (*x.shape[:axis], *x.shape[axis + 1 :]))


def _unstacked(call: Call, x: Any, axis: int) -> list[Any]:
    return [_at(call, x, i, axis) for i in range(x.shape[axis])]


def _side_by_side(call: Call, parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    return call.builder.concat([call.value(p) for p in parts], len(parts[0].shape) - 1)


def _stacked(call: Call, parts: list[Any], axis: int) -> Value:
    values = [call.value(p) for p in parts]
    shape = values[0].shape
    wide = [call.builder.reshape(v, (*shape[:axis], 1, *shape[axis:])) for v in values]
    return call.builder.concat(wide, axis)
