"""Constant folding: ONNX nodes of constants alone, executed at import."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import InputError, UnsupportedError
from tangency.models.importers.onnx_ops.context import Const
from tangency.models.importers.onnx_read import import_onnx

__all__ = ["FOLDED", "fold"]

#: Most entries of a folded tensor: a weight may be larger than a value of one sample.
LIMIT = 2**27

#: Ops of constants that the reference evaluator of onnx executes here.
FOLDED = frozenset(
    "Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh BitwiseAnd BitwiseNot "
    "BitwiseOr Cast CastLike Ceil Clip Concat ConstantOfShape Cos Cosh CumSum Div Equal Erf "
    "Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm Greater "
    "GreaterOrEqual Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log MatMul Max Mean Min "
    "Mod Mul Neg NonZero Not OneHot Or Pad Pow Range Reciprocal ReduceL1 ReduceL2 ReduceMax "
    "ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round "
    "ScatterElements ScatterND Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Split "
    "Sqrt Squeeze Sub Sum Tan Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor Dropout".split()
)

#: Ops after which the entries are still those of the initializer that went in.
LAYOUT = frozenset("Identity Reshape Flatten Squeeze Unsqueeze Transpose Dropout".split())


def fold(
    node: Any, name: str, inputs: Sequence[Const | None], opsets: Mapping[str, int]
) -> list[Const]:
    """Outputs of a node whose inputs are all constant.

    Raises
    ------
    InputError
        When the node cannot be executed, or its output would be too large to be meant.
    """
    onnx = import_onnx()
    from onnx.reference import ReferenceEvaluator

    arrays = [None if c is None else c.array for c in inputs]
    where = f"node {name!r} ({node.op_type})"
    if output_size(node, arrays) > LIMIT:
        raise InputError(f"{where}: its output would have more than {LIMIT} entries")
    held = [i for i in range(len(arrays)) if arrays[i] is not None]
    graph = onnx.GraphProto(name="fold")
    graph.node.append(node)
    graph.input.extend(onnx.ValueInfoProto(name=n) for n in sorted({node.input[i] for i in held}))
    graph.output.extend(onnx.ValueInfoProto(name=n) for n in node.output if n)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            evaluator = ReferenceEvaluator(graph, opsets=dict(opsets))
            found = iter(evaluator.run(None, {node.input[i]: arrays[i] for i in held}))
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: cannot be executed on its constants: {text}") from None
    results = []
    source = inputs[0] if inputs and node.op_type in LAYOUT else None
    for output in node.output:
        array = next(found) if output else np.zeros(0)
        if not isinstance(array, np.ndarray | np.generic):
            raise UnsupportedError(f"{where}: gives a {type(array).__name__}, no tensor")
        if source is not None:
            results.append(Const(np.asarray(array), source.key, source.trainable))
        else:
            results.append(Const(np.asarray(array), output))
    return results


def output_size(node: Any, arrays: Sequence[np.ndarray | None]) -> int:
    """An upper bound of the number of entries of a node's outputs."""
    given = [a for a in arrays if a is not None]
    op, total = node.op_type, sum(a.size for a in given)
    numbers = [int(v) for v in given[-1].reshape(-1)] if given and _short(given[-1]) else []
    if op == "ConstantOfShape":
        return prod(numbers)
    if op == "Expand":
        return max(1, total) * prod(max(1, n) for n in numbers)
    if op == "Tile":
        return total * prod(max(0, n) for n in numbers)
    if op == "Range" and len(given) == 3:
        start, stop, step = (float(a.reshape(-1)[0]) for a in given)
        return int(min(abs((stop - start) / step), 2.0**62)) if step else 2**62
    if op == "OneHot" and len(given) > 1:
        return given[0].size * int(given[1].reshape(-1)[0])
    if op == "Pad" and len(given) > 1 and _short(given[1]):
        ends = [abs(int(v)) for v in given[1].reshape(-1)]
        shape = given[0].shape
        return prod(s + sum(ends[i :: len(shape)]) for i, s in enumerate(shape))
    if op in ("MatMul", "Gemm", "Gather", "GatherND", "GatherElements"):
        sizes = sorted(a.size for a in given)
        return total if not sizes else sizes[-1] * sizes[-2] if len(sizes) > 1 else total
    if op in ("Reshape", "Slice", "Unsqueeze", "Squeeze", "Transpose", "Concat", "ScatterND"):
        return total
    try:
        shape = np.broadcast_shapes(*(a.shape for a in given))
    except ValueError:
        return total
    return max(total, reduce(lambda a, b: a * b, shape, 1))


def _short(array: np.ndarray) -> bool:
    return array.size <= 64 and array.dtype.kind in "iu"
