"""Local bounds around several samples, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tangency.verify.result import LipschitzBound

__all__ = ["LocalBounds"]


@dataclass(frozen=True, eq=False)
class LocalBounds:
    """Bounds on the l-infinity balls of one radius around samples.

    Parameters
    ----------
    bounds : tuple of LipschitzBound
        One a sample, in order, of the same norms.
    eps : float
    """

    bounds: tuple[LipschitzBound, ...]
    eps: float

    def plot(self) -> Any:
        """Return a matplotlib Figure: the proved and the attained bound of each sample."""
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        first, places = self.bounds[0], range(len(self.bounds))
        upper = [bound.upper for bound in self.bounds]
        lower = [float("nan") if b.lower is None else b.lower for b in self.bounds]
        figure = Figure(figsize=(min(4 + 0.08 * len(upper), 10), 3.2), layout="constrained")
        axes = figure.add_subplot()
        axes.vlines(places, lower, upper, color="tab:blue", alpha=0.3)
        axes.plot(places, upper, "v", color="tab:blue", ms=4, label="certified: at most")
        axes.plot(places, lower, "^", color="tab:gray", ms=4, label="attained: at least")
        axes.set_ylim(bottom=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("sample")
        axes.set_ylabel(f"Lipschitz constant (l{first.norm} to l{first.output})")
        axes.set_title(f"within {self.eps:g} (l-infinity) of each sample", fontsize=10)
        axes.legend(fontsize=7)
        return figure
