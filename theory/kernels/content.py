"""What the layers of a kernel say, as data that a digest takes."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from tangency.models import Network
from tangency.models.activations import Activation, get
from tangency.models.activations.formula import Term, traced
from tangency.models.activations.registry import is_of_catalogue
from tangency.models.errors import InputError
from tangency.theory.kernels import layers_activations

__all__ = ["content"]


def content(part: Any) -> Any:
    """A layer, or what it holds, as nested tuples of texts, numbers and traced formulas.

    Raises
    ------
    InputError
        For what no digest can name: a function that cannot be followed, or a class that is not
        tangency's own, of which the code would count as well as the fields.
    """
    if isinstance(part, Network):
        # What is trained and what is shared is no matter of the function, but of its kernel.
        keys = list(part.weights)
        params = [p for node in part.structure.nodes for p in node.params]
        uses = tuple((keys.index(p.key), p.trainable, p.gain) for p in params)
        return ("network", part.hash, uses)
    if isinstance(part, Activation):
        known = is_of_catalogue(part)
        return ("activation", part.name, part.params) if known else ("own", part.digest)
    if isinstance(part, layers_activations.Activation) and isinstance(part.function, str):
        return (type(part).__qualname__, content(get(part.function)))
    if is_dataclass(part) and type(part).__module__.startswith("tangency."):
        held = tuple((f.name, content(getattr(part, f.name))) for f in fields(part))
        return (type(part).__module__, type(part).__qualname__, held)
    if isinstance(part, tuple | list):
        return tuple(map(content, part))
    if isinstance(part, Term | bool | int | float | str | np.ndarray | np.generic | None):
        return part
    if callable(part):
        return traced(f"the function {getattr(part, '__name__', part)!r}", part, namespace=False)
    raise InputError(f"a kernel with a {type(part).__name__} has no fingerprint: give key='...'")
