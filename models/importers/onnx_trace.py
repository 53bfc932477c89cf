"""Tracing an ONNX graph: its nodes in order, each read into the Builder or folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tangency.models.builder import Builder, Value
from tangency.models.errors import InputError, TangencyError, UnsupportedError
from tangency.models.importers._recognise import recognise
from tangency.models.importers.onnx_fold import FOLDED, fold
from tangency.models.importers.onnx_ops import READERS, Call, Condition, Const, Item
from tangency.models.importers.onnx_pairs import Graph, maxmin
from tangency.models.importers.onnx_read import import_onnx, tensor_array
from tangency.models.network import Network

__all__ = ["Tracer", "check_ops", "supported_ops"]


def supported_ops() -> tuple[str, ...]:
    """ONNX ops that may depend on the network's input, sorted."""
    return tuple(sorted({*READERS, "Shape", "Size"}))


def check_ops(model: Any) -> None:
    """Refuse ops that have no place in the graph, before anything else is done.

    Raises
    ------
    UnsupportedError
        Naming every such op type, the first node of it, and what is supported.
    """
    unknown: dict[str, str] = {}
    known = {*READERS, *FOLDED}
    for node in model.graph.node:
        own = node.domain in ("", "ai.onnx")
        if not own or node.op_type not in known:
            op = node.op_type if own else f"{node.domain}.{node.op_type}"
            unknown.setdefault(op or "(no op type)", label_of(node))
    if unknown:
        listed = ", ".join(f"{op} (node {name!r})" for op, name in unknown.items())
        raise UnsupportedError(
            f"ONNX ops without a place in the graph: {listed}; supported are "
            f"{', '.join(supported_ops())}"
        )


def label_of(node: Any) -> str:
    """Name of the layer that a node is: its own, or that of its first output."""
    outputs = [o for o in node.output if o]
    return str(node.name or (outputs[0] if outputs else node.op_type))


class Tracer:
    """Reads the nodes of one graph into a Builder.

    Parameters
    ----------
    builder : Builder
        Where the nodes go.
    graph : onnx.GraphProto
        The graph, its ops known to be supported.
    opset : int
        Version of the operator set.
    """

    def __init__(self, builder: Builder, graph: Any, opset: int) -> None:
        self.builder = builder
        self.graph = graph
        self.opset = opset
        self.items: dict[str, Item] = {}
        self.taken = {name for node in graph.node for name in node.input if name}
        self.taken |= {output.name for output in graph.output}
        for tensor in graph.initializer:
            array = tensor_array(tensor)
            self.items[tensor.name] = Const(array, tensor.name, array.dtype.kind == "f")
        self.behind = Graph(self)

    def run(self, inputs: Mapping[str, Sequence[int]], source: str) -> Network:
        """Trace the graph at inputs of these shapes; the Network of its outputs."""
        for name, shape in inputs.items():
            self.items[name] = self.builder.input(shape, name=name)
        for node in self.graph.node:
            self._node(node)
        if not self.graph.output:
            raise InputError("the graph has no output")
        outputs = []
        for output in self.graph.output:
            self.builder.scope = output.name
            item = self._item(output.name, "the graph")
            if isinstance(item, Condition):
                raise UnsupportedError(f"the output {output.name!r} is a comparison, not numbers")
            call = Call(output.name, "output", self.opset, self.builder)
            outputs.append(call.value(item))
        ends = recognise(self.builder, outputs, scalars=True)
        return self.builder.finish(ends, source=source)

    def _item(self, name: str, user: str) -> Item:
        if name not in self.items:
            raise InputError(f"{user} takes {name!r}, which no node before it gives")
        return self.items[name]

    def _node(self, node: Any) -> None:
        name = label_of(node)
        self.builder.scope = name
        try:
            results = self._read(node, name)
        except TangencyError as error:
            text = str(error)
            if repr(name) in text:
                raise
            raise type(error)(f"node {name!r} ({node.op_type}): {text}") from None
        except Exception as error:  # an attribute of a wrong type, a shape of wrong rank
            text = " ".join(str(error).split())[:200]
            raise InputError(
                f"node {name!r} ({node.op_type}): its inputs or attributes do not fit: {text}"
            ) from error
        for output, item in zip(node.output, results, strict=False):
            if output:
                self.items[output] = item

    def _read(self, node: Any, name: str) -> list[Item]:
        user = f"node {name!r} ({node.op_type})"
        inputs = [self._item(n, user) if n else None for n in node.input]
        if node.op_type in ("Shape", "Size") and isinstance(inputs[0], Value | Condition):
            return [self._shape(node, inputs[0])]
        constants = [c for c in inputs if c is None or isinstance(c, Const)]
        if node.op_type != "Constant" and len(constants) == len(inputs):
            if node.op_type not in FOLDED:
                raise UnsupportedError(f"{user}: has constant inputs only, which is not supported")
            return list(fold(node, name, constants, {"": self.opset}))
        if node.op_type not in READERS:
            raise UnsupportedError(
                f"{user}: depends on the network's input; {node.op_type} is supported on "
                f"constants alone. Supported are {', '.join(supported_ops())}"
            )
        if node.op_type in ("Concat", "Reshape", "Transpose", "Flatten"):
            found = maxmin(self.behind, node)
            if found is not None:
                return [found]
        used = tuple(o in self.taken for o in node.output)
        call = Call(name, node.op_type, self.opset, self.builder, _attributes(node), inputs, used)
        result = READERS[node.op_type](call)
        results: list[Item] = list(result) if isinstance(result, list) else [result]
        missing = [o for o, u in list(zip(node.output, used, strict=True))[len(results) :] if u]
        if missing:
            call.refuse(f"its output {missing[0]!r} is not supported")
        return results

    def _shape(self, node: Any, item: Value | Condition) -> Const:
        if node.op_type == "Size":
            return Const(np.asarray(int(np.prod(item.shape)), np.int64), node.output[0])
        attributes = _attributes(node)
        cut = slice(attributes.get("start", 0), attributes.get("end"))
        return Const(np.asarray(item.shape[cut], np.int64), node.output[0])


def _attributes(node: Any) -> dict[str, Any]:
    """The attributes of a node as numbers, bytes, lists and arrays."""
    onnx = import_onnx()
    found = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.type == onnx.AttributeProto.TENSOR:
            value = tensor_array(value)
        found[attribute.name] = value
    return found
