"""One call for the Lipschitz constant of a chain: upper bound, proof, lower bound."""

import math
import time
from typing import Any

from tangency.models.errors import InputError, NotProvedError, UnsupportedError
from tangency.verify.certificate.chain import ChainWitness
from tangency.verify.lipschitz.attack import attack as search
from tangency.verify.lipschitz.chain import Chain
from tangency.verify.lipschitz.lipsdp import lipsdp_witness
from tangency.verify.lipschitz.product import product_bound
from tangency.verify.lipschitz.result import LipschitzBound

__all__ = ["bound_chain"]

_METHODS = ("lipsdp", "product")


def bound_chain(
    chain: Chain,
    *,
    method: str = "lipsdp",
    norm: Any = 2,
    solver: str = "scs",
    rtol: float = 1e-7,
    seed: int = 0,
    attack: bool = True,
) -> LipschitzBound:
    """Bound the Lipschitz constant of a chain from above, proved, and from below.

    Parameters
    ----------
    chain : Chain
    method : {"lipsdp", "product"}
        With "lipsdp" the product is returned where it is smaller or the solver fails; the result's
        `method` says which.
    norm : 2
        Of input and output.
    solver : {"scs", "clarabel"}
        Of the semidefinite program.
    rtol : float
        Accuracy asked of SCS; what is proved does not depend on it.
    seed : int
        Of the search for the lower bound.
    attack : bool
        Whether to search for a lower bound.

    Returns
    -------
    LipschitzBound

    Raises
    ------
    InputError
        If an option is unknown, or the chain too large for the method.
    UnsupportedError
        If the norm is not 2.
    NotProvedError
        If no bound can be proved within the range of float64.

    Examples
    --------
    >>> chain = Chain.from_matrices([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 4.0]]], "maxmin")
    >>> found = bound_chain(chain, method="product")
    >>> round(found.upper, 9), round(found.lower, 9), found.certified
    (5.0, 5.0, True)
    """
    start = time.perf_counter()
    if method not in _METHODS:
        raise InputError(f"unknown method {method!r}: give one of {', '.join(_METHODS)}")
    if str(norm) != "2":
        raise UnsupportedError(f"norm {norm!r} has no method yet: give 2 (l2 to l2)")
    if not 0.0 < rtol < 1.0:
        raise InputError(f"rtol must lie between 0 and 1, not {rtol!r}")
    product = product_bound(chain)
    witness: ChainWitness | None = None
    if method == "lipsdp":
        witness = lipsdp_witness(chain, solver=solver, rtol=rtol)
    lipsdp = None if witness is None else witness.bound
    better = lipsdp is not None and lipsdp < product
    upper = lipsdp if lipsdp is not None and better else product
    if not math.isfinite(upper):
        raise NotProvedError("no bound within the range of float64 could be proved")
    lower = search(chain, seed=seed) if attack else None
    if lower is not None and lower > upper:
        if lower > upper * (1.0 + 1e-9) + 1e-320:
            raise NotProvedError(f"the lower bound {lower!r} contradicts the upper {upper!r}")
        lower = upper  # they meet up to the search's own rounding errors
    return LipschitzBound(
        upper=upper,
        lower=lower,
        certified=True,
        method="lipsdp" if better else "product",
        norm="2",
        seconds=time.perf_counter() - start,
        solver=solver if better else None,
        product=product,
        lipsdp=lipsdp,
        witness=witness if better else None,
    )
