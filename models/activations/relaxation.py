r"""Linear relaxations: two lines that enclose ``phi`` on a box.

Of all lines above ``phi`` on ``[l, u]`` the one of least area is the lowest at the midpoint. Its
slope is searched in ordinary floating point (:mod:`.lines_slopes`); no proof hangs on it. The
offset is then proved for that slope (:mod:`.lines_proof`), so that the lines hold in real
arithmetic. Where nothing finite can be proved for a slope, the constant line serves.

References
----------
Zhang et al., "Efficient Neural Network Robustness Certification with General Activation
Functions", arXiv 1811.00866; Shi et al., arXiv 2405.21063.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models.activations.lines import default_slopes, proved_intercepts
from tangency.models.activations.ranges import check_boxes, range_on
from tangency.models.errors import InputError
from tangency.models.intervals import Array
from tangency.models.namespace import numpy_namespace

if TYPE_CHECKING:
    from tangency.models.activations.record import Activation

__all__ = ["Lines", "relaxation"]


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines with ``a_l x + b_l <= phi(x) <= a_u x + b_u`` on each box (arrays of one shape)."""

    a_l: Array
    b_l: Array
    a_u: Array
    b_u: Array


def relaxation(record: "Activation", lower: Any, upper: Any) -> Lines:
    """Enclose ``phi`` on boxes between two lines.

    Parameters
    ----------
    lower, upper : array of any (common) shape
        Finite boxes.

    Returns
    -------
    Lines
        Sound in real arithmetic. Where the range is infinite the offset is infinite.

    Raises
    ------
    InputError
        If a box is unbounded or leaves the domain.
    """
    box = check_boxes(record, lower, upper)
    if not (np.isfinite(box.lower).all() and np.isfinite(box.upper).all()):
        raise InputError(f"a linear relaxation of {record} needs bounded boxes")
    R = range_on(record, box.lower, box.upper)
    slopes = default_slopes(record, numpy_namespace, box.lower, box.upper)
    a_l, a_u = (np.where(np.isfinite(a), a, 0.0) for a in slopes)
    b_l, b_u = proved_intercepts(record, box.lower, box.upper, a_l, a_u)
    m = box.midpoint
    with np.errstate(all="ignore"):
        low, high = ~(a_l * m + b_l >= R.lower), ~(a_u * m + b_u <= R.upper)
    return Lines(
        np.where(low, 0.0, a_l) + 0.0,
        np.where(low, R.lower, b_l) + 0.0,
        np.where(high, 0.0, a_u) + 0.0,
        np.where(high, R.upper, b_u) + 0.0,
    )
