"""What bounds return: what was proved, how it was found, what a certificate of it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

import numpy as np

from tangency.models.errors import InputError, NotProvedError
from tangency.verify.certificate.outputs import Method
from tangency.verify.certificate.source import Source
from tangency.verify.certificate.witness import ChainWitness
from tangency.verify.rigorous.sets import BallPart, InputSet

__all__ = ["Bounds", "LipschitzBound", "Robustness", "Statement", "consistent"]

Array = Any
Pair = tuple[Array, Array]


@dataclass(frozen=True, eq=False)
class Statement:
    """That ``lower[n, s] <= spec[n, s] . f(x) <= upper[n, s]`` for all x of set n, f flattened.

    Attributes
    ----------
    inputs : InputSet
        N sets of inputs.
    spec : (N or 1, S, outputs) array, optional
        The linear functions; None for the outputs themselves, of which there may be too many for
        their square.
    lower : (N, S) array
        Their bounds.
    upper : (N, S) array, optional
        Where they have upper bounds, too.
    method : {"ibp", "crown-ibp", "crown", "forward"}
        Of the walk that proved them.
    plain : bool
        Whether that walk was the literature's.
    slopes : mapping of int to tuple of arrays
        Slopes that a search chose for the last pass, by node of the lowered network.
    """

    inputs: InputSet
    spec: Array | None
    lower: Array
    upper: Array | None
    method: Method
    plain: bool
    slopes: Mapping[int, tuple[Array, ...]] = field(default_factory=dict)

    def take(self, mask: Array) -> Statement:
        """What is said of some samples, ``(N,) array of bool``."""
        ball = self.inputs.ball
        if ball is not None:
            ball = BallPart(_part(ball.center, mask), _part(ball.radius, mask), ball.norm)
        return Statement(
            InputSet(_part(self.inputs.lower, mask), _part(self.inputs.upper, mask), ball),
            None if self.spec is None else _part(self.spec, mask),
            _part(self.lower, mask),
            None if self.upper is None else _part(self.upper, mask),
            self.method,
            self.plain,
            {i: tuple(_part(v, mask) for v in own) for i, own in self.slopes.items()},
        )

    @staticmethod
    def joined(parts: Sequence[Statement]) -> Statement | None:
        """Statements about batches of one data set as one; None where there is nothing to say."""
        parts = [part for part in parts if len(part.lower)]
        if not parts:
            return None
        first = parts[0]
        nodes = first.slopes
        return Statement(
            InputSet.joined([p.inputs for p in parts]),
            None if first.spec is None else _all([p.spec for p in parts]),
            _all([p.lower for p in parts]),
            None if first.upper is None else _all([p.upper for p in parts]),
            first.method,
            first.plain,
            {
                i: tuple(_all([p.slopes[i][k] for p in parts]) for k in range(len(own)))
                for i, own in nodes.items()
            },
        )

    def minima(self) -> tuple[Array, Array]:
        """Functions ``(N or 1, S', outputs)`` and their lower bounds ``(N, S')``, all written out.

        An upper bound of a function is a lower bound of its negative. For a certificate alone: for
        outputs themselves the functions take memory of their square.
        """
        spec = np.eye(self.lower.shape[1])[None] if self.spec is None else self.spec
        if self.upper is None:
            return spec, self.lower
        return (
            np.concatenate([spec, -spec], axis=1),
            np.concatenate([self.lower, -self.upper], axis=1),
        )


def radius_label(norm: str) -> str:
    """The radius of a ball in the words of a plot."""
    return rf"$\ell_{{{norm.replace('inf', chr(92) + 'infty')}}}$ radius"


def _part(v: Array, mask: Array) -> Array:
    return v if len(v) != len(mask) else v[mask]


def _all(arrays: list[Array]) -> Array:
    return np.concatenate(arrays)


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


@dataclass(frozen=True, eq=False)
class Robustness:
    """What was proved and what was refuted about each of N samples.

    The margin of a sample is the least of ``y_label - y_j`` over its ball and over the other
    classes j, in real arithmetic; it lies between ``margin_lower`` and ``margin_upper``.

    Attributes
    ----------
    verified : (N,) array of bool
        The label wins strictly on the whole ball: ``margin_lower > 0``; proved where ``certified``.
    attacked : (N,) array of bool
        A point of the ball where the label does not win strictly: ``margin_upper <= 0``, proved.
    lower, upper : (N, K) array
        Proved bounds of the scores on the ball.
    margin_lower, margin_upper : (N,) array
        Proved bounds of the margin; the upper one is attained by the attack.
    prediction, labels : (N,) array of int
        Class of the largest score at the sample itself (float64), and the label.
    eps : float
        Radius of the balls.
    norm : {"inf", "2", "1"}
        Of the balls.
    method, attack : str
        How the two sides were found.
    seconds : float
        Wall-clock time.
    certified : bool
        Whether all of this is proved.
    statement : Statement, optional
        What is proved of all samples, with what proves it; a certificate takes the verified ones.
        None where no certificate can hold it (estimates, the joint search).
    source : Source, optional
        The verified samples, as a certificate names them.
    points : (N, *shape) array
        A point of each ball at which the margin is at most ``margin_upper``: where ``attacked``, a
        counterexample.
    """

    verified: Array = field(repr=False)
    attacked: Array = field(repr=False)
    lower: Array = field(repr=False)
    upper: Array = field(repr=False)
    margin_lower: Array = field(repr=False)
    margin_upper: Array = field(repr=False)
    prediction: Array = field(repr=False)
    labels: Array = field(repr=False)
    eps: float
    method: str
    attack: str
    seconds: float
    norm: str = "inf"
    certified: bool = True
    statement: Statement | None = field(default=None, repr=False)
    source: Source | None = field(default=None, repr=False)
    points: Array = field(default=None, repr=False)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.labels)

    @property
    def clean_accuracy(self) -> float:
        """Fraction of samples predicted as labelled."""
        return float(np.mean(self.prediction == self.labels))

    @property
    def certified_accuracy(self) -> float:
        """Fraction of samples proved robust: a lower bound of the robust accuracy."""
        return float(np.mean(self.verified))

    @property
    def attacked_accuracy(self) -> float:
        """Fraction of samples that no attack refuted: an upper bound of the robust accuracy."""
        return float(np.mean(~self.attacked))

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, as the command prints them."""
        arrays = ("verified", "attacked", "margin_lower", "margin_upper", "prediction", "labels")
        return {
            "certified_accuracy": self.certified_accuracy,
            "clean_accuracy": self.clean_accuracy,
            "attacked_accuracy": self.attacked_accuracy,
            "samples": self.samples,
            "eps": self.eps,
            "norm": f"l{self.norm}",
            "method": self.method,
            "attack": self.attack,
            "certified": self.certified,
            "seconds": self.seconds,
            **{name: getattr(self, name).tolist() for name in arrays},
        }

    def plot(self) -> Any:
        """Accuracy clean, under attack and certified, as bars: a matplotlib Figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.0, 4.0), layout="constrained")
        axes = figure.add_subplot()
        values = [self.clean_accuracy, self.attacked_accuracy, self.certified_accuracy]
        bars = axes.bar(["clean", f"under attack ({self.attack})", "certified"], values)
        axes.bar_label(bars, labels=[f"{100 * v:.1f} %" for v in values])
        axes.set_ylim(0.0, 1.1)
        axes.set_ylabel("fraction of samples")
        where = f"{radius_label(self.norm)} {self.eps:g}"
        axes.set_title(f"{self.samples} samples, {where} ({self.method})")
        return figure


def consistent(lower: float | None, upper: float) -> float | None:
    """Return a lower bound that a search attained, no more than the proved upper one.

    Raises
    ------
    NotProvedError
        If it contradicts the upper bound by more than the search's own rounding errors.
    """
    if lower is not None and lower > upper * (1.0 + 1e-9) + 1e-320:
        raise NotProvedError(f"the lower bound {lower!r} contradicts the upper {upper!r}")
    return None if lower is None else min(lower, upper)


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
