"""Whether the samples of a batch see each other: the framework compared with itself.

What a sample gives must not depend on the other samples of its batch, its mates. Two evaluations
of the framework are compared in which a sample stands at the same place among other mates, so
that no rounding of ours comes in and mates may have any size that the dtype has: a maximum over
the batch that counts from 1e9 on shows here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["find_coupling"]

#: Sizes of wild samples; a quarter of the largest number of the dtype is one too.
SCALES = (1e5, 1e8, 1e12, 1e20, 1e30)
#: A wave, which is two calls, for so many probes, and the fewest waves.
PROBES_PER_WAVE, FEWEST = 10, 2

Evaluate = Callable[..., list[np.ndarray]]
#: Of places in the batch: how far rounding may move the outputs there, one array for each output.
Spread = Callable[[np.ndarray], list[np.ndarray]]


def find_coupling(
    evaluate: Evaluate,
    tame: list[np.ndarray],
    outputs: list[np.ndarray],
    *,
    count: int,
    rtol: float,
    spread: Spread,
) -> str | None:
    """Words about a sample whose output changes with its mates, if there is one.

    In each wave some samples of a batch are replaced by wild ones. Those that stay must give what
    they gave, and the wild ones what they give in a batch that is wild throughout (a minimum over
    the batch counts only there). All batches have one shape, which a framework compiles once.

    Parameters
    ----------
    evaluate : callable
        The framework's evaluation, of arrays with a batch axis in front.
    tame, outputs : list of (n, ...) arrays
        A batch of ordinary samples, and what ``evaluate`` gave there.
    count : int
        Number of probes that the network's cost allows.
    rtol : float
        Change of an entry relative to the largest of its sample's that is rounding: kernels choose
        their algorithm by the entries that they have at hand together (sines of large arguments).
    spread : callable
        How far rounding moves the outputs of ordinary samples, for those that lose more digits.
    """
    n, dtype = len(tame[0]), tame[0].dtype
    rng = np.random.default_rng(3)
    for k, (words, scales, sign) in enumerate(_waves(dtype)):
        if k >= max(FEWEST, count // PROBES_PER_WAVE):
            break
        wild = rng.random(n) < 0.5
        if k < FEWEST:
            wild[[0, -1]] = True
        wild[n // 2] &= not wild.all()
        all_wild = [_drawn(rng, x, scales, sign) for x in tame]
        some = [_chosen(wild, w, x) for w, x in zip(all_wild, tame, strict=True)]
        try:
            with np.errstate(all="ignore"):
                mixed, among = evaluate(*some), evaluate(*all_wild)
        except Exception:  # a model that takes no such numbers
            continue
        for places, before, rounding in (
            (np.flatnonzero(~wild), outputs, spread),
            (np.flatnonzero(wild), among, None),
        ):
            place = _changed(places, before, mixed, rtol, rounding)
            if place is not None:
                size = max(float(np.abs(x[place]).max(initial=0.0)) for x in some)
                return (
                    f"a sample (its largest entry is {size:.3g}) gives another output when "
                    f"{'others' if rounding else 'all others'} of its batch are {words}"
                )
    return None


def _waves(dtype: Any) -> Iterator[tuple[str, np.ndarray, float]]:
    """Words, sizes and sign (0: both) of wild samples, those of all sizes together first."""
    sizes = np.array([*SCALES, float(np.finfo(dtype).max) / 4])
    signs = {1.0: "positive", -1.0: "negative"}
    for sign, name in signs.items():
        yield f"{name}, of sizes {sizes[0]:.0e} to {sizes[-1]:.0e}", sizes, sign
    yield f"of both signs or zero, up to {sizes[-1]:.0e}", np.append(sizes, 0.0), 0.0
    for size in sizes:
        for sign, name in signs.items():
            yield f"{name}, of size {size:.0e}", np.array([size]), sign


def _drawn(rng: np.random.Generator, x: np.ndarray, scales: np.ndarray, sign: float) -> np.ndarray:
    """Wild samples in the shape of x: half of them constant, half with entries drawn normal."""
    lead = (len(x), *(1,) * (x.ndim - 1))
    entries = np.where(rng.random(lead) < 0.5, 1.0, np.abs(rng.standard_normal(x.shape)))
    signs = sign if sign else rng.choice([-1.0, 1.0], x.shape)
    limit = float(np.finfo(x.dtype).max)
    with np.errstate(over="ignore"):
        wild = signs * rng.choice(scales, lead) * entries
    clipped: np.ndarray = np.clip(wild, -limit, limit).astype(x.dtype)
    return clipped


def _chosen(which: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    chosen: np.ndarray = np.where(which.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
    return chosen


def _changed(
    places: np.ndarray,
    before: list[np.ndarray],
    after: list[np.ndarray],
    rtol: float,
    spread: Spread | None,
) -> int | None:
    """The first of these places at which the outputs differ."""
    for k, outputs in enumerate(zip(before, after, strict=True)):
        a, b = (np.asarray(y[places], float).reshape(len(places), -1) for y in outputs)
        largest = np.where(np.isfinite(a), np.abs(a), 0.0).max(axis=1, keepdims=True, initial=0.0)
        allowed = rtol * largest
        at = _differing(a, b, allowed)
        if at.size and spread is not None:
            moved = spread(places[at])[k].reshape(len(at), -1)
            at = at[_differing(a[at], b[at], allowed[at] + moved)]
        if at.size:
            return int(places[at[0]])
    return None


def _differing(a: np.ndarray, b: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The rows in which some entry differs by more than allowed; NaN is equal to itself."""
    with np.errstate(invalid="ignore"):
        same = (np.abs(a - b) <= allowed) & np.isfinite(b)
    same |= (a == b) | (np.isnan(a) & np.isnan(b))
    return np.flatnonzero(~same.all(axis=1))
