"""Lipschitz bounds of convolutional networks that are too large to unroll."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tangency.models.errors import InputError, NotProvedError
from tangency.models.network import Network
from tangency.verify.certificate.conv_norm import conv_norm_bound
from tangency.verify.certificate.conv_pieces import FrequencyWitness, RunWitness
from tangency.verify.certificate.conv_witness import ConvWitness
from tangency.verify.certificate.directed import multiply_up
from tangency.verify.chain.conv_factors import Factor
from tangency.verify.chain.conv_pieces import Run, pieces_of
from tangency.verify.lipschitz.conv.lower import jacobian_norm
from tangency.verify.lipschitz.conv.recursion import Problem
from tangency.verify.lipschitz.conv.repair import prove
from tangency.verify.lipschitz.conv.search import minimise
from tangency.verify.lipschitz.engine.threads import one_thread
from tangency.verify.result import LipschitzBound, consistent

__all__ = ["ConvBound", "conv_bound"]

Progress = Callable[[float, float], None]


@dataclass(frozen=True, eq=False)
class ConvBound(LipschitzBound):
    """A bound by frequencies: `method` is "conv", or "product" where that is no larger.

    Parameters
    ----------
    witnesses : tuple of (Run, ConvWitness)
        What `tangency.verify.certificate.conv.check_conv` proved of each run of convolutions.
    proof : FrequencyWitness or None
        The whole, for a certificate: the witness or the norms of each piece.
    """

    witnesses: tuple[tuple[Run, ConvWitness], ...] = ()
    proof: FrequencyWitness | None = None


def conv_bound(
    network: Network,
    *,
    time_limit: float | None = 60.0,
    rtol: float = 1e-4,
    progress: Progress | None = None,
    seed: int = 0,
    attack: bool = True,
) -> ConvBound:
    r"""Bound the l2 Lipschitz constant of a convolutional network, frequency by frequency.

    The network is cut into runs of convolutions with activations between them (of one variable,
    behind a batch norm or not; prelu; sorting of channels), all but the first of stride 1, and
    other layers. A dense layer on a flattened image ends a run as a part of it, through average
    pooling or not. A run is bounded with multipliers shared by a channel on a torus that holds its
    padded images (see `tangency.verify.certificate.conv` for the proof), other layers by their
    norms; the bound is the product. It lies above LipSDP of the unrolled network: the torus has no
    edge, multipliers are shared, and slopes a > 0 count as 0.

    Parameters
    ----------
    network : Network
        In which each layer feeds the next.
    time_limit : float, optional
        Seconds for searches, shared by the runs; what they have found by then is proved.
    rtol : float
        A search stops where a run's bound is estimated to lie this near its optimum.
    progress : callable, optional
        Called with the bound of the run at hand, not yet proved, and the seconds.
    seed : int
        Of the points at which Jacobians are taken.
    attack : bool
        Whether to look for a lower bound.

    Returns
    -------
    ConvBound

    Raises
    ------
    UnsupportedError
        Naming the layer that has no place.
    InputError
        Naming an activation without a global slope bound.
    NotProvedError
        If nothing could be proved within the range of float64.

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.models import Builder
    >>> from tangency.models.activations import get
    >>> from tangency.models.ops import Conv
    >>> b = Builder("float64")
    >>> x = b.input((1, 1, 1, 8))
    >>> op = Conv((1, 1), ((0, 0), (0, 1)))
    >>> x = b.emit(op, [x], {"weight": ("w", np.array([[[[1.0, -1.0]]]]))})
    >>> x = b.activation(x, get("relu"))
    >>> x = b.emit(op, [x], {"weight": ("v", np.array([[[[1.0, 1.0]]]]))})
    >>> found = conv_bound(b.finish([x]))
    >>> found.certified, round(found.product, 3), round(found.upper, 3), found.lower < found.upper
    (True, 3.939, 2.0, True)
    """
    start = time.perf_counter()
    if time_limit is not None and not time_limit > 0.0:
        raise InputError(f"time_limit must be positive, not {time_limit!r}")
    if not 0.0 < rtol < 1.0:
        raise InputError(f"rtol must lie between 0 and 1, not {rtol!r}")
    pieces = pieces_of(network)
    searches = sum(isinstance(p, Run) and len(p.layers) > 1 for p in pieces)
    begin = time.perf_counter()
    upper, product = 1.0, 1.0
    witnesses: list[tuple[Run, ConvWitness]] = []
    parts: list[RunWitness | tuple[float, ...]] = []
    gaps, finished = [0.0], True
    for piece in pieces:
        if isinstance(piece, Factor):
            norm = bound = piece.bound
            parts.append((bound,))
        else:
            norms = _norms(piece)
            norm = bound = _product(piece, norms)
            parts.append(norms)
            if len(piece.layers) > 1 and norm > 0.0:
                left = None
                if time_limit is not None:
                    spent = time.perf_counter() - begin
                    left = max(0.0, time_limit - spent) / (searches - len(witnesses))
                found = _search(piece, left, rtol, progress, start)
                if found is not None:
                    if found[0] < bound:
                        bound, parts[-1] = found[0], RunWitness.of(found[1])
                    witnesses.append((piece, found[1]))
                    gaps.append(found[2])
                    finished = finished and found[3]
        upper, product = _times(upper, bound), _times(product, norm)
    if not math.isfinite(upper):
        raise NotProvedError("the bound exceeds the range of float64")
    better = upper < product
    return ConvBound(
        upper,
        consistent(jacobian_norm(network, seed=seed) if attack else None, upper),
        True,
        "conv" if better else "product",
        "2",
        time.perf_counter() - start,
        "engine" if better else None,
        product,
        lipsdp=upper if witnesses else None,
        gap=sum(gaps),
        finished=finished,
        witnesses=tuple(witnesses),
        proof=FrequencyWitness(upper, tuple(parts)),
    )


def _times(a: float, b: float) -> float:
    return 0.0 if 0.0 in (a, b) else a if b == 1.0 else b if a == 1.0 else multiply_up(a, b)


def _norms(run: Run) -> tuple[float, ...]:
    """Return bounds of the norms of a run's layers."""
    size, norms = run.size, []
    for layer in run.layers:
        norms.append(conv_norm_bound(layer, size))
        size = layer.output_size(size)
    return tuple(norms)


def _product(run: Run, norms: tuple[float, ...]) -> float:
    """Return the product of the norms of a run's layers and activations."""
    bound = 1.0
    for norm in norms:
        bound = _times(bound, norm)
    for activation in run.activations:
        bound = _times(bound, activation.lipschitz())
    return bound


def _search(
    run: Run, left: float | None, rtol: float, progress: Progress | None, start: float
) -> tuple[float, ConvWitness, float, bool] | None:
    """Return a proved bound of a run, its witness, the estimated gap, whether it is finished."""
    with one_thread(max(max(layer.channels) for layer in run.layers)):
        problem = Problem(run.layers, run.activations, run.size, dense=run.dense)
        scale = sum(problem.exponents)

        def shown(square: float) -> None:
            if progress is not None:
                with np.errstate(over="ignore"):
                    bound = float(np.ldexp(math.sqrt(square), scale))
                progress(bound, time.perf_counter() - start)

        found = minimise(problem, time_limit=left, rtol=rtol, progress=shown)
        if found is None:
            return None
        try:
            bound, witness = prove(problem, found.theta, found.head)
        except NotProvedError:
            return None
    return bound, witness, found.gap, found.finished
