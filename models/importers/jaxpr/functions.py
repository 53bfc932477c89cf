"""What a JAX model is: a pure function of its parameters and its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError

__all__ = ["Function", "Leaf", "as_function", "check_leaves"]


@dataclass(frozen=True)
class Leaf:
    """One parameter: its name, its array, and whether training changes it."""

    key: str
    array: Any
    trainable: bool


@dataclass(frozen=True)
class Function:
    """``call(arrays of the leaves, *inputs)``.

    Attributes
    ----------
    call : callable
        The pure function.
    leaves : tuple of Leaf
        The floating-point leaves, in the order in which ``call`` takes their arrays.
    draws : bool
        Whether the model holds random keys, so that a random number in it is a dropout mask or
        the like.
    """

    call: Callable[..., Any]
    leaves: tuple[Leaf, ...]
    draws: bool = False


def as_function(model: Any, params: Any) -> Function:
    """The function of a callable, with its parameters if there are any.

    Raises
    ------
    InputError
        For what cannot be called, or takes its parameters otherwise.
    """
    homes = {c.__module__.partition(".")[0] + "." + c.__name__ for c in type(model).__mro__}
    modules = [c.__module__ for c in type(model).__mro__]
    is_nnx = any(m.startswith("flax.nnx") for m in modules)
    is_equinox = "equinox.Module" in homes
    if any(m.startswith("flax.linen") for m in modules):
        if params is None:
            raise InputError("a flax linen module keeps no parameters: give params=variables")
        return _with_params(model.apply, params)
    if not callable(model):
        raise InputError(
            f"the model is a {type(model).__name__}: give a callable, a flax nnx or an equinox "
            "module"
        )
    if params is not None:
        if is_nnx or is_equinox:
            raise InputError("params: a module brings its own parameters; leave params out")
        return _with_params(model, params)
    if is_nnx:
        return _of_nnx(model)
    if is_equinox:
        return _with_params(lambda module, *inputs: module(*inputs), model)
    return Function(lambda arrays, *inputs: model(*inputs), ())


def _with_params(call: Callable[..., Any], params: Any) -> Function:
    leaves, rebuild = _split(params, lambda key: not key.startswith("batch_stats."))
    return Function(lambda arrays, *inputs: call(rebuild(arrays), *inputs), leaves)


def _of_nnx(model: Any) -> Function:
    from flax import nnx

    graph, params, rest = nnx.split(model, nnx.Param, ...)
    trained, make_params = _split(params, lambda key: True, boxed=True)
    fixed, make_rest = _split(rest, lambda key: False, boxed=True)
    count = len(trained)

    def call(arrays: Sequence[Any], *inputs: Any) -> Any:
        module = nnx.merge(graph, make_params(arrays[:count]), make_rest(arrays[count:]))
        return module(*inputs)

    draws = any("Rng" in type(v).__name__ for v in _variables(rest))
    return Function(call, (*trained, *fixed), draws)


def _variables(state: Any) -> list[Any]:
    import jax

    return list(jax.tree_util.tree_leaves(state, is_leaf=lambda x: hasattr(x, "get_value")))


def _split(
    tree: Any, trainable: Callable[[str], bool], *, boxed: bool = False
) -> tuple[tuple[Leaf, ...], Callable[[Sequence[Any]], Any]]:
    """The floating-point leaves of a pytree, and what puts others in their place.

    With ``boxed`` the last step of a path leads into nnx's variable, and is no part of the name.
    """
    import jax

    flat, structure = jax.tree_util.tree_flatten_with_path(tree)
    leaves, places = [], []
    for i, (path, leaf) in enumerate(flat):
        if _is_parameter(leaf):
            key = _name(path[:-1] if boxed else path)
            leaves.append(Leaf(key, leaf, trainable(key)))
            places.append(i)

    def rebuild(arrays: Sequence[Any]) -> Any:
        values = [leaf for _, leaf in flat]
        for i, array in zip(places, arrays, strict=True):
            values[i] = array
        return jax.tree_util.tree_unflatten(structure, values)

    return tuple(leaves), rebuild


def _is_parameter(leaf: Any) -> bool:
    """Whether a leaf is a floating-point array (also a bfloat16 one, which is refused later)."""
    import jax.numpy as jnp

    has_dtype = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
    return has_dtype and bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def _name(path: Sequence[Any]) -> str:
    """``layers.0.weight`` of a path in a pytree."""
    parts = []
    for entry in path:
        for attribute in ("name", "key", "idx"):
            if hasattr(entry, attribute):
                parts.append(str(getattr(entry, attribute)))
                break
        else:
            parts.append(str(entry))
    return ".".join(parts) or "params"


def check_leaves(leaves: Sequence[Leaf], dtype: str) -> None:
    """Refuse parameters that the network could not hold exactly.

    Raises
    ------
    InputError
        Naming the parameter.
    """
    for leaf in leaves:
        kind = str(leaf.array.dtype)
        if kind not in ("float16", "float32", "float64"):
            raise InputError(f"parameter {leaf.key!r} is {kind}: give float32 or float64")
        if kind == "float64" and dtype == "float32":
            raise InputError(
                f"parameter {leaf.key!r} is float64 and the example float32: give an example in "
                "float64, or parameters in float32"
            )
        if not np.isfinite(np.asarray(leaf.array)).all():
            raise InputError(f"parameter {leaf.key!r} has a NaN or infinite entry")
