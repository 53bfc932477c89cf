r"""ECLipsE-Fast: LipSDP solved greedily from the input to the output, in closed form.

.. math:: \lambda_k = \frac{2}{\|W_kM_{k-1}^{-1}W_k^T\|}, \quad
          M_k = \lambda_kI - \tfrac14\lambda_k^2W_kM_{k-1}^{-1}W_k^T, \quad
          L^2 = \|W_lM_{l-1}^{-1}W_l^T\|, \quad M_0 = I,

for slopes in [0, 1]. A baseline: one multiplier a layer, chosen without looking ahead.

References
----------
.. [1] Y. Xu, S. Sivaranjani, ECLipsE: Efficient Compositional Lipschitz Constant Estimation for
       Deep Neural Networks, NeurIPS 2024 (the variant ECLipsE-Fast).
"""

import math
from collections.abc import Sequence

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.verify.certificate.chain import ChainWitness
from tangency.verify.certificate.layers import Slopes
from tangency.verify.certificate.matrix import Array
from tangency.verify.chain.chain import Chain
from tangency.verify.lipschitz.engine.assemble import Assembly, assemble
from tangency.verify.lipschitz.repair import Found, prove
from tangency.verify.lipschitz.scaling import norm_exponents, scaled_midpoints
from tangency.verify.lipschitz.spectra import top_eigenvalue

__all__ = ["EDGE", "eclipse_fast", "eclipse_fast_witness", "eclipse_start", "takes_eclipse"]


#: The logarithm by which the start lies inside of the edge, where a pivot is singular.
EDGE = math.log(1.05)


def eclipse_fast(weights: list[Array]) -> tuple[float, list[float]]:
    """Return log2 of the bound and of each layer's lambda, for slopes in [0, 1]; not proved.

    Parameters
    ----------
    weights : list of (n_k, n_{k-1}) arrays

    Examples
    --------
    >>> round(2.0 ** eclipse_fast([np.eye(2), 3.0 * np.eye(2)])[0], 9)
    3.0
    """
    from scipy.linalg import solve_triangular

    metric = np.eye(weights[0].shape[1])
    shift, strengths = 0.0, []  # M is metric * 2**shift
    for weight in weights[:-1]:
        half = solve_triangular(np.linalg.cholesky(metric), weight.T, lower=True)
        middle = half.T @ half
        norm = top_eigenvalue(middle)
        # lambda = 2 / norm * 2**shift; M in units of lambda lies between I / 2 and I
        metric = np.eye(len(weight)) - middle / (2.0 * norm)
        shift += 1.0 - math.log2(norm)
        strengths.append(shift)
    half = solve_triangular(np.linalg.cholesky(metric), weights[-1].T, lower=True)
    return math.log2(float(np.linalg.norm(half, 2))) - shift / 2.0, strengths


def eclipse_start(weights: list[Array], form: Assembly, exponents: Sequence[int]) -> Array:
    """Return the logarithms of ECLipsE-Fast's multipliers in the engine's scales, for L + 2.5 %.

    Parameters
    ----------
    weights : list of (n_k, n_{k-1}) arrays
        Divided by 2**exponents.
    form : Assembly
        Of the same chain, divided by its own exponents.
    exponents : sequence of int
    """
    log_bound, strengths = eclipse_fast(weights)
    later, found = 0, []
    for k in range(len(strengths) - 1, -1, -1):
        later += form.exponents[k + 1] - exponents[k + 1]
        # From |x|^2 - |f|^2 / L^2 to |df|^2 <= ...; lambda is twice the engine's.
        value = math.log(2.0) * (strengths[k] + 2.0 * log_bound - 1.0 - 2 * later) + EDGE
        found.append(np.full(form.layers[k].count, value))
    return np.concatenate(found[::-1]) if found else np.zeros(0)


def takes_eclipse(chain: Chain) -> bool:
    """Return whether all slopes are in [0, 1] and there is a layer of them."""
    pairs = [
        a.arrays(w.shape[0]) if isinstance(a, Slopes) else None
        for a, w in zip(chain.activations, chain.weights, strict=False)
    ]
    return bool(pairs) and all(
        p is not None and not p[0].any() and (p[1] == 1.0).all() for p in pairs
    )


def eclipse_fast_witness(chain: Chain) -> ChainWitness | None:
    """Return a checked witness for the ECLipsE-Fast bound of a chain, or None.

    Raises
    ------
    UnsupportedError
        If an activation has slopes other than [0, 1].
    """
    if chain.activations and not takes_eclipse(chain):
        raise UnsupportedError("ECLipsE-Fast takes activations with slopes in [0, 1] only")
    exponents = norm_exponents(chain)
    weights = scaled_midpoints(chain, exponents)
    if not chain.activations or not all(w.any() for w in weights):
        return None
    form = assemble(weights, chain.activations, exponents)
    if form is None:
        return None
    theta = eclipse_start(weights, form, exponents) - EDGE
    counts = np.cumsum([layer.count for layer in form.layers])[:-1]
    return prove(chain, Found(form, list(np.split(np.exp(theta), counts)), form.last))
