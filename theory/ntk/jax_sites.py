"""Where a network's trainable weights enter, and how each place is held (JAX front end).

Dense layers and convolutions without groups may be held as a pair of inputs and cotangents. Every
other op with weights (norms, scales, transposed and grouped convolutions, constants, ...) is held
as the gradients of its own weights, through the vector-Jacobian product of that op alone. A weight
that several nodes share is a sum over them, so it is held as a gradient too, cross terms and all;
so are the parameters of weights that hold the same entries.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from tangency.models.ops import Conv, Dense, jax_backend
from tangency.models.structure import Node, Structure
from tangency.theory.ntk.channels import channelwise
from tangency.theory.ntk.contraction import Site, cheaper, footprint, site_gradient
from tangency.theory.ntk.gains import parameters_of
from tangency.theory.ntk.jax_algebra import jax_algebra
from tangency.theory.ntk.patches import patches

__all__ = ["Plan", "extract", "plan_sites"]


@dataclass(frozen=True)
class Plan:
    """How each site of a structure is held; hashable, so that compiled code is kept by it.

    Attributes
    ----------
    sites : tuple of Site
        One for each pair, for each of the channels, then for the parameters of each key held as a
        gradient, which tied keys have together.
    pairs : tuple of int
        Nodes held as pairs.
    channels : tuple of int
        Convolutions held channel by channel.
    keys : tuple of str
        Weights held as gradients.
    numbers : int
        Floating-point numbers held for one sample.
    work : int
        Numbers that the backward pass of one sample holds besides.
    """

    sites: tuple[Site, ...]
    pairs: tuple[int, ...]
    channels: tuple[int, ...]
    keys: tuple[str, ...]
    numbers: int
    work: int


@lru_cache(maxsize=256)
def plan_sites(structure: Structure, outputs: str, n: int, k: int, features: int = 0) -> Plan:
    """Choose for every site the cheaper way: see :func:`.contraction.cheaper`."""
    uses = Counter(p.key for node in structure.nodes for p in node.params)
    live = set(structure.ancestors(structure.outputs))
    parameters = parameters_of(structure)
    apart = channelwise(structure) if outputs != "project" and k > 1 else frozenset()
    pairs, channels, sites, numbers, work, held = [], [], [], 0, 0, set()
    for i, node in enumerate(structure.nodes):
        work += 2 * k * prod(node.shape)
        roles = {p.role: p for p in node.params if p.trainable}
        sizes = _sizes(structure, node)
        if i not in live or sizes is None or "weight" not in roles:
            continue
        work += sizes[0] * sizes[1]
        if any(uses[p.key] > 1 or p.key in parameters.tied for p in roles.values()):
            continue
        if "bias" in roles and parameters.gains[roles["bias"].key] != 1.0:
            continue  # a pair has one factor, and a bias enters it as an input of one
        if i in apart and sizes[0] > 1:
            channels.append(i)
            numbers += sizes[2] * (sizes[1] + 1 + k)
            held |= {p.key for p in roles.values()}
        elif cheaper(outputs, n, k, sizes, features) == "pair":
            pairs.append(i)
            sites.append(Site("pair", "bias" in roles))
            numbers += footprint("pair", k, sizes)
            held |= {p.key for p in roles.values()}
    keys = tuple(
        dict.fromkeys(
            p.key
            for i, node in enumerate(structure.nodes)
            for p in node.params
            if p.trainable and p.key not in held and i in live
        )
    )
    heads = dict.fromkeys(parameters.heads[key] for key in keys)
    numbers += k * sum(parameters.sizes[head] for head in heads)
    sites += [Site("channel")] * len(channels) + [Site("gradient")] * len(heads)
    return Plan(tuple(sites), tuple(pairs), tuple(channels), keys, numbers, work)


def _sizes(structure: Structure, node: Node) -> tuple[int, int, int] | None:
    """(P, I, O) of a dense layer or a convolution without groups."""
    op = node.op
    if isinstance(op, Dense):
        weight = next(p.shape for p in node.params if p.role == "weight")
        return prod(node.shape[:-1]), weight[1], weight[0]
    if isinstance(op, Conv) and op.groups == 1:
        weight = next(p.shape for p in node.params if p.role == "weight")
        space = len(op.stride)
        lead = prod(node.shape[: -space - 1])
        return lead * prod(node.shape[-space:]), prod(weight[1:]), weight[0]
    return None


def extract(
    structure: Structure, plan: Plan, weights: dict[str, Any], x: Any, directions: Any
) -> list[tuple[Any, ...]]:
    """What every site of the plan holds for samples x: one forward, one backward pass an output.

    Parameters
    ----------
    x : (n, *input_shape) array
    directions : (K', K) array
        Cotangents of the outputs: the identity for the outputs themselves.

    Returns
    -------
    list of tuples of arrays, as :class:`.contraction.Site` says, in the order of ``plan.sites``.
    """
    import jax
    import jax.numpy as jnp

    backend, n, parameters = jax_backend(), x.shape[0], parameters_of(structure)
    gains = parameters.gains
    live = set(structure.ancestors(structure.outputs))
    wanted = set(plan.keys)
    gradients = [
        i
        for i, node in enumerate(structure.nodes)
        if i in live and any(p.trainable and p.key in wanted for p in node.params)
    ]
    taps = {
        i: jnp.zeros((n, *structure.nodes[i].shape), x.dtype)
        for i in sorted({*plan.pairs, *plan.channels, *gradients})
    }

    def forward(taps: dict[int, Any]) -> tuple[Any, list[Any]]:
        values: list[Any] = []
        for i, node in enumerate(structure.nodes):
            if i in structure.inputs:
                values.append(x)
                continue
            params = {p.role: weights[p.key] for p in node.params}
            y = node.op.apply(backend, params, *(values[j] for j in node.inputs))
            values.append(y + taps[i] if i in taps else y)
        out = values[structure.outputs[0]]
        return jnp.broadcast_to(out, (n, *out.shape[1:])).reshape(n, -1), values

    out, back, values = jax.vjp(forward, taps, has_aux=True)
    spread = jnp.broadcast_to(directions[:, None, :], (directions.shape[0], *out.shape))
    cotangents = jax.vmap(lambda d: back(d)[0])(spread)  # (K', n, *node shape) at each site
    held: list[tuple[Any, ...]] = []
    for i in plan.pairs:
        node = structure.nodes[i]
        a = jnp.broadcast_to(values[node.inputs[0]], (n, *structure.nodes[node.inputs[0]].shape))
        held.append(_pair(node, a * _gain(node, gains), cotangents[i]))
    for i in plan.channels:
        node = structure.nodes[i]
        a = jnp.broadcast_to(values[node.inputs[0]], (n, *structure.nodes[node.inputs[0]].shape))
        bias = any(p.role == "bias" and p.trainable for p in node.params)
        held.append(_channel(*_pair(node, a * _gain(node, gains), cotangents[i]), bias))
    sums: dict[str, Any] = {}
    for i in gradients:
        node = structure.nodes[i]
        args = [jnp.broadcast_to(values[j], (n, *structure.nodes[j].shape)) for j in node.inputs]
        for key, g in _gradients(node, weights, args, cotangents[i], wanted).items():
            sums[key] = sums[key] + g if key in sums else g
    by_parameter = parameters.gathered({key: sums[key] for key in plan.keys}, lead=2)
    return held + [(g,) for g in by_parameter.values()]


def _gain(node: Node, gains: dict[str, float]) -> float:
    """That of a node's weight."""
    return next(gains[p.key] for p in node.params if p.role == "weight")


def _pair(node: Node, a: Any, b: Any) -> tuple[Any, Any]:
    """Inputs (n, P, I) and cotangents (n, K, P, O) of a dense layer or a convolution."""
    import jax.numpy as jnp

    op, n, k = node.op, a.shape[0], b.shape[0]
    b = jnp.moveaxis(b, 0, 1)
    if isinstance(op, Dense):
        return a.reshape(n, -1, a.shape[-1]), b.reshape(n, k, -1, b.shape[-1])
    assert isinstance(op, Conv)
    weight, space = next(p.shape for p in node.params if p.role == "weight"), len(op.stride)
    flat = a.reshape((-1, *a.shape[-space - 1 :]))
    flat = jnp.pad(flat, ((0, 0), (0, 0), *op.padding))
    rows = patches(jnp.stack, flat, weight[2:], op.stride, op.dilation)
    b = b.reshape((n, k, -1, weight[0], prod(b.shape[-space:])))
    b = jnp.swapaxes(b, 3, 4).reshape(n, k, -1, weight[0])
    return rows.reshape(n, -1, rows.shape[-1]), b


def _channel(a: Any, b: Any, bias: bool) -> tuple[Any, Any]:
    """Gradients (n, C, I) of each channel for one cotangent, and the factors (n, K, C) of all."""
    import jax.numpy as jnp

    best = jnp.argmax(jnp.abs(b).sum(2), axis=1)  # (n, C): the output that weighs most
    m = jnp.take_along_axis(b, best[:, None, None, :], axis=1)[:, 0]
    square = (m * m).sum(1)[:, None]
    factors = (b * m[:, None]).sum(2) / jnp.where(square > 0, square, 1)
    g = jax_algebra().einsum("npi,npc->nci", a, m)
    return (jnp.concatenate([g, m.sum(1)[..., None]], 2) if bias else g), factors


def _gradients(
    node: Node, weights: dict[str, Any], args: list[Any], b: Any, wanted: set[str]
) -> dict[str, Any]:
    """Gradients (n, K, p) of a node's own weights, by key."""
    import jax
    import jax.numpy as jnp

    mine = [p for p in node.params if p.trainable and p.key in wanted]
    found: dict[str, Any] = {}
    if isinstance(node.op, Dense) or (isinstance(node.op, Conv) and node.op.groups == 1):
        a, rows = _pair(node, args[0], b)
        for p in mine:
            weight = p.role == "weight"
            found[p.key] = site_gradient(jax_algebra(), a, rows) if weight else rows.sum(2)
        return found
    backend = jax_backend()
    fixed = {p.role: weights[p.key] for p in node.params if p not in mine}

    def one(params: dict[str, Any], *inputs: Any) -> Any:
        return node.op.apply(backend, {**fixed, **params}, *(v[None] for v in inputs))[0]

    def local(bs: Any, *inputs: Any) -> Any:
        _, back = jax.vjp(
            lambda params: one(params, *inputs), {p.role: weights[p.key] for p in mine}
        )
        return jax.vmap(lambda c: back(c)[0])(bs)

    n, k = b.shape[1], b.shape[0]
    grown = jax.vmap(local)(jnp.moveaxis(b, 0, 1), *args)
    for p in mine:
        g = grown[p.role].reshape(n, k, int(np.prod(p.shape)))
        found[p.key] = found[p.key] + g if p.key in found else g
    return found
