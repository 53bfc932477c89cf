"""How the radius grows in robust training, and the mixture of the losses with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tangency.models.errors import InputError

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """Radius and mixture at a fraction ``t`` of the training, 0 to 1.

    The radius is zero during the warm-up, then grows in a straight line, then stays at ``eps``:
    intervals of a full radius at the start teach a network to answer a constant.

    Attributes
    ----------
    eps : float
        The radius that training ends with.
    warmup, ramp : float
        Fractions of the training before the radius grows, and while it grows.
    kappa : (float, float)
        Share of the standard loss before and after the ramp.
    beta : (float, float)
        Share of CROWN-IBP among the margins before and after the ramp.

    Raises
    ------
    InputError
        For a negative or infinite radius, fractions below 0 or above 1 together, or shares
        outside of [0, 1].

    Examples
    --------
    >>> plan = Schedule(0.1, warmup=0.2, ramp=0.4)
    >>> [round(plan.radius(t), 3) for t in (0.0, 0.2, 0.4, 0.6, 1.0)]
    [0.0, 0.0, 0.05, 0.1, 0.1]
    """

    eps: float
    warmup: float = 0.05
    ramp: float = 0.5
    kappa: tuple[float, float] = (1.0, 0.5)
    beta: tuple[float, float] = (1.0, 0.0)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise InputError(f"eps is {self.eps!r}: a radius is finite and >= 0")
        if min(self.warmup, self.ramp) < 0 or self.warmup + self.ramp > 1:
            raise InputError(
                f"warmup {self.warmup:g} and ramp {self.ramp:g}: fractions of the training, >= 0 "
                "and together at most 1"
            )
        for name, pair in (("kappa", self.kappa), ("beta", self.beta)):
            if len(pair) != 2 or not all(0 <= share <= 1 for share in pair):
                raise InputError(f"{name} is {pair}: two shares in [0, 1], before and after")

    def grown(self, t: float) -> float:
        """How much of the ramp lies behind, 0 to 1."""
        if t <= self.warmup:
            return 0.0
        return 1.0 if t >= self.warmup + self.ramp else (t - self.warmup) / self.ramp

    def radius(self, t: float) -> float:
        """The radius at t."""
        return self.eps * self.grown(t)

    def shares(self, t: float) -> tuple[float, float]:
        """``(kappa, beta)`` at t."""
        part = self.grown(t)
        kappa, beta = ((1 - part) * a + part * b for a, b in (self.kappa, self.beta))
        return kappa, beta
