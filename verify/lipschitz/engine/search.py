"""The engine on a chain: one search for each output asked for, then the proof."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tangency.models.errors import InputError
from tangency.verify.certificate.chain import ChainWitness
from tangency.verify.certificate.layers import Residual
from tangency.verify.certificate.matrix import Array
from tangency.verify.chain.chain import Chain
from tangency.verify.lipschitz.clock import GRACE, OVER, Clock, TimeUp, now, seconds_for
from tangency.verify.lipschitz.engine.assemble import assemble
from tangency.verify.lipschitz.engine.beginning import Begun, begin_search
from tangency.verify.lipschitz.engine.checkpoint import Checkpoint, Point
from tangency.verify.lipschitz.engine.objective import Objective
from tangency.verify.lipschitz.engine.solve import FIRST, Keep, Solution, minimise
from tangency.verify.lipschitz.engine.threads import one_thread
from tangency.verify.lipschitz.engine.trace import Progress, Trace, as_bound
from tangency.verify.lipschitz.repair import Found, proof_operations, prove, prove_rows
from tangency.verify.lipschitz.scaling import norm_exponents, reduced

__all__ = ["EngineResult", "engine_bound"]


@dataclass(frozen=True, eq=False)
class EngineResult:
    """What the engine found and proved.

    Parameters
    ----------
    witness : ChainWitness
        Checked; its bound is the result.
    gap : float
        An estimate, not proved, of how far the bound lies above the optimum, relative: what the
        search left, and what the proof added.
    finished : bool
        Whether the search ended by itself.
    steps : int
        Gradients computed.
    seconds : float
        Search and proof.
    history : tuple of (seconds, bound)
        The bounds of the whole that the search passed, not proved.
    """

    witness: ChainWitness
    gap: float
    finished: bool
    steps: int
    seconds: float
    history: tuple[tuple[float, float], ...] = ()


def engine_bound(
    chain: Chain,
    *,
    norm: str = "2",
    output: str = "2",
    margin: tuple[int, ...] = (),
    time_limit: float | None = None,
    rtol: float = 1e-6,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
) -> EngineResult | None:
    """Return the best bound that the engine finds and proves for a chain.

    Parameters
    ----------
    chain : Chain
    norm : {"2", "1", "inf"}
        Of the input.
    output : {"2", "1", "inf", "margin"}
        Norm of the output, or the difference of the two entries of `margin`.
    margin : tuple of int
        i and j.
    time_limit : float, optional
        Seconds for search and proof. The best bound so far is proved; so it is on an interrupt.
    rtol : float
        The search stops where the bound is estimated to lie this near its optimum.
    progress : callable, optional
        Called with the bound, not yet proved, and the seconds so far.
    checkpoint : path, optional
        A file that keeps the best point, and where the search goes on if it is there.

    Returns
    -------
    EngineResult or None
        None where a matrix is zero, or nothing could be proved in float64.

    Raises
    ------
    InputError
        If the checkpoint is that of another chain or another constant.
    TimeUp
        If the time is too short to prove anything, which is foreseen as far as it can be.
    """
    begin = now()
    outputs = chain.sizes[-1] if output == "inf" else 1
    proof = 0.0
    if time_limit is not None:
        proof = seconds_for(outputs * proof_operations(chain))
        if proof > (1.0 + OVER) * time_limit + GRACE:
            raise TimeUp
    exponents = norm_exponents(chain)
    weights = [np.ldexp(w.midpoint, -e) for w, e in zip(chain.weights, exponents, strict=True)]
    if not all(w.any() for w in weights) and not _residual(chain):
        return None
    if norm == "2" and not (chain.activations and isinstance(chain.activations[0], Residual)):
        weights[0] = reduced(weights[0])
    lasts: list[Array] = [weights[-1]]
    if output == "margin":
        _require_outputs(margin, weights[-1].shape[0])
        lasts = [weights[-1][[margin[0]]] - weights[-1][[margin[1]]]]
    elif output == "inf":
        lasts = [weights[-1][[i]] for i in range(weights[-1].shape[0])]
    file = None
    if checkpoint is not None:
        kind = f"margin {margin[0]},{margin[1]}" if output == "margin" else f"l{output}"
        file = Checkpoint(Path(checkpoint), chain, f"l{norm} -> {kind}", len(lasts))
    trace = Trace(progress, begin, len(lasts))
    found: list[Found | None] = []
    tail: tuple[Array, ...] = ()
    solutions: list[Solution] = []
    optima = [0.0]  # as estimated
    with one_thread(max(max(w.shape) for w in weights[1:] or weights)):
        for i, last in enumerate(lasts):
            left = late = None
            if time_limit is not None:
                rest = begin + time_limit - proof - now()
                left = rest / (len(lasts) - i)
                late = (rest + OVER * time_limit + GRACE) / (len(lasts) - i)
            one = _search(
                chain,
                [*weights[:-1], last],
                exponents,
                norm,
                "1" if output == "1" else "2",
                _Options(left, late, rtol, trace, file, i),
            )
            trace.close()
            if one is None:
                found.append(None)
                continue
            part, solution, tail, searched = one
            solutions.append(solution)
            found.append(part)
            optima.append(searched / (1.0 + solution.gap))
        usable = [f for f in found if f is not None]
        if not usable:
            return None
        if output == "inf":
            # What bounds another entry bounds one that is zero.
            witness = prove_rows(chain, [f if f is not None else usable[0] for f in found])
        else:
            witness = prove(chain, usable[0], output=output, margin=margin, tail=tail)
    if witness is None:
        return None
    return EngineResult(
        witness,
        max(witness.bound / max(optima) - 1.0, 0.0) if max(optima) > 0.0 else math.inf,
        all(s.finished for s in solutions),
        sum(s.steps for s in solutions),
        now() - begin,
        tuple(trace.passed),
    )


@dataclass(frozen=True, eq=False)
class _Options:
    """How long and how far to search for one output, who is told, where it is kept."""

    time_limit: float | None
    late: float | None
    rtol: float
    trace: Trace
    file: Checkpoint | None
    index: int


def _search(
    chain: Chain,
    weights: list[Array],
    exponents: tuple[int, ...],
    norm: str,
    output: str,
    options: _Options,
) -> tuple[Found, Solution, tuple[Array, ...], float] | None:
    """Search for one output; return what a proof needs, and the bound that was found."""
    if not weights[-1].any():
        return None
    left = options.time_limit
    clock = Clock(left, options.late)
    assembly = assemble(weights, chain.activations, exponents, clock.check)
    if assembly is None:
        return None
    objective = Objective(assembly.layers, assembly.last, norm=norm, output=output, clock=clock)
    begun: Begun | None = None
    keep: Keep | None = None
    if (file := options.file) is not None:
        saved = file.start(options.index, assembly.exponents, objective.parts)
        if saved is not None:
            begun = Begun(saved.theta, saved.mu)

        def keep(theta: Array, mu: float, square: float, last: bool) -> None:
            point = Point(theta, mu, square, assembly.exponents)
            file.keep(options.index, point, last=last)

    if begun is None or objective.evaluate(begun.theta, begun.mu or FIRST) is None:
        begun = begin_search(chain, weights, exponents, assembly, objective, time_limit=left)
        if begun is None:
            return None
    scale = sum(
        e
        for k, e in enumerate(assembly.exponents)
        if k == len(assembly.layers) or not isinstance(chain.activations[k], Residual)
    )
    solution = minimise(
        objective,
        begun.theta,
        time_limit=0.0 if begun.interrupted else None,
        rtol=options.rtol,
        progress=lambda square: options.trace.add(square, scale),
        first=begun.mu,
        keep=keep,
    )
    if solution is None:
        return None
    best = begun.better(solution.theta, solution.square)
    searched = as_bound(min(solution.square, begun.edge_square), scale)
    last, tail = assembly.last, ()
    if output == "1":
        nu = (1.0 + 1e-14 * last.shape[0]) / objective.shares(best)
        last, tail = np.sqrt(nu)[:, None] * last, (nu,)  # type: ignore[assignment]
    strengths = [np.exp(best[part]) for part in objective.parts[1:-1]]
    head = np.exp(best[objective.parts[0]]) if norm == "inf" else None
    return Found(assembly, strengths, last, norm, head), solution, tail, searched


def _residual(chain: Chain) -> bool:
    return any(isinstance(a, Residual) for a in chain.activations)


def _require_outputs(margin: tuple[int, ...], outputs: int) -> None:
    if len(margin) != 2 or margin[0] == margin[1] or not all(0 <= i < outputs for i in margin):
        raise InputError(f"a margin takes two different outputs below {outputs}, not {margin}")
