"""How many samples a learner needs, and how that number grows: a search with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np

from tangency.models.errors import InputError, NotProvedError

__all__ = ["Exponent", "SampleComplexity", "fit_exponent", "sample_complexity", "samples_needed"]


@dataclass(frozen=True, eq=False)
class Exponent:
    """A power law ``median samples = prefactor * size^value`` and its bootstrap interval.

    Attributes
    ----------
    value, lower, upper : float
        The slope on logarithmic axes; the interval resamples seeds within each size.
    prefactor : float
    confidence : float
    """

    value: float
    lower: float
    upper: float
    prefactor: float
    confidence: float


@dataclass(frozen=True, eq=False)
class SampleComplexity:
    """Samples needed at each size by each seed.

    Attributes
    ----------
    sizes : (sizes,) array
        Usually the dimension of the inputs.
    samples : (sizes, seeds) array
    medians, lower, upper : (sizes,) arrays
        Over seeds, with the bootstrap interval of the median.
    exponent : Exponent or None
        None for a single size.
    """

    sizes: np.ndarray
    samples: np.ndarray
    medians: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    exponent: Exponent | None


def samples_needed(
    quality: Callable[[int], float],
    level: float,
    *,
    start: int,
    least: int = 8,
    most: int = 1_000_000,
    factor: float = 1.5,
    ratio: float = 1.1,
) -> float:
    """The number of samples at which a quality that grows with it reaches a level.

    The bracket grows by ``factor`` from the start, is halved on a logarithmic scale until its ends
    are within ``ratio``, and the crossing is interpolated in ``log n``. One learner's quality
    wavers with n; medians over seeds are for that.

    Parameters
    ----------
    quality : callable n -> float
    level : float
    start : int
        Where to look first.
    least, most : int
    factor, ratio : float

    Raises
    ------
    NotProvedError
        Where the level is reached at ``least`` already, or not at ``most``.
    """
    if not least <= start <= most or factor <= 1 or ratio <= 1:
        raise InputError("least <= start <= most, and factor and ratio above 1")
    found: dict[int, float] = {}

    def at(n: int) -> float:
        if n not in found:
            found[n] = float(quality(n))
        return found[n]

    low = high = start
    if at(start) >= level:
        while at(low) >= level:
            if low <= least:
                raise NotProvedError(f"level {level} is reached with {low} samples already")
            high, low = low, max(least, int(low / factor))
    else:
        while at(high) < level:
            if high >= most:
                raise NotProvedError(f"level {level} is not reached with {high} samples")
            low, high = high, min(most, int(high * factor) + 1)
    while high / low > ratio and high - low > 1:
        middle = min(max(round((low * high) ** 0.5), low + 1), high - 1)
        low, high = (low, middle) if at(middle) >= level else (middle, high)
    share = (level - at(low)) / (at(high) - at(low))
    return exp(log(low) + share * log(high / low))


def fit_exponent(
    sizes: Any,
    samples: Any,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> Exponent:
    """Slope of ``log median(samples)`` against ``log sizes``, with a percentile bootstrap.

    Parameters
    ----------
    sizes : (k,) array
        Two or more, all different.
    samples : (k, seeds) array

    Raises
    ------
    InputError
        For shapes that do not fit, or what is not positive.
    """
    medians, boot = _bootstrap(sizes, samples, resamples, random_state)
    x = np.log(np.asarray(sizes, np.float64))
    if len(x) < 2 or np.ptp(x) == 0:
        raise InputError("an exponent needs two sizes or more")
    centred = x - x.mean()
    value = float(centred @ np.log(medians) / (centred @ centred))
    slopes = np.log(boot) @ centred / (centred @ centred)
    tails = 50 * (1 - confidence), 50 * (1 + confidence)
    lower, upper = (float(q) for q in np.percentile(slopes, tails))
    prefactor = exp(float(np.mean(np.log(medians))) - value * float(x.mean()))
    return Exponent(value, lower, upper, prefactor, confidence)


def sample_complexity(
    quality: Callable[[int, int, int], float],
    sizes: Any,
    *,
    level: float | Callable[[int], float],
    start: Callable[[int], int],
    seeds: int = 9,
    first_seed: int = 0,
    confidence: float = 0.95,
    progress: Callable[[int, int, float], None] | None = None,
    **search: Any,
) -> SampleComplexity:
    """Search the samples needed at each size with each seed, and fit the growth.

    Parameters
    ----------
    quality : callable (size, n, seed) -> float
        Grows with n, such as the correlation with the feature, or minus the test error.
    sizes : sequence of int
    level : float or callable size -> float
    start : callable size -> int
        Where the search begins.
    seeds, first_seed : int
    confidence : float
    progress : callable (size, seed, samples), optional
        Told of each finished search.
    **search
        Options of :func:`samples_needed`.

    Returns
    -------
    SampleComplexity
    """
    sizes = np.asarray(sizes)
    samples = np.zeros((len(sizes), seeds))
    for i, size in enumerate(int(s) for s in sizes):
        wanted = level(size) if callable(level) else level
        for j in range(seeds):

            def one(n: int, size: int = size, seed: int = first_seed + j) -> float:
                return quality(size, n, seed)

            samples[i, j] = samples_needed(one, wanted, start=start(size), **search)
            if progress is not None:
                progress(size, first_seed + j, float(samples[i, j]))
    medians, boot = _bootstrap(sizes, samples, 2000, 0)
    tails = 50 * (1 - confidence), 50 * (1 + confidence)
    lower, upper = np.percentile(boot, tails, axis=0)
    exponent = fit_exponent(sizes, samples, confidence=confidence) if len(sizes) > 1 else None
    return SampleComplexity(sizes, samples, medians, lower, upper, exponent)


def _bootstrap(
    sizes: Any, samples: Any, resamples: int, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    samples = np.asarray(samples, np.float64)
    if samples.ndim != 2 or len(samples) != len(sizes) or not samples.size:
        raise InputError(f"samples have shape {samples.shape}: ({len(sizes)}, seeds)")
    if not (samples > 0).all() or min(sizes) <= 0:
        raise InputError("sizes and samples are positive")
    rng = np.random.default_rng(random_state)
    seeds = samples.shape[1]
    drawn = rng.integers(0, seeds, (resamples, len(samples), seeds))
    boot = np.median(np.take_along_axis(samples[None], drawn, 2), 2)
    return np.median(samples, 1), boot
