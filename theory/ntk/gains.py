"""Kernels are in the model's own parameters: what that takes of a network's weights."""

from __future__ import annotations

from functools import lru_cache

from tangency.models.errors import InputError
from tangency.models.structure import Structure

__all__ = ["parameter_gains"]


@lru_cache(maxsize=256)
def parameter_gains(structure: Structure) -> dict[str, float]:
    """The factor of each trainable weight over the parameter that it stands for.

    Raises
    ------
    InputError
        For a weight that the model computes from its parameters in another way, by name: its
        gradient is not that of the parameters.
    """
    found: dict[str, float] = {}
    for node in structure.nodes:
        for p in node.params:
            if not p.trainable:
                continue
            if p.gain is None:
                raise InputError(
                    f"layer {node.name!r}: the model computes its {p.role} {p.key!r} from its "
                    "parameters, or uses their entries twice, and kernels are in the parameters "
                    "themselves. Give a torch.nn.Module itself (it stays in torch), or write the "
                    "model so that its parameters act on the values one by one"
                )
            found[p.key] = p.gain
    return found
