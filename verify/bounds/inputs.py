"""Input sets laid beside the inputs of a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.verify.bounds.ball import Ball
from tangency.verify.bounds.box import Box
from tangency.verify.rigorous.sets import BallPart, InputSet

__all__ = ["Region", "input_intervals", "input_sets", "norm_of"]

Region = Box | Ball


def input_sets(network: Network, box: Region | Sequence[Region]) -> list[InputSet]:
    """The sets with the batch in front; InputError when they do not fit."""
    boxes: list[Region] = []
    if isinstance(box, Box | Ball):
        boxes = [box]
    elif isinstance(box, tuple | list):
        boxes = list(box)
    if not boxes or not all(isinstance(b, Box | Ball) for b in boxes):
        raise InputError(
            f"box is a {type(box).__name__}: give a Box or a Ball, or one of them for each input"
        )
    shapes = network.input_shapes
    if len(boxes) != len(shapes):
        raise InputError(f"the network takes {len(shapes)} inputs {shapes}, got {len(boxes)} boxes")
    sets = []
    for i, (b, shape) in enumerate(zip(boxes, shapes, strict=True)):
        if b.shape != shape and b.shape[1:] != shape:
            which = f"input {i}" if len(boxes) > 1 else "the network"
            text = ", ".join(map(str, shape))
            raise InputError(f"box of shape {b.shape}: {which} takes (N, {text}) or ({text})")
        sets.append(_laid(b, len(b.shape) == len(shape)))
    batches = {x.samples for x in sets} - {1}
    if len(batches) > 1:
        raise InputError(f"the boxes hold {sorted(batches)} samples: give as many for each input")
    return sets


def _laid(region: Region, alone: bool) -> InputSet:
    box = region.interval
    lower, upper = (box.lower[None], box.upper[None]) if alone else (box.lower, box.upper)
    if isinstance(region, Box):
        return InputSet(lower, upper)
    center = region.center[None] if alone else region.center
    return InputSet(lower, upper, BallPart(center, np.atleast_1d(region.eps), region.norm))


def input_intervals(network: Network, box: Region | Sequence[Region]) -> list[Interval]:
    """The boxes (those around balls, too) as intervals with the batch in front."""
    return [x.interval for x in input_sets(network, box)]


def norm_of(box: Region | Sequence[Region]) -> str:
    """The norm of the input set, for messages: ``"linf"`` for boxes, ``"l2"`` or ``"l1"``."""
    regions = list(box) if isinstance(box, tuple | list) else [box]
    norms = {f"l{b.norm}" if isinstance(b, Ball) else "linf" for b in regions}
    return norms.pop() if len(norms) == 1 else "mixed"
