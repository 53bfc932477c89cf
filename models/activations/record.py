"""The record of an activation function: what is written down, and what follows from it.

A new activation is one record of a few lines; ``name`` and ``value`` are enough::

    wobble = Activation("wobble", lambda nx, x: x + nx.sin(x) / 2.0)

Derivatives come from jets, ranges on boxes from interval arithmetic. With ``limits`` and ``core``
the global slope range follows as well.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tangency.models.activations.continuity import Continuity, continuity
from tangency.models.activations.jets import Jet, jet
from tangency.models.errors import InputError
from tangency.models.interval_functions import interval_namespace
from tangency.models.intervals import Interval
from tangency.models.namespace import jax_namespace, numpy_namespace

if TYPE_CHECKING:
    from tangency.models.activations.formula import Term
    from tangency.models.activations.lines_outline import Outline
    from tangency.models.activations.lines_plan import Plan
    from tangency.models.activations.moments import (
        CriticalInitialisation,
        DeepLimit,
        GaussianMoments,
    )
    from tangency.models.activations.pieces import Pieces
    from tangency.models.activations.relaxation import Lines
    from tangency.models.activations.tails import Tails

__all__ = ["Activation", "Limit", "Param"]

Formula = Callable[[Any, Any], Any]
Param = float | tuple[float, ...]
Limit = float | Interval
"""A limit that is a float is exact; an Interval encloses one that is not (pi/2)."""

_INF = float("inf")
_TEXTS = ("formula", "source", "torch_note")  # for readers alone


@dataclass(frozen=True, eq=False)
class Activation:
    """One activation function ``phi: R -> R`` (or on a part of R).

    Parameters
    ----------
    name : str
        Name in the registry.
    value : callable ``(nx, x) -> phi(x)``
        The formula in the vocabulary of :mod:`tangency.models.namespace`. Nothing is claimed by it:
        where a ``where`` is not shown to be continuous (:mod:`.continuity`), or a step function
        steps, slopes are unbounded. ``maximum``, ``minimum`` and ``abs`` are always continuous.
    params : tuple of (name, value)
        Parameters; two records are equal when all that they say is, texts apart.
    formula, source : str
        One readable line each.
    derivative : callable ``(nx, x) -> phi'(x)``, optional
        By default forward-mode jets over ``value``, and proofs about a record that is not the
        catalogue's take these in any case: nothing shows that a formula is the slope of another.
    kinks : tuple of float
        Points where ``phi'`` jumps. Optional: interval arithmetic finds them too, to 1e-13.
    jumps : tuple of float
        Points where ``phi`` itself jumps, for the lines around it; slopes find them by themselves.
    limits : ((value, slope) at the lower end, (value, slope) at the upper end), optional
        Limits of ``phi`` and ``phi'`` at the ends of the domain.
    core : (float, float), obligatory with ``limits``
        The claim that comes with ``limits``: outside of the core, ``phi`` and ``phi'`` are monotone
        (or, with ``oscillates``, they stay within the limits, given as intervals). It is checked
        against the formula before it is used (:mod:`.tails`), out to the largest float; only
        beyond that the limits are taken at their word. Inside of the core nothing is claimed:
        turning points and inflections are isolated by interval arithmetic. Without ``limits`` it
        says where they are looked for, by default on [-30, 30].
    oscillates : bool
        The tails are not monotone (x cos x).
    domain : (float, float)
        Closed interval on which ``phi`` is defined (at the ends possibly as an infinite limit).
    poles : tuple of float
        Points taken out of the domain.
    period : float, optional
        For sin and its kind.
    single_use : tuple of "value", "slope"
        Formulas in which ``x`` occurs once: their interval extension is the exact range.
    staircase : bool
        Locally constant and nondecreasing (sign, floor); an InputError where intervals do not show
        that it rises.
    parity : "even", "odd" or None
        ``phi(-x) = phi(x)`` or ``-phi(x)``.
    homogeneous : int, optional
        Degree ``k`` with ``phi(c x) = c^k phi(x)`` for all ``c > 0``.
    torch_note : str
        Where a framework's own function deviates.
    """

    name: str
    value: Formula = field(repr=False)
    params: tuple[tuple[str, Param], ...] = ()
    formula: str = field(default="", repr=False)
    source: str = field(default="", repr=False)
    derivative: Formula = field(default=None, repr=False)  # type: ignore[assignment]
    kinks: tuple[float, ...] = field(default=(), repr=False)
    jumps: tuple[float, ...] = field(default=(), repr=False)
    limits: tuple[tuple[Limit, Limit], tuple[Limit, Limit]] | None = field(default=None, repr=False)
    core: tuple[float, float] | None = field(default=None, repr=False)
    oscillates: bool = field(default=False, repr=False)
    domain: tuple[float, float] = field(default=(-_INF, _INF), repr=False)
    poles: tuple[float, ...] = field(default=(), repr=False)
    period: float | None = field(default=None, repr=False)
    single_use: tuple[str, ...] = field(default=(), repr=False)
    staircase: bool = field(default=False, repr=False)
    parity: Literal["even", "odd"] | None = field(default=None, repr=False)
    homogeneous: int | None = field(default=None, repr=False)
    torch_note: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        self._check_core()
        own = self.derivative
        if own is None:
            object.__setattr__(self, "derivative", lambda nx, x: self._jet(nx, x, 1).d1)
        object.__setattr__(self, "_has_own_derivative", own is not None)

    def _check_core(self) -> None:
        if self.core is None:
            if self.limits is not None:
                raise InputError(
                    f"the record {self.name} has limits and no core: they say how it ends, and "
                    "core=(low, high) says where the ends begin, that is beyond which points phi "
                    "and phi' are monotone"
                )
            return
        low, high = self.core
        if not -_INF < low < high < _INF:
            raise InputError(f"the core of {self.name} is {self.core}: it needs finite low < high")
        for k in (*self.jumps, *self.poles):
            if self.limits is not None and not self.staircase and not low <= k <= high:
                raise InputError(f"{self.name} jumps at {k:g}, outside of its core {self.core}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Activation):
            return NotImplemented
        if self is other:
            return True
        if (self.name, self.params) != (other.name, other.params):
            return False
        try:
            return self.digest == other.digest
        except InputError:  # what cannot be followed equals itself alone
            return False

    def __hash__(self) -> int:
        return hash((self.name, self.params))

    @property
    def digest(self) -> str:
        """SHA-256 of all that the record says, the texts for readers left out.

        It holds the formulas themselves (:mod:`.formula`): two records of one name are told apart,
        and a new process finds the same. It is computed each time: a formula may close over what
        changes.

        Raises
        ------
        InputError
            If a formula cannot be followed, or is another one than at first.
        """
        from tangency.models.activations.formula import digest_of, traced

        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _TEXTS}
        own["value"] = self._followed()
        own["derivative"] = (
            traced(f"activation {self.name!r}, derivative", self.derivative)
            if self.__dict__["_has_own_derivative"]
            else None
        )
        return digest_of(*own.items())

    def _followed(self) -> "Term":
        """What the formula computes now; InputError if that has changed since it was first read."""
        from tangency.models.activations.formula import traced

        found = traced(f"activation {self.name!r}", self.value)
        if self.__dict__.setdefault("_first", found).digest != found.digest:
            raise InputError(
                f"the formula of {self} has changed since it was first read: what it closes over "
                "has another value now. A record stays as it is; make a new one"
            )
        return found

    def check_same(self) -> None:
        """Refuse a formula that has changed since it was first read.

        Raises
        ------
        InputError
            If it has, or cannot be followed.
        """
        if "_ours" not in self.__dict__:  # those close over nothing that changes
            self._followed()

    def check(self) -> None:
        """Refuse a formula of which nothing can be proved, or that has changed.

        Raises
        ------
        InputError
            If not.
        """
        from tangency.models.activations.reading import check_formula

        if "_readable" not in self.__dict__ and "_ours" not in self.__dict__:
            check_formula(f"activation {self.name!r}", self.value)
            self.__dict__["_readable"] = True
        self.check_same()

    def __str__(self) -> str:
        inner = ", ".join(
            f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in self.params
        )
        return f"{self.name}({inner})" if inner else self.name

    # -- evaluation --------------------------------------------------------------------------

    def __call__(self, x: Any) -> Any:
        """``phi(x)`` for a NumPy or JAX array, a number, or an Interval."""
        if isinstance(x, Interval):
            return self.enclosure(0, x)
        return self._evaluate(self.value, x)

    def slope(self, x: Any) -> Any:
        """``phi'(x)`` for a NumPy or JAX array, a number, or an Interval."""
        if isinstance(x, Interval):
            return self.enclosure(1, x)
        return self._evaluate(self.derivative, x)

    def second_derivative(self, nx: Any, x: Any) -> Any:
        """``phi''(x)`` over any namespace; at a kink, of the branch that ``where`` takes."""
        if self.__dict__["_has_own_derivative"]:
            return jet(self.derivative, nx, x, 1).d1
        return self._jet(nx, x, 2).d2

    def _jet(self, nx: Any, x: Any, order: int) -> Jet:
        return jet(self.value, nx, x, order, self._continuity.joins)

    def enclosure(self, order: int, X: Interval) -> Interval:
        """Enclose ``phi`` (order 0), its slopes (1) or second derivatives (2) on cells.

        Slopes and second derivatives in the sense of :mod:`.jets`: at every point of a cell, its
        ends included, of both sides. A catalogue record's own formula of ``phi'`` counts where
        ``phi`` is shown to be continuous (the slope of a jump is in no formula); a user's is a
        claim that nothing proves, and bounds nothing.
        """
        self.check()
        if order == 0:
            found = self.value(interval_namespace, X)
        elif not self._slope_counts:
            phi = self._jet(interval_namespace, X, order)
            found = phi.d1 if order == 1 else phi.d2
        else:
            slope = jet(self.derivative, interval_namespace, X, order - 1)
            found = slope.v if order == 1 else slope.d1
        F = Interval.of(found)
        if F.shape == X.shape:
            return F
        # of a formula, or of a branch of it, that is a number
        return Interval._make(*(np.broadcast_to(end, X.shape) for end in (F.lower, F.upper)))

    @staticmethod
    def _evaluate(function: Formula, x: Any) -> Any:
        jax = sys.modules.get("jax")
        if jax is not None and isinstance(x, jax.Array):
            x = x if jax.numpy.issubdtype(x.dtype, jax.numpy.inexact) else x.astype(float)
            return function(jax_namespace(), x)
        array = np.asarray(x)
        if not np.issubdtype(array.dtype, np.floating):
            array = array.astype(np.float64)
        with np.errstate(all="ignore"):
            return np.asarray(function(numpy_namespace, array), dtype=array.dtype)[()]

    # -- what follows from the formula; each is proved or computed on first use --------------

    @functools.cached_property
    def _continuity(self) -> Continuity:
        from tangency.models.activations.reading import check_formula

        check_formula(f"activation {self.name!r}", self.value)
        return continuity(self.value)

    @property
    def continuous(self) -> bool:
        """Whether the formula is shown to be continuous (away from poles)."""
        return self._continuity.everywhere

    @functools.cached_property
    def _value_pieces(self) -> "Pieces | None":
        from tangency.models.activations.pieces import value_pieces

        return value_pieces(self)

    @functools.cached_property
    def _slope_pieces(self) -> "Pieces | None":
        from tangency.models.activations.pieces import slope_pieces

        return slope_pieces(self)

    @functools.cached_property
    def _slope_counts(self) -> bool:
        """Whether the formula ``derivative`` may bound slopes."""
        return self.__dict__["_has_own_derivative"] and self.continuous and self._is_ours

    @functools.cached_property
    def _is_ours(self) -> bool:
        """Whether its claims are this package's, derived on paper and held by tests."""
        from tangency.models.activations.registry import is_of_catalogue

        return "_ours" in self.__dict__ or is_of_catalogue(self)

    @functools.cached_property
    def _rises(self) -> bool:
        """Whether ``phi`` is shown to rise everywhere, steps included."""
        return bool(self._jet(interval_namespace, Interval(*self.domain), 1).d1.lower >= 0)

    @functools.cached_property
    def _tails(self) -> "Tails | None":
        from tangency.models.activations.tails import check_tails

        return check_tails(self)

    @functools.cached_property
    def _outline(self) -> "Outline":
        from tangency.models.activations.lines_outline import make_outline

        return make_outline(self)

    @functools.cached_property
    def _plan(self) -> "Plan | None":
        from tangency.models.activations.lines_plan import make_plan

        return make_plan(self)

    @property
    def turning_points(self) -> Interval:
        """Enclosures of all points of the core where ``phi'`` changes sign (or jumps)."""
        return _points(self, self._value_pieces, "turning points")

    @property
    def inflections(self) -> Interval:
        """Enclosures of all points of the core where ``phi''`` changes sign (or ``phi'`` jumps)."""
        return _points(self, self._slope_pieces, "inflections")

    @property
    def slope_range(self) -> tuple[float, float]:
        """Rigorous enclosure ``(lo, hi)`` of all slopes; infinite where unbounded."""
        self.check()
        return self._slope_range

    @functools.cached_property
    def _slope_range(self) -> tuple[float, float]:
        from tangency.models.activations.ranges import slope_range

        return slope_range(self)

    @property
    def proved_slope(self) -> Formula:
        """A formula of ``phi'`` that may bound slopes: ``derivative``, or jets of ``value``."""
        if self._slope_counts or not self.__dict__["_has_own_derivative"]:
            return self.derivative
        return lambda nx, x: self._jet(nx, x, 1).d1

    @property
    def lipschitz(self) -> float:
        """Upper bound of the global Lipschitz constant, ``max |phi'|``."""
        low, high = self.slope_range
        return max(abs(low), abs(high))

    def range_on(self, lower: Any, upper: Any) -> Interval:
        """Enclose ``phi([lower, upper])``, element by element.

        Parameters
        ----------
        lower, upper : array of any (common) shape
            Boxes; points and infinite ends are allowed.

        Raises
        ------
        InputError
            If a box leaves the domain of the activation.
        """
        from tangency.models.activations.ranges import range_on

        return range_on(self, lower, upper)

    def slopes_on(self, lower: Any, upper: Any) -> Interval:
        """Enclose the slopes (Clarke's, at kinks) on ``[lower, upper]``, element by element."""
        from tangency.models.activations.ranges import slopes_on

        return slopes_on(self, lower, upper)

    def relaxation(self, lower: Any, upper: Any) -> "Lines":
        """Two lines that enclose ``phi`` on each box; see :mod:`.relaxation`."""
        from tangency.models.activations.relaxation import relaxation

        return relaxation(self, lower, upper)

    def gaussian_moments(self, variance: float = 1.0) -> "GaussianMoments":
        """Moments of ``phi`` and ``phi'`` under N(0, variance)."""
        from tangency.models.activations.moments import gaussian_moments

        return gaussian_moments(self, variance)

    def critical_initialisation(self, variance: float = 1.0) -> "CriticalInitialisation":
        """Weight and bias variance at which a deep network is at the edge of chaos."""
        from tangency.models.activations.moments import critical_initialisation

        return critical_initialisation(self, variance)

    def deep_limit(self, variance: float = 1.0) -> "DeepLimit":
        """The classifier that an infinitely deep network of this activation becomes."""
        from tangency.models.activations.moments import deep_limit

        return deep_limit(self, variance)

    def dual(self, rho: Any, variance: float = 1.0) -> Any:
        """``E[phi(u) phi(v)]`` at correlation ``rho``, with an error estimate."""
        from tangency.models.activations.dual import dual

        return dual(self, rho, variance)


def _points(record: Activation, pieces: "Pieces | None", what: str) -> Interval:
    if pieces is None:
        raise InputError(f"{record} has too many {what} to list")
    return Interval(pieces.points.lower, pieces.points.upper)
