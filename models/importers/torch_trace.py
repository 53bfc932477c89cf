"""From a traced module to a graph: the walk over ATen ops, and what it does with side effects."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tangency.models.builder import Value
from tangency.models.errors import UnsupportedError
from tangency.models.importers.torch_ops import (
    READERS,
    Call,
    Const,
    Missing,
    Reader,
    Truth,
    is_variable,
)

__all__ = ["Walk"]

#: Ops that only check something while the module runs.
CHECKS = ("_assert", "sym_constrain", "_guards")

#: Ops that may return their argument itself although their schema does not say so.
SELF = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "type_as")

#: What the importer reads, for messages.
SUPPORTED = (
    "linear, matmul, einsum, conv, pooling, norms, element-wise functions, arithmetic, comparisons "
    "with where, softmax, reductions, indexing by constants, reshapes, cat, pad, attention, RNNs"
)


#: Ops that a condition passes as if it were numbers.
SHAPED = frozenset(
    {
        *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous", "clone"),
        *("detach", "alias", "expand", "expand_as", "permute", "transpose", "t", "repeat"),
        *("slice", "select", "index_select", "to", "_to_copy", "type_as", "float", "double"),
    }
)


class Walk:
    """One walk over the nodes of an fx graph, writing the ops that depend on the input.

    Parameters
    ----------
    reader : Reader
        The builder and the names of parameters.
    held : set of int
        Addresses of the memory of parameters and buffers, which nothing may write on.
    """

    def __init__(self, reader: Reader, held: dict[int, str]) -> None:
        self.reader = reader
        self.held = held

    def run(self, module: Any, inputs: Sequence[Any]) -> Any:
        """Value of the output of a traced (sub)module, given those of its placeholders."""
        env: dict[Any, Any] = {}
        roots: dict[Any, Any] = {}
        given = iter(inputs)
        order = {node: i for i, node in enumerate(module.graph.nodes)}
        for node in module.graph.nodes:
            if node.op == "placeholder":
                env[node] = next(given)
            elif node.op == "get_attr":
                found = operator.attrgetter(node.target)(module)
                env[node] = Const(found) if hasattr(found, "dtype") else found
            elif node.op == "call_function":
                env[node] = self._call(node, env)
                self._alias(node, env, roots, order)
            elif node.op == "output":
                return _fetched(node.args[0], env)
        raise UnsupportedError("the traced module has no output")

    # --- one op -------------------------------------------------------------------------------

    def _call(self, node: Any, env: dict[Any, Any]) -> Any:
        layer, target = _layer(node), node.target
        schema = getattr(target, "_schema", None)
        name = _op_name(target, schema)
        self.reader.builder.scope = layer or name
        args, kwargs = _fetched(node.args, env), _fetched(dict(node.kwargs), env)
        if target is operator.getitem:
            return args[0][args[1]]
        if name == "wrap_with_set_grad_enabled":
            return self.run(args[1], args[2:])
        if name.startswith(CHECKS):
            return None
        where = f"layer {layer!r}: {target}" if layer else f"the model itself: {target}"
        missing = next((m for m in _flat([args, kwargs]) if isinstance(m, Missing)), None)
        if missing is not None:
            raise UnsupportedError(
                f"{where}: uses {missing.what}, which have no place in the graph"
            )
        if not is_variable(list(args)) and not is_variable(list(kwargs.values())):
            return self._constant(node, where, args, kwargs)
        if name == "sym_size":
            return args[0].shape[args[1]]
        if name not in READERS:
            near = difflib.get_close_matches(name, READERS, n=3)
            hint = f"; near names: {', '.join(near)}" if near else ""
            raise UnsupportedError(f"{where}: this op is not supported{hint}. Read are {SUPPORTED}")
        bound = _bound(schema, args, kwargs)
        shape, shapes = _shapes(node)
        self._same_dtype(node, where)
        call = Call(self.reader, name, target, bound, shape, shapes)
        if any(isinstance(a, Truth) for a in args) and name in SHAPED:
            return self._on_mask(call)
        out = READERS[name](call)
        if isinstance(out, Value) and shape is not None and out.shape != shape:
            raise UnsupportedError(f"{where}: read as shape {out.shape}, torch has {shape}")
        return out

    def _constant(self, node: Any, where: str, args: Any, kwargs: Any) -> Any:
        """Run an op on constants in torch; it may not write on parameters."""
        import torch

        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable and isinstance(args[0], Const):
            owner = self.held.get(args[0].tensor.untyped_storage().data_ptr())
            if owner and args[0].tensor.numel():
                raise UnsupportedError(
                    f"{where}: writes on the module's own {owner!r} (training mode?); the module "
                    "must not change while it runs: call module.eval()"
                )
        random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if random and "dropout" not in str(node.target):
            raise UnsupportedError(f"{where}: is random; a network is a function of its input")
        learnt = any(isinstance(c, Const) and c.trainable for c in _flat([args, kwargs]))
        with torch.no_grad():
            out = node.target(*_bare(args), **_bare(kwargs))
        return _wrapped(out, learnt)

    def _same_dtype(self, node: Any, where: str) -> None:
        found = node.meta.get("val")
        for item in found if isinstance(found, list | tuple) else [found]:
            kind = str(getattr(item, "dtype", "")).removeprefix("torch.")
            if "float" in kind and kind != self.reader.builder.dtype:
                raise UnsupportedError(
                    f"{where}: computes in {kind}, the network is {self.reader.builder.dtype}; "
                    "a cast has no place in the graph"
                )
            whole = kind.startswith(("int", "uint", "complex")) and item is found
            if whole:
                raise UnsupportedError(f"{where}: gives {kind}, which has no place in the graph")

    def _on_mask(self, call: Call) -> Any:
        """A shape op on a condition: on its numbers, which are compared again."""
        numbers = {k: call.value(a) if isinstance(a, Truth) else a for k, a in call.args.items()}
        out = READERS[call.name](replace(call, args=numbers))
        return Truth(">", out, call.const(0.5)) if _mask(call.name) else out

    # --- writing in place ---------------------------------------------------------------------

    def _alias(self, node: Any, env: dict[Any, Any], roots: dict[Any, Any], order: Any) -> None:
        """Follow what an in-place op changed; refuse where a changed part is seen elsewhere."""
        schema = getattr(node.target, "_schema", None)
        first = node.args[0] if node.args and hasattr(node.args[0], "graph") else None
        if schema is None:
            if node.target is operator.getitem and first is not None:
                roots[node] = roots.get(first, first)
            return
        name = _op_name(node.target, schema)
        shown = any(r.alias_info is not None for r in schema.returns) or name in SELF
        if first is not None and shown:
            roots[node] = roots.get(first, first)
        if not schema.is_mutable or first is None:
            return
        old, new = env[first], env[node]
        if isinstance(old, Const) and not is_variable(new):
            return  # torch has done it
        root, now = roots.get(first, first), order[node]
        for other in [root, *(m for m, r in roots.items() if r is root)]:
            if other is node or (other is not first and not _used_after(other, now, order)):
                continue
            seen = env[other]
            whole = isinstance(seen, Value) and isinstance(old, Value) and seen.node == old.node
            if other is first:
                env[other] = new
            elif whole and isinstance(new, Value):
                env[other] = Value(new.node, seen.shape)
            else:
                raise UnsupportedError(
                    f"layer {_layer(node)!r}: {node.target}: writes in place on a part of a tensor "
                    "that is used afterwards; make a new tensor (torch.cat, torch.where) instead"
                )


def _mask(name: str) -> bool:
    """Whether the op leaves a condition a condition."""
    return name not in ("to", "_to_copy", "type_as", "float", "double")


def _op_name(target: Any, schema: Any) -> str:
    if schema is None:
        return str(getattr(target, "__name__", target))
    name = str(schema.name).split("::")[-1]
    in_place = schema.is_mutable and name.endswith("_") and not name.endswith("__")
    return name[:-1] if in_place else name


def _layer(node: Any) -> str:
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = str(stack[-1][0]) if stack else ""
    path = path.removeprefix("L['self']").lstrip(".")
    return path.split("@")[0]


def _fetched(item: Any, env: dict[Any, Any]) -> Any:
    if isinstance(item, list | tuple):
        return [_fetched(i, env) for i in item]
    if isinstance(item, dict):
        return {k: _fetched(i, env) for k, i in item.items()}
    return env[item] if hasattr(item, "graph") and hasattr(item, "op") else item


def _flat(item: Any) -> list[Any]:
    if isinstance(item, dict):
        item = list(item.values())
    return [i for part in item for i in _flat(part)] if isinstance(item, list | tuple) else [item]


def _bare(item: Any) -> Any:
    if isinstance(item, list | tuple):
        return [_bare(i) for i in item]
    if isinstance(item, dict):
        return {k: _bare(i) for k, i in item.items()}
    return item.tensor if isinstance(item, Const) else item


def _wrapped(item: Any, learnt: bool) -> Any:
    if isinstance(item, list | tuple):
        return [_wrapped(i, learnt) for i in item]
    return Const(item, learnt) if hasattr(item, "untyped_storage") else item


def _bound(schema: Any, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    bound = {}
    for i, argument in enumerate(schema.arguments):
        if i < len(args) and not argument.kwarg_only:
            bound[argument.name] = args[i]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            bound[argument.name] = argument.default_value
    return bound


def _shapes(node: Any) -> tuple[Any, tuple[Any, ...]]:
    found = node.meta.get("val")

    def of(item: Any) -> Any:
        shape: Any = getattr(item, "shape", None)
        known = shape is not None and all(isinstance(s, int) for s in shape)
        return tuple(shape) if known else None

    if isinstance(found, list | tuple):
        return None, tuple(of(item) for item in found)
    return of(found), ()


def _used_after(node: Any, now: int, order: dict[Any, int]) -> bool:
    return any(order[user] > now for user in node.users)
