"""The emitter: holds what every variable has become, and calls the rule of each primitive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from tangency.models.builder import Builder, Value
from tangency.models.errors import InputError, UnsupportedError
from tangency.models.importers.jaxpr.layout import Laid, Layouts, Perm
from tangency.models.importers.jaxpr.predicates import Predicate
from tangency.models.importers.jaxpr.terms import Const, Eqn, Ref, Var
from tangency.models.ops import Constant

__all__ = ["RULES", "Emitter", "rule"]

Result = Laid | Predicate | Sequence[Laid | Predicate]
Rule = Callable[["Emitter", Eqn], Result]
F = TypeVar("F", bound=Rule)

#: The rule of each primitive; filled by the modules of rules.
RULES: dict[str, Rule] = {}

_WHY = {
    "argmax": "its output is an index, not a number that varies continuously",
    "argmin": "its output is an index, not a number that varies continuously",
    "top_k": "it gives indices too; jax.numpy.sort is supported",
    "while": "only loops with a fixed number of steps are unrolled",
    "dynamic_update_slice": "write the result with jax.numpy.concatenate or where",
    "scatter": "write the result with jax.numpy.concatenate or where",
}


def rule(*prims: str) -> Callable[[F], F]:
    """Enter a function in :data:`RULES` under the names of primitives."""

    def enter(function: F) -> F:
        RULES.update(dict.fromkeys(prims, function))
        return function

    return enter


class Emitter:
    """Writes equations into a graph.

    Parameters
    ----------
    builder : Builder
        Takes the nodes.
    eqns : sequence of Eqn
        What to write, in order.
    outputs : sequence of Ref
        What the function returns.
    """

    def __init__(self, builder: Builder, eqns: Sequence[Eqn], outputs: Sequence[Ref]) -> None:
        self.builder = builder
        self.layouts = Layouts(builder)
        self.eqns = eqns
        self.outputs = outputs
        self.env: dict[Var, Laid | Predicate] = {}
        self._consumers: dict[Var, list[Eqn]] = {}
        for eqn in eqns:
            for ref in dict.fromkeys(eqn.inputs):
                if isinstance(ref, Var):
                    self._consumers.setdefault(ref, []).append(eqn)

    def run(self, inputs: Iterable[tuple[Var, Value]]) -> list[Value]:
        """Write all equations; the values of the outputs."""
        for var, value in inputs:
            self.env[var] = self.layouts.plain(value)
        for eqn in self.eqns:
            if not all(out in self.env for out in eqn.outs):  # else a rule saw to it before
                self.write(eqn)
        self.builder.scope = "output"
        return [self.value(r) for r in self.outputs]

    def write(self, eqn: Eqn) -> None:
        """Write one equation."""
        name = eqn.prim.removeprefix("@")
        if eqn.prim not in RULES:
            raise UnsupportedError(self._unsupported(eqn))
        for var in (*eqn.outs, *(r for r in eqn.inputs if isinstance(r, Var))):
            if var.dtype not in (self.builder.dtype, "bool"):
                raise UnsupportedError(
                    f"primitive {name!r}: a value that depends on the input is {var.dtype}; the "
                    f"network is {self.builder.dtype} throughout, casts are not imported"
                )
        self.scope(name, *eqn.inputs)
        results = RULES[eqn.prim](self, eqn)
        listed = [results] if isinstance(results, Laid | Predicate) else results
        for out, result in zip(eqn.outs, listed, strict=True):
            if isinstance(result, Laid) and result.shape != out.shape:
                raise UnsupportedError(f"primitive {name!r}: {result.shape} is not {out.shape}")
            self.env[out] = result

    def _unsupported(self, eqn: Eqn) -> str:
        shapes = ", ".join(str(r.shape) for r in eqn.inputs)
        why = f": {_WHY[eqn.prim]}" if eqn.prim in _WHY else ""
        known = ", ".join(sorted(name for name in RULES if not name.startswith("@")))
        return (
            f"primitive {eqn.prim!r} on {shapes} has no place in the graph{why}; "
            f"supported primitives are {known}"
        )

    # --- reading --------------------------------------------------------------------------------

    def laid(self, ref: Ref) -> Laid:
        """What a variable has become, or a constant as a node."""
        if isinstance(ref, Const):
            return self.layouts.plain(self.constant(ref, ref.full()))
        held = self.env[ref]
        if isinstance(held, Predicate):
            raise UnsupportedError(
                "a comparison of variables is used as a number or reduced; comparisons are "
                "supported as the condition of jax.numpy.where and as .astype(float)"
            )
        return held

    def value(self, ref: Ref) -> Value:
        """The same with axes in the model's order."""
        return self.layouts.in_order(self.laid(ref))

    def constant(self, const: Const, array: np.ndarray, drop: bool | None = None) -> Value:
        """A constant (its entries given) as a node, by default with the first axis dropped at 1."""
        self.floating(const)
        if array.dtype.kind in "iub":
            array = array.astype(self.builder.dtype)
        drop = array.shape[:1] == (1,) and array.ndim > 1 if drop is None else drop
        params = {"value": (const.key or "constant", array[0] if drop else array)}
        trainable = const.trainable
        return self.builder.emit(Constant(), [], params, view=array.shape, trainable=trainable)

    def floating(self, const: Const) -> None:
        """Refuse what the Builder would not take for a clear reason."""
        if np.dtype(const.dtype).kind == "f" and not np.isfinite(const.array).all():
            what = f"parameter {const.key!r}" if const.key else "a constant"
            raise InputError(
                f"{self.builder.scope}: {what} of shape {const.shape} is infinite or NaN; a mask "
                "takes a large finite number, as jax.numpy.finfo(dtype).min"
            )

    def scope(self, name: str, *refs: Ref) -> None:
        """Name the next nodes after the layer whose parameter is among ``refs``, or ``name``."""
        keys = [r.key for r in refs if isinstance(r, Const) and r.key]
        self.builder.scope = (keys[0].rpartition(".")[0] or name) if keys else name

    def only_consumer(self, var: Var) -> Eqn | None:
        """The equation that uses a variable, if there is but one and it is no output."""
        users = self._consumers.get(var, [])
        return users[0] if len(users) == 1 and var not in self.outputs else None

    # --- frames ---------------------------------------------------------------------------------

    def in_frame(self, const: Const, perm: Perm) -> np.ndarray:
        """The entries of a constant, small where repeated, for a value seen through ``perm``."""
        array = np.asarray(const.array)
        if array.dtype.kind == "b":
            array = array.astype(self.builder.dtype)
        if array.size == 1 and const.key is None:
            return array.reshape(())
        return array.transpose(np.argsort(perm)) if array.ndim == len(perm) else array

    def common(self, *refs: Ref) -> tuple[list[Value], Perm]:
        """Values of several operands in one layout, broadcastable, and that layout."""
        laid = {i: self.laid(r) for i, r in enumerate(refs) if isinstance(r, Var)}
        rank = max(len(r.shape) for r in refs)
        perms = [x.perm for x in laid.values() if len(x.perm) == rank]
        moved = [p for p in perms if p != tuple(range(rank))]
        perm = moved[0] if moved else tuple(range(rank))
        first = int(np.argsort(perm)[0]) if rank else 0  # the model's axis that lies first
        drop = rank > 1 and all(r.shape[first] == 1 for r in refs if len(r.shape) == rank)
        values = []
        for i, ref in enumerate(refs):
            if isinstance(ref, Const):
                array = self.in_frame(ref, perm)
                array = array.reshape((1,) * (rank - array.ndim) + array.shape)
                values.append(self.constant(ref, array, drop))
            elif len(laid[i].perm) == rank:
                values.append(self.layouts.in_frame(laid[i], perm))
            else:  # a scalar beside tensors
                values.append(self.builder.reshape(laid[i].value, (1,) * rank))
        return values, perm

    def emit(self, op: Any, value: Value, perm: Perm) -> Laid:
        """An op that takes each entry for itself."""
        return Laid(self.builder.emit(op, [value.node], view=value.shape), perm)
