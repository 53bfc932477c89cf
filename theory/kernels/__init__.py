"""Kernels as functions of inputs: infinite width, Gram matrices."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tangency.theory.kernels.cntk import FusedConv as FusedConv
    from tangency.theory.kernels.duals import dual_of as dual_of
    from tangency.theory.kernels.fused import FusedDense as FusedDense
    from tangency.theory.kernels.gram_engine import gram as gram
    from tangency.theory.kernels.guest import import_neural_tangents as import_neural_tangents
    from tangency.theory.kernels.infinite import InfiniteKernel as InfiniteKernel
    from tangency.theory.kernels.infinite import infinite_kernel as infinite_kernel
    from tangency.theory.kernels.kernel import Gram as Gram
    from tangency.theory.kernels.kernel import Kernel as Kernel
    from tangency.theory.kernels.kernel import as_kernel as as_kernel
    from tangency.theory.kernels.layers import AvgPool as AvgPool
    from tangency.theory.kernels.layers import Conv as Conv
    from tangency.theory.kernels.layers import Dense as Dense
    from tangency.theory.kernels.layers import Dropout as Dropout
    from tangency.theory.kernels.layers import Flatten as Flatten
    from tangency.theory.kernels.layers import GlobalAvgPool as GlobalAvgPool
    from tangency.theory.kernels.layers import Identity as Identity
    from tangency.theory.kernels.layers import LayerNorm as LayerNorm
    from tangency.theory.kernels.layers_activations import ABRelu as ABRelu
    from tangency.theory.kernels.layers_activations import Abs as Abs
    from tangency.theory.kernels.layers_activations import Activation as Activation
    from tangency.theory.kernels.layers_activations import Cos as Cos
    from tangency.theory.kernels.layers_activations import Erf as Erf
    from tangency.theory.kernels.layers_activations import Exp as Exp
    from tangency.theory.kernels.layers_activations import ExpNormalized as ExpNormalized
    from tangency.theory.kernels.layers_activations import Gabor as Gabor
    from tangency.theory.kernels.layers_activations import Gaussian as Gaussian
    from tangency.theory.kernels.layers_activations import Gelu as Gelu
    from tangency.theory.kernels.layers_activations import Hermite as Hermite
    from tangency.theory.kernels.layers_activations import LeakyRelu as LeakyRelu
    from tangency.theory.kernels.layers_activations import Monomial as Monomial
    from tangency.theory.kernels.layers_activations import Polynomial as Polynomial
    from tangency.theory.kernels.layers_activations import Rbf as Rbf
    from tangency.theory.kernels.layers_activations import RectifiedMonomial as RectifiedMonomial
    from tangency.theory.kernels.layers_activations import Relu as Relu
    from tangency.theory.kernels.layers_activations import Sigmoid_like as Sigmoid_like
    from tangency.theory.kernels.layers_activations import Sign as Sign
    from tangency.theory.kernels.layers_activations import Sin as Sin
    from tangency.theory.kernels.layers_attention import Attention as Attention
    from tangency.theory.kernels.layers_branches import concat as concat
    from tangency.theory.kernels.layers_branches import parallel as parallel
    from tangency.theory.kernels.layers_branches import product as product
    from tangency.theory.kernels.layers_branches import repeat as repeat
    from tangency.theory.kernels.layers_branches import residual as residual
    from tangency.theory.kernels.layers_branches import serial as serial

_HOMES = {
    "cntk": ("FusedConv",),
    "duals": ("dual_of",),
    "fused": ("FusedDense",),
    "gram_engine": ("gram",),
    "guest": ("import_neural_tangents",),
    "infinite": ("InfiniteKernel", "infinite_kernel"),
    "kernel": ("Gram", "Kernel", "as_kernel"),
    "layers": (
        "AvgPool",
        "Conv",
        "Dense",
        "Dropout",
        "Flatten",
        "GlobalAvgPool",
        "Identity",
        "LayerNorm",
    ),
    "layers_activations": (
        "ABRelu",
        "Abs",
        "Activation",
        "Cos",
        "Erf",
        "Exp",
        "ExpNormalized",
        "Gabor",
        "Gaussian",
        "Gelu",
        "Hermite",
        "LeakyRelu",
        "Monomial",
        "Polynomial",
        "Rbf",
        "RectifiedMonomial",
        "Relu",
        "Sigmoid_like",
        "Sign",
        "Sin",
    ),
    "layers_attention": ("Attention",),
    "layers_branches": ("concat", "parallel", "product", "repeat", "residual", "serial"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
