"""Tiles of infinite kernels on a GPU: the plan as plain data for :mod:`tangency.gpu`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tangency.gpu import plans
from tangency.gpu.dense import DenseKernel
from tangency.gpu.errors import DeviceError, PlanError
from tangency.gpu.images import ImagesKernel
from tangency.gpu.images_plan import ImageLayer
from tangency.models.errors import MissingPackageError, UnsupportedError
from tangency.theory.kernels.duals_base import DualFunction
from tangency.theory.kernels.duals_exponential import Exponential, Wave
from tangency.theory.kernels.duals_gaussian_cdf import Erf, Gelu
from tangency.theory.kernels.duals_rectified import Rectified
from tangency.theory.kernels.fused_rows import fits
from tangency.theory.kernels.kernel import KINDS, Get, Gram, wanted
from tangency.theory.kernels.plan import Activate, Affine, Flatten, Linear, Mix, Norm, Plan, Scale

__all__ = ["DeviceBackend", "dense_plan", "image_plan", "make_backend"]

_TERMS = 128  # of the Hermite series of a function without a closed form


@dataclass(frozen=True, eq=False)
class DeviceBackend:
    """A plan as a backend on a device; ``"cpu"`` is the same source built by g++, for tests."""

    plan: Plan
    dtype: Any = np.float64
    device: str = "cuda"

    @cached_property
    def kernel(self) -> Any:
        """The compiled kernel; MissingPackageError without CuPy or a GPU."""
        try:
            if fits(self.plan):
                return DenseKernel(dense_plan(self.plan), self.dtype, self.device)
            layers, pooling, readout = image_plan(self.plan)
            return ImagesKernel(layers, pooling, readout, self.dtype, self.device)
        except DeviceError as error:
            raise MissingPackageError(str(error)) from error
        except PlanError as error:
            raise UnsupportedError(str(error)) from error

    def tile(self, x1: Any, x2: Any = None, *, get: Get = KINDS) -> Gram:
        """The kernel between two batches, on the host."""
        names = wanted(get)
        one, two = self._prepared(x1), None if x2 is None else self._prepared(x2)
        found = self.kernel(one, two, get=names)
        parts = {
            k: np.asarray(v.get() if hasattr(v, "get") else v, self.dtype) for k, v in found.items()
        }
        return Gram(parts.get("nngp"), parts.get("ntk"), x2 is None)

    def _prepared(self, x: Any) -> Any:
        features = self.plan.extract[0](np.asarray(x))  # (n, sites, channels)
        if fits(self.plan):
            return features.reshape(len(features), -1)
        grid = self.plan.nodes[0].sites
        return np.moveaxis(features.reshape(len(features), *grid, -1), -1, 1)


def make_backend(kernel: Any, sample_shape: tuple[int, ...], dtype: Any) -> DeviceBackend:
    """The maker of ``device="cuda"``.

    Raises
    ------
    UnsupportedError
        If the kernel is no InfiniteKernel, or its plan has no CUDA form.
    MissingPackageError
        Without CuPy, a driver or a GPU.
    """
    from tangency.theory.kernels.infinite import InfiniteKernel

    if not isinstance(kernel, InfiniteKernel):
        raise UnsupportedError("device='cuda' takes kernels of infinite_kernel; use device='cpu'")
    backend = DeviceBackend(kernel.plan(sample_shape), dtype)
    _ = backend.kernel  # compiled now, so that what is missing is said at once
    return backend


def dense_plan(plan: Plan) -> tuple[plans.Layer, ...]:
    """A plan on vectors as layers of :mod:`tangency.gpu.plans`.

    Raises
    ------
    UnsupportedError
        For a step or a dual that has no CUDA form.
    """
    found: list[plans.Layer] = []
    for node in plan.nodes[1:]:
        step, source = node.step, node.inputs[0] - 1
        if isinstance(step, Affine):
            found.append(
                plans.Dense(source, step.weight, step.bias, step.weight_gain, step.bias_gain)
            )
        elif isinstance(step, Activate):
            found.append(_activation(source, step.dual))
        elif isinstance(step, Mix):
            found.append(plans.Sum(tuple(k - 1 for k in node.inputs), tuple(step.weights)))
        elif isinstance(step, Norm):
            found.append(plans.Norm(source, step.eps))
        elif isinstance(step, Scale):
            found.append(plans.Scale(source, step.square))
        else:
            raise UnsupportedError(f"{type(step).__name__} has no CUDA form on vectors")
    return tuple(found)


def _activation(source: int, dual: DualFunction) -> plans.Layer:
    if isinstance(dual, Rectified) and dual.n <= 2:
        return plans.Activation(source, "rectified", (dual.a, dual.b, dual.n))
    if isinstance(dual, Erf):
        return plans.Activation(source, "erf", (dual.a, dual.b, dual.c))
    if isinstance(dual, Gelu):
        return plans.Activation(source, "gelu", ())
    if isinstance(dual, Wave):
        return plans.Activation(source, "sine", (dual.a, dual.b, dual.c))
    if isinstance(dual, Exponential):
        return plans.Activation(source, "exp", (dual.a, dual.b))
    record = dual.record
    if record is None or record.kinks or record.jumps or record.staircase:
        raise UnsupportedError(
            f"{record or type(dual).__name__} has no CUDA form: rectified powers, erf, GELU, "
            "sines, exponentials and smooth functions have one; use device='cpu'"
        )
    value = record.value
    return plans.Series(source, lambda x: np.asarray(value(np, x), dtype=np.float64), _TERMS)


def image_plan(
    plan: Plan,
) -> tuple[tuple[ImageLayer, ...], str, tuple[float, float, float, float]]:
    """Convolutional layers, pooling and readout of a chain of 3 x 3 convolutions of stride 1.

    Raises
    ------
    UnsupportedError
        If the plan is another: the message says what is taken.
    """
    steps, grid = plan.chain, plan.nodes[0].sites
    if steps is None or len(grid) != 2 or len(steps) < 3 or len(steps) % 2:
        raise UnsupportedError(_TAKEN)
    *body, pool, dense = steps
    if not isinstance(dense, Affine) or dense.table is not None:
        raise UnsupportedError(_TAKEN)
    sites, window, layers = math.prod(grid), _window(*grid), []
    for conv, act in zip(body[::2], body[1::2], strict=True):
        if not (
            isinstance(conv, Affine)
            and conv.table is not None
            and np.array_equal(np.sort(conv.table, axis=1), window)
            and isinstance(act, Activate)
            and isinstance(act.dual, Rectified)
            and act.dual.n == 1
        ):
            raise UnsupportedError(_TAKEN)
        layers.append(
            ImageLayer(
                conv.weight, conv.bias, conv.weight_gain, conv.bias_gain, act.dual.a, act.dual.b
            )
        )
    if isinstance(pool, Flatten):
        pooling = "flatten"
    elif isinstance(pool, Linear) and np.allclose(pool.matrix, 1.0 / sites, rtol=1e-15):
        pooling = "global"
    else:
        raise UnsupportedError(_TAKEN)
    return tuple(layers), pooling, (dense.weight, dense.bias, dense.weight_gain, dense.bias_gain)


_TAKEN = (
    "device='cuda' takes images through 3 x 3 convolutions (stride 1, zero padding), each with a "
    "piecewise linear activation behind it, then global average pooling or flattening, then one "
    "dense layer; use device='cpu' for others"
)


def _window(height: int, width: int) -> Any:
    """The sorted neighbours of every site, -1 outside, as of a 3 x 3 window with zero padding."""
    rows, columns = np.divmod(np.arange(height * width), width)
    steps = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
    i, j = rows[:, None] + steps[:, 0], columns[:, None] + steps[:, 1]
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    return np.sort(np.where(inside, i * width + j, -1), axis=1)
