"""LSTM, GRU and RNN, unrolled over the steps of their sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tangency.models.builder import Value
from tangency.models.importers.onnx_ops.context import Call, Const, reads
from tangency.models.importers.onnx_ops.shapes import pick
from tangency.models.ops import Add, Product, Subtract

__all__: list[str] = []

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
FUNCTIONS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Tanh": "tanh",
}


@dataclass(frozen=True)
class _Direction:
    """Weights of one direction: input and state matrices, their biases, start values."""

    weight: Const
    state: Const
    bias: np.ndarray | None
    state_bias: np.ndarray | None
    bias_key: str
    start: list[Value | None]
    functions: list[str]


@reads("RNN", "GRU", "LSTM")
def recurrent(call: Call) -> list[Value]:
    x, b = call.var(0), call.builder
    if len(x.shape) != 3:
        call.wrong(f"takes an input of three axes, got {x.shape}")
    layout = int(call.attr("layout", 0))
    if layout:  # (N, T, I): the batch first
        x = b.transpose(x, (1, 0, 2))
    ways = {"forward": [1], "reverse": [-1], "bidirectional": [1, -1]}
    name = call.text("direction", "forward")
    if name not in ways:
        call.wrong(f"direction is {name!r}")
    directions = _directions(call, len(ways[name]), x)
    step = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}[call.op]
    runs = []
    for order, direction in zip(ways[name], directions, strict=True):
        runs.append(_run(call, x, direction, order, step))
    # Each run: hidden values in the order of time, and the last states (N, H).
    steps, n = x.shape[0], x.shape[1]
    hidden = directions[0].state.shape[-1]
    lasts = [
        b.concat([b.reshape(r[1][k], (1, n, hidden)) for r in runs], 0)
        for k in range(len(runs[0][1]))
    ]
    results = []
    if call.used[0]:
        shape = (1, 1, n, hidden)
        times = [b.concat([b.reshape(r[0][t], shape) for r in runs], 1) for t in range(steps)]
        whole = b.concat(times, 0)
        results.append(b.transpose(whole, (2, 0, 1, 3)) if layout else whole)
    else:
        results.append(x)
    return results + [b.transpose(v, (1, 0, 2)) if layout else v for v in lasts]


def _directions(call: Call, count: int, x: Value) -> list[_Direction]:
    if call.attr("clip") is not None or call.attr("input_forget", 0):
        call.refuse("clip and input_forget are not supported")
    if call.op == "LSTM" and call.item(7) is not None:
        call.refuse("peephole weights (input P) are not supported")
    lengths = call.item(4)
    if lengths is not None and not (
        isinstance(lengths, Const) and (lengths.array == x.shape[0]).all()
    ):
        call.refuse("sequence_lens other than the whole length are not supported")
    functions = [
        f.decode() if isinstance(f, bytes) else str(f)
        for f in call.attr("activations") or DEFAULTS[call.op] * count
    ]
    each = len(DEFAULTS[call.op])
    if len(functions) != each * count or not set(functions) <= set(FUNCTIONS):
        call.refuse(f"activations {functions}: {each} a direction of {', '.join(FUNCTIONS)}")
    weight, state = call.weight(1, "W"), call.weight(2, "R")
    gates, hidden = GATES[call.op], state.shape[-1] if state.array.ndim == 3 else 0
    fits = (
        hidden > 0
        and weight.shape == (count, gates * hidden, x.shape[2])
        and state.shape == (count, gates * hidden, hidden)
        and int(call.attr("hidden_size", hidden)) == hidden
    )
    if not fits:
        call.wrong(f"W {weight.shape} and R {state.shape} do not fit an input {x.shape}")
    bias = call.weight(3, "B") if call.item(3) is not None else None
    if bias is not None and bias.shape != (count, 2 * gates * hidden):
        call.wrong(f"B {bias.shape} does not fit {gates} gates of {hidden}")
    b, found = call.builder, []
    for d in range(count):
        tag = f"[{d}]" if count > 1 else ""
        start = []
        for i in (5, 6) if call.op == "LSTM" else (5,):
            value = None if call.item(i) is None else call.var(i)
            if value is not None:
                if call.attr("layout", 0):
                    value = b.transpose(value, (1, 0, 2))
                if value.shape != (count, x.shape[1], hidden):
                    call.wrong(f"input {i} {value.shape} is not {(count, x.shape[1], hidden)}")
                value = b.reshape(pick(call, value, 0, np.array([d])), value.shape[1:])
            start.append(value)
        halves = (None, None) if bias is None else np.split(bias.array[d], 2)
        found.append(
            _Direction(
                Const(weight.array[d], weight.key + tag, weight.trainable),
                Const(state.array[d], state.key + tag, state.trainable),
                halves[0],
                halves[1],
                "" if bias is None else bias.key + tag,
                start,
                [FUNCTIONS[f] for f in functions[d * each : (d + 1) * each]],
            )
        )
    return found


Step = Callable[[Call, _Direction, Value, list[Value | None]], list[Value]]


def _run(
    call: Call, x: Value, direction: _Direction, order: int, step: Step
) -> tuple[list[Value], list[Value]]:
    """Hidden values at each time, and the last states."""
    b = call.builder
    bias = direction.bias
    # For all but the GRU the two biases act as their sum.
    if bias is not None and direction.state_bias is not None and call.op != "GRU":
        bias = bias + direction.state_bias
    w = direction.weight
    projected = b.dense(
        x, w.array, bias, keys=(w.key, direction.bias_key), trainable=(w.trainable, True)
    )
    states: list[Value | None] = list(direction.start)
    hidden: dict[int, Value] = {}
    last: list[Value] = []
    for t in range(x.shape[0])[::order]:
        row = pick(call, projected, 0, np.array([t]))
        row = b.reshape(row, row.shape[1:])
        last = step(call, direction, row, states)
        states = list(last)
        hidden[t] = last[0]
    return [hidden[t] for t in range(x.shape[0])], last


def _recurrence(
    call: Call, d: _Direction, h: Value | None, rows: slice, bias: bool = False
) -> Value | np.ndarray | None:
    """``h R^T (+ Rb)`` for some rows of R; without a start value h is zero."""
    extra = d.state_bias[rows] if bias and d.state_bias is not None else None
    if h is None:
        return extra
    whole = rows == slice(None)
    tag = "" if whole else f"[{rows.start}:{rows.stop}]"
    keys = (d.state.key + tag, d.bias_key + ".state" + tag)
    weight = np.ascontiguousarray(d.state.array[rows])
    return call.builder.dense(h, weight, extra, keys=keys, trainable=(d.state.trainable, True))


def _plus(call: Call, x: Value, y: Value | np.ndarray | None) -> Value:
    if y is None:
        return x
    if isinstance(y, np.ndarray):
        return call.builder.shift(x, y, key="state_bias")
    return call.builder.elementwise(Add(), x, y)


def _gate(call: Call, value: Value, k: int) -> Value:
    """The k-th of the gates that lie beside each other on the last axis."""
    size = value.shape[-1] // GATES[call.op]
    return pick(call, value, len(value.shape) - 1, np.arange(k * size, (k + 1) * size))


def _times(call: Call, x: Value, y: Value | None) -> Value | None:
    return None if y is None else call.builder.elementwise(Product(), x, y)


def _rnn(call: Call, d: _Direction, row: Value, states: list[Value | None]) -> list[Value]:
    total = _plus(call, row, _recurrence(call, d, states[0], slice(None)))
    return [call.activate(total, d.functions[0])]


def _lstm(call: Call, d: _Direction, row: Value, states: list[Value | None]) -> list[Value]:
    h, c = states
    f, g, o = d.functions
    total = _plus(call, row, _recurrence(call, d, h, slice(None)))
    gates = [_gate(call, total, k) for k in range(4)]  # input, output, forget, cell
    fresh = _times(call, call.activate(gates[0], f), call.activate(gates[3], g))
    assert fresh is not None
    cell = _plus(call, fresh, _times(call, call.activate(gates[2], f), c))
    out = _times(call, call.activate(gates[1], f), call.activate(cell, o))
    assert out is not None
    return [out, cell]


def _gru(call: Call, d: _Direction, row: Value, states: list[Value | None]) -> list[Value]:
    b, h = call.builder, states[0]
    f, g = d.functions
    size = row.shape[-1] // 3
    both, third = slice(0, 2 * size), slice(2 * size, 3 * size)
    first = pick(call, row, len(row.shape) - 1, np.arange(2 * size))
    pair = call.activate(_plus(call, first, _recurrence(call, d, h, both, True)), f)
    axis = len(row.shape) - 1
    update, reset = (pick(call, pair, axis, np.arange(k * size, (k + 1) * size)) for k in (0, 1))
    candidate = _gate(call, row, 2)
    if call.attr("linear_before_reset", 0):
        inner = _recurrence(call, d, h, third, True)
        if isinstance(inner, np.ndarray):
            inner = b.scale(reset, inner, key="state_bias")
        elif inner is not None:
            inner = _times(call, reset, inner)
    else:
        inner = _recurrence(call, d, _times(call, reset, h), third, True)
    fresh = call.activate(_plus(call, candidate, inner), g)
    if h is None:
        kept = b.elementwise(Product(), update, fresh)
        return [b.elementwise(Subtract(), fresh, kept)]
    difference = b.elementwise(Subtract(), h, fresh)  # (1 - z) n + z h = n + z (h - n)
    return [b.elementwise(Add(), fresh, b.elementwise(Product(), update, difference))]
