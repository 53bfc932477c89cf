"""``from_onnx``: the importer of ONNX models, on the package onnx alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal

from tangency.models.builder import Builder
from tangency.models.errors import InputError, UnsupportedError
from tangency.models.importers.check import check_import
from tangency.models.importers.onnx_read import (
    boundary,
    import_onnx,
    opset_of,
    read_model,
    tensor_array,
    tensors,
)
from tangency.models.importers.onnx_reference import reference
from tangency.models.network import Network

__all__ = ["from_onnx"]

BatchAxis = Literal["auto", 0] | None
#: Most entries that one input may have; a damaged file states more.
LIMIT = 2**26


def from_onnx(
    source: Any,
    *,
    batch_axis: BatchAxis = "auto",
    shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    check: bool = True,
) -> Network:
    """Import an ONNX model.

    Activations, softmax and norms that an exporter wrote in pieces are recognised by the exact
    normal form of their formulas; constants of these that the dtype only rounds, bit for bit
    (sqrt(2) and 0.044715 of GELU, those of SELU), stand for the exact ones.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        An ``.onnx`` file, also compressed (``.onnx.gz``), its content, or the loaded model.
    batch_axis : "auto", 0 or None
        Whether axis 0 of the inputs and outputs is the batch. ``"auto"``: it is when it is
        symbolic or of size one and another axis follows; None when the input has one axis.
    shape : sequence of int, or mapping of input name to one, optional
        Shape of the input, axis 0 included, in place of the model's own; needed where another
        axis than the batch is symbolic.
    check : bool
        Compare the network with the model as onnxruntime runs it, or onnx's reference evaluator
        where that is not installed or has no kernel for it: every entry of the output at inputs of
        scales 1e-3 to 1e4 and around the model's constants, as far as rounding lets it.

    Returns
    -------
    Network
        Layers named after the ONNX nodes (or their outputs), weights after the initializers.

    Raises
    ------
    InputError
        When the source is no readable model, its shapes or weights are wrong, or the batch axis
        is not clear; the message names the file, node or tensor.
    UnsupportedError
        For an op that has no place in the graph, naming it, its node and what is supported.
    MissingPackageError
        When onnx is not installed.
    """
    if batch_axis not in ("auto", 0, None) or batch_axis is False:
        raise InputError(f"batch_axis is {batch_axis!r}: 'auto', 0 and None are accepted")
    import_onnx()
    from tangency.models.importers.onnx_trace import Tracer, check_ops

    model, label = read_model(source)
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else ""
    with boundary(label):
        check_ops(model)
        _run_checker(model, label)
        inputs, dtype = _inputs(model, shape, keep=batch_axis is None)
        batched, dynamic = _batch(inputs, batch_axis)
        shapes = {n: _sample(n, dims, batched) for n, dims in inputs.items()}
        builder = Builder(dtype, batched=batched)
        network = Tracer(builder, model.graph, opset_of(model, label)).run(shapes, name)
        if check:
            run = reference(model, list(shapes), single=batched and not dynamic)
            check_import(network, run, batched=batched, constants=_constants(model))
    return network


def _constants(model: Any) -> list[float]:
    """The numbers in the model's own code: attributes, and small tensors."""
    small = [t for t in tensors(model.graph) if prod(t.dims) <= 4]
    found = [float(v) for t in small if (a := tensor_array(t)).dtype.kind == "f" for v in a.flat]
    held = [a for node in model.graph.node for a in node.attribute]
    return found + [float(v) for a in held for v in (a.f, *a.floats) if v]


def _run_checker(model: Any, label: str) -> None:
    import onnx

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if model.ByteSize() < 2**31:  # the checker takes no larger messages
                onnx.checker.check_model(model)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise InputError(f"{label}: the ONNX checker refuses the model: {text}") from None


Dims = tuple[int | None, ...]


