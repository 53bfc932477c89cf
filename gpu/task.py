"""The arguments of the dense kernel as a structure of C, for the host and for the device."""

from __future__ import annotations

import ctypes

__all__ = ["DenseTask"]


class DenseTask(ctypes.Structure):
    """``dense_task`` of ``kernels/dense.cu``, field by field."""

    _fields_ = (
        ("products", ctypes.c_void_p),
        ("rows", ctypes.c_longlong),
        ("columns", ctypes.c_longlong),
        ("lead", ctypes.c_longlong),
        ("shares_one", ctypes.c_void_p),
        ("shares_two", ctypes.c_void_p),
        ("wide_one", ctypes.c_void_p),
        ("wide_two", ctypes.c_void_p),
        ("stride_one", ctypes.c_longlong),
        ("stride_two", ctypes.c_longlong),
        ("unit_one", ctypes.c_void_p),
        ("unit_two", ctypes.c_void_p),
        ("features", ctypes.c_longlong),
        ("near", ctypes.c_double),
        ("ends_one", ctypes.c_void_p),
        ("ends_two", ctypes.c_void_p),
        ("tangents", ctypes.c_void_p),
        ("row_start", ctypes.c_longlong),
        ("column_start", ctypes.c_longlong),
        ("nngp", ctypes.c_void_p),
        ("ntk", ctypes.c_void_p),
        ("lead_out", ctypes.c_longlong),
        ("mirror_nngp", ctypes.c_void_p),
        ("mirror_ntk", ctypes.c_void_p),
        ("lead_mirror", ctypes.c_longlong),
    )
