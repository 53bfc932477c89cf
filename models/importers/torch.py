"""``from_torch``: a PyTorch module in, through ``torch.export`` without decompositions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

from tangency.models.builder import Builder, Value
from tangency.models.errors import InputError, MissingPackageError, UnsupportedError
from tangency.models.importers._recognise import recognise
from tangency.models.importers.check import check_import
from tangency.models.importers.torch_example import (
    common_dtype,
    evaluating,
    first_line,
    first_sample,
    kind_of,
    quiet,
    run_once,
)
from tangency.models.importers.torch_ops import Const, Missing, Reader, Truth
from tangency.models.importers.torch_parametrized import parametrized_names
from tangency.models.importers.torch_trace import Walk
from tangency.models.network import Network

__all__ = ["from_torch"]


def from_torch(
    module: Any, example: Any = None, *, batch_axis: int | None = 0, check: bool = True
) -> Network:
    """Read a module, in evaluation mode, as a Network; the module itself is not changed.

    Activations, softmax and norms written out are recognised by the exact normal form of their
    formulas; constants of these that the dtype only rounds (sqrt(2) of GELU, those of SELU) stand
    for the exact ones. Softplus is read as the exact function: torch's own, which is linear where
    ``beta x > 20``, differs from it by at most ``2.1e-9 / beta`` there; a lower threshold is
    refused. Minus infinity in a fixed mask that is added
    to scores becomes -1e30, whose exponential is zero just as well. A weight that the module
    computes from others (``torch.nn.utils.parametrize``, as in 1-Lipschitz layers) is computed
    once, as in evaluation, and held under its own name.

    Parameters
    ----------
    module : torch.nn.Module or torch.export.ExportedProgram
        The model. Its parameters become trainable weights under their own names, its buffers
        weights that are not trainable.
    example : tensor or array, or a tuple of them for several inputs
        Tells the shapes and the dtype, float32 or float64; the values do not matter. May be left
        out for an exported program.
    batch_axis : int or None
        The axis of inputs and outputs that counts samples (1 for recurrent and attention layers
        that are not ``batch_first``), of any size in the example. None: the example is one
        sample, and the module takes it so.
    check : bool
        Compare the network with the module, entry by entry, at inputs of scales 1e-3 to 1e4 and
        around the module's constants, as far as rounding lets it.

    Raises
    ------
    InputError
        For what is not a module, a dtype that is not accepted, a NaN weight, or an example that
        the module does not take.
    UnsupportedError
        For an op without a place in the graph, control flow that depends on the data, or a model
        that mixes the samples of a batch; names the op and the layer.
    MissingPackageError
        When PyTorch is not installed.

    Examples
    --------
    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU())
    >>> from_torch(module, torch.zeros(1, 3))
    Network((3,) -> (5,), 3 nodes, 20 parameters, float32)
    """
    try:
        import torch
    except ImportError:
        raise MissingPackageError(
            "reading a PyTorch model takes PyTorch: pip install 'tangency[torch]'"
        ) from None
    exported = isinstance(module, torch.export.ExportedProgram)
    if not exported and not isinstance(module, torch.nn.Module):
        raise InputError(
            f"from_torch takes a torch.nn.Module or an ExportedProgram, got {kind_of(module)}"
        )
    if example is None and exported:
        if not module.example_inputs:
            raise InputError("the exported program holds no example inputs: give example=")
        example = module.example_inputs[0]
    inputs = first_sample(example, batch_axis)
    name = type(module).__name__
    with ExitStack() as stack:
        stack.enter_context(quiet())
        if exported:
            callable_, program = module.module(), module
        else:
            callable_ = stack.enter_context(evaluating(module))
            program = None
        dtype = common_dtype(callable_, inputs)
        run_once(callable_, inputs)
        if program is None or not _takes(program, inputs):
            program = _export(callable_, inputs, name)
        computed = frozenset() if exported else parametrized_names(module)
        network = _graph(program, inputs, dtype, batch_axis, computed, source=name)
        if check:
            reference = _reference(callable_, batch_axis)
            check_import(
                network,
                reference,
                batched=batch_axis is not None,
                constants=_constants(program),
                softplus=2.1e-9,  # torch's is linear from beta x = 20 on
            )
    return network


def _takes(program: Any, inputs: list[Any]) -> bool:
    """Whether an exported program was traced at these very shapes."""
    wanted = [tuple(x.shape) for x in inputs]
    names = {s.arg.name for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"}
    found = [
        tuple(getattr(node.meta.get("val"), "shape", ()))
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    ]
    return [tuple(map(str, f)) for f in found] == [tuple(map(str, w)) for w in wanted]


def _export(module: Any, inputs: list[Any], name: str) -> Any:
    import torch

    try:
        with torch.enable_grad():  # without gradients torch may take fused paths
            return torch.export.export(module, tuple(inputs), strict=False)
    except Exception as error:
        text = str(error).lower()
        flow = "data-dependent" in text or "unbacked" in text or "dynamic control flow" in text
        why = (
            "its control flow depends on the data, which has no place in a graph "
            "(torch.where can stand for an if)"
            if flow
            else "torch.export cannot trace it"
        )
        if any(hasattr(part, "vanilla_export") for part in module.modules()):
            why += "; give what its layers' vanilla_export() makes (deel-torchlip)"
        raise UnsupportedError(f"model {name}: {why}: {first_line(error)}") from None


def _graph(
    program: Any,
    inputs: list[Any],
    dtype: str,
    batch_axis: int | None,
    computed: frozenset[str],
    *,
    source: str,
) -> Network:
    import torch

    builder = Builder(dtype, batched=batch_axis is not None)
    reader, held = Reader(builder, computed=computed), {}
    given: list[Any] = []
    shapes = iter(inputs)
    for spec in program.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT":
            if not hasattr(spec.arg, "name") or type(spec.arg).__name__ == "ConstantArgument":
                given.append(getattr(spec.arg, "value", None))
                continue
            given.append(_entered(builder, tuple(next(shapes).shape), batch_axis, len(given)))
            continue
        tensor = program.state_dict.get(spec.target)
        tensor = program.constants.get(spec.target) if tensor is None else tensor
        if tensor is None or not isinstance(tensor, torch.Tensor):
            raise UnsupportedError(f"model {source}: input {spec.target!r} is not a tensor")
        tensor = tensor.detach() if tensor.device.type == "cpu" else tensor.detach().cpu()
        if spec.kind.name in ("PARAMETER", "BUFFER"):
            held[tensor.untyped_storage().data_ptr()] = spec.target
        if not spec.target.startswith("lifted_tensor"):  # torch's name for a literal
            reader.enter(spec.target, tensor)
        given.append(Const(tensor, trainable=spec.kind.name == "PARAMETER"))
    outputs = Walk(reader, held).run(program.graph_module, given)
    ends = []
    specs = program.graph_signature.output_specs
    for spec, out in zip(specs, outputs, strict=True):
        if spec.kind.name != "USER_OUTPUT":
            raise UnsupportedError(f"model {source}: it writes on its own {spec.target!r}")
        if out is not None:
            ends.append(_left(reader, out, batch_axis))
    if not ends:
        raise UnsupportedError(f"model {source}: it returns no tensor")
    return builder.finish(recognise(builder, ends), source=source)


def _constants(program: Any) -> Iterator[float]:
    """The numbers in the code of a program: arguments of its ops, and small tensors."""
    from torch.utils import _pytree as pytree

    for graph in (m.graph for m in program.graph_module.modules() if hasattr(m, "graph")):
        for node in graph.nodes:
            leaves = pytree.tree_leaves((node.args, node.kwargs))
            yield from (float(v) for v in leaves if isinstance(v, float))
    for tensor in (*program.state_dict.values(), *program.constants.values()):
        if getattr(tensor, "numel", lambda: 5)() <= 4 and tensor.is_floating_point():
            yield from (float(v) for v in tensor.detach().flatten())


def _entered(builder: Builder, shape: tuple[int, ...], axis: int | None, index: int) -> Value:
    name = "input" if index == 0 or not builder.inputs else f"input{len(builder.inputs)}"
    if axis is None:
        return builder.input(shape, name=name)
    axis %= len(shape)
    value = builder.input((1, *shape[:axis], *shape[axis + 1 :]), name=name)
    return builder.reshape(value, shape)


def _left(reader: Reader, out: Any, axis: int | None) -> Value:
    reader.builder.scope = "output"
    if isinstance(out, Missing):
        raise UnsupportedError(f"the model returns {out.what}, which have no place in the graph")
    if isinstance(out, Truth):
        raise UnsupportedError("the model returns a condition: make it numbers by .float()")
    if isinstance(out, Const):
        array = reader.array(out)
        key = reader.key(out, "constant")
        out = reader.builder.constant(array, key=key, trainable=out.trainable)
    if not isinstance(out, Value):
        raise UnsupportedError(f"the model returns {kind_of(out)}, not a tensor")
    shape = out.shape
    if not axis or not -len(shape) <= axis < len(shape):
        return out  # the builder says it if there is no batch axis
    axis %= len(shape)
    if shape[axis] != 1:
        raise UnsupportedError(
            f"the model's output has shape {shape} at a batch of one: its axis {axis} is not the "
            "batch"
        )
    return reader.builder.reshape(out, (1, *shape[:axis], *shape[axis + 1 :]))


def _reference(module: Any, axis: int | None) -> Any:
    """The module's own outputs, of arrays whose batch axis is in front."""
    import torch
    from torch.utils import _pytree as pytree

    def evaluate(*arrays: np.ndarray) -> list[np.ndarray]:
        tensors = [torch.from_numpy(np.array(a)) for a in arrays]
        if axis:
            tensors = [t.movedim(0, axis) for t in tensors]
        with torch.no_grad():
            leaves = pytree.tree_leaves(module(*tensors))
        outs = [y for y in leaves if isinstance(y, torch.Tensor)]
        if axis:
            outs = [y.movedim(axis, 0) for y in outs]
        return [y.detach().cpu().numpy() for y in outs]

    return evaluate
