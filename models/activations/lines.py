r"""Lines around an activation on boxes: any slope is allowed, the offset follows from it.

``a_l x + b_l <= phi(x) <= a_u x + b_u`` on ``[l, u]`` holds for any slopes with

.. math:: b_l = \min_x \phi(x) - a_l x, \qquad b_u = \max_x \phi(x) - a_u x .

So a search may move the slopes freely, and a proof needs the offsets only. Three functions, all
element by element on broadcast arrays:

- :func:`default_slopes`, of least area;
- :func:`intercepts`, offsets in the floating point of NumPy or JAX, differentiable;
- :func:`proved_intercepts`, offsets that hold in real arithmetic (NumPy float64).

References
----------
Zhang et al., arXiv 1811.00866; Xu et al., "Fast and Complete", arXiv 2011.13824 (slopes as
variables); Shi et al., arXiv 2405.21063.
"""

from typing import TYPE_CHECKING, Any

from tangency.models.activations.lines_fast import extreme, quiet
from tangency.models.activations.lines_proof import proved_intercepts
from tangency.models.activations.lines_slopes import least_area

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["default_slopes", "intercepts", "proved_intercepts"]


def default_slopes(record: "Activation", nx: Any, lower: Any, upper: Any) -> tuple[Any, Any]:
    """Slopes of the lines of least area below and above ``phi`` on each box.

    For ReLU: the chord above, and below 1 where ``u > -l``, else 0.

    Parameters
    ----------
    nx : namespace
        ``numpy_namespace`` or ``jax_namespace()``.
    lower, upper : arrays of one shape and dtype
        Bounded boxes inside the domain; not checked.

    Returns
    -------
    (a_l, a_u) : arrays of that shape and dtype
    """
    with quiet(nx):
        return least_area(record, nx, lower, upper)


def intercepts(
    record: "Activation", nx: Any, lower: Any, upper: Any, a_l: Any, a_u: Any
) -> tuple[Any, Any]:
    """Offsets of lines of the given slopes, padded by a few units in the last place; not proved.

    Parameters
    ----------
    nx : namespace
        ``numpy_namespace`` or ``jax_namespace()``.
    lower, upper : arrays
        Bounded boxes inside the domain; not checked.
    a_l, a_u : arrays that broadcast with the boxes
        Any slopes.

    Returns
    -------
    (b_l, b_u) : arrays of the broadcast shape
        Differentiable in slopes and boxes, by the envelope theorem.
    """
    with quiet(nx):
        below, _ = extreme(record, nx, lower, upper, -a_l, -1.0)
        return -below, extreme(record, nx, lower, upper, a_u, 1.0)[0]
