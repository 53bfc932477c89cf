"""Resize and Upsample: interpolation of the axes, each by its own fixed matrix."""

from __future__ import annotations

import numpy as np

from tangency.models.builder import Value
from tangency.models.importers.onnx_ops.context import Call, reads
from tangency.models.importers.onnx_ops.shapes import pick
from tangency.models.ops import Upsample

__all__: list[str] = []

PLACES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners")


@reads("Resize", "Upsample")
def resize(call: Call) -> Value:
    x, b = call.var(0), call.builder
    rank = len(x.shape)
    mode, place, rounding = _modes(call)
    new, scales = _sizes(call, rank, x.shape)
    call.bounded(new)
    changed = [i for i in range(rank) if new[i] != x.shape[i]]
    if place == "align_corners" and any(
        abs(x.shape[i] * scales[i] - new[i]) > 1e-3 for i in changed
    ):
        call.refuse(f"align_corners with scales {scales} that give no whole size for {x.shape}")
    if not changed:
        return x
    spots = {i: _places(place, x.shape[i], new[i], scales[i]) for i in changed}
    if mode == "nearest":
        index = {i: _nearest(call, rounding, spots[i], x.shape[i]) for i in changed}
        matrices = {i: np.eye(x.shape[i])[index[i]] for i in changed if new[i] * x.shape[i] < 1e6}
    else:
        matrices = {i: _linear(call, spots[i], x.shape[i]) for i in changed}
    first = min(changed)
    for corners in (False, True):
        op = Upsample(new[first:], mode, corners)
        same = (
            first > 0
            and len(matrices) == len(changed)
            and all(
                np.allclose(op.matrix(x.shape[i], new[i]), m, rtol=0, atol=1e-12)
                for i, m in matrices.items()
            )
        )
        if same:
            node = b.sample(x)
            lead = len(b.nodes[node].shape) == rank - 1 or x.shape[0] == new[0]
            if lead:
                return b.emit(op, [node], view=new)
    for i in changed:
        x = (
            pick(call, x, i, index[i])
            if mode == "nearest"
            else call.along(x, i, matrices[i], "interpolation")
        )
    return x


def _modes(call: Call) -> tuple[str, str, str]:
    mode = call.text("mode", "nearest")
    old = call.op == "Upsample" or call.opset < 11
    place = "asymmetric" if old else call.text("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if old else call.text("nearest_mode", "round_prefer_floor")
    if mode not in ("nearest", "linear"):
        call.refuse(f"mode {mode!r}: nearest and linear are supported")
    if place not in PLACES:
        call.refuse(f"coordinate_transformation_mode {place!r}: supported are {', '.join(PLACES)}")
    if call.attr("antialias", 0) or call.attr("exclude_outside", 0):
        call.refuse("antialias and exclude_outside are not supported")
    if call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        call.refuse("keep_aspect_ratio_policy: only 'stretch' is supported")
    return mode, place, rounding


def _sizes(
    call: Call, rank: int, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """New size and scale of every axis."""
    first = 1 if call.op == "Upsample" or call.opset < 11 else 2
    axes = [call.axis(a, rank) for a in call.attr("axes") or range(rank)]
    sizes = call.integers(3, "sizes") if call.op == "Resize" else None
    if sizes:
        given = [s / shape[a] for a, s in zip(axes, sizes, strict=True)]
    elif "scales" in call.attributes:
        given = [float(s) for s in call.attributes["scales"]]
    else:
        given = [float(s) for s in call.const(first, "scales").array.reshape(-1)]
    if len(given) != len(axes) or not all(0 < s < 1e6 for s in given):
        call.wrong(f"scales {given} do not fit the axes {axes} of {shape}")
    new, scales = list(shape), [1.0] * rank
    for i, (axis, scale) in enumerate(zip(axes, given, strict=True)):
        scales[axis] = scale
        new[axis] = sizes[i] if sizes else int(np.floor(shape[axis] * scale))
    return tuple(new), tuple(scales)


def _places(place: str, old: int, new: int, scale: float) -> np.ndarray:
    """Where on the old axis each entry of the new one lies."""
    i = np.arange(new, dtype=float)
    if place == "align_corners":
        return i * (old - 1) / (new - 1) if new > 1 else np.zeros(new)
    if place == "asymmetric":
        return i / scale
    if place == "pytorch_half_pixel" and new == 1:
        return np.zeros(1)
    where = (i + 0.5) / scale - 0.5
    if place == "half_pixel_symmetric":
        where += old / 2 * (1 - new / (old * scale))
    return where


def _nearest(call: Call, rounding: str, where: np.ndarray, old: int) -> np.ndarray:
    if rounding not in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        call.wrong(f"nearest_mode is {rounding!r}")
    if rounding.startswith("round"):
        low = rounding == "round_prefer_floor"
        where = np.ceil(where - 0.5) if low else np.floor(where + 0.5)
    else:
        where = np.floor(where) if rounding == "floor" else np.ceil(where)
    return np.asarray(np.clip(where, 0, old - 1), np.int64)


def _linear(call: Call, where: np.ndarray, old: int) -> np.ndarray:
    call.bounded((len(where), old))
    where = np.clip(where, 0, old - 1)
    low = np.floor(where).astype(int)
    part, rows = where - low, np.arange(len(where))
    matrix = np.zeros((len(where), old))
    np.add.at(matrix, (rows, low), 1 - part)
    np.add.at(matrix, (rows, np.minimum(low + 1, old - 1)), part)
    return matrix
