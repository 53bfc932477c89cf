"""What a bound computation returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tangency.models.errors import InputError
from tangency.verify.bounds.statement import Statement

__all__ = ["Bounds"]

Array = Any
Pair = tuple[Array, Array]


@dataclass(frozen=True, eq=False)
class Bounds:
    """Lower and upper bounds of a network's output over a box.

    Attributes
    ----------
    outputs : tuple of (array, array)
        (lower, upper) of each output, float64 ``(N, *output_shape)``, or ``(N, S)`` of a spec.
    method : str
        How they were found.
    seconds : float
        Wall-clock time.
    widths : mapping of str to float
        Mean width of the bounds of each layer, in graph order.
    intermediate : mapping of str to (array, array)
        Bounds of each layer, where they were kept; of size one on the batch axis for constants.
    certified : bool
        True: the bounds are proved in real arithmetic.
    norm : str
        Of the input set: ``"linf"`` for a box, ``"l2"`` or ``"l1"`` for a ball.
    statement : Statement, optional
        What a certificate of the bounds needs; None where there is none (estimates, several inputs
        or outputs, the joint search).
    """

    outputs: tuple[Pair, ...]
    method: str
    seconds: float
    widths: Mapping[str, float] = field(repr=False)
    intermediate: Mapping[str, Pair] = field(default_factory=dict, repr=False)
    certified: bool = True
    norm: str = "linf"
    statement: Statement | None = field(default=None, repr=False)

    @property
    def lower(self) -> Array:
        """Lower bounds of the only output; InputError when there are several."""
        return self._only()[0]

    @property
    def upper(self) -> Array:
        """Upper bounds of the only output; InputError when there are several."""
        return self._only()[1]

    def _only(self) -> Pair:
        if len(self.outputs) != 1:
            raise InputError(f"the network has {len(self.outputs)} outputs: use .outputs")
        return self.outputs[0]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, as the command prints them; several outputs give lists."""
        lower, upper = ([pair[k].tolist() for pair in self.outputs] for k in (0, 1))
        single = len(self.outputs) == 1
        return {
            "lower": lower[0] if single else lower,
            "upper": upper[0] if single else upper,
            "certified": self.certified,
            "method": self.method,
            "norm": self.norm,
            "seconds": self.seconds,
            "widths": dict(self.widths),
        }

    def plot(self) -> Any:
        """Mean bound width by layer, a matplotlib Figure."""
        import math

        from matplotlib.figure import Figure

        shown = {name: w for name, w in self.widths.items() if w > 0 and math.isfinite(w)}
        figure = Figure(figsize=(max(4.0, 0.5 * len(shown) + 2.0), 4.0), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(range(len(shown)), list(shown.values()), marker="o")
        if shown:
            axes.set_yscale("log")
        axes.set_xticks(range(len(shown)), list(shown), rotation=60, ha="right")
        axes.set_ylabel("mean width of the bounds")
        axes.set_xlabel("layer")
        axes.set_title(f"Bound width by layer ({self.method})")
        axes.grid(alpha=0.3)
        return figure
