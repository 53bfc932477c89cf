"""The kinds of op that a Network is made of, one frozen dataclass each."""

from tangency.models.ops.arithmetic import (
    Add,
    Extremum,
    MatMul,
    Product,
    Quotient,
    Select,
    Subtract,
)
from tangency.models.ops.backend import Backend, jax_backend, numpy_backend
from tangency.models.ops.base import OPS, Op, Shape
from tangency.models.ops.groups import GroupSort, Householder
from tangency.models.ops.linear import BatchNorm, Conv, ConvTranspose, Dense, Scale
from tangency.models.ops.nonlinear import (
    Activate,
    LayerNorm,
    LogSumExp,
    MaxPool,
    Prelu,
    ReduceExtremum,
    Softmax,
)
from tangency.models.ops.sources import Constant, Input
from tangency.models.ops.structure import (
    AveragePool,
    Broadcast,
    Concat,
    Gather,
    Pad,
    Reduce,
    Reshape,
    Slice,
    Transpose,
    Upsample,
)

__all__ = [
    "OPS",
    "Activate",
    "Add",
    "AveragePool",
    "Backend",
    "BatchNorm",
    "Broadcast",
    "Concat",
    "Constant",
    "Conv",
    "ConvTranspose",
    "Dense",
    "Extremum",
    "Gather",
    "GroupSort",
    "Householder",
    "Input",
    "LayerNorm",
    "LogSumExp",
    "MatMul",
    "MaxPool",
    "Op",
    "Pad",
    "Prelu",
    "Product",
    "Quotient",
    "Reduce",
    "ReduceExtremum",
    "Reshape",
    "Scale",
    "Select",
    "Shape",
    "Slice",
    "Softmax",
    "Subtract",
    "Transpose",
    "Upsample",
    "jax_backend",
    "numpy_backend",
]
