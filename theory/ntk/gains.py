"""Kernels are in the model's own parameters: from derivatives by weights to those, and back."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.structure import Param, Structure

__all__ = ["Parameters", "parameters_of"]


class Parameters:
    """The parameters behind a network's trainable weights: a weight is a gain times entries of one.

    Most parameters have one weight, and its name. Weights that hold the same entries are tied:
    they have one vector of parameters together, under the name of the first.

    Attributes
    ----------
    gains : dict of str to float
        The factor of each trainable weight.
    heads : dict of str to str
        Of each trainable weight the name of its parameters.
    sizes : dict of str to int
        Number of the parameters of each name.

    Raises
    ------
    InputError
        For a weight that the model computes from its parameters in another way, by name: its
        gradient is not that of the parameters.
    """

    def __init__(self, structure: Structure) -> None:
        found: dict[str, Param] = {}
        for node in structure.nodes:
            for p in node.params:
                if p.trainable and p.gain is None:
                    raise InputError(
                        f"layer {node.name!r}: the model computes its {p.role} {p.key!r} from its "
                        "parameters in a way that is not followed, and kernels are in the "
                        "parameters themselves. Give a torch.nn.Module itself (it stays in torch), "
                        "or write the model so that its parameters, or parts of them, act on the "
                        "values one by one"
                    )
                if p.trainable:
                    found[p.key] = p
        self.gains = {key: float(p.gain or 0.0) for key, p in found.items()}
        self.heads = {key: key for key in found}
        self.sizes = {key: prod(p.shape) for key, p in found.items()}
        self._places: dict[str, Any] = {}
        tied = {key: p.places() for key, p in found.items() if p.entries is not None}
        head, end = "", -1
        for key in sorted(tied, key=lambda key: int(tied[key].min())):
            least, most = int(tied[key].min()), int(tied[key].max())
            if least > end:
                head, start, end = key, least, most
            end = max(end, most)
            self.heads[key], self.sizes[head] = head, end - start + 1
            self._places[key] = (tied[key] - start).reshape(-1)

    @property
    def tied(self) -> frozenset[str]:
        """The weights that are."""
        return frozenset(self._places)

    def gathered(self, by_weight: dict[str, Any], lead: int = 0) -> dict[str, Any]:
        """Derivatives ``(*lead, *shape)`` by the weights as those by the parameters, by name."""
        import jax.numpy as jnp

        found: dict[str, Any] = {}
        for key, given in by_weight.items():
            g = given if self.gains[key] == 1.0 else given * self.gains[key]
            if key in self._places:
                head, shape = self.heads[key], g.shape[:lead]
                whole = found.get(head, jnp.zeros((*shape, self.sizes[head]), g.dtype))
                g = whole.at[..., self._places[key]].add(g.reshape(*shape, -1))
            found[self.heads[key]] = g
        return found

    def spread(self, change: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        """A change of the parameters as one of the weights."""
        found: dict[str, Any] = {}
        for key, gain in self.gains.items():
            w = change[self.heads[key]]
            if key in self._places:
                w = w[self._places[key]].reshape(shapes[key])
            found[key] = w if gain == 1.0 else w * gain
        return found

    def behind(self, moved: dict[str, Any]) -> dict[str, Any]:
        """The change of the parameters behind a change of the weights."""
        found: dict[str, Any] = {}
        for key, given in moved.items():
            w = given if self.gains[key] == 1.0 else given / self.gains[key]
            if key in self._places:
                head, flat = self.heads[key], np.asarray(w).reshape(-1)
                whole = found.setdefault(head, np.zeros(self.sizes[head], flat.dtype))
                whole[self._places[key]] = flat
            else:
                found[key] = w
        return found


@lru_cache(maxsize=256)
def parameters_of(structure: Structure) -> Parameters:
    """Those of a structure, kept."""
    return Parameters(structure)
