r"""The data that a claim's sets were made from, and whether the sets hold what a user believes.

A claim is about sets of numbers, and a user has samples, a radius and labels in mind. The set of a
sample x is right if it holds all of

.. math:: \{x' : \|x' - x\|_p \le \epsilon\} \cap [a, b]^n,

which is decided in exact arithmetic: what a file says of its own source is never asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tangency.models.errors import InputError, NotProvedError
from tangency.verify.certificate.matrix import Array
from tangency.verify.certificate.outputs import BallSet, OutputsClaim
from tangency.verify.certificate.regions import decimal, digest, is_at_most, listed

if TYPE_CHECKING:
    from tangency.verify.certificate.claim import Certificate

Whole: TypeAlias = npt.NDArray[np.int64]

__all__ = ["Samples", "Source", "require_samples"]


@dataclass(frozen=True, eq=False)
class Source:
    """Where the sets of a claim come from, as whoever wrote the certificate says.

    Parameters
    ----------
    samples : (sets,) array of int64
        Of each set its sample in the data, each once.
    data : str
        The sha256 of these samples in float64, and of their labels where there are any.
    eps : float
        Radius of the ball around each sample.
    norm : {"1", "2", "inf"}
        Of the ball.
    clip : pair of float, optional
        The range that the balls were cut to.
    """

    samples: Whole
    data: str
    eps: float
    norm: Literal["1", "2", "inf"] = "inf"
    clip: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The source as data, for programs."""
        return {
            "samples": self.samples.tolist(),
            "data_sha256": self.data,
            "eps": self.eps,
            "norm": self.norm,
            "clip": None if self.clip is None else list(self.clip),
        }

    def __str__(self) -> str:
        """Name samples and radius.

        Examples
        --------
        >>> print(Source(np.array([0, 1, 2, 5]), "ab" * 32, 0.02))
        samples 0-2, 5 (sha256 abababababababababababababababababababababababababababababababab) \
within 0.02 in linf
        """
        cut = "" if self.clip is None else f", cut to [{self.clip[0]!r}, {self.clip[1]!r}]"
        return (
            f"samples {listed(self.samples.tolist())} (sha256 {self.data}) within {self.eps!r} in "
            f"l{self.norm}{cut}"
        )


@dataclass(frozen=True, eq=False)
class Samples:
    """What a user believes that a certificate is about.

    Parameters
    ----------
    x : (n, *input_shape) array
        His data.
    eps : float
        Radius of the ball around each sample.
    y : (n,) array of integers, optional
        Labels that are to be kept.
    norm : {"inf", "2", "1"}
        Of the ball.
    clip : pair of float, optional
        Range that the balls are cut to.
    samples : sequence of int, optional
        Those that must be claimed; without it those that the certificate names, or all.

    Raises
    ------
    InputError
        If these are no samples and no radius.
    """

    x: Array
    eps: float
    y: Whole | None = None
    norm: str = "inf"
    clip: tuple[float, float] | None = None
    samples: Sequence[int] | None = None

    def __post_init__(self) -> None:
        x = np.asarray(self.x)
        if x.dtype not in (np.float32, np.float64) or x.ndim < 1 or not np.isfinite(x).all():
            raise InputError(f"x is {x.dtype} of shape {x.shape}: give finite floats (n, ...)")
        object.__setattr__(self, "x", x.astype(np.float64))
        eps = np.asarray(self.eps)
        if eps.ndim or eps.dtype.kind not in "iuf" or not 0 <= eps < np.inf:
            raise InputError(f"eps is {self.eps!r}: a radius is finite and >= 0, one number")
        object.__setattr__(self, "eps", float(eps))
        norm = str(self.norm)
        if norm not in ("inf", "2", "1"):
            raise InputError(f"norm {self.norm!r}: give inf, 2 or 1")
        object.__setattr__(self, "norm", norm)
        if self.y is not None:
            y = np.asarray(self.y)
            if y.dtype.kind not in "iu" or y.shape != (len(x),):
                raise InputError(f"y is {y.dtype} of shape {y.shape}: give {len(x)} integers")
            object.__setattr__(self, "y", y.astype(np.int64))
        if self.clip is not None:
            clip = np.asarray(self.clip)
            if clip.shape != (2,) or clip.dtype.kind not in "iuf":
                raise InputError(f"clip is {self.clip!r}: give two numbers")
            a, b = clip.astype(float).tolist()
            object.__setattr__(self, "clip", (a, b))
            if not (a <= b and (x >= a).all() and (x <= b).all()):
                raise InputError(f"clip {self.clip} is no range with all of x inside")
        if self.samples is not None:
            own = np.asarray(self.samples)
            if own.ndim != 1 or own.dtype.kind not in "iu" or not own.size:
                raise InputError(f"samples is {self.samples!r:.60}: give places in the data")
            outside = own[(own < 0) | (own >= len(x))]
            if outside.size:
                raise InputError(f"sample {outside[0]} is not in the data, which hold {len(x)}")
            object.__setattr__(self, "samples", tuple(own.tolist()))

    def source(self, samples: Sequence[int] | npt.NDArray[np.int_] | None = None) -> Source:
        """Return the source of the sets of some of the samples, or of all."""
        own = np.arange(len(self.x)) if samples is None else np.asarray(samples, dtype=np.int64)
        arrays = [self.x[own]] + ([] if self.y is None else [self.y[own]])
        norm: Any = self.norm
        return Source(own, digest(*arrays), self.eps, norm, self.clip)


