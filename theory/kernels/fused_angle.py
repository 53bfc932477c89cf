r"""The angle between two directions from ``delta = 1 - cos``, and what a kink makes of it.

With ``d = min(delta, 2 - delta)`` the angle is ``theta = sqrt(2 d) P(d)`` and
``sin theta - theta cos theta = sqrt(2 d) d Q(d)``, and both P and Q are analytic on [0, 1]; beyond
a right angle the two follow from ``pi - theta``. Polynomials in ``x = 2 d - 1`` therefore give
both to a relative error that does not grow towards ``delta = 0``: 2e-8 (degrees 7 and 6) in single
precision, 2e-17 (degrees 18 and 17) in double, each before rounding. No libm function is called,
so that a loop over entries is vectorised.

Numba is imported here: import this module where a kernel is computed, not before.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from tangency.theory.kernels.fused_numba import chosen

__all__ = ["angle_and_gap"]

_PI = math.pi


def angle_and_gap(delta: Any) -> tuple[Any, Any]:
    """``(theta, sin theta - theta cos theta)`` at ``delta`` in [0, 2]; compiled code only."""
    raise NotImplementedError("only compiled code calls this function")


def _angle32(delta: Any) -> Any:
    far = delta > np.float32(1.0)
    near = np.float32(2.0) - delta if far else delta
    x = near + near - np.float32(1.0)
    p = np.float32(6.693968704e-6)
    p = p * x + np.float32(2.486407567e-5)
    p = p * x + np.float32(8.238040211e-5)
    p = p * x + np.float32(0.0003385867681)
    p = p * x + np.float32(0.001519798933)
    p = p * x + np.float32(0.007799363946)
    p = p * x + np.float32(0.05375148951)
    p = p * x + np.float32(1.047197537)
    q = np.float32(2.590567082e-6)
    q = q * x + np.float32(1.164988794e-5)
    q = q * x + np.float32(5.21945882e-5)
    q = q * x + np.float32(0.0002906638601)
    q = q * x + np.float32(0.00197867989)
    q = q * x + np.float32(0.01991773334)
    q = q * x + np.float32(0.6848532564)
    root = np.sqrt(near + near)
    theta = root * p
    gap = root * near * q
    if far:
        theta = np.float32(_PI) - theta
        gap = gap + np.float32(_PI) * (np.float32(1.0) - near)
    return theta, gap


def _angle64(delta: Any) -> Any:
    far = delta > 1.0
    near = 2.0 - delta if far else delta
    x = near + near - 1.0
    p = 1.2940879049185151e-11
    p = p * x + 4.2076793539896452e-11
    p = p * x + 7.597606552881002e-11
    p = p * x + 2.5144283316259467e-10
    p = p * x + 9.6069862577785243e-10
    p = p * x + 3.2125465398641488e-9
    p = p * x + 1.0699801762268182e-8
    p = p * x + 3.646596273974707e-8
    p = p * x + 1.2584618618630428e-7
    p = p * x + 4.4020759045131911e-7
    p = p * x + 1.5669625983394027e-6
    p = p * x + 5.7017810750766653e-6
    p = p * x + 2.1345552606067018e-5
    p = p * x + 8.3023178191402653e-5
    p = p * x + 0.00034086372341636921
    p = p * x + 0.001519668539582746
    p = p * x + 0.0077989022389737349
    p = p * x + 0.053751493591327181
    p = p * x + 1.0471975511965977
    q = 1.6539899795965228e-12
    q = q * x + 5.7141555271451239e-12
    q = q * x + 1.2468194494137464e-11
    q = q * x + 4.4343667241030218e-11
    q = q * x + 1.7359452479010135e-10
    q = q * x + 6.3102662534359682e-10
    q = q * x + 2.3166349964699629e-9
    q = q * x + 8.7239407121583924e-9
    q = q * x + 3.3613030490328909e-8
    q = q * x + 1.331006417827932e-7
    q = q * x + 5.4552759511654588e-7
    q = q * x + 2.3369143732289924e-6
    q = q * x + 1.0615644724132273e-5
    q = q * x + 5.2324636347549987e-5
    q = q * x + 0.00029119333206055662
    q = q * x + 0.0019786634979398184
    q = q * x + 0.019917666638178426
    q = q * x + 0.68485325637227955
    root = np.sqrt(near + near)
    theta = root * p
    gap = root * near * q
    if far:
        theta = _PI - theta
        gap = gap + _PI * (1.0 - near)
    return theta, gap


@chosen(angle_and_gap)
def _choose_both(delta: Any) -> Any:
    return _angle32 if delta == types.float32 else _angle64
