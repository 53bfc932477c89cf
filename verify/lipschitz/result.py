"""What a Lipschitz analysis returns: both bounds, how they were found, and what is proved."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

from tangency.verify.certificate.chain import ChainWitness

__all__ = ["LipschitzBound"]


@dataclass(frozen=True, eq=False)
class LipschitzBound:
    """An upper and a lower bound of a Lipschitz constant.

    Parameters
    ----------
    upper : float
        The Lipschitz constant is no more than this.
    lower : float or None
        The norm of a Jacobian that a search found, in float64; None if there was no search.
    certified : bool
        Whether `upper` was proved in rigorous arithmetic for the exact weights.
    method : str
        "lipsdp", "eclipse_fast" or "product": the method that `upper` comes from.
    norm : str
        Of the input: "2", "1" or "inf".
    seconds : float
        For everything, proof and search included.
    solver : str or None
        What found the multipliers: "engine", "scs" or "clarabel"; None where none did.
    product : float
        The product of the norms, proved.
    lipsdp : float or None
        The proved LipSDP bound, where one was found.
    witness : ChainWitness or None
        What `tangency.verify.certificate.check_chain` proved.
    certificate : str or None
        The file that holds the certificate.
    output : str
        Norm of the output, or "margin:i,j" for the difference f_i - f_j.
    gap : float or None
        How far `lipsdp` is estimated to lie above the optimum of its inequality, relative; it is
        not proved.
    finished : bool
        False where a time limit or an interrupt ended the search.
    history : tuple of (seconds, bound)
        What the search passed, not proved but for the last, which is the proved bound.
    """

    upper: float
    lower: float | None
    certified: bool
    method: str
    norm: str
    seconds: float
    solver: str | None
    product: float
    lipsdp: float | None = None
    witness: ChainWitness | None = None
    certificate: str | None = None
    output: str = "2"
    gap: float | None = None
    finished: bool = True
    history: tuple[tuple[float, float], ...] = ()

    @property
    def ratio(self) -> float:
        """Upper over lower bound: 1 where they meet, infinite where there is no lower bound."""
        if self.lower is None:
            return float("inf")
        if self.lower == 0.0:
            return 1.0 if self.upper == 0.0 else float("inf")
        return self.upper / self.lower

    def as_dict(self) -> dict[str, Any]:
        """Return what the command prints for programs."""
        return {
            "upper": self.upper,
            "lower": self.lower,
            "certified": self.certified,
            "method": self.method,
            "norm": self.norm,
            "output": self.output,
            "seconds": self.seconds,
            "certificate": self.certificate,
        }

    def plot(self) -> Any:
        """Return a matplotlib Figure: a bar for each bound, and where one was, the search.

        The search is its bound against time, between the product of norms above and what the
        attack attained below; the last point is what was proved.
        """
        from matplotlib.figure import Figure

        searched = len(self.history) > 1
        figure = Figure(figsize=(9 if searched else 5, 3.2), layout="constrained")
        axes = figure.subplots(1, 2 if searched else 1, squeeze=False)[0]
        self._bars(axes[0])
        if searched:
            self._search(axes[1])
        return figure

    def _bars(self, axes: Any) -> None:
        bars = [
            ("lower bound\n(attack)", self.lower, "tab:gray"),
            ("LipSDP", self.lipsdp, "tab:blue"),
            ("ECLipsE-Fast", self.upper if self.method == "eclipse_fast" else None, "tab:green"),
            ("product\nof norms", self.product, "tab:orange"),
        ]
        shown = [(label, value, colour) for label, value, colour in bars if value is not None]
        drawn = axes.bar(
            [label for label, _, _ in shown],
            [value for _, value, _ in shown],
            color=[colour for _, _, colour in shown],
        )
        axes.bar_label(drawn, labels=[f"{value:.5g}" for _, value, _ in shown], padding=2)
        axes.margins(y=0.12)
        axes.set_ylabel(f"Lipschitz constant ($\\ell_{{{self.norm}}}$)")
        state = "certified" if self.certified else "not certified"
        # Rounded up: the title claims no more than was proved.
        upper = Context(prec=7, rounding=ROUND_CEILING).create_decimal(Decimal(self.upper))
        axes.set_title(f"at most {upper.normalize()} ({self.method}, {state})", fontsize=10)

    def _search(self, axes: Any) -> None:
        seconds, bounds = zip(*self.history, strict=True)
        axes.step(seconds, bounds, where="post", color="tab:blue", label="LipSDP, as searched")
        axes.plot(seconds[-1], bounds[-1], "o", color="tab:blue", label="LipSDP, proved")
        axes.axhline(self.product, color="tab:orange", ls="--", label="product of norms")
        if self.lower is not None:
            axes.axhline(self.lower, color="tab:gray", ls=":", label="attained by attack")
        if min(bounds) > 0.0:
            axes.set_yscale("log")
        axes.set_xlabel("seconds")
        end = "ended by itself" if self.finished else "stopped early"
        axes.set_title(f"the search {end}", fontsize=10)
        axes.legend(fontsize=7)
