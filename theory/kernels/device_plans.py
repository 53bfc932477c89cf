"""Plans of infinite kernels in the plain form that :mod:`tangency.gpu` takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tangency.gpu import plans, sites_plan
from tangency.gpu.images_plan import ImageLayer
from tangency.models.errors import UnsupportedError
from tangency.theory.kernels.duals_base import DualFunction
from tangency.theory.kernels.duals_exponential import Exponential, Wave
from tangency.theory.kernels.duals_gaussian_cdf import Erf, Gelu
from tangency.theory.kernels.duals_hermite import Hermite
from tangency.theory.kernels.duals_octaves import FAR, MOST
from tangency.theory.kernels.duals_rectified import Rectified
from tangency.theory.kernels.plan import (
    Activate,
    Affine,
    BatchNorm,
    Dropout,
    Flatten,
    Gather,
    Linear,
    Mix,
    Norm,
    Plan,
    PlanNode,
    Product,
    Scale,
    Source,
)

__all__ = ["dense_layers", "image_layers", "site_layers"]

Array = np.ndarray[Any, Any]
Readout = tuple[float, float, float, float]

_TERMS = 128  # of the Hermite series of a function without tables of its own


def dense_layers(plan: Plan) -> tuple[plans.Layer, ...]:
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


def image_layers(plan: Plan) -> tuple[tuple[ImageLayer, ...], str, Readout] | None:
    """Layers, pooling and readout of a chain that goes through registers from end to end.

    That is one of 3 x 3 convolutions of stride 1 with zero padding on 32 x 32 sites at most, each
    with a piecewise linear activation behind it, a global mean or a flattening and one dense layer;
    None for another.
    """
    steps, grid = plan.chain, plan.nodes[0].sites
    if steps is None or len(grid) != 2 or max(grid) > 32 or len(steps) < 4 or len(steps) % 2:
        return None
    *body, pool, dense = steps
    window, layers = np.sort(sites_plan.window_table((grid[0], grid[1])), axis=1), []
    for conv, act in zip(body[::2], body[1::2], strict=True):
        if not (
            isinstance(conv, Affine)
            and conv.table is not None
            and conv.weight > 0.0
            and np.array_equal(np.sort(conv.table, axis=1), window)
            and isinstance(act, Activate)
            and isinstance(act.dual, Rectified)
            and act.dual.n == 1
            and (act.dual.a or act.dual.b)
        ):
            return None
        gains = conv.weight_gain, conv.bias_gain
        layers.append(ImageLayer(conv.weight, conv.bias, *gains, act.dual.a, act.dual.b))
    if isinstance(pool, Flatten):
        pooling = "flatten"
    elif isinstance(pool, Linear) and np.allclose(pool.matrix, 1.0 / math.prod(grid), rtol=1e-15):
        pooling = "global"
    else:
        return None
    if not isinstance(dense, Affine) or dense.table is not None or len(plan.nodes[-2].sites):
        return None
    readout = dense.weight, dense.bias, dense.weight_gain, dense.bias_gain
    return tuple(layers), pooling, readout


def site_layers(plan: Plan) -> tuple[tuple[sites_plan.SiteLayer, ...], int]:
    """A plan as layers of :mod:`tangency.gpu.sites_plan`, and the number of sites of its input.

    Raises
    ------
    UnsupportedError
        For a step or a dual that has no CUDA form: the message says what is taken.
    """
    found: list[sites_plan.SiteLayer] = []
    place: dict[int, int] = {}
    for i, node in enumerate(plan.nodes):
        before = tuple(place[k] for k in node.inputs)
        if isinstance(node.step, Source):
            if i:
                raise UnsupportedError(
                    "a network that takes its input in two ways has no CUDA form: one input goes "
                    "through the first layers with random weights; use device='cpu'"
                )
            place[i] = -1
        elif isinstance(node.step, Gather) and np.array_equal(
            node.step.table, np.arange(math.prod(plan.nodes[node.inputs[0]].sites))
        ):
            place[i] = before[0]  # the same sites under another shape
        else:
            found.append(_site_layer(node, before))
            place[i] = len(found) - 1
    return tuple(found), math.prod(plan.nodes[0].sites)


def _site_layer(node: PlanNode, before: tuple[int, ...]) -> sites_plan.SiteLayer:
    step, source = node.step, before[0]
    if isinstance(step, Affine):
        numbers = step.weight, step.bias, step.weight_gain, step.bias_gain
        if step.table is None:
            return plans.Dense(source, *numbers)
        grid = (node.sites[0], node.sites[1]) if len(node.sites) == 2 else None
        return sites_plan.Convolution(source, step.table, *numbers, grid=grid)
    if isinstance(step, Activate):
        activation = _activation(source, step.dual)
        assert isinstance(activation, plans.Activation | plans.Series)
        return activation
    if isinstance(step, Mix):
        return plans.Sum(before, tuple(step.weights))
    if isinstance(step, Product):
        return sites_plan.Product(before)
    if isinstance(step, Linear):
        return sites_plan.Pooling(source, step.matrix)
    if isinstance(step, Flatten):
        return sites_plan.Flattening(source)
    if isinstance(step, Gather):  # a window of one tap, whose weight is not random
        table = np.asarray(step.table, dtype=int)[:, None]
        return sites_plan.Convolution(source, table, 1.0, 0.0, 0.0, 0.0)
    if isinstance(step, Norm):
        gains = float(step.gain), float(step.shift)
        return sites_plan.SiteNorm(source, step.eps, step.groups, *gains)
    if isinstance(step, Dropout):
        return sites_plan.Factor(source, keep=step.keep)
    if isinstance(step, Scale):
        return sites_plan.Factor(source, step.square)
    if isinstance(step, BatchNorm):
        return sites_plan.Factor(source, step.square, float(step.gain), float(step.shift))
    raise UnsupportedError(
        f"{type(step).__name__} has no CUDA form: dense and convolutional layers, pooling, "
        "flattening, activations, norms, dropout, sums, products and concatenations have one; use "
        "device='cpu'"
    )


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
    if isinstance(dual, Hermite):
        parity = {"even": 1, "odd": -1}.get(str(record.parity), 0)
        return plans.Series(
            source,
            lambda q: _tabled(dual, q),
            MOST + 1 + len(FAR),
            True,
            dual.slope_variance,
            FAR,
            parity,
        )
    value = record.value
    return plans.Series(
        source,
        lambda x: np.asarray(value(np, x), dtype=np.float64),
        _TERMS,
        slopes=dual.slope_variance,
    )


def _tabled(dual: Hermite, q: Array) -> Array:
    """Coefficients from the dual's own tables, those of far orders last.

    Where the tables hold a singular part apart, it is put back, and what the series cuts off is
    moved to the far orders so that the sum and the slope at cos = 1 stay.
    """
    table = dual._prepare(np.asarray(q, dtype=np.float64))
    rows, singular, extra = np.split(table, [MOST + 1, 2 * (MOST + 1)])
    if not dual.kinks:
        return np.concatenate([rows, np.sqrt(np.maximum(extra[[5, 7]], 0.0))])
    rows = rows + singular
    tail = rows[MOST] ** 2
    steep = q * dual.slope_variance(q) - np.arange(MOST) @ rows[:MOST] ** 2
    farther = np.clip((steep - FAR[0] * tail) / (FAR[1] - FAR[0]), 0.0, tail)
    rest = tail - farther
    far = np.clip((steep - FAR[1] * farther - MOST * rest) / (FAR[0] - MOST), 0.0, rest)
    rows[MOST] = np.sqrt(rest - far)
    return np.concatenate([rows, np.sqrt([far, farther])])