def require_samples(certificate: "Certificate", believed: Samples) -> tuple[int, ...]:
    """Prove that a claim is about the balls around a user's samples, or raise.

    Parameters
    ----------
    certificate : Certificate
        Well-formed.
    believed : Samples

    Returns
    -------
    tuple of int
        The samples that the claim covers; all, where it is about all inputs.

    Raises
    ------
    NotProvedError
        Naming the first sample whose ball a set does not hold, or whose label is another.
    InputError
        If the data do not fit the input, or samples must be named.

    Examples
    --------
    >>> x = np.zeros((1, 2))
    >>> _holds(x - 0.1, x + 0.1, None, x, Samples(x, 0.1)).tolist()
    [True]
    """
    claim, x = certificate.claim, believed.x
    if x.shape[1:] != certificate.input_shape:
        raise InputError(
            f"x has shape {x.shape}, the certificate is about inputs {certificate.input_shape}"
        )
    labels = claim.labels if isinstance(claim, OutputsClaim) else None
    if believed.y is not None and labels is None:
        raise NotProvedError("labels were given, and the claim is not that labels are kept")
    ball: BallSet | None = None
    if isinstance(claim, OutputsClaim):
        low, high, ball = claim.low, claim.high, claim.ball
    elif claim.region is None:
        return tuple(range(len(x)))
    else:
        low, high = claim.region.lower[None], claim.region.upper[None]
    samples, sets = _matched(certificate.source, believed, len(low))
    if ball is not None:
        center, radius = (_all(v, len(low))[sets] for v in (ball.center, ball.radius))
        ball = BallSet(center, radius, ball.norm)
    inside = _holds(low[sets], high[sets], ball, x[samples], believed)
    if not inside.all():
        stated = None if certificate.source is None else certificate.source.clip
        raise NotProvedError(
            f"sample {samples[int(np.argmin(inside))]}: the set of the claim leaves out a part of "
            f"its ball of radius {believed.eps!r} in l{believed.norm}"
            + ("" if believed.clip is None else f", cut to {believed.clip}")
            + ("" if stated == believed.clip else f"; the sets are said to be cut to {stated}")
        )
    if isinstance(claim, OutputsClaim) and labels is not None and believed.y is not None:
        _require_labels(labels[sets], claim.lower[sets], samples, believed.y[samples])
    return tuple(int(i) for i in samples)


def _require_labels(claimed: Whole, margins: Array, samples: Whole, y: Whole) -> None:
    """Refuse another label than the data's, and margins that keep none."""
    for n, label, margin, own in zip(samples, claimed, margins.min(axis=1), y, strict=True):
        if label != own:
            raise NotProvedError(
                f"sample {n}: the claim is about the label {label}, the data say {own}"
            )
        if not margin > 0:
            raise NotProvedError(
                f"sample {n}: a margin of {decimal(float(margin), up=False)} keeps no label"
            )


def _all(values: Array, count: int) -> Array:
    return np.broadcast_to(values, (count, *values.shape[1:]))


def _matched(source: Source | None, believed: Samples, count: int) -> tuple[Whole, Whole]:
    """Return samples of the data and their sets; which they are is proved by what they hold."""
    if source is None:
        own = range(len(believed.x)) if believed.samples is None else believed.samples
        if len(own) != count:
            raise InputError(
                f"the claim is about {count} sets and names no samples: name them, {len(own)} given"
            )
        return np.array(own, dtype=np.int64), np.arange(count)
    place = {int(n): k for k, n in enumerate(source.samples)}
    wanted = place if believed.samples is None else believed.samples
    for n in wanted:
        if n not in place:
            raise NotProvedError(
                f"sample {n} is not claimed: those are {listed(source.samples.tolist())}"
            )
        if n >= len(believed.x):
            raise NotProvedError(f"sample {n} is claimed, and the data hold {len(believed.x)}")
    return np.array(list(wanted), dtype=np.int64), np.array([place[n] for n in wanted])


def _holds(
    low: Array, high: Array, ball: BallSet | None, x: Array, believed: Samples
) -> npt.NDArray[np.bool_]:
    """Whether each set holds the ball around its sample, (n,)."""
    eps = np.array(believed.eps)
    # Along each axis a ball of any norm goes from x - eps to x + eps.
    below, above = is_at_most(low, x, -eps), is_at_most(-high, -x, -eps)
    if believed.clip is not None:
        below, above = below | (low <= believed.clip[0]), above | (high >= believed.clip[1])
    axes = tuple(range(1, x.ndim))
    found = np.asarray((below & above).all(axis=axes))
    if ball is None:
        return found
    n = x[0].size
    # |v|_2 <= sqrt(n) |v|_inf, |v|_1 <= sqrt(n) |v|_2, |v|_1 <= n |v|_inf, with equality somewhere.
    spread = {("inf", 2): n, ("2", 1): n, ("inf", 1): n * n}.get((believed.norm, ball.norm), 1)
    square = Fraction(believed.eps) ** 2 * spread
    wide = [Fraction(float(r)) ** 2 >= square for r in ball.radius]
    found &= np.asarray((ball.center == x).all(axis=axes)) & np.array(wide)
    return found
