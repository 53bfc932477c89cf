"""From anything that is a kernel to arrays."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.kernels.kernel import as_kernel

__all__ = ["default_kernel", "diagonal", "evaluate", "shaped"]


def evaluate(kernel: Any, x1: Any, x2: Any, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Gram matrices by kind; ``x2=None`` is the symmetric case."""
    kernel = as_kernel(kernel)
    if len(names) == 1:
        return {names[0]: np.asarray(kernel(x1, x2, get=names[0]))}
    gram = kernel(x1, x2, get=names)
    return {name: np.asarray(getattr(gram, name)) for name in names}


def diagonal(kernel: Any, x: Any, name: str) -> np.ndarray:
    """Diagonal of one kind of kernel, (n,)."""
    return np.asarray(as_kernel(kernel).diagonal(x, get=name))


def shaped(x: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """Rows of X in the shape that the kernel takes.

    Raises
    ------
    InputError
        Where the number of entries differs.
    """
    if shape is None:
        return x
    if int(np.prod(x.shape[1:])) != int(np.prod(shape)):
        raise InputError(f"X has shape {x.shape}: one row cannot take input_shape={shape}")
    return x.reshape(len(x), *shape)


@lru_cache(maxsize=1)
def default_kernel() -> Any:
    """Two hidden ReLU layers that keep variances, with biases of standard deviation 0.1."""
    from tangency.theory.kernels.infinite import infinite_kernel
    from tangency.theory.kernels.layers import Dense
    from tangency.theory.kernels.layers_activations import Relu

    options = {"W_std": math.sqrt(2.0), "b_std": 0.1}
    hidden = [Dense(1, **options), Relu(), Dense(1, **options), Relu()]
    return infinite_kernel([*hidden, Dense(1, **options)])
