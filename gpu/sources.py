"""Programs put together: the text of a kernel from its parts and from a layer plan.

The same text goes to nvcc, to NVRTC (through CuPy) and to g++: see ``kernels/lanes.cuh``.
"""

from __future__ import annotations

import math
from importlib.resources import files
from typing import Any

import numpy as np

from tangency.gpu.errors import PlanError
from tangency.gpu.plans import Activation, Dense, Layer, Series, Sum, checked
from tangency.gpu.rows import biased, slots_of

__all__ = ["dense_source", "images_source", "real_name", "sites_source", "stage_source"]


def real_name(dtype: Any) -> str:
    """``float`` or ``double``; PlanError for another type."""
    names = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
    name = names.get(np.dtype(dtype))
    if name is None:
        raise PlanError(f"dtype {dtype}: it is float32 or float64")
    return name


def part(name: str) -> str:
    """The text of one source file."""
    text = files("tangency.gpu.kernels").joinpath(name).read_text(encoding="utf-8")
    return text.replace("#pragma once\n", "")


def images_source(height: int, width: int, dtype: Any = np.float32) -> str:
    """The program of the convolutional kernel for images of one size.

    Raises
    ------
    PlanError
        If the images are wider than a warp or higher than the registers hold.
    """
    if not (1 <= width <= 32 and 1 <= height <= 32):
        raise PlanError(f"images of {height} x {width}: at most 32 x 32 sites fit one warp")
    head = f"#define HEIGHT {height}\n#define WIDTH {width}\n#define REAL {real_name(dtype)}\n"
    return head + part("lanes.cuh") + part("angle.cuh") + part("images.cu")


def stage_source(
    height: int, width: int, dtype: Any = np.float32, *, from_memory: bool, to_memory: bool
) -> str:
    """The program of one stage: the convolutional kernel between states in memory.

    Parameters
    ----------
    height, width : int
    dtype : float32 or float64
    from_memory, to_memory : bool
        Whether it begins with a state in place of images, and ends with one in place of sums.
    """
    head = "#define STAGE\n"
    head += "#define FROM_MEMORY\n" if from_memory else ""
    head += "#define TO_MEMORY\n" if to_memory else ""
    return head + images_source(height, width, dtype) + part("stages.cu")


def sites_source(dtype: Any = np.float32, families: int = 0) -> str:
    """The program of the steps on sites.

    Parameters
    ----------
    dtype : float32 or float64
    families : int
        A bit for each family of ``kernels/sites.cu`` that the plan uses: others cost no register.
    """
    head = f"#define REAL {real_name(dtype)}\n#define FAMILIES {families}\n"
    names = ("lanes.cuh", "angle.cuh", "duals.cuh", "sites_task.cuh", "sites.cu")
    return head + "".join(part(name) for name in names)


def dense_source(plan: tuple[Layer, ...], dtype: Any = np.float32) -> str:
    """The program of a fully connected plan."""
    plan = checked(plan)
    head = f"#define REAL {real_name(dtype)}\n"
    body = part("dense.cu").replace("@RECURSION@", recursion(plan))
    return head + part("lanes.cuh") + part("angle.cuh") + part("duals.cuh") + body


def recursion(plan: tuple[Layer, ...]) -> str:
    """The layers as straight-line code on ``delta`` and ``tau``."""
    slots = slots_of(plan)
    lines = [
        "DEVICE void recursion(REAL& delta, REAL& tau, const sample& one, const sample& two) {",
        "    const REAL d_in = delta, t_in = tau;",
    ]
    for i, layer in enumerate(plan):
        lines.append(f"    REAL d{i}, t{i};")
        lines += ["    {", *(f"        {line}" for line in _layer(i, layer, slots)), "    }"]
    last = len(plan) - 1
    return "\n".join([*lines, f"    delta = d{last};", f"    tau = t{last};", "}"])


def _names(k: int) -> tuple[str, str]:
    return ("d_in", "t_in") if k < 0 else (f"d{k}", f"t{k}")


