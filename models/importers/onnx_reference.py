"""What an imported ONNX model is compared with: onnxruntime, or the evaluator of the package onnx.

onnxruntime is asked first, as it is what models run in and onnx's evaluator has errors. In float64
it is the other way round: some kernels of onnxruntime compute in float32 there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from tangency.models import activations
from tangency.models.errors import InputError, UnsupportedError
from tangency.models.importers.onnx_read import opset_of
from tangency.models.namespace import numpy_namespace

__all__ = ["reference"]

Run = Callable[..., list[np.ndarray]]


def reference(model: Any, names: list[str], *, single: bool) -> Run:
    """The model as a function of arrays; ``single``: for a batch of one alone.

    onnxruntime runs it, if it is installed, and where that fails onnx's reference evaluator; in
    float64 the other way round.

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
            wide = any(a.dtype == np.float64 for a in arrays)
            for make in (_evaluator, _runtime) if wide else (_runtime, _evaluator):
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
            f"(check=False imports it all the same): {failures[-1]}"
        )

    return run


def _evaluator(model: Any) -> Run:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model, new_ops=_exact(opset_of(model)))
    return lambda feeds: list(evaluator.run(None, feeds))


def _runtime(model: Any) -> Run:
    """The model in onnxruntime; ImportError when that is not installed."""
    onnxruntime: Any = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # As it is written: fused ops round in other places, or are approximations.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda feeds: list(session.run(None, feeds))


def _exact(opset: int) -> list[Any]:
    """Ops that the evaluator computes in float32 for a float64 model, or otherwise than stated."""
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

    if opset >= 13:
        return [Erf, Gelu, GroupNormalization, HardSwish]

    class Softmax(OpRun):  # type: ignore[misc]
        """Before opset 13: over the axis and all behind it."""

        op_domain = ""

        def _run(self, x: Any, axis: Any = None) -> Any:
            axis = 1 if axis is None else axis
            wide = np.asarray(x, np.float64)
            flat = wide.reshape(int(np.prod(x.shape[: axis % x.ndim])), -1)
            log = flat - flat.max(axis=1, keepdims=True)
            log = log - np.log(np.exp(log).sum(axis=1, keepdims=True))
            return (self.of_log(log).reshape(x.shape).astype(x.dtype),)

        def of_log(self, log: Any) -> Any:
            return np.exp(log)

    class LogSoftmax(Softmax):
        def of_log(self, log: Any) -> Any:
            return log

    class BatchNormalization(OpRun):  # type: ignore[misc]
        """Before opset 14: with the statistics given, whatever the momentum."""

        op_domain = ""

        def _run(self, x: Any, *params: Any, epsilon: Any = None, **_: Any) -> Any:
            ones = (1,) * (x.ndim - 2)
            scale, bias, mean, var = (np.asarray(p, float).reshape(-1, *ones) for p in params)
            y = scale * (np.asarray(x, float) - mean) / np.sqrt(var + epsilon) + bias
            return (y.astype(x.dtype),)

    return [BatchNormalization, Erf, Gelu, GroupNormalization, HardSwish, LogSoftmax, Softmax]
