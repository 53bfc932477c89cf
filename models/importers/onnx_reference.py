"""What an imported ONNX model is compared with: the reference evaluator of the package onnx."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from tangency.models import activations
from tangency.models.errors import InputError, UnsupportedError
from tangency.models.importers.onnx_read import tensor_array, tensors
from tangency.models.namespace import numpy_namespace

__all__ = ["reference", "widened"]

Run = Callable[..., list[np.ndarray]]


def reference(model: Any, names: list[str], *, single: bool) -> Run:
    """The model as a function of arrays; ``single``: for a batch of one alone.

    The reference evaluator runs it, and where that fails onnxruntime, if it is installed.

    Raises
    ------
    UnsupportedError
        When called, if neither can run the model.
    """
    engine: Run | None = None

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        nonlocal engine
        if single and any(a.shape[0] != 1 for a in arrays):
            raise InputError("the model is written for one sample at a time")
        feeds = dict(zip(names, arrays, strict=True))
        failures = []
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            if engine is not None:
                return [np.asarray(y) for y in engine(feeds)]
            for make in (_evaluator, _runtime):
                try:
                    found = make(model)
                    outputs = found(feeds)
                except Exception as error:  # whatever the model does to the engine
                    failures.append(" ".join(str(error).split())[:200])
                    continue
                engine = found
                return [np.asarray(y) for y in outputs]
        raise UnsupportedError(
            "onnx's reference evaluator cannot run the model, so that the import is not checked "
            f"(check=False imports it all the same): {failures[0]}"
        )

    return run


def _evaluator(model: Any) -> Run:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model, new_ops=_exact())
    return lambda feeds: list(evaluator.run(None, feeds))


def _runtime(model: Any) -> Run:
    """The model in onnxruntime; ImportError when that is not installed."""
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda feeds: list(session.run(None, feeds))


def _exact() -> list[Any]:
    """Ops that the evaluator computes in float32 even for a model in float64."""
    from onnx.reference.op_run import OpRun

    class Gelu(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Any, approximate: Any = None) -> Any:
            name = "gelu_tanh" if approximate == "tanh" else "gelu"
            wide = np.asarray(activations.get(name)(np.asarray(x, np.float64)))
            return (wide.astype(x.dtype),)

    class HardSwish(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Any) -> Any:
            return ((x * np.clip(np.asarray(x, np.float64) / 6 + 0.5, 0, 1)).astype(x.dtype),)

    class Erf(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Any) -> Any:
            return (np.asarray(numpy_namespace.erf(np.asarray(x, np.float64))).astype(x.dtype),)

    class GroupNormalization(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(
            self,
            x: Any,
            scale: Any,
            bias: Any,
            epsilon: Any = None,
            num_groups: Any = None,
            stash_type: Any = None,
        ) -> Any:
            flat = np.asarray(x, np.float64).reshape(x.shape[0], num_groups, -1)
            flat = flat - flat.mean(axis=-1, keepdims=True)
            flat = flat / np.sqrt((flat**2).mean(axis=-1, keepdims=True) + epsilon)
            # Before opset 21 scale and bias have a number for each group, later for each channel.
            a, b = (np.repeat(p, x.shape[1] // p.size)[:, None] for p in (scale, bias))
            y = flat.reshape(*x.shape[:2], -1) * a + b
            return (y.reshape(x.shape).astype(x.dtype),)

    return [Erf, Gelu, GroupNormalization, HardSwish]


def widened(model: Any) -> Any:
    """A copy of a float32 model in float64, for the reference evaluator."""
    from onnx import ModelProto, TensorProto, numpy_helper
    from onnx.helper import make_attribute

    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in tensors(copy.graph):
        if tensor.data_type == TensorProto.FLOAT:
            wide = numpy_helper.from_array(tensor_array(tensor).astype(np.float64), tensor.name)
            tensor.CopyFrom(wide)
    for entry in (*copy.graph.input, *copy.graph.output, *copy.graph.value_info):
        if entry.type.tensor_type.elem_type == TensorProto.FLOAT:
            entry.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in copy.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == 1:
                attribute.i = TensorProto.DOUBLE
            if node.op_type == "Constant" and attribute.name.startswith("value_float"):
                numbers = attribute.f if attribute.name == "value_float" else attribute.floats
                tensor = numpy_helper.from_array(np.asarray(numbers, np.float64))
                attribute.Clear()
                attribute.CopyFrom(make_attribute("value", tensor))
    return copy
