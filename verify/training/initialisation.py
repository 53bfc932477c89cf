"""Random weights to start from: those that keep the width of intervals, and the usual ones."""

from __future__ import annotations

import math
from math import prod

import numpy as np

from tangency.models.errors import InputError
from tangency.models.network import Network
from tangency.models.ops import Conv, ConvTranspose, Dense

__all__ = ["INITIALISATIONS", "initialised"]

INITIALISATIONS = ("ibp", "kaiming")


def initialised(network: Network, *, how: str = "ibp", seed: int = 0) -> Network:
    """The same graph with its dense layers and convolutions drawn anew, their biases zero.

    A layer of n inputs widens a box by ``n E|w|``, and a ReLU halves it on average, so that normal
    weights of deviation ``sqrt(2 pi) / n`` keep the width of the boxes from layer to layer
    (``how="ibp"``). The usual ``sqrt(2 / n)`` (``how="kaiming"``) keeps the size of the signal
    and widens the boxes by ``sqrt(n / pi)`` a layer.

    Parameters
    ----------
    network : Network
        Its other weights (norms, slopes, constants) are kept.
    how : {"ibp", "kaiming"}
        Deviation of the weights.
    seed : int
        Of the random numbers.

    Raises
    ------
    InputError
        For another ``how``.

    References
    ----------
    Shi, Wang, Zhang, Yi, Hsieh, "Fast certified robust training with short warmup",
    arXiv 2103.17268, section 4.1. He et al., "Delving deep into rectifiers", arXiv 1502.01852.
    """
    if how not in INITIALISATIONS:
        raise InputError(f"how is {how!r}: weights are drawn by {', '.join(INITIALISATIONS)}")
    rng = np.random.default_rng(seed)
    drawn: dict[str, np.ndarray] = {}
    for node in network.structure.nodes:
        if not isinstance(node.op, Dense | Conv | ConvTranspose):
            continue
        for p in node.params:
            if p.role == "bias":
                drawn[p.key] = np.zeros(p.shape, network.dtype)
            elif p.key not in drawn:  # a shared weight is drawn once
                fan_in = _fan_in(node.op, p.shape)
                deviation = math.sqrt(2 * math.pi) / fan_in if how == "ibp" else (2 / fan_in) ** 0.5
                drawn[p.key] = (deviation * rng.standard_normal(p.shape)).astype(network.dtype)
    return network.replace(drawn)


def _fan_in(op: Dense | Conv | ConvTranspose, shape: tuple[int, ...]) -> int:
    """Inputs that one output sums over; of a transposed convolution, on average."""
    if isinstance(op, ConvTranspose):
        taps = shape[0] // op.groups * prod(shape[2:])
        return max(1, round(taps / prod(op.stride)))
    return prod(shape[1:])
