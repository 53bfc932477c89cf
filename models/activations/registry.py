"""The registry: activations by name."""

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tangency.models.activations.record import Activation
from tangency.models.errors import InputError

__all__ = ["ALIASES", "close", "get", "is_called", "is_of_catalogue", "names", "register"]

Factory = Callable[..., Activation]

_FACTORIES: dict[str, Factory] = {}
_OURS: dict[str, Factory] = {}

ALIASES = {
    "acos": "arccos",
    "arcsinh": "asinh",
    "arctanh": "atanh",
    "asin": "arcsin",
    "atan": "arctan",
    "hard_sigmoid": "hardsigmoid",
    "hard_swish": "hardswish",
    "hard_tanh": "hardtanh",
    "leakyrelu": "leaky_relu",
    "log_sigmoid": "logsigmoid",
    "relu2": "relu_squared",
    "siren": "sine",
    "step": "heaviside",
    "swish1": "silu",
}
"""Other spellings that :func:`get` understands."""


def register(entry: Activation | Factory) -> Any:
    """Add a record, or a function of parameters that builds one (usable as a decorator).

    Raises
    ------
    InputError
        If the name is taken by something else, as every name of the catalogue is.
    """
    name: str
    factory: Factory
    if isinstance(entry, Activation):
        record = entry
        name, factory = record.name, lambda: record
    else:
        name, factory = str(entry.__name__), entry
    # A factory that agrees with the catalogue's in its defaults may differ elsewhere.
    ours_already = name in ALIASES or name in _OURS
    if ours_already or (name in _FACTORIES and _make(name, ()) != factory()):
        raise InputError(f"the activation name {name!r} is taken; choose another")
    _FACTORIES[name] = factory
    _make.cache_clear()
    return entry


def close() -> None:
    """Note that all records so far are the catalogue's own; what comes later is a user's."""
    _OURS.update(_FACTORIES)


def is_of_catalogue(record: Activation) -> bool:
    """Whether a record is what the catalogue itself makes of that name and these parameters.

    Name and parameters then say all. A record that a user wrote or registered is never one, unless
    it says the very same in all.
    """
    if record.name not in _OURS:
        return False
    try:
        return get(record.name, **dict(record.params)) == record
    except (InputError, TypeError, ValueError):  # parameters that the catalogue does not take
        return False


def is_called(record: Activation, name: str) -> bool:
    """Whether a record is the catalogue's of that name; a user may call anything by it."""
    return record.name == name and record._is_ours


def ours(record: Activation) -> Activation:
    """Mark a record that this package makes outside of the catalogue; a copy loses the mark."""
    record.__dict__["_ours"] = True
    return record


def names() -> tuple[str, ...]:
    """Return the names of all registered activations, sorted."""
    return tuple(sorted(_FACTORIES))


def get(name: str, **params: Any) -> Activation:
    """Return the activation of that name, with its default or the given parameters.

    Examples
    --------
    >>> get("leaky_relu", negative_slope=0.2).slope_range
    (0.2, 1.0)

    Raises
    ------
    InputError
        If the name or a parameter is unknown (the message lists near ones), or the activation does
        not accept the value of a parameter.
    """
    key = ALIASES.get(name, name)
    if key not in _FACTORIES:
        near = difflib.get_close_matches(key, [*_FACTORIES, *ALIASES], n=5, cutoff=0.5)
        hint = f"near names: {', '.join(near)}" if near else "names() lists all"
        raise InputError(f"no activation is called {name!r}; {hint}")
    accepted = inspect.signature(_FACTORIES[key]).parameters
    unknown = sorted(set(params) - set(accepted))
    if unknown:
        has = ", ".join(accepted) if accepted else "none"
        raise InputError(f"activation {name!r} has no parameter {unknown[0]!r}; it has: {has}")
    frozen = {k: _frozen(name, k, v) for k, v in params.items()}
    return _make(key, tuple(sorted(frozen.items())))


def _frozen(name: str, key: str, value: Any) -> Any:
    """A parameter as a float or a tuple of floats."""
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None or array.ndim > 1:
        raise InputError(f"activation {name!r} has {key} = {value!r}; it accepts numbers")
    return tuple(array.tolist()) if array.ndim else float(array)


@functools.lru_cache(maxsize=1024)
def _make(name: str, params: tuple[tuple[str, Any], ...]) -> Activation:
    made = _FACTORIES[name](**dict(params))
    return ours(made) if name in _OURS else made
