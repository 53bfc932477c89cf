"""Parameters of activations: one check for all factories."""

import math
from typing import Any

from tangency.models.errors import InputError

__all__ = ["check_numbers", "check_tuple"]

_LARGEST = 1e300
_SCALES = (1e-100, 1e100)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_numbers(
    activation: str,
    *,
    least: float = -_LARGEST,
    most: float = _LARGEST,
    factor: bool = False,
    infinite: bool = False,
    **values: Any,
) -> None:
    """Check numeric parameters of an activation.

    Parameters
    ----------
    activation : str
        Its name, for the message.
    least, most : float
        Accepted range, ends included.
    factor : bool
        The number multiplies or divides: beside the range, its size must lie in [1e-100, 1e100].
    infinite : bool
        Accept +-inf as well.
    values
        Parameters by name.

    Raises
    ------
    InputError
        If one is no number, is NaN or infinite, or lies outside; the message says what is accepted.
    """
    for key, value in values.items():
        if _is_number(value):
            inside = least <= value <= most or (infinite and math.isinf(value))
            if inside and (not factor or _SCALES[0] <= abs(value) <= _SCALES[1]):
                continue
        raise InputError(
            f"{activation} has {key} = {value!r}; it accepts {_accepted(least, most, factor)}"
            f"{', or +-inf' if infinite else ''}"
        )


def _accepted(least: float, most: float, factor: bool) -> str:
    if factor:
        sizes = f"{_SCALES[0]:g} to {_SCALES[1]:g}"
        return f"a number from {sizes}" if least >= 0 else f"a number of size {sizes}, of any sign"
    if (least, most) == (-_LARGEST, _LARGEST):
        return f"any finite number (of size up to {_LARGEST:g})"
    return f"a number from {least:g} to {most:g}"


def check_tuple(activation: str, key: str, values: Any, *, least: int = 1) -> tuple[float, ...]:
    """Return a parameter that is a tuple of finite numbers.

    Raises
    ------
    InputError
        If it is something else, or shorter than ``least``.
    """
    numbers = tuple(values) if isinstance(values, tuple | list) else None
    if numbers is None or len(numbers) < least or not all(_is_number(v) for v in numbers):
        raise InputError(
            f"{activation} has {key} = {values!r}; it accepts a tuple of at least {least} numbers"
        )
    check_numbers(activation, **{f"{key}[{i}]": v for i, v in enumerate(numbers)})
    return numbers
