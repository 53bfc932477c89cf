"""From a jaxpr to a flat list of equations: calls inlined, loops unrolled, constants computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.importers.jaxpr.constants import as_array, fold
from tangency.models.importers.jaxpr.terms import Const, Eqn, Ref, Var, scalar_of

__all__ = ["Flattener"]

#: Primitives that stand for a call, and the parameter that holds what is called.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "custom_lin": "call_jaxpr",
}
_IDENTITIES = {
    *("stop_gradient", "copy", "copy_p", "optimization_barrier", "sharding_constraint"),
    *("name", "pvary", "device_put", "layout_constraint", "mesh_cast", "reshard"),
}
#: Most equations that loops may unroll to.
_LIMIT = 100_000


class Flattener:
    """Walks jaxprs and collects what depends on the input.

    Attributes
    ----------
    eqns : list of Eqn
        The equations, in order.
    """

    def __init__(self) -> None:
        self.eqns: list[Eqn] = []
        self._made: dict[tuple[Any, ...], list[Ref]] = {}

    def closed(self, closed_jaxpr: Any, args: Sequence[Ref]) -> list[Ref]:
        """Inline a closed jaxpr."""
        consts = [_constant(c) for c in closed_jaxpr.consts]
        return self.inline(closed_jaxpr.jaxpr, consts, args)

    def inline(self, jaxpr: Any, consts: Sequence[Ref], args: Sequence[Ref]) -> list[Ref]:
        """Append the equations of a jaxpr and return its outputs."""
        from jax.extend.core import Literal

        env: dict[Any, Ref] = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))

        def read(atom: Any) -> Ref:
            if isinstance(atom, Literal):
                aval: Any = atom.aval
                return _constant(np.asarray(atom.val, aval.dtype))
            return env[atom]

        for eqn in jaxpr.eqns:
            outs = self._step(eqn, [read(a) for a in eqn.invars])
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(a) for a in jaxpr.outvars]

    # --- one equation -----------------------------------------------------------------------

    def _step(self, eqn: Any, inputs: list[Ref]) -> list[Ref]:
        name, params = eqn.primitive.name, eqn.params
        if name in _CALLS and _CALLS[name] in params:
            called = params[_CALLS[name]]
            is_closed = hasattr(called, "jaxpr")
            return self.closed(called, inputs) if is_closed else self.inline(called, [], inputs)
        if name in _CONTROL:
            return _CONTROL[name](self, params, inputs)
        constants = [r for r in inputs if isinstance(r, Const)]
        shapes = [tuple(v.aval.shape) for v in eqn.outvars]
        if len(constants) == len(inputs) and not eqn.effects:
            return list(fold(eqn.primitive, params, constants, shapes))
        dtypes = [str(v.aval.dtype) for v in eqn.outvars]
        simple = self._simplify(name, params, inputs, shapes, dtypes)
        return simple if simple is not None else self._append(name, params, inputs, shapes, dtypes)

    def _append(
        self,
        name: str,
        params: dict[str, Any],
        inputs: Sequence[Ref],
        shapes: Sequence[tuple[int, ...]],
        dtypes: Sequence[str],
    ) -> list[Ref]:
        # What was computed before is not computed again (one slice of a tensor, say).
        same = (name, str(params), *inputs)
        if same in self._made:
            return self._made[same]
        outs = tuple(Var(tuple(s), d) for s, d in zip(shapes, dtypes, strict=True))
        self._made[same] = list(outs)
        self.eqns.append(Eqn(name, params, tuple(inputs), outs))
        if len(self.eqns) > _LIMIT:
            raise UnsupportedError(f"the model unrolls to more than {_LIMIT:,} equations")
        return list(outs)

    def _simplify(
        self,
        name: str,
        params: dict[str, Any],
        inputs: list[Ref],
        shapes: list[tuple[int, ...]],
        dtypes: list[str],
    ) -> list[Ref] | None:
        """What an equation comes to when it moves or decides nothing; None to keep it."""
        x, shape = inputs[0], shapes[0]
        if name in _IDENTITIES:
            return inputs
        if name == "convert_element_type" and isinstance(x, Var) and x.dtype == dtypes[0]:
            return [x]
        if name in ("ne", "eq") and inputs[0] is inputs[1]:
            return [_constant(np.full((1,) * len(shape), name == "eq"), shape)]  # a NaN test
        if name == "is_finite":
            return [_constant(np.full((1,) * len(shape), True), shape)]
        if name == "select_n" and isinstance(x, Const) and x.array.size == 1:
            case = inputs[1 + int(x.array.reshape(()))]
            return [case] if case.shape == shape else None
        if name in ("max", "min"):
            none = -np.inf if name == "max" else np.inf
            for one, other in (inputs, inputs[::-1]):
                if scalar_of(one) == none and other.shape == shape:
                    return [other]
        if name == "split":
            return self._split(x, [int(s) for s in params["sizes"]], int(params["axis"]))
        if name == "stack":
            axis = int(params["axis"])
            wide = [self.reshape(r, (*shape[:axis], 1, *shape[axis + 1 :])) for r in inputs]
            return self._append("concatenate", {"dimension": axis}, wide, shapes, dtypes)
        if name == "tile":
            return [self._tile(x, [int(r) for r in params["reps"]])]
        if name == "reshape" and params.get("dimensions") is None:
            return [self.reshape(x, shape)]
        same_size = prod(x.shape) == prod(shape)
        if name in ("squeeze", "expand_dims") or (name == "broadcast_in_dim" and same_size):
            return [self.reshape(x, shape)]
        if name == "transpose":
            long = [int(p) for p in params["permutation"] if x.shape[p] != 1]
            return [self.reshape(x, shape)] if long == sorted(long) else None
        return None

    # --- pieces that several rules need -------------------------------------------------------

    def reshape(self, x: Ref, shape: tuple[int, ...]) -> Ref:
        """The same entries under another shape."""
        if x.shape == shape:
            return x
        if isinstance(x, Const):
            small = x.array if x.array.size == 1 else x.full()
            new = (1,) * len(shape) if x.array.size == 1 else shape
            made = ("reshape", {"new_sizes": shape}, (x,))
            return Const(small.reshape(new), shape, x.key, x.trainable, made, x.drawn)
        return self._append("reshape", {"new_sizes": shape}, [x], [shape], [x.dtype])[0]

    def cut(self, x: Ref, axis: int, start: int, stop: int) -> Ref:
        """Entries ``start`` to before ``stop`` along an axis."""
        shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
        if isinstance(x, Const):
            array = x.full()[(slice(None),) * axis + (slice(start, stop),)]
            made = ("slice", {"axis": axis, "start": start, "stop": stop}, (x,))
            return Const(array, shape, x.key, x.trainable, made, x.drawn)
        lows, highs = [0] * len(shape), list(x.shape)
        lows[axis], highs[axis] = start, stop
        params = {"start_indices": tuple(lows), "limit_indices": tuple(highs), "strides": None}
        return self._append("slice", params, [x], [shape], [x.dtype])[0]

    def _split(self, x: Ref, sizes: list[int], axis: int) -> list[Ref]:
        ends = np.cumsum(sizes).tolist()
        return [self.cut(x, axis, e - s, e) for s, e in zip(sizes, ends, strict=True)]

    def _tile(self, x: Ref, reps: list[int]) -> Ref:
        wide = [s for size in x.shape for s in (1, size)]
        long = [s for r, size in zip(reps, x.shape, strict=True) for s in (r, size)]
        params = {"shape": tuple(long), "broadcast_dimensions": tuple(range(len(long)))}
        lead = self.reshape(x, tuple(wide))
        many = self._append("broadcast_in_dim", params, [lead], [tuple(long)], [x.dtype])[0]
        return self.reshape(many, tuple(r * s for r, s in zip(reps, x.shape, strict=True)))

    # --- control flow -----------------------------------------------------------------------

    def scan(self, params: dict[str, Any], inputs: list[Ref]) -> list[Ref]:
        """Unroll a scan."""
        nc, ns, length = params["num_consts"], params["num_carry"], params["length"]
        consts, carry, xs = inputs[:nc], inputs[nc : nc + ns], inputs[nc + ns :]
        if not length:
            raise UnsupportedError("primitive 'scan': a loop of no steps")
        steps = range(length)[::-1] if params["reverse"] else range(length)
        rows: dict[int, list[Ref]] = {}
        for i in steps:
            here = [self.reshape(self.cut(x, 0, i, i + 1), x.shape[1:]) for x in xs]
            outs = self.closed(params["jaxpr"], [*consts, *carry, *here])
            carry, rows[i] = outs[:ns], outs[ns:]
        count = len(rows[0]) if rows else 0
        return [*carry, *(self._stacked([rows[i][k] for i in range(length)]) for k in range(count))]

    def _stacked(self, rows: list[Ref]) -> Ref:
        shape = (len(rows), *rows[0].shape)
        if all(isinstance(r, Const) for r in rows):
            return _constant(np.stack([r.full() for r in rows if isinstance(r, Const)]))
        wide = [self.reshape(r, (1, *r.shape)) for r in rows]
        dtype = next(r.dtype for r in rows if isinstance(r, Var))
        return self._append("concatenate", {"dimension": 0}, wide, [shape], [dtype])[0]

    def loop(self, params: dict[str, Any], inputs: list[Ref]) -> list[Ref]:
        """Unroll a while loop whose condition does not depend on the input."""
        nc, nb = params["cond_nconsts"], params["body_nconsts"]
        for_cond, for_body, carry = inputs[:nc], inputs[nc : nc + nb], inputs[nc + nb :]
        for _ in range(_LIMIT):
            (go,) = self.closed(params["cond_jaxpr"], [*for_cond, *carry])
            if not isinstance(go, Const):
                raise UnsupportedError(
                    "primitive 'while': its condition depends on the input; loops with a fixed "
                    "number of steps are unrolled (jax.lax.scan, fori_loop with constant bounds)"
                )
            if not bool(go.full()):
                return carry
            carry = self.closed(params["body_jaxpr"], [*for_body, *carry])
        raise UnsupportedError(f"primitive 'while': more than {_LIMIT:,} steps")

    def branch(self, params: dict[str, Any], inputs: list[Ref]) -> list[Ref]:
        """Take the branch of a cond whose index is a constant."""
        index = inputs[0]
        if not isinstance(index, Const):
            raise UnsupportedError(
                "primitive 'cond': its index depends on the input; use jax.numpy.where, which "
                "takes both branches"
            )
        branches = params["branches"]
        which = min(max(int(index.full()), 0), len(branches) - 1)
        return self.closed(branches[which], inputs[1:])


_CONTROL: dict[str, Callable[[Flattener, dict[str, Any], list[Ref]], list[Ref]]] = {
    "scan": Flattener.scan,
    "while": Flattener.loop,
    "cond": Flattener.branch,
}


def _constant(x: Any, shape: tuple[int, ...] | None = None) -> Const:
    """A plain number or a tensor that the function closed over."""
    array = as_array(x)
    return Const(array, tuple(array.shape) if shape is None else shape)
