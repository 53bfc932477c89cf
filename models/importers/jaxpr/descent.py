"""From which entries of the parameters the constants of a function come, and with what factor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from tangency.models.gains import Entries, Gains
from tangency.models.importers.jaxpr.terms import Const, Eqn, Ref, scalar_of

__all__ = ["note_descent"]

#: Primitives that move entries, or leave some out, and change none.
_MOVES = frozenset(
    "broadcast_in_dim concatenate copy dynamic_slice expand_dims gather reshape rev slice squeeze "
    "transpose".split()
)
#: Where a tensor that is merely repeated along an axis is written out.
_WRITTEN_OUT = frozenset(["dot_general", "conv_general_dilated"])
Found = tuple[Entries, float] | None


def note_descent(gains: Gains, eqns: Sequence[Eqn], outputs: Iterable[Ref]) -> None:
    """Note every trainable constant that the equations use or the function returns."""
    known: dict[int, Found] = {}
    for const, prim in _used(eqns, outputs):
        if const.trainable and const.key:
            found = _trace(gains, const, known)
            repeated = const.array.size != prod(const.shape) and prim in _WRITTEN_OUT
            # A choice between entries writes the parameter's beside others into one weight.
            if found is None or repeated or prim == "select_n":
                gains.computed(const.key)
            else:
                gains.note(const.key, *found)


def _used(eqns: Sequence[Eqn], outputs: Iterable[Ref]) -> Iterator[tuple[Const, str]]:
    for eqn in eqns:
        values = eqn.params.values()
        for ref in (*eqn.inputs, *values, *(v for t in values if isinstance(t, tuple) for v in t)):
            if isinstance(ref, Const):
                yield ref, eqn.prim
    for ref in outputs:
        if isinstance(ref, Const):
            yield ref, ""


def _trace(gains: Gains, const: Const, known: dict[int, Found]) -> Found:
    """The entries that a constant's own array holds, and their factor; None where it is another."""
    if id(const) not in known:
        known[id(const)] = _entries(gains, const, known)
    return known[id(const)]


def _entries(gains: Gains, const: Const, known: dict[int, Found]) -> Found:
    if not const.trainable:
        return np.full(const.array.shape, -1), 1.0
    if const.origin is None:
        return gains.entries(str(const.key), const.array.shape), 1.0
    name, params, inputs = const.origin
    if name == "convert_element_type":
        return _trace(gains, inputs[0], known)
    if name in ("mul", "div", "neg"):
        return _multiple(gains, name, inputs, known)
    if name not in _MOVES:
        return None
    sources = [_trace(gains, c, known) for c in inputs]
    factors = {s[1] for s, c in zip(sources, inputs, strict=True) if s and c.trainable}
    if None in sources or len(factors) != 1:
        return None
    arrays = [s[0] if c.trainable else c.array for s, c in zip(sources, inputs, strict=True) if s]
    return _moved(name, params, inputs, arrays, const), factors.pop()


def _multiple(gains: Gains, name: str, inputs: Sequence[Const], known: dict[int, Found]) -> Found:
    (k, base), *more = [(k, c) for k, c in enumerate(inputs) if c.trainable]
    numbers = [scalar_of(c) for j, c in enumerate(inputs) if j != k]
    found = _trace(gains, base, known)
    if more or found is None or None in numbers or (name == "div" and k == 1):
        return None
    factor = -1.0 if name == "neg" else float(numbers[0] or 0.0)
    return found[0], found[1] * (1.0 / factor if name == "div" else factor)


def _moved(
    name: str, params: dict[str, Any], inputs: Sequence[Const], arrays: list[Any], made: Const
) -> Entries:
    """The primitive on entries in place of values, in the same small form."""
    import jax

    from tangency.models.importers.jaxpr.constants import apply

    if name == "reshape":
        kept = np.asarray(arrays[0])
        if kept.size != made.array.size:
            kept = np.broadcast_to(kept, inputs[0].shape)
        return kept.reshape(made.array.shape)
    if name == "slice" and "axis" in params:  # a cut of the flattener's own
        where = (slice(None),) * params["axis"] + (slice(params["start"], params["stop"]),)
        return np.asarray(np.broadcast_to(arrays[0], inputs[0].shape)[where])
    stand_ins = [Const(a, c.shape) for a, c in zip(arrays, inputs, strict=True)]
    return np.asarray(apply(getattr(jax.lax, f"{name}_p"), params, stand_ins, made.shape)[0])
