"""Networks from JAX: any callable, flax nnx and linen modules, equinox modules, by their jaxpr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tangency.models.arrays import check_array
from tangency.models.builder import Builder
from tangency.models.errors import InputError, MissingPackageError, TangencyError, UnsupportedError
from tangency.models.importers._recognise import recognise
from tangency.models.importers.check import check_import
from tangency.models.importers.jaxpr.functions import Function, Leaf, as_function, check_leaves
from tangency.models.importers.jaxpr.ties import with_ties
from tangency.models.network import Network, precision

__all__ = ["from_jax"]


def from_jax(
    model: Any,
    example: Any,
    *,
    params: Any = None,
    batch_axis: int | None = 0,
    check: bool = True,
) -> Network:
    """The network of a JAX function, read from its jaxpr.

    The function is traced at a batch of one, calls are inlined, loops with a fixed number of steps
    unrolled. Activations, softmax, layer and batch norm are recognised by their structure: by the
    exact normal form of their formulas, whatever they are called; and so is MaxMin (by which
    entries are compared). The rest is imported primitive by primitive. The network is in the dtype
    of the example; JAX's 64-bit setting is left alone.

    All numbers are those that the model has, in its dtype (a slope of 0.01 is 0.009999999776 in
    float32), but for the constants of a recognised formula that the dtype only rounds, bit for bit
    (sqrt(2) and 0.044715 of GELU, those of SELU, 1.702, 1/n of a mean): there the exact ones are
    meant.

    Parameters
    ----------
    model : callable, flax nnx or linen module, or equinox module
        Called ``model(x)``, with parameters ``model(params, x)``. The array leaves of an nnx or
        equinox module are its parameters; what a callable closes over are constants. A linen
        module takes ``params=variables``.
    example : array or tuple of arrays
        Inputs, float32 or float64, of the shape that the model takes; its entries do not matter.
    params : pytree, optional
        The parameters; a weight is called by its path, ``"layers.0.weight"``. Leaves under
        ``"batch_stats"`` are not trainable, all others are. A weight that the model computes from
        its parameters stands under the name of the first trainable one, and its ``Param.gain``
        says how it depends on them; ``Param.entries`` where others hold the same entries.
    batch_axis : int or None
        Axis of the inputs and outputs that counts samples; None for a model of one sample, such
        as an equinox module.
    check : bool
        Compare with the model's own output, entry by entry, at inputs of scales 1e-3 to 1e4 and
        around the model's constants, as far as rounding lets it.

    Raises
    ------
    InputError
        For a model that is no callable or fails on the example, an example that is not floating
        point, a NaN or infinite parameter.
    UnsupportedError
        For a primitive without a place in the graph (the message names it and what has), a loop
        or branch that depends on the input, samples that are mixed.

    Examples
    --------
    >>> import jax, numpy as np
    >>> params = {"w": np.eye(2, dtype="float32"), "b": np.ones(2, "float32")}
    >>> def model(p, x):
    ...     return jax.nn.gelu(x @ p["w"] + p["b"], approximate=False)
    >>> net = from_jax(model, np.zeros((1, 2), "float32"), params=params)
    >>> [node.op.kind for node in net.structure.nodes], sorted(net.weights)
    (['input', 'dense', 'activation'], ['b', 'w'])
    """
    try:
        import jax
    except ImportError as error:
        raise MissingPackageError("from_jax needs JAX: pip install tangency") from error
    function = as_function(model, params)
    examples, dtype = _examples(example, batch_axis)
    check_leaves(function.leaves, dtype)
    call = _pure(function, batch_axis)
    arrays = [leaf.array for leaf in function.leaves]
    with precision(dtype):
        closed = _traced(call, arrays, examples, dtype)

        def write(function: Function) -> tuple[Network, Builder]:
            return _written(closed, function, examples, dtype, batch_axis is not None)

        network = with_ties(*write(function), function, write)
        if check:
            compiled = jax.jit(call)
            leaves = [jax.numpy.asarray(a) for a in arrays]

            def reference(*inputs: np.ndarray) -> list[np.ndarray]:
                return [np.asarray(y) for y in compiled(leaves, *inputs)]

            constants = [float(v) for a in arrays if np.size(a) <= 4 for v in np.ravel(a)]
            check_import(
                network,
                reference,
                batched=batch_axis is not None,
                constants=[*_literals(closed), *constants],
            )
    return network


def _examples(example: Any, batch_axis: int | None) -> tuple[list[tuple[int, ...]], str]:
    """Shapes of the inputs at a batch of one (in front), and the dtype."""
    given = list(example) if isinstance(example, tuple | list) else [example]
    if not given:
        raise InputError("example: give an array, or a tuple of arrays, one for each input")
    shapes, dtypes = [], set()
    for i, x in enumerate(given):
        name = f"example {i}" if len(given) > 1 else "the example"
        check_array(name, x)
        shape = tuple(int(s) for s in x.shape)
        if 0 in shape:
            raise InputError(f"{name} has shape {shape}: no axis may be empty")
        if batch_axis is not None:
            if not -len(shape) <= batch_axis < len(shape):
                raise InputError(
                    f"{name} has shape {shape}: it has no batch axis {batch_axis}; for a model of "
                    "one sample give batch_axis=None"
                )
            axis = batch_axis % len(shape)
            shape = (1, *shape[:axis], *shape[axis + 1 :])
        shapes.append(shape)
        dtypes.add(str(x.dtype))
    if len(dtypes) > 1:
        raise InputError(f"example: dtypes {sorted(dtypes)} are mixed, give one")
    return shapes, dtypes.pop()


def _pure(function: Function, batch_axis: int | None) -> Callable[..., list[Any]]:
    """``call(arrays, *inputs)`` with the batch in front and a flat list of outputs."""

    def call(arrays: Any, *inputs: Any) -> list[Any]:
        import jax
        import jax.numpy as jnp

        if batch_axis:
            inputs = tuple(jnp.moveaxis(x, 0, batch_axis) for x in inputs)
        outputs = jax.tree_util.tree_leaves(function.call(arrays, *inputs))
        return [jnp.moveaxis(y, batch_axis, 0) for y in outputs] if batch_axis else outputs

    return call


def _traced(
    call: Callable[..., Any], arrays: list[Any], shapes: list[tuple[int, ...]], dtype: str
) -> Any:
    """The closed jaxpr; every failure of the model as one clear error."""
    import jax

    inputs = [np.zeros(s, dtype) for s in shapes]
    data = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)
    try:
        return jax.make_jaxpr(call)(arrays, *inputs)
    except TangencyError:
        raise
    except (*data, jax.errors.NonConcreteBooleanIndexError) as error:
        raise UnsupportedError(
            "the model branches in Python on its input, or takes it for a NumPy array (write it "
            f"with jax.numpy.where): {_line(error)}"
        ) from None
    except Exception as error:  # whatever a user's function raises
        seen = ", ".join(map(str, shapes))
        raise InputError(
            f"the model fails on an input of shape {seen}: {type(error).__name__}: {_line(error)}"
        ) from error


def _literals(closed: Any) -> Iterator[float]:
    """The scalar numbers in a jaxpr and in those that it calls."""
    jaxpr = getattr(closed, "jaxpr", closed)
    literals = [getattr(atom, "val", None) for eqn in jaxpr.eqns for atom in eqn.invars]
    for value in (*getattr(closed, "consts", ()), *literals):
        if np.size(value) == 1 and str(getattr(value, "dtype", "float")).startswith(
            ("float", "int")
        ):
            yield from (float(v) for v in np.ravel(value) if v is not None)
    for eqn in jaxpr.eqns:
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                    yield from _literals(inner)


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else "no message"


def _written(
    closed: Any, function: Function, shapes: list[tuple[int, ...]], dtype: str, batched: bool
) -> tuple[Network, Builder]:
    """The network of a jaxpr, and what wrote it."""
    from tangency.models.importers.jaxpr import rules
    from tangency.models.importers.jaxpr.descent import note_descent
    from tangency.models.importers.jaxpr.flatten import Flattener
    from tangency.models.importers.jaxpr.needed import needed
    from tangency.models.importers.jaxpr.terms import Const, Ref, Var

    flattener = Flattener()
    inputs = [Var(s, dtype) for s in shapes]
    leaves = [_leaf(leaf, dtype) for leaf in function.leaves]
    args: list[Ref] = [*(Const(a, a.shape, k, t) for a, k, t in leaves), *inputs]
    outputs = flattener.closed(closed, args)
    if not outputs:
        raise InputError("the model returns no array")
    eqns = needed(flattener.eqns, outputs)
    drawn = any(isinstance(r, Const) and r.drawn for eqn in eqns for r in eqn.inputs)
    if drawn and function.draws:
        raise UnsupportedError(
            "the model draws random numbers (dropout?): put it in evaluation mode, model.eval()"
        )
    builder = Builder(dtype, batched=batched)
    names = ["input"] if len(shapes) == 1 else [f"input{i}" for i in range(len(shapes))]
    values = [builder.input(s, name=n) for s, n in zip(shapes, names, strict=True)]
    emitter = rules.Emitter(builder, eqns, outputs)
    ends = emitter.run(zip(inputs, values, strict=True))
    note_descent(builder.gains, eqns, outputs)
    ends = recognise(builder, ends, named=False)
    return builder.finish(ends, source="jax"), builder


def _leaf(leaf: Leaf, dtype: str) -> tuple[np.ndarray, str, bool]:
    array = np.asarray(leaf.array)
    return array if array.dtype.itemsize >= 4 else array.astype(dtype), leaf.key, leaf.trainable
