"""One call for the Lipschitz constant of a chain: upper bound, proof, lower bound."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tangency.models.errors import InputError, NotProvedError, UnsupportedError
from tangency.verify.certificate.chain import ChainWitness
from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.chain.chain import Chain
from tangency.verify.lipschitz.attack import attack as search
from tangency.verify.lipschitz.attack import is_small
from tangency.verify.lipschitz.clock import GRACE, OVER, Clock, TimeUp, now
from tangency.verify.lipschitz.eclipse import eclipse_fast_witness
from tangency.verify.lipschitz.engine.search import engine_bound
from tangency.verify.lipschitz.engine.threads import one_thread
from tangency.verify.lipschitz.lipsdp import HIDDEN_LIMIT, SOLVERS, lipsdp_witness
from tangency.verify.lipschitz.local_attack import attack_box
from tangency.verify.lipschitz.product import product_bound
from tangency.verify.result import LipschitzBound, consistent
from tangency.verify.sets import Box

__all__ = ["bound_chain"]

_METHODS = ("lipsdp", "eclipse_fast", "product")
_NORMS = ("2", "1", "inf")
SHARE = 0.3  # of the search's time, for the attack


def bound_chain(
    chain: Chain,
    *,
    method: str = "lipsdp",
    norm: Any = 2,
    output: Any = 2,
    solver: str = "engine",
    time_limit: float | None = 60.0,
    rtol: float | None = None,
    progress: Callable[[float, float], None] | None = None,
    seed: int = 0,
    attack: bool = True,
    checkpoint: str | Path | None = None,
    hidden_limit: int = HIDDEN_LIMIT,
) -> LipschitzBound:
    """Bound the Lipschitz constant of a chain from above, proved, and from below.

    Parameters
    ----------
    chain : Chain
    method : {"lipsdp", "eclipse_fast", "product"}
        LipSDP with one multiplier for each neuron or group, its closed form layer by layer, or the
        product of norms. The product is returned where it is smaller or nothing else can be
        proved; the result's `method` says which.
    norm : {2, 1, "inf"}
        Of the input.
    output : {2, 1, "inf"} or ("margin", i, j)
        Norm of the output, or the difference f_i - f_j of two of its entries.
    solver : {"engine", "scs", "clarabel"}
        "engine" is the house's own, for chains of any size, all norms, and sums that GroupSort
        keeps; the others solve the same inequality by cvxpy, for l2 and small chains.
    time_limit : float, optional
        Seconds for all: the product of norms first, the engine's search and the proof of what it
        has found by then, the search for a lower bound. None for no limit. What cannot be cut, a
        factorisation or the proof, may take a fifth more and two seconds.
    rtol : float, optional
        The engine stops where the bound is estimated to lie this near the optimum (1e-6); the
        accuracy asked of SCS (1e-7). What is proved does not depend on it.
    progress : callable, optional
        Called with the engine's bound so far, not yet proved, and the seconds.
    seed : int
        Of the search for the lower bound.
    attack : bool
        Whether to search for a lower bound: in chains without residual or Householder layers.
        (`lipschitz_bound` searches the graph of a Network that has them.)
    checkpoint : path, optional
        A file that keeps the engine's best multipliers, written every few seconds and at the end.
        If it is there the search goes on from it, whatever ended the one before.
    hidden_limit : int
        Hidden neurons that SCS and Clarabel are given at most. Their time grows with the fourth
        power: 160 neurons take Clarabel a minute or two for each of up to three passes.

    Returns
    -------
    LipschitzBound

    Raises
    ------
    InputError
        If an option is unknown, the chain too large for the solver, or the checkpoint that of
        another chain or constant.
    UnsupportedError
        If the method or the solver has no such norm or layer.
    NotProvedError
        If no bound can be proved within the range of float64.

    Examples
    --------
    >>> chain = Chain.from_matrices([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 4.0]]], "maxmin")
    >>> found = bound_chain(chain, method="product")
    >>> round(found.upper, 9), round(found.lower, 9), found.certified
    (5.0, 5.0, True)
    >>> round(bound_chain(chain, norm="inf").upper, 4)
    7.0711
    """
    start = now()
    if method not in _METHODS:
        raise InputError(f"unknown method {method!r}: give one of {', '.join(_METHODS)}")
    if solver not in ("engine", *SOLVERS):
        raise InputError(f"unknown solver {solver!r}: give one of engine, {', '.join(SOLVERS)}")
    source = _norm(norm, "norm")
    target, margin = _output(output, chain.sizes[-1])
    if rtol is not None and not 0.0 < rtol < 1.0:
        raise InputError(f"rtol must lie between 0 and 1, not {rtol!r}")
    if time_limit is not None and not time_limit > 0.0:
        raise InputError(f"time_limit must be positive, not {time_limit!r}")
    euclidean = source == "2" and target == "2"
    plain = all(isinstance(a, Slopes | GroupSort) for a in chain.activations)
    reference = method == "lipsdp" and solver != "engine"
    if checkpoint is not None and (reference or method != "lipsdp"):
        raise InputError("a checkpoint keeps the engine's search: method 'lipsdp', solver 'engine'")
    if (reference or method == "eclipse_fast") and not (euclidean and plain):
        what = f"solver {solver!r}" if reference else "method 'eclipse_fast'"
        raise UnsupportedError(
            f"{what} bounds l2 to l2 of slopes and GroupSort; use solver='engine', method='lipsdp'"
        )
    allowed = None if time_limit is None else SHARE * time_limit + GRACE / 3.0
    product = product_bound(chain, norm=source, output=target, seconds=allowed)
    witness: ChainWitness | None = None
    gap, finished = None, True
    spent = 0.0  # on the search
    history: tuple[tuple[float, float], ...] = ()
    if method == "eclipse_fast":
        with one_thread(max(chain.sizes)):
            witness = eclipse_fast_witness(chain)
    elif reference:
        witness = lipsdp_witness(
            chain,
            solver=solver,
            rtol=1e-7 if rtol is None else rtol,
            hidden_limit=hidden_limit,
        )
    elif method == "lipsdp" and (chain.activations or not euclidean):
        begin = now()
        try:
            found = engine_bound(
                chain,
                norm=source,
                output=target,
                margin=margin,
                time_limit=None if time_limit is None else _engine_share(time_limit, begin - start),
                rtol=1e-6 if rtol is None else rtol,
                progress=progress,
                checkpoint=checkpoint,
            )
        except (TimeUp, KeyboardInterrupt):
            found, finished = None, False
        spent = now() - begin
        if found is not None:
            witness, finished = found.witness, found.finished
            history = (*found.history, (found.seconds, witness.bound))
            gap = found.gap if math.isfinite(found.gap) else None
    proved = None if witness is None else witness.bound
    better = proved is not None and proved < product
    upper = proved if proved is not None and better else product
    if not math.isfinite(upper):
        raise NotProvedError("no bound within the range of float64 could be proved")
    name = target if not margin else f"margin:{margin[0]},{margin[1]}"
    lower = None
    if attack and plain:
        clock = Clock(None)
        if time_limit is not None:
            left = (1.0 + OVER / 2.0) * time_limit + GRACE / 2.0 - (now() - start)
            share = max(SHARE * spent, SHARE * time_limit if not spent else 0.1 * time_limit)
            clock = Clock(max(min(share, left), 0.05))
            clock.found()
        try:
            if euclidean and is_small(chain):
                lower = search(chain, seed=seed, clock=clock)
            else:
                lower = _in_boxes(chain, source, name, seed, clock)
        except KeyboardInterrupt:  # the bound stands
            finished = False
    return LipschitzBound(
        upper=upper,
        lower=consistent(lower, upper),
        certified=True,
        method=method if better else "product",
        norm=source,
        seconds=now() - start,
        solver=solver if better and method == "lipsdp" else None,
        product=product,
        lipsdp=proved if method == "lipsdp" else None,
        witness=witness if better else None,
        output=name,
        gap=gap,
        finished=finished,
        history=history,
    )


def _norm(given: Any, name: str) -> str:
    text = "inf" if given in (math.inf, "linf") else str(given)
    if text not in _NORMS:
        raise UnsupportedError(f"{name} {given!r} has no method: give 2, 1 or 'inf'")
    return text


def _output(given: Any, outputs: int) -> tuple[str, tuple[int, ...]]:
    """Return the kind of output and the entries of a margin."""
    if isinstance(given, tuple | list) and given and given[0] == "margin":
        pair = given[1:]
        whole = len(pair) == 2 and all(isinstance(i, int) for i in pair)
        if not whole or pair[0] == pair[1] or not all(0 <= i < outputs for i in pair):
            raise InputError(f"a margin takes two different outputs below {outputs}: {given!r}")
        return "margin", (pair[0], pair[1])
    return _norm(given, "output"), ()


def _engine_share(time_limit: float, spent: float) -> float:
    """Return the seconds that the product before and the attack to come leave the engine."""
    return max(time_limit - spent, 0.0) / (1.0 + SHARE / 2.0)


def _in_boxes(chain: Chain, norm: str, output: str, seed: int, clock: Clock) -> float | None:
    """Return the best lower bound that the search inside a box finds, for boxes of three sizes."""
    n = chain.sizes[0]
    found = [
        attack_box(chain, Box(-r, r), norm=norm, output=output, seed=seed, clock=clock)
        for r in (np.full(n, 10.0**k) for k in (0, 1, 2))
    ]
    return max((value for value in found if value is not None), default=None)
