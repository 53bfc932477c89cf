"""The largest learning rate at which gradient descent on squared loss does not diverge."""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.prediction.grams import Block, matrix

__all__ = ["max_learning_rate"]

#: Above this the largest eigenvalue is found by Lanczos iteration, below by LAPACK.
DENSE = 1000


def max_learning_rate(
    gram: Any, *, reduction: str = "sum", outputs: int = 1, momentum: float = 0.0
) -> float:
    """Largest stable learning rate of gradient descent on squared loss.

    ``2 (1 + momentum) / lambda_max``: beyond it the iteration of the linearised network diverges
    (heavy-ball momentum; 0 is plain descent).

    Parameters
    ----------
    gram : (n, n) or (n, n, K, K) array, or Block
        Tangent kernel of the training inputs.
    reduction : {"sum", "mean"}
        Of the loss ``|f - y|^2 / 2``, as for :func:`gradient_flow_mse`.
    outputs : int
        Entries of one sample's target; counts with ``reduction="mean"`` alone, and is known
        where the kernel has four axes.
    momentum : float
        In [0, 1).

    Returns
    -------
    float

    Raises
    ------
    InputError
        For what is not a Gram matrix, or is zero.

    References
    ----------
    Lee et al., arXiv 1902.06720, section 2; Polyak 1964 for momentum.

    Examples
    --------
    >>> import numpy as np
    >>> round(max_learning_rate(np.array([[2.0, 1.0], [1.0, 2.0]])), 12)
    0.666666666667
    """
    if reduction not in ("sum", "mean"):
        raise InputError(f"reduction={reduction!r}: 'sum' or 'mean'")
    if not 0 <= momentum < 1:
        raise InputError(f"momentum={momentum!r}: a number in [0, 1)")
    block = gram if isinstance(gram, Block) else Block(gram)
    square = matrix(block.train)
    largest = _largest(square)
    if not largest > 0:
        raise InputError(f"the largest eigenvalue is {largest:.3g}: a kernel's is positive")
    entries = len(square) * (1 if block.outputs else outputs)
    return 2.0 * (1.0 + momentum) / largest * (entries if reduction == "mean" else 1)


def _largest(square: np.ndarray) -> float:
    from scipy.linalg import eigh
    from scipy.sparse.linalg import eigsh

    n = len(square)
    if n <= DENSE:
        top = eigh(square, eigvals_only=True, subset_by_index=[n - 1, n - 1], check_finite=False)
    else:
        # tol=0 is machine precision: Lanczos values lie below the truth, and a rate above it.
        top = eigsh(square, k=1, which="LA", tol=0, v0=np.ones(n), return_eigenvectors=False)
    return float(top[0])
