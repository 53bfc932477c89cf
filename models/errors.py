"""The errors that tangency raises on purpose, all under one base class."""

__all__ = [
    "InputError",
    "MissingPackageError",
    "NotProvedError",
    "TangencyError",
    "UnsupportedError",
]


class TangencyError(Exception):
    """Base class: every error that tangency raises on purpose is one of these."""


class InputError(TangencyError, ValueError):
    """What was given cannot be used: the message names the thing and what is accepted."""


class UnsupportedError(TangencyError, NotImplementedError):
    """A model, layer or op that has no place in the graph: the message names it and what has."""


class MissingPackageError(TangencyError, ImportError):
    """An optional package is not installed: the message says how to install it."""


class NotProvedError(TangencyError, ArithmeticError):
    """A claim could not be proved in rigorous arithmetic; nothing is said about its truth."""
