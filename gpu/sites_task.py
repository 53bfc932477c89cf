"""The arguments of the kernels on sites as structures of C, for the host and for the device."""

from __future__ import annotations

import ctypes

__all__ = ["SitesTask", "StageTask"]

_POINTER, _LONG, _INT, _DOUBLE = (
    ctypes.c_void_p, ctypes.c_longlong, ctypes.c_int, ctypes.c_double
)  # fmt: skip


class SitesTask(ctypes.Structure):
    """``sites_task`` of ``kernels/sites_task.cuh``, field by field."""

    _fields_ = (
        *((name, _POINTER) for name in ("s_one", "s_two", "t_one", "t_two", "s_out", "t_out")),
        ("pairs", _POINTER),
        *((name, _LONG) for name in ("count", "entries_one", "entries_two", "entries_out")),
        *((name, _INT) for name in ("sites_in", "sites_out", "full_one", "full_two", "full_out")),
        ("symmetric", _INT),
        *((name, _DOUBLE) for name in ("weight", "bias", "weight_gain", "bias_gain", "keep")),
        ("table", _POINTER),
        *((name, _INT) for name in ("taps", "channels")),
        *((name, _POINTER) for name in ("input_one", "input_two", "factors_one", "factors_two")),
        *((name, _POINTER) for name in ("starts", "places", "shares")),
        *((name, _LONG) for name in ("from", "to", "inner")),
        *((name, _INT) for name in ("lane_bits", "family")),
        *((name, _DOUBLE) for name in ("a", "b", "c")),
        *((name, _POINTER) for name in ("roots_one", "roots_two", "rows_one", "rows_two")),
        *((name, _LONG) for name in ("stride_one", "stride_two")),
        *((name, _INT) for name in ("terms", "far")),
    )


class StageTask(ctypes.Structure):
    """``stage_task`` of ``kernels/stages.cu``, field by field."""

    _fields_ = (
        *((name, _POINTER) for name in ("images_one", "images_two", "s_in", "t_in")),
        *((name, _POINTER) for name in ("roots_one", "roots_two", "layers", "pairs")),
        *((name, _POINTER) for name in ("s_out", "t_out", "sums")),
        ("count", _LONG),
        ("first_share", _DOUBLE),
        *((name, _INT) for name in ("channels", "depth", "symmetric")),
    )
