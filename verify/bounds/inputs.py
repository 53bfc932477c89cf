"""Input sets laid beside the inputs of a network."""

from __future__ import annotations

from collections.abc import Sequence

from tangency.models.errors import InputError
from tangency.models.intervals import Interval
from tangency.models.network import Network
from tangency.verify.bounds.box import Box

__all__ = ["input_intervals"]


def input_intervals(network: Network, box: Box | Sequence[Box]) -> list[Interval]:
    """The boxes as intervals with the batch in front; InputError when they do not fit."""
    boxes = [box] if isinstance(box, Box) else list(box) if isinstance(box, tuple | list) else []
    if not boxes or not all(isinstance(b, Box) for b in boxes):
        raise InputError(f"box is a {type(box).__name__}: give a Box, or one Box for each input")
    shapes = network.input_shapes
    if len(boxes) != len(shapes):
        raise InputError(f"the network takes {len(shapes)} inputs {shapes}, got {len(boxes)} boxes")
    intervals = []
    for i, (b, shape) in enumerate(zip(boxes, shapes, strict=True)):
        if b.shape == shape:
            intervals.append(Interval(b.lower[None], b.upper[None]))
        elif b.shape[1:] == shape:
            intervals.append(b.interval)
        else:
            which = f"input {i}" if len(boxes) > 1 else "the network"
            text = ", ".join(map(str, shape))
            raise InputError(f"box of shape {b.shape}: {which} takes (N, {text}) or ({text})")
    batches = {x.shape[0] for x in intervals} - {1}
    if len(batches) > 1:
        raise InputError(f"the boxes hold {sorted(batches)} samples: give as many for each input")
    return intervals
