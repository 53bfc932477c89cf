r"""Lipschitz bounds of implicit (equilibrium) layers: z = phi(W z + U x + b), y = C z.

One dense inequality for all neurons, in the form of `tangency.verify.certificate.implicit`, is
solved by cvxpy, repaired and checked.

References
----------
.. [1] P. Pauli et al., ICLR 2024, arXiv 2401.14033, section on implicit models.
.. [2] M. Revay, R. Wang, I. R. Manchester, arXiv 2010.01732, theorem 2.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError, NotProvedError, UnsupportedError
from tangency.verify.certificate.directed import divide_up, down, multiply_up
from tangency.verify.certificate.implicit import ImplicitWitness
from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.certificate.matrix import Matrix
from tangency.verify.certificate.norms import spectral_norm_bound
from tangency.verify.chain.chain import Function, Named, constraint_named
from tangency.verify.lipschitz.fixed_points import implicit_attack
from tangency.verify.lipschitz.implicit_search import proved, well_posed
from tangency.verify.result import LipschitzBound, consistent

__all__ = ["ImplicitBound", "implicit_bound"]

NEURON_LIMIT = 150


@dataclass(frozen=True, eq=False)
class ImplicitBound(LipschitzBound):
    """A Lipschitz bound of an implicit layer.

    Parameters
    ----------
    proof : ImplicitWitness or None
        What `check_implicit` proved; None where the naive bound is returned.
    posed : str
        How the fixed point was proved unique: "contraction" or "monotone".
    """

    proof: ImplicitWitness | None = None
    posed: str = ""


def implicit_bound(
    W: Any,
    U: Any,
    C: Any,
    *,
    activation: Named = "relu",
    b: Any = None,
    solver: str = "clarabel",
    seed: int = 0,
    attack: bool = True,
) -> ImplicitBound:
    """Bound the l2 Lipschitz constant of x -> C z, z = phi(W z + U x + b), proved.

    Parameters
    ----------
    W, U, C : (n, n), (n, m), (p, n) arrays
    activation : str, (a, b), Slopes or GroupSort
        As for `Chain.from_matrices`; one variable or sorting.
    b : (n,) array, optional
        Only the search for the lower bound reads it.
    solver : {"clarabel", "scs"}
        Of the search; its answer is repaired and proved.
    seed : int
        Of the sampled fixed points.
    attack : bool
        Whether to search for a lower bound.

    Returns
    -------
    ImplicitBound
        `product` is the naive bound |C| |U| m / (1 - m |W|), m the constant of phi, or infinite.

    Raises
    ------
    NotProvedError
        If the fixed point is not proved to exist and be unique.
    InputError, UnsupportedError
        If shapes do not fit, the layer is too large, or the activation has no such constraint.

    Examples
    --------
    >>> found = implicit_bound([[-3.0]], [[1.0]], [[1.0]])
    >>> found.posed, round(found.upper, 5), round(found.lower, 5)
    ('monotone', 0.25, 0.25)
    """
    begin = time.perf_counter()
    weight, inputs, output = (Matrix.of(v, name=k) for k, v in (("W", W), ("U", U), ("C", C)))
    n = weight.shape[0]
    if weight.shape[1] != n or inputs.shape[0] != n or output.shape[1] != n:
        raise InputError(f"W {weight.shape}, U {inputs.shape} and C {output.shape} do not fit")
    if n > NEURON_LIMIT:
        raise InputError(f"implicit layers take at most {NEURON_LIMIT} neurons, not {n}")
    if solver not in ("clarabel", "scs"):
        raise InputError(f"unknown solver {solver!r}: give one of clarabel, scs")
    constraint, function = constraint_named(activation)
    if not isinstance(constraint, Slopes | GroupSort):
        raise UnsupportedError("implicit layers take slopes and GroupSort")
    if isinstance(constraint, GroupSort):
        constraint.groups(n)
    else:
        constraint.arrays(n)
    posed, scaling = well_posed(weight, constraint, solver)
    naive = _naive(weight, inputs, output, constraint)
    proof = None
    if inputs.midpoint.any() and output.midpoint.any():
        proof = proved(weight, inputs, output, constraint, posed, scaling, solver)
    upper = naive if proof is None else min(naive, proof.bound)
    if not math.isfinite(upper):
        raise NotProvedError("no bound could be proved in float64")
    better = proof is not None and proof.bound <= naive
    lower = _lower(weight, inputs, output, constraint, function, b, seed) if attack else None
    return ImplicitBound(
        upper=upper,
        lower=consistent(lower, upper),
        certified=True,
        method="lipsdp" if better else "product",
        norm="2",
        seconds=time.perf_counter() - begin,
        solver=solver if better else None,
        product=naive,
        lipsdp=None if proof is None else proof.bound,
        proof=proof if better else None,
        posed=posed,
    )


def _naive(weight: Matrix, inputs: Matrix, output: Matrix, given: Slopes | GroupSort) -> float:
    slope = given.lipschitz()
    room = down(1.0 - multiply_up(spectral_norm_bound(weight), slope))
    size = multiply_up(spectral_norm_bound(output), spectral_norm_bound(inputs))
    return divide_up(multiply_up(size, slope), room) if room > 0.0 else math.inf


def _lower(
    weight: Matrix,
    inputs: Matrix,
    output: Matrix,
    activation: Slopes | GroupSort,
    function: Function | None,
    b: Any,
    seed: int,
) -> float | None:
    n = weight.shape[0]
    bias = np.zeros(n) if b is None else np.asarray(b, dtype=np.float64)
    if bias.shape != (n,) or not np.isfinite(bias).all():
        raise InputError(f"b must be {n} finite numbers")
    return implicit_attack(
        weight.midpoint, inputs.midpoint, output.midpoint, bias, activation, function, seed=seed
    )
