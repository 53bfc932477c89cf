r"""Branch and bound for the Lipschitz constant on a box: the piece with the largest bound is cut.

A segment between two points of a convex box, cut where it passes from one piece to the next, gives

.. math:: |f(x) - f(y)| \le \sum_i L_{j(i)}\,|x_{i+1} - x_i| \le \max_j L_j\,|x - y|

for any cover of the box by closed pieces j with constants L_j, because the parts lie on one line.
So the largest bound of the pieces bounds the whole at any time, and it never rises: a piece's bound
is no more than that of the box that it was cut from.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tangency.models.errors import InputError, NotProvedError
from tangency.models.network import Network
from tangency.verify.certificate.layers import Residual, Slopes
from tangency.verify.chain.chain import Chain
from tangency.verify.chain.networks import local_chain
from tangency.verify.chain.unroll import Unrolled
from tangency.verify.lipschitz.local import attained, bound_leaf
from tangency.verify.lipschitz.local_result import LocalBound, Piece, as_local
from tangency.verify.sets import Box, Region, box_around

__all__ = ["branch_and_bound"]

#: Accuracy asked of the engine on a piece: more would be lost in the cut.
ENGINE_RTOL = 1e-4


@dataclass(eq=False)
class _Cut:
    """A piece with the bound that was proved on it alone, and the halves it was cut into."""

    piece: Piece
    linear: bool
    halves: tuple[_Cut, ...] = ()


def branch_and_bound(
    network: Network,
    region: Region,
    unrolled: Unrolled | None,
    options: dict[str, Any],
    *,
    time_limit: float | None,
    rtol: float,
    progress: Callable[[float, float], None] | None,
    seed: int,
    attack: bool,
    max_boxes: int,
) -> LocalBound:
    """Bound the constant on a box by those of its pieces; see `local_bound` for the parameters.

    Parameters
    ----------
    network : Network
    region : Box or Ball
        What is cut is the box around it.
    unrolled : Unrolled or None
        Of the network; None where it has blocks.
    options : dict
        For `bound_chain` on each piece.
    time_limit, rtol, progress, seed, attack, max_boxes
        As in `local_bound`. On an interrupt the best bound so far is returned.

    Raises
    ------
    InputError
        If an option is out of range.
    NotProvedError, UnsupportedError
        If the whole box has no bound.
    """
    if max_boxes < 1:
        raise InputError(f"max_boxes must be at least 1, not {max_boxes!r}")
    if time_limit is not None and not time_limit > 0.0:
        raise InputError(f"time_limit must be positive, not {time_limit!r}")
    if not 0.0 < rtol < 1.0:
        raise InputError(f"rtol must lie between 0 and 1, not {rtol!r}")
    start = time.perf_counter()
    deadline = math.inf if time_limit is None else start + time_limit
    options = options | {"rtol": ENGINE_RTOL}
    # With one search for each output the engine shares the time out among them, so that a search
    # without an end would not mean an interrupt: there it runs without a limit.
    limited = str(options["output"]) not in ("inf", "linf") and deadline < math.inf
    box = box_around(region)
    chain = local_chain(network, box, unrolled=unrolled)
    whole = bound_leaf(chain, options | {"time_limit": time_limit if limited else None})
    lower = attained(network, chain, region, whole, seed) if attack else None
    order = itertools.count()
    root = _Cut(Piece(box, whole.upper, whole.witness), _is_linear(chain))
    pieces = [(-whole.upper, next(order), root)]
    history = [(time.perf_counter() - start, whole.upper)]
    stopped = not whole.finished  # by the time limit or an interrupt
    try:
        while not stopped:
            upper, _, node = pieces[0]
            if -upper < history[-1][1]:
                history.append((time.perf_counter() - start, -upper))
            if progress is not None:
                progress(-upper, time.perf_counter() - start)
            halves = None if node.linear else _halves(node.piece.box)
            if halves is None or (lower is not None and -upper <= lower * (1.0 + rtol)):
                break
            if len(pieces) >= max_boxes or time.perf_counter() > deadline:
                stopped = True
                break
            new = []
            for half in halves:
                part = local_chain(network, half, unrolled=unrolled)
                left = max(deadline - time.perf_counter(), 1e-3) if limited else None
                found, done = _leaf(part, half, options | {"time_limit": left})
                stopped = stopped or not (done or time.perf_counter() > deadline)
                cut = _Cut(found, _is_linear(part))
                new.append((max(upper, -found.upper), next(order), cut))
            merged = [*pieces[1:], *new]
            heapq.heapify(merged)
            node.halves = tuple(cut for _, _, cut in new)
            pieces = merged  # at once, and last: an interrupt finds a whole cover
    except KeyboardInterrupt:
        stopped = True
    best, seconds = -pieces[0][0], time.perf_counter() - start
    if best < whole.upper:
        whole = replace(whole, upper=best, witness=None, gap=None)
        history += [(seconds, best)] if best < history[-1][1] else []
    return as_local(
        replace(whole, finished=not stopped),
        box,
        lower,
        seconds,
        boxes=len(pieces),
        pieces=tuple(_cover(root, best)),
        history=tuple(history),
    )


def _leaf(chain: Chain, box: Box, options: dict[str, Any]) -> tuple[Piece, bool]:
    """Return a piece, its bound infinite where none was proved, and whether it was finished."""
    try:
        found = bound_leaf(chain, options)
    except NotProvedError:
        return Piece(box, math.inf), True
    return Piece(box, found.upper, found.witness), found.finished


def _cover(node: _Cut, best: float) -> Iterator[Piece]:
    """Yield the largest pieces whose own bound is no more than the best.

    A piece counts with the least bound of the boxes that it was cut from, so that each of them has
    such a box above it.
    """
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node.piece.upper <= best:
            yield node.piece
        else:
            waiting += reversed(node.halves)


def _halves(box: Box) -> tuple[Box, Box] | None:
    """Return the box cut at the middle of its longest edge; None where floats leave no middle."""
    width = box.upper / 2 - box.lower / 2
    where = np.unravel_index(int(width.argmax()), width.shape)
    low, high = box.lower[where], box.upper[where]
    middle = low / 2 + high / 2
    if not low < middle < high:
        return None
    below, above = box.upper.copy(), box.lower.copy()
    below[where] = above[where] = middle
    return Box(box.lower, below), Box(above, box.upper)


def _is_linear(chain: Chain) -> bool:
    """Whether no neuron has a choice of slopes: cutting would change nothing."""
    inner = (a.inner if isinstance(a, Residual) else a for a in chain.activations)
    return all(
        isinstance(a, Slopes) and bool(np.all(np.asarray(a.lower) == np.asarray(a.upper)))
        for a in inner
    )