def _layer(i: int, layer: Layer, slots: Any) -> list[str]:
    if isinstance(layer, Sum):
        lines = [f"d{i} = 0; t{i} = 0;"]
        for n, k in enumerate(layer.sources):
            d, t = _names(k)
            at = slots.shares[i] + n
            lines += [
                f"const REAL a{n} = one.share({at}), b{n} = two.share({at});",
                f"d{i} += (REAL)0.5 * (a{n} - b{n}) * (a{n} - b{n}) + a{n} * b{n} * {d};",
                f"t{i} += a{n} * b{n} * {t};",
            ]
        return lines
    d, t = _names(layer.source)
    if isinstance(layer, Dense):
        if not biased(layer):
            gain = _number(layer.weight_gain / layer.weight)
            return [f"d{i} = {d}; t{i} = {t} + {gain} * (1 - {d});"]
        s = slots.shares[i]
        return [
            *(
                f"const REAL {x}1 = one.share({s + n}), {x}2 = two.share({s + n});"
                for n, x in enumerate("abgh")
            ),
            "const REAL u = a1 - a2, v = b1 - b2, share = a1 * a2;",
            f"t{i} = g1 * g2 * (1 - {d}) + h1 * h2 + share * {t};",
            f"d{i} = (REAL)0.5 * (u * u + v * v) + share * {d};",
        ]
    if isinstance(layer, Activation):
        return _activation(i, layer, d, t, slots.wide[i])
    if isinstance(layer, Series):
        return _series(i, layer, d, t, slots.wide[i])
    return [f"d{i} = {d}; t{i} = {t};"]  # norms and factors are known to the samples alone


def _activation(i: int, layer: Activation, d: str, t: str, slot: int) -> list[str]:
    if layer.kink is not None:
        kink = _number(layer.kink)
        return [
            "REAL theta, gap;",
            f"angle_and_gap({d}, theta, gap);",
            f"t{i} = {t} * (1 - {kink} * theta);",
            f"d{i} = {d} - {kink} * gap;",
        ]
    p = layer.parameters
    lines = [f"const double q1 = one.number({slot}), q2 = two.number({slot}), far = {d};"]
    if layer.family == "rectified":
        lines += ["double theta, gap;", "angle_and_gap(far, theta, gap);"]
        name, rest = ("step" if p[2] == 0 else "square"), ["theta", *(f"{v!r}" for v in p[:2])]
    else:
        name = layer.family
        values = (*p[:2], math.cos(2.0 * p[2])) if name == "sine" else p
        rest = [repr(float(v)) for v in values]
    call = ", ".join(["q1", "q2", "far", *rest])
    return [
        *lines,
        f"const dual k = dual_{name}({call});",
        f"const double inverse = one.number({slot + 1}) * two.number({slot + 1});",
        f"d{i} = (REAL)lesser(greater(1 - k.value * inverse, 0.0), 2.0);",
        f"t{i} = {t} * (REAL)(sqrt(q1) * sqrt(q2) * k.slope * inverse);",
    ]


def _series(i: int, layer: Series, d: str, t: str, slot: int) -> list[str]:
    """Horner's rule for the sum, its derivative and its quotient by ``1 - cos``; then far terms."""
    terms = layer.terms - len(layer.far)
    far = [
        line
        for place, order in enumerate(layer.far, slot + terms)
        for line in (
            "{",
            f"    const double a = one.number({place}), b = two.number({place});",
            "    radial += 0.5 * (a - b) * (a - b);",
            "    if (a * b != 0) {",
            f"        const far_term term = dual_far(a * b, {order}.0, {layer.parity}.0, far);",
            "        slope += term.slope;",
            "        drop += term.drop;",
            "    }",
            "}",
        )
    ]
    return [
        f"const double far = {d}, c = 1 - far;",
        "double value = 0, slope = 0, quotient = 0, behind = 0, radial = 0, drop = 0;",
        f"KEEP_LOOP for (int l = {terms - 1}; l >= 0; --l) {{",
        f"    const double a = one.number({slot} + l), b = two.number({slot} + l), p = a * b;",
        "    slope = slope * c + value;",
        "    value = value * c + p;",
        "    quotient = quotient * c + behind;",
        "    behind += p;",
        "    radial += 0.5 * (a - b) * (a - b);",
        "}",
        *far,
        f"d{i} = (REAL)lesser(greater(radial + quotient * far + drop, 0.0), 2.0);",
        f"t{i} = {t} * (REAL)slope;",
    ]


def _number(value: float) -> str:
    return f"(REAL){value!r}"
