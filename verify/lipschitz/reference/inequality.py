r"""The inequality of LipSDP for a chain, whole: one variable for each neuron, one large matrix.

With v the input and the outputs of all activations, :math:`x_0 = X_0v`, z_k = W_k x_{k-1} = A_kv,
y_k = B_kv, the chain is L-Lipschitz if, for multipliers as in `multipliers`,

.. math:: X_0^TRX_0 - \sum_k\begin{bmatrix}A_k\\B_k\end{bmatrix}^TM_k
          \begin{bmatrix}A_k\\B_k\end{bmatrix} - \frac1c F^TF \succeq 0, \qquad F = W_lX_{l-1},

with R = rho I, c = 1, L = sqrt(rho) for l2 ([1]_, [2]_ theorem 1); and with R = diag(mu),
c = 2 rho - 1^T mu, L = rho for l-infinity to a scalar ([2]_): then
:math:`|df|^2 \le c\,1^T\mu\,|dx|_\infty^2 \le \rho^2|dx|_\infty^2`. The Schur complement makes it
linear.

References
----------
.. [1] M. Fazlyab et al., NeurIPS 2019, arXiv 1906.04893, theorem 2.
.. [2] P. Pauli et al., ICLR 2024, arXiv 2401.14033, theorem 1 and section 4.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.verify.certificate.layers import GroupSort, Householder, Residual, Slopes
from tangency.verify.certificate.matrix import Array
from tangency.verify.chain.chain import Chain
from tangency.verify.lipschitz.reference.estimate import Estimate, minimise
from tangency.verify.lipschitz.reference.multipliers import Constraint, constraint_of
from tangency.verify.lipschitz.reference.rewriting import ReluForm

__all__ = ["quadratic", "reference_bound"]


def reference_bound(
    chain: Chain,
    *,
    norm: Any = 2,
    form: str = "neuron",
    free: bool = True,
    rewriting: ReluForm | None = None,
    solver: str = "clarabel",
    eps: float = 1e-8,
) -> Estimate:
    """Return a solver's optimum of the published inequality, an estimate.

    Parameters
    ----------
    chain : Chain
        Of Slopes, GroupSort, Householder and residual blocks of these.
    norm : {2, "inf"}
        Of the input; "inf" takes one output.
    form : {"neuron", "layer"}
        One multiplier for each neuron (or group), or one for each layer.
    free : bool
        Whether P and S of GroupSort and Householder are free, or zero (as in the experiments of
        the paper). With free P the infimum is in general not attained: it is the value of the
        engine, which eliminates what is kept, and solvers approach it from above.
    rewriting : ReluForm, optional
        Write each pair of MaxMin so, and bound the ReLUs by slopes in [0, 1].
    solver : {"clarabel", "scs"}
    eps : float
        Accuracy asked of SCS.

    Returns
    -------
    Estimate

    Raises
    ------
    UnsupportedError
        For another norm, several outputs with "inf", or the unsound form "network".
    InputError
        If an option is unknown.

    Examples
    --------
    >>> chain = Chain.from_matrices([np.eye(2), np.eye(2)], "maxmin")
    >>> round(reference_bound(chain).value, 3)
    1.0
    >>> from tangency.verify.lipschitz.reference import maxmin_as_relu
    >>> round(reference_bound(chain, rewriting=maxmin_as_relu("two_relu")).value, 3)
    1.414
    """
    import cvxpy

    weights = [w.midpoint for w in chain.weights]
    euclidean = str(norm) == "2"
    if not euclidean and (norm not in ("inf", "linf", math.inf) or weights[-1].shape[0] != 1):
        raise UnsupportedError("the reference bounds l2 to l2, or l-infinity to one output")
    first, terms, output, signed = _assembled(chain, weights, form, free, rewriting)
    if euclidean:
        rho = cvxpy.Variable(nonneg=True)
        whole = rho * (first.T @ first) - terms - output.T @ output
        found = minimise(rho, [whole], signed, solver=solver, eps=eps)
        return Estimate(math.sqrt(max(found[0], 0.0)), found[1], found[2], solver, found[3])
    rho, mu = cvxpy.Variable(), cvxpy.Variable(first.shape[0])
    corner = cvxpy.reshape(2 * rho - cvxpy.sum(mu), (1, 1), order="C")
    whole = cvxpy.bmat([[first.T @ cvxpy.diag(mu) @ first - terms, output.T], [output, corner]])
    found = minimise(rho, [whole], [*signed, mu], solver=solver, eps=eps)
    return Estimate(found[0], found[1], found[2], solver, found[3])


def quadratic(constraint: Constraint, z: Array, y: Array) -> Any:
    """Return [z; y]^T M [z; y] for linear maps z and y of the variables."""
    cross = z.T @ constraint.b @ y
    return z.T @ constraint.a @ z + cross + cross.T + y.T @ constraint.c @ y


def _assembled(
    chain: Chain, weights: Sequence[Array], form: str, free: bool, rewriting: ReluForm | None
) -> tuple[Array, Any, Array, list[Any]]:
    """Return X_0, the sum of the constraints, F, and the multipliers with a sign."""
    pairs = list(zip(chain.activations, weights, strict=False))
    forms = [_form(a, w.shape[0], rewriting) for a, w in pairs]
    widths = [
        w.shape[0] if f is None else f.inner.shape[0]
        for f, (_, w) in zip(forms, pairs, strict=True)
    ]
    inputs = weights[0].shape[1]
    total = inputs + sum(widths)
    first = x = np.eye(inputs, total)
    terms: Any = np.zeros((total, total))
    signed: list[Any] = []
    position = inputs
    for (activation, weight), written, width in zip(pairs, forms, widths, strict=True):
        z, y = weight @ x, np.eye(width, total, position)
        position += width
        inner: Slopes | GroupSort | Householder
        inner = activation.inner if isinstance(activation, Residual) else activation
        if written is None:
            constraint, given, image = constraint_of(inner, width, form=form, free=free), z, y
        else:
            constraint = constraint_of(Slopes(0.0, 1.0), width, form=form)
            given, image = written.inner @ z, written.skip @ z + written.outer @ y
        terms = terms + quadratic(constraint, given, y)
        signed += constraint.signed
        if isinstance(activation, Residual):
            image = x + (image if activation.output is None else activation.output.midpoint @ image)
        x = image
    return first, terms, np.asarray(weights[-1] @ x), signed


def _form(activation: Any, n: int, rewriting: ReluForm | None) -> ReluForm | None:
    """Return how a layer is written with ReLUs, if it is."""
    inner = activation.inner if isinstance(activation, Residual) else activation
    if rewriting is None or not isinstance(inner, GroupSort):
        return None
    if inner.size != 2 or rewriting.skip.shape != (2, 2):
        raise UnsupportedError("a rewriting takes MaxMin, groups of two, and gives both entries")
    return rewriting.tiled(n // 2)
