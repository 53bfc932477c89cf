"""A program carried out on a block of pairs: one rule for each kind of layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.gpu.plans import Activation, Dense, Series, Sum
from tangency.gpu.sites_launch import Block
from tangency.gpu.sites_plan import Convolution, Factor, Flattening, Pooling, Product, SiteNorm
from tangency.gpu.sites_program import Program, Stage, Step
from tangency.gpu.sites_state import State

__all__ = ["walk"]

Tail = dict[str, Any]


def walk(
    program: Program, block: Block, *, made: Callable[[int, State], None] | None = None
) -> dict[int, State]:
    """The states that are held at the end, by layer.

    Parameters
    ----------
    program : Program
    block : Block
    made : callable, optional
        Called with each layer and its state, as soon as it is made.
    """
    states: dict[int, State] = {}
    for n, launch in enumerate(program.launches):
        if isinstance(launch, Stage):
            state = block.stage(launch, states.get(launch.sources[0]))
        else:
            inputs = [states[k] for k in launch.sources]
            state = _step(block, launch, inputs, full=program.full[launch.result])
        states[launch.result] = state
        if made is not None:
            made(launch.result, state)
        for k in [k for k in states if program.last.get(k, -1) <= n]:
            del states[k]
    return states


def _step(block: Block, step: Step, inputs: list[State], *, full: bool) -> State:
    plan = block.launcher.plan
    if step.layer < 0:
        one, two = block.left.features, block.right.features
        options = {"channels": one.shape[2], "input_one": one, "input_two": two}
        return block.launch("source", [], plan.sites, full=full, source=True, **options)
    layer = plan.layers[step.layer]
    if isinstance(layer, Activation | Series):
        return _sum(block, (1.0,), inputs, full, block.activation(step.layer))
    rule: Callable[..., State] = _RULES[type(layer)]
    return rule(block, step.layer, layer, inputs, full, block.activation(step.activation))


def _weights(
    block: Block, i: int, layer: Dense | Convolution, inputs: list[State], full: bool, tail: Tail
) -> State:
    table, taps, sites = None, 1, inputs[0].sites
    if isinstance(layer, Convolution):
        host = layer.table
        (table,) = block.launcher.kept(i, "table", lambda: (host.T.astype(np.int32),))
        sites, taps = host.shape
    return block.launch(
        "gather", inputs, sites, full=full, table=table, taps=taps,
        weight=layer.weight / taps, bias=layer.bias,
        weight_gain=layer.weight_gain / taps, bias_gain=layer.bias_gain, **tail,
    )  # fmt: skip


def _sum(
    block: Block, weights: tuple[float, ...], inputs: list[State], full: bool, tail: Tail
) -> State:
    """Two branches at a time; the activation goes behind the last."""
    total, weight = inputs[0], weights[0]
    for k in range(1, max(2, len(inputs))):
        other, last = inputs[k : k + 1], k + 1 >= len(inputs)
        total = block.launch(
            "combine", [total, *other], total.sites, full=full, weight=weight,
            bias=weights[k] if other else 0.0, **(tail if last else {}),
        )  # fmt: skip
        weight = 1.0
    return total


def _product(
    block: Block, i: int, layer: Product, inputs: list[State], full: bool, tail: Tail
) -> State:
    if len(inputs) == 1:
        return _sum(block, (1.0,), inputs, full, tail)
    total = inputs[0]
    for k, other in enumerate(inputs[1:], 2):
        last = tail if k == len(inputs) else {}
        total = block.launch("multiply", [total, other], total.sites, full=full, **last)
    return total


def _factor(
    block: Block, i: int, layer: Factor | SiteNorm, inputs: list[State], full: bool, tail: Tail
) -> State:
    options: Tail = {"weight_gain": layer.gain, "bias_gain": layer.shift}
    if isinstance(layer, Factor):
        options |= {"weight": layer.square, "keep": layer.keep}
    else:
        one, two = (side.tables[i].factors for side in (block.left, block.right))
        options |= {"weight": 1.0, "factors_one": one, "factors_two": two}
    return block.launch("factor", inputs, inputs[0].sites, full=full, **options, **tail)


def _flatten(
    block: Block, i: int, layer: Flattening, inputs: list[State], full: bool, tail: Tail
) -> State:
    (state,) = inputs
    sites, entries = state.sites, state.s.shape[1]
    places = np.arange(sites) * (sites + 1 if state.full else 1)
    rows = block.launcher.rows(
        i, f"flat, {state.full}", lambda: [(places, np.full(sites, 1.0 / sites))]
    )
    return block.linear(state, 1, rows, (entries, 1, 1), full=False, **tail)


def _pool(
    block: Block, i: int, layer: Pooling, inputs: list[State], full: bool, tail: Tail
) -> State:
    """One axis of sites, then the other; where equal sites are wanted, of their rows alone."""
    (state,) = inputs
    out, sites = layer.matrix.shape

    def weights() -> list[Any]:
        busy = [np.flatnonzero(row) for row in layer.matrix]
        return [(k, row[k]) for k, row in zip(busy, layer.matrix, strict=True)]

    def own() -> list[Any]:
        return [(k + p * sites, w) for p, (k, w) in enumerate(weights())]

    rows = block.launcher.rows(i, "pool", weights)
    half = block.linear(state, out, rows, (sites, out, sites), full=True)
    if full or out == 1:
        return block.linear(half, out, rows, (sites, out, 1), full=full, **tail)
    rows = block.launcher.rows(i, "own", own)
    return block.linear(half, out, rows, (out * sites, out, 1), full=False, **tail)


_RULES: dict[type, Callable[..., State]] = {
    Convolution: _weights,
    Dense: _weights,
    Factor: _factor,
    Flattening: _flatten,
    Pooling: _pool,
    Product: _product,
    SiteNorm: _factor,
    Sum: lambda block, i, layer, inputs, full, tail: _sum(block, layer.weights, inputs, full, tail),
}
