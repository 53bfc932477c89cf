r"""The neurons of an activation in the search: slopes of each, and which share a multiplier.

Sorting groups of n channels keeps the sum of each group, so that behind the mask of the torus a sum
has a slope of 0 or 1; of what is orthogonal to the sum the norm does not grow. In the basis

.. math:: \sigma_j = \tfrac{1}{\sqrt n}\sum_{i} x_{ji}, \qquad
          \delta_{jm} = \frac{x_{j1} + \dots + x_{jm} - m\,x_{j,m+1}}{\sqrt{m(m+1)}},
          \quad m = 1, \dots, n - 1

(Helmert's), which is (a + b, a - b) over root two for MaxMin, a group is one neuron of slopes in
[0, 1] and n - 1 of slopes in [-1, 1] with one multiplier.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.certificate.matrix import Array

__all__ = ["Neurons", "neurons_of"]


@dataclass(frozen=True, eq=False)
class Neurons:
    """An activation as neurons of bounded slopes.

    Parameters
    ----------
    lower, upper : (c,) arrays
    count : int
        Multipliers.
    group : (c,) array of int, or None
        The multiplier of each neuron; None where each has its own.
    basis : (c, c) array, or None
        Orthogonal: from channels to neurons.
    size : int
        Channels of a group that is sorted, or zero.
    """

    lower: Array
    upper: Array
    count: int
    group: npt.NDArray[np.intp] | None = None
    basis: Array | None = None
    size: int = 0

    @property
    def members(self) -> npt.NDArray[np.intp]:
        """The multiplier of each neuron."""
        return np.arange(self.count) if self.group is None else self.group

    def collect(self, values: Array) -> Array:
        """Return the sums of (c,) values over the neurons of each multiplier."""
        if self.group is None:
            return values
        return np.asarray(np.bincount(self.group, values, self.count), np.float64)


def neurons_of(activation: Slopes | GroupSort, channels: int) -> Neurons:
    """Return the neurons of an activation of `channels` channels.

    Examples
    --------
    >>> found = neurons_of(GroupSort(2), 4)
    >>> found.lower, found.basis.shape, found.count
    (array([ 0.,  0., -1., -1.]), (4, 4), 4)
    """
    if isinstance(activation, Slopes):
        lower, upper = activation.arrays(channels)
        return Neurons(lower, upper, channels)
    size, groups = activation.size, activation.groups(channels)
    helmert = np.zeros((size, size))
    helmert[0] = 1.0 / np.sqrt(size)
    for m in range(1, size):
        helmert[m, :m] = 1.0 / np.sqrt(m * (m + 1))
        helmert[m, m] = -m / np.sqrt(m * (m + 1))
    rows = np.kron(np.eye(groups), helmert)
    sums = np.arange(channels) % size == 0
    basis = np.concatenate([rows[sums], rows[~sums]])
    lower = np.repeat([0.0, -1.0], [groups, channels - groups])
    rest = np.repeat(np.arange(groups), size - 1) + groups
    group = np.concatenate([np.arange(groups), rest])
    count = 2 * groups if size > 1 else groups
    return Neurons(lower, np.ones(channels), count, group, basis, size)
