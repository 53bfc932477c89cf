r"""MaxMin written with ReLUs: the same function, and very different bounds.

With :math:`\varphi = [\max(a, b); \min(a, b)] = Dx + G\,\mathrm{relu}(Hx)`, x = [a; b], the bound
of LipSDP on a single MaxMin, which is 1-Lipschitz, depends on how it is written:

==============  ========================================================  =========
form            [max; min]                                                bound
==============  ========================================================  =========
one_relu        [b + r(a-b); a - r(a-b)]                                  1
two_relu        [b + r(a-b); a - r'(a-b)], two neurons                    sqrt 2
skip_free       [r(a-b) + r(b) - r(-b); r(a) - r(-a) - r(a-b)], D = 0     2
skip_free_max   r(a-b) + r(b) - r(-b) alone, D = 0                        2
==============  ========================================================  =========

The comparison of [1]_ of GroupSort constraints with LipSDP on a residual ReLU network is thus a
comparison with one of these forms, which must be named.

References
----------
.. [1] P. Pauli et al., ICLR 2024, arXiv 2401.14033, section 5.
"""

from dataclasses import dataclass

import numpy as np

from tangency.models.errors import InputError
from tangency.verify.certificate.matrix import Array

__all__ = ["ReluForm", "maxmin_as_relu"]


@dataclass(frozen=True, eq=False)
class ReluForm:
    """The map x -> D x + G relu(H x) of two entries.

    Parameters
    ----------
    skip : (p, 2) array
        D.
    inner : (m, 2) array
        H.
    outer : (p, m) array
        G.
    """

    skip: Array
    inner: Array
    outer: Array

    def __call__(self, x: Array) -> Array:
        """Return the value at an array (..., 2)."""
        kinks: Array = np.maximum(x @ self.inner.T, 0.0)
        return np.asarray(x @ self.skip.T + kinks @ self.outer.T)

    def tiled(self, groups: int) -> "ReluForm":
        """Return the form of a layer of adjacent pairs."""

        def tile(part: Array) -> Array:
            return np.asarray(np.kron(np.eye(groups), part), dtype=np.float64)

        return ReluForm(tile(self.skip), tile(self.inner), tile(self.outer))


def maxmin_as_relu(form: str = "one_relu") -> ReluForm:
    """Return MaxMin of one pair, written with ReLUs.

    Parameters
    ----------
    form : {"one_relu", "two_relu", "skip_free", "skip_free_max"}
        As in the table of this module.

    Returns
    -------
    ReluForm

    Raises
    ------
    InputError
        If the form is unknown.

    Examples
    --------
    >>> maxmin_as_relu("skip_free")(np.array([1.0, 3.0]))
    array([3., 1.])
    """
    gap, a, b = (1.0, -1.0), (1.0, 0.0), (0.0, 1.0)
    minus = {"a": (-1.0, 0.0), "b": (0.0, -1.0)}
    swap = [b, a]
    forms = {
        "one_relu": (swap, [gap], [[1], [-1]]),
        "two_relu": (swap, [gap, gap], [[1, 0], [0, -1]]),
        "skip_free": (
            np.zeros((2, 2)),
            [gap, a, minus["a"], b, minus["b"]],
            [[1, 0, 0, 1, -1], [-1, 1, -1, 0, 0]],
        ),
        "skip_free_max": (np.zeros((1, 2)), [gap, b, minus["b"]], [[1, 1, -1]]),
    }
    if form not in forms:
        raise InputError(f"unknown form {form!r}: give one of {', '.join(forms)}")
    skip, inner, outer = (np.array(part, dtype=np.float64) for part in forms[form])
    return ReluForm(skip, inner, outer)
