"""Softmax, log-sum-exp, layer norm and PReLU among the equations: guessed, then compared.

Each is compared in float64 at random inputs of the model's own shapes, large and small.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from tangency.models.importers.jaxpr.evaluate import evaluate
from tangency.models.importers.jaxpr.regions import Region
from tangency.models.importers.jaxpr.terms import Const, Eqn, Ref, scalar_of
from tangency.models.ops import Shape

__all__ = ["find_composite"]

_ROOTS = {"sqrt", "rsqrt", "pow"}


def find_composite(region: Region, dtype: str) -> Eqn | None:
    """One equation ``@softmax``, ``@log_sum_exp``, ``@log_softmax``, ``@layer_norm`` or ``@prelu``.

    Its parameters speak of the axes of the region's entry.
    """
    if region.result.dtype == "bool":
        return None
    prims = region.prims
    guesses: Iterator[Eqn]
    if "reduce_sum" in prims and "exp" in prims:
        guesses = _exponentials(region)
    elif "reduce_sum" in prims and prims & _ROOTS:
        guesses = _norms(region)
    elif region.elementwise and prims & {"select_n", "max", "min"}:
        guesses = _prelus(region)
    else:
        return None
    for guess in guesses:
        if _agree(region, guess, dtype):
            return guess
    return None


# --- guesses ------------------------------------------------------------------------------------


def _reduced(region: Region) -> tuple[int, ...] | None:
    """The axes of the entry that the region sums over, when all its sums are over the same.

    Sums may act on the entry under another shape, so long as it differs by axes of size one.
    """
    long = [i for i, s in enumerate(region.entry.shape) if s != 1]
    sizes = [region.entry.shape[i] for i in long]
    found = set()
    for eqn in region.eqns:
        if eqn.prim == "reduce_sum":
            shape = eqn.inputs[0].shape
            own = [i for i, s in enumerate(shape) if s != 1]
            if [shape[i] for i in own] != sizes:
                return None
            summed = {int(a) for a in eqn.params["axes"]}
            found.add(tuple(i for i, j in zip(long, own, strict=True) if j in summed))
    return found.pop() if len(found) == 1 else None


def _guess(region: Region, prim: str, params: dict[str, Any], *extra: Const) -> Eqn:
    return Eqn(prim, params, (region.entry, *extra), (region.result,))


def _exponentials(region: Region) -> Iterator[Eqn]:
    axes = _reduced(region)
    plain = all(c.array.size == 1 and c.key is None for c in region.constants)
    if not axes or not plain:
        return
    if prod(region.result.shape) == prod(region.entry.shape):
        yield _guess(
            region, "@log_softmax" if "log" in region.prims else "@softmax", {"axes": axes}
        )
    elif "log" in region.prims:
        yield _guess(region, "@log_sum_exp", {"axes": axes})


def _norms(region: Region) -> Iterator[Eqn]:
    axes = _reduced(region)
    if not axes or prod(region.result.shape) != prod(region.entry.shape):
        return
    weight = bias = None
    for c in (c for c in region.constants if c.array.size > 1 or c.key is not None):
        users = {e.prim for e in region.eqns if c in e.inputs}
        if users == {"mul"} and weight is None:
            weight = c
        elif users == {"add"} and bias is None:
            bias = c
        else:
            return
    normed = tuple(region.entry.shape[a] for a in axes)
    given = {"weight": weight, "bias": bias}
    extra = {role: c for role, c in given.items() if c is not None}
    if any(tuple(s for s in c.array.shape if s != 1) != normed for c in extra.values()):
        return
    numbers = {n for n in map(scalar_of, region.constants) if n is not None and 0 <= n < 0.1}
    for eps in sorted(numbers | {0.0}, reverse=True):
        for center in (True, False):
            params = {"axes": axes, "eps": eps, "center": center, "roles": tuple(extra)}
            yield _guess(region, "@layer_norm", params, *extra.values())


def _prelus(region: Region) -> Iterator[Eqn]:
    slopes = [c for c in region.constants if c.key is not None]
    if len(slopes) == 1 and all(scalar_of(c) == 0 for c in region.constants if c.key is None):
        (slope,) = slopes
        users = {e.prim for e in region.eqns if slope in e.inputs}
        if users == {"mul"} and sum(s != 1 for s in slope.array.shape) <= 1:
            yield _guess(region, "@prelu", {}, slope)


# --- comparison -----------------------------------------------------------------------------------


def _agree(region: Region, guess: Eqn, dtype: str) -> bool:
    """Whether a guess computes the region, for these parameters and for others.

    Fresh parameters are ones and zeros: only other values tell where they enter.
    """
    rng = np.random.default_rng(21)
    rtol = 1e-6 if dtype == "float32" else 1e-11
    learned = [c for c in region.constants if c.array.size > 1 or c.key is not None]
    for size in (2.0, 1e-3):
        x = size * rng.standard_normal(region.entry.shape) + 0.3 * size
        drawn: dict[Ref, np.ndarray] = {c: rng.uniform(0.5, 2.0, c.array.shape) for c in learned}
        y = evaluate(region.eqns, {**drawn, region.entry: x}, region.result)
        with np.errstate(all="ignore"):
            z = _evaluate(guess, x, drawn)
        if y.size != z.size or not np.isfinite(y).all():
            return False
        error = np.abs(y.reshape(-1) - z.reshape(-1)).max()
        if not error <= rtol * np.abs(z).max():
            return False
    return True


def _evaluate(guess: Eqn, x: np.ndarray, drawn: dict[Ref, np.ndarray]) -> np.ndarray:
    params = guess.params
    if guess.prim == "@prelu":
        return np.asarray(np.where(x > 0, x, drawn[guess.inputs[1]] * x))
    axes: Shape = params["axes"]
    if guess.prim == "@layer_norm":
        centred = x - x.mean(axis=axes, keepdims=True) if params["center"] else x
        y = centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + params["eps"])
        for role, c in zip(params["roles"], guess.inputs[1:], strict=True):
            shape = tuple(s if i in axes else 1 for i, s in enumerate(x.shape))
            array = drawn[c].reshape(shape)
            y = y * array if role == "weight" else y + array
        return np.asarray(y)
    top = x.max(axis=axes, keepdims=True)
    total = np.exp(x - top).sum(axis=axes, keepdims=True)
    if guess.prim == "@log_sum_exp":
        return np.asarray(np.log(total) + top)
    if guess.prim == "@log_softmax":
        return np.asarray(x - top - np.log(total))
    return np.asarray(np.exp(x - top) / total)
