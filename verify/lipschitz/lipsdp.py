"""LipSDP by a general conic solver, through cvxpy: the reference formulation, for small chains.

The multipliers that a solver returns are repaired and checked (`repair.prove`); its status is not
read. A chain whose bound is far below the product of its norms is solved again after rescaling by
the bound found, because the solvers stop at an absolute accuracy.
"""

import warnings
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.verify.certificate.chain import ChainWitness
from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.certificate.matrix import Array
from tangency.verify.chain.chain import Chain
from tangency.verify.lipschitz.engine.assemble import assemble as engine_form
from tangency.verify.lipschitz.lmi import Inequality, assemble
from tangency.verify.lipschitz.repair import Found, prove
from tangency.verify.lipschitz.scaling import norm_exponents, scaled_midpoints

__all__ = ["HIDDEN_LIMIT", "SOLVERS", "lipsdp_witness"]

HIDDEN_LIMIT = 150
SOLVERS = ("scs", "clarabel")
_PASSES = 3


def lipsdp_witness(
    chain: Chain,
    *,
    solver: str = "scs",
    rtol: float = 1e-7,
    hidden_limit: int = HIDDEN_LIMIT,
) -> ChainWitness | None:
    """Return a checked witness for the LipSDP bound of a chain, or None if none was found.

    Slope-restricted neurons have one multiplier each (LipSDP-Neuron). GroupSort groups have the
    multipliers lambda >= 0 and gamma of the published constraint with S = P = 0. The coupling of
    neurons of LipSDP-Network is unsound and is not offered.

    Parameters
    ----------
    chain : Chain
        Of at most `hidden_limit` hidden neurons.
    solver : {"scs", "clarabel"}
    rtol : float
        Accuracy asked of the solver, relative to the product of the norms.
    hidden_limit : int
        The time grows with the fourth power of the neurons, the memory with the third.

    Returns
    -------
    ChainWitness or None

    Raises
    ------
    InputError
        If the chain is too large, or the solver unknown.

    References
    ----------
    .. [1] M. Fazlyab et al., NeurIPS 2019, arXiv 1906.04893, theorem 2.
    .. [2] P. Pauli et al., ICLR 2024, arXiv 2401.14033, theorem 1.
    """
    if solver not in SOLVERS:
        raise InputError(f"unknown solver {solver!r}: give one of {', '.join(SOLVERS)}")
    if chain.hidden > hidden_limit:
        raise InputError(
            f"solver {solver!r} is given at most {hidden_limit} hidden neurons, this chain has "
            f"{chain.hidden}: use solver='engine', or hidden_limit={chain.hidden} for as long as "
            "it takes"
        )
    if not chain.activations:
        return None  # one matrix: the product is its norm
    exponents = norm_exponents(chain)
    weights = scaled_midpoints(chain, exponents)
    norms = [float(np.linalg.norm(w, 2)) for w in weights]
    if not all(norms):
        return None
    best: ChainWitness | None = None
    scales = np.array([1.0 / norm for norm in norms])
    for _ in range(_PASSES):
        theta = _solve(
            assemble([s * w for s, w in zip(scales, weights, strict=True)], chain.activations),
            solver,
            rtol,
        )
        if theta is None:
            break
        # For weights r W the output's square grows by the r of all layers, that of the neuron
        # by those up to its own: the multiplier in the units of W is divided by the later ones.
        later = np.append(np.cumprod((scales**2)[::-1])[::-1], 1.0)
        multipliers = [t / later[k + 1] for k, t in enumerate(theta)]
        found = _found(chain, weights, multipliers, exponents)
        witness = None if found is None else prove(chain, found)
        if witness is None:
            break
        if best is None or witness.bound < best.bound:
            best = witness
        relative = float(np.ldexp(best.bound, -sum(exponents)) * np.prod(scales))
        if relative > 0.3:
            break
        scales = scales * relative ** (-1.0 / len(scales))
    return best


def _found(
    chain: Chain, weights: list[Array], multipliers: list[Array], exponents: tuple[int, ...]
) -> Found | None:
    """Return a solver's multipliers in the engine's form, whose scales are its own."""
    form = engine_form(weights, chain.activations, exponents)
    if form is None:
        return None
    later, strengths = 0, []
    for k in range(len(multipliers) - 1, -1, -1):
        later += form.exponents[k + 1] - exponents[k + 1]
        activation, given = chain.activations[k], multipliers[k]
        if isinstance(activation, GroupSort):
            given = given[0] / 2.0  # lambda(|dz|^2 - |dy|^2) is half of slopes in [-1, 1]
        elif isinstance(activation, Slopes):
            lower, upper = activation.arrays(weights[k].shape[0])
            given = given[lower != upper]
        strengths.append(np.ldexp(given, -2 * later))
    return Found(form, strengths[::-1], form.last)


def _solve(inequality: Inequality, solver: str, rtol: float) -> list[Array] | None:
    """Return the multipliers of each activation as a solver leaves them, or None."""
    import cvxpy

    signs = inequality.nonnegative
    unknown = cvxpy.Variable(1 + signs.size)
    d = inequality.constant.shape[0]
    constraints = []
    for block in inequality.blocks:
        rows = (block[:, None] * d + block[None, :]).ravel()
        values = inequality.terms[rows] @ unknown - inequality.constant.ravel()[rows]
        constraints.append(cvxpy.reshape(values, (block.size, block.size), order="C") >> 0)
    if signs.any():
        constraints.append(unknown[1 + np.flatnonzero(signs)] >= 0)
    problem = cvxpy.Problem(cvxpy.Minimize(unknown[0]), constraints)
    options: dict[str, Any] = {"solver": solver.upper()}
    if solver == "scs":
        options |= {"eps_abs": rtol, "eps_rel": rtol, "max_iters": 20000}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # an inaccurate solution is repaired and checked
        try:
            problem.solve(**options)
        except cvxpy.error.SolverError:
            return None
    if unknown.value is None:
        return None
    return inequality.multipliers(np.asarray(unknown.value[1:], dtype=np.float64))
