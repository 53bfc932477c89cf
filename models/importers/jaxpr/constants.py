"""Computing what does not depend on the input, and remembering which parameter it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tangency.models.importers.jaxpr.terms import Const
from tangency.models.ops import Shape

__all__ = ["apply", "as_array", "fold"]

#: Primitives that act entry by entry: repeated tensors are computed on in small form.
_ELEMENTWISE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atanh ceil clamp convert_element_type cos cosh "
    "div eq erf erfc exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max "
    "min mul ne neg not or pow round rsqrt select_n sign sin sinh sqrt square sub tan tanh".split()
)
_SUMS = ("add", "add_any", "sub")
_PRODUCTS = ("mul", "dot_general", "conv_general_dilated")
_RANDOM = ("random_bits", "random_gamma", "threefry", "rng_")


def as_array(x: Any) -> Any:
    """A NumPy array, or the JAX array itself where NumPy has no such dtype (random keys)."""
    import jax
    import jax.numpy as jnp

    dtype = getattr(x, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.extended):
        return x
    return np.asarray(x)


def fold(
    primitive: Any, params: dict[str, Any], inputs: Sequence[Const], shapes: Sequence[Shape]
) -> list[Const]:
    """Execute a primitive on constants; ``shapes`` are those of its outputs.

    The result keeps the key of the first trainable parameter in it (of the first parameter, if
    none is trainable). A repeated tensor is not written out, and is computed on in small form.

    Products with zeros and sums with zeros, as a loop's first state gives rise to, hide no
    parameter: the former depend on none, the latter are the other summand.
    """
    name, zeros = primitive.name, [False, False]
    if name in _SUMS or name in _PRODUCTS:
        zeros = [not c.trainable and not np.any(c.array) for c in inputs]
    if name in _SUMS and zeros[1] and inputs[0].shape == shapes[0]:
        return [inputs[0]]
    if name in _SUMS[:2] and zeros[0] and inputs[1].shape == shapes[0]:
        return [inputs[1]]
    keyed = [] if name in _PRODUCTS and any(zeros) else [c for c in inputs if c.key is not None]
    chosen = next((c for c in keyed if c.trainable), keyed[0] if keyed else None)
    key, trainable = (chosen.key, chosen.trainable) if chosen else (None, False)
    arrays = apply(primitive, params, inputs, shapes[0])
    origin = (primitive.name, params, tuple(inputs))
    drawn = primitive.name.startswith(_RANDOM) or any(c.drawn for c in inputs)
    return [
        Const(a, tuple(s), key, trainable, origin, drawn)
        for a, s in zip(arrays, shapes, strict=True)
    ]


def apply(
    primitive: Any, params: dict[str, Any], inputs: Sequence[Const], shape: Shape
) -> list[Any]:
    """The arrays of a primitive's results, of repeated tensors in small form."""
    name = primitive.name
    if name == "broadcast_in_dim" and len(inputs) == 1:
        small = inputs[0].array
        wide = [1] * len(shape)
        for size, axis in zip(small.shape, params["broadcast_dimensions"], strict=True):
            wide[axis] = size
        return [small.reshape(wide)]
    if name in ("stop_gradient", "copy", "copy_p"):
        return [inputs[0].array]
    if name == "transpose":
        return [inputs[0].array.transpose([int(p) for p in params["permutation"]])]
    if name in _ELEMENTWISE:
        rank = max(c.array.ndim for c in inputs)
        small = np.broadcast_shapes(*(c.array.shape for c in inputs))
        args = [
            c.array if c.array.shape == small else np.broadcast_to(c.array, small)
            for c in inputs
            if c.array.ndim in (0, rank)
        ]
        if len(args) == len(inputs):
            return [as_array(_bind(primitive, params, args))]
    if name == "reshape" and inputs[0].array.size == 1:
        return [inputs[0].array.reshape((1,) * len(shape))]
    results = _bind(primitive, params, [c.full() for c in inputs])
    return [as_array(r) for r in (results if primitive.multiple_results else [results])]


def _bind(primitive: Any, params: dict[str, Any], args: Sequence[Any]) -> Any:
    import jax.numpy as jnp

    return primitive.bind(*(jnp.asarray(a) for a in args), **params)