def _inputs(model: Any, shape: Any, *, keep: bool) -> tuple[dict[str, Dims], str]:
    """Shapes of the inputs that are no initializers (None for a symbolic axis), and the dtype."""
    import onnx

    held = {tensor.name for tensor in model.graph.initializer}
    entries = [entry for entry in model.graph.input if entry.name not in held]
    if not entries:
        raise InputError("the graph has no input")
    if shape is not None and not isinstance(shape, Mapping):
        if len(entries) > 1:
            names = ", ".join(repr(e.name) for e in entries)
            raise InputError(f"shape: the model has the inputs {names}; give a mapping by name")
        shape = {entries[0].name: shape}
    stray = set(shape or {}) - {e.name for e in entries}
    if stray:
        raise InputError(f"shape: the model has no input {sorted(stray)}")
    kinds = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.DOUBLE: "float64"}
    found: dict[str, Dims] = {}
    dtypes = set()
    for entry in entries:
        tensor = entry.type.tensor_type
        if tensor.elem_type not in kinds:
            kind = (
                onnx.TensorProto.DataType.Name(tensor.elem_type)
                if (tensor.elem_type in onnx.TensorProto.DataType.values())
                else tensor.elem_type
            )
            raise UnsupportedError(
                f"input {entry.name!r} is {kind}: inputs are FLOAT or DOUBLE tensors"
            )
        dtypes.add(kinds[tensor.elem_type])
        own: Dims = tuple(
            int(d.dim_value) if d.HasField("dim_value") and d.dim_value >= 0 else None
            for d in tensor.shape.dim
        )
        found[entry.name] = own
        if shape and entry.name in shape:
            given = _given(entry.name, own, shape[entry.name])
            # A symbolic batch stays one: the size given is one of those that it may have.
            symbolic = own[:1] == (None,) and len(own) > 1 and not keep
            found[entry.name] = (None, *given[1:]) if symbolic else given
    if len(dtypes) > 1:
        raise UnsupportedError(f"inputs of types {sorted(dtypes)}: one type is needed")
    return found, dtypes.pop()


def _sample(name: str, dims: Dims, batched: bool) -> tuple[int, ...]:
    """The shape to trace at: a batch of one, every other axis known."""
    sizes = [1 if batched and i == 0 else s for i, s in enumerate(dims)]
    known = tuple(s for s in sizes if s is not None)
    if len(known) < len(sizes):
        raise InputError(
            f"input {name!r} has the shape {_shown(dims)}: axes other than the batch must be "
            "known; give shape=(...) with axis 0 included"
        )
    if min(known, default=1) < 1 or prod(known) > LIMIT:
        raise InputError(
            f"input {name!r} has the shape {_shown(dims)}: 1 to {LIMIT} entries are accepted"
        )
    return known


def _given(name: str, own: Dims, shape: Any) -> Dims:
    try:
        given = tuple(int(s) for s in shape)
    except (TypeError, ValueError):
        raise InputError(f"shape of input {name!r} is {shape!r}: give integers") from None
    fits = len(given) == len(own) and all(a in (None, b) for a, b in zip(own, given, strict=True))
    if not fits:
        raise InputError(f"shape {given} of input {name!r} does not fit the model's {_shown(own)}")
    return given


def _shown(dims: Dims) -> str:
    return "(" + ", ".join("?" if d is None else str(d) for d in dims) + ")"


def _batch(inputs: dict[str, Dims], batch_axis: BatchAxis) -> tuple[bool, bool]:
    """Whether axis 0 is the batch, and whether the model takes batches of every size."""
    dynamic = all(dims and dims[0] is None for dims in inputs.values())
    if batch_axis == 0:
        for name, dims in inputs.items():
            if not dims:
                raise InputError(f"batch_axis=0: input {name!r} is a scalar")
        return True, dynamic
    if batch_axis is None:
        return False, False
    found = set()
    for name, dims in inputs.items():
        if len(dims) >= 2 and dims[0] is not None and dims[0] != 1:
            raise InputError(
                f"input {name!r} has the shape {_shown(dims)}: whether axis 0 is a batch is not "
                "clear; give batch_axis=0 if it is, or batch_axis=None if this is one sample"
            )
        found.add(len(dims) >= 2)
    if len(found) > 1:
        shown = ", ".join(f"{n!r} {_shown(d)}" for n, d in inputs.items())
        raise InputError(f"inputs {shown}: give batch_axis=0 if axis 0 of each is a batch, or None")
    return found.pop(), dynamic
