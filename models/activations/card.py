"""The card of an activation: everything there is to know, on one page."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tangency.models.errors import InputError

if TYPE_CHECKING:
    from tangency.models.activations.moments import (
        CriticalInitialisation,
        DeepLimit,
        GaussianMoments,
    )
    from tangency.models.activations.record import Activation

__all__ = ["Card", "card"]


@dataclass(frozen=True)
class Card:
    """What an activation is and implies; ``str(card)`` prints it.

    ``moments``, ``critical`` and ``limit`` are None where the activation is not defined on the
    whole line, ``slope_range`` is None where its tails are unknown.
    """

    activation: "Activation"
    slope_range: tuple[float, float] | None
    moments: "GaussianMoments | None"
    critical: "CriticalInitialisation | None"
    limit: "DeepLimit | None"

    def rows(self) -> list[tuple[str, str]]:
        """Label and text, line by line."""
        a = self.activation
        rows = [("name", str(a)), ("formula", a.formula or "(not written down)")]
        if self.slope_range is None:
            rows.append(("slopes", "unknown: the record has no limits"))
        else:
            low, high = self.slope_range
            rows.append(("slopes", f"[{low:.5f}, {high:.5f}] (proved; shown to 5 decimals)"))
            rows.append(("Lipschitz", f"{a.lipschitz:.5f}"))
        m, c = self.moments, self.critical
        if m is not None and c is not None:
            rows += [
                ("E phi", f"{m.mean:.4f}"),
                ("E phi^2", f"{m.second:.4f}"),
                ("E phi'", f"{m.slope_mean:.4f}"),
                ("E phi'^2", f"{m.slope_second:.4f}"),
                ("critical sigma_w^2", f"{c.weight_variance:.4f}"),
                ("critical sigma_b^2", f"{c.bias_variance:.4f}" if c.exists else "none at q = 1"),
                ("deep limit", str(self.limit)),
            ]
        rows.append(("parity", a.parity or "none"))
        if a.homogeneous is not None:
            rows.append(("homogeneous", f"degree {a.homogeneous}"))
        if a.kinks:
            rows.append(("kinks", ", ".join(f"{k:g}" for k in a.kinks)))
        if a.jumps:
            rows.append(("jumps", ", ".join(f"{k:g}" for k in a.jumps)))
        if a.torch_note:
            rows.append(("note", a.torch_note))
        if a.source:
            rows.append(("source", a.source))
        return rows

    def as_dict(self) -> dict[str, Any]:
        """The same as plain numbers, for programs: slopes are the proved floats."""
        a = self.activation
        data: dict[str, Any] = {
            "name": a.name,
            "params": dict(a.params),
            "formula": a.formula,
            "source": a.source,
            "parity": a.parity,
            "homogeneous": a.homogeneous,
            "kinks": a.kinks,
            "jumps": a.jumps,
            "slope_range": self.slope_range,
            "lipschitz": None if self.slope_range is None else a.lipschitz,
        }
        for name in ("moments", "critical", "limit"):
            part = getattr(self, name)
            data[name] = None if part is None else asdict(part)
        return data

    def __str__(self) -> str:
        return "\n".join(f"{label:<20}{text}" for label, text in self.rows())


def card(activation: "Activation") -> Card:
    """Collect the card of an activation (moments under N(0, 1))."""
    slopes: tuple[float, float] | None = None
    try:
        slopes = activation.slope_range
    except InputError:  # a user's record without limits
        if activation.limits is not None:  # with them: what it claims does not hold
            raise
    try:
        moments = activation.gaussian_moments()
    except InputError:
        return Card(activation, slopes, None, None, None)
    critical = activation.critical_initialisation()
    return Card(activation, slopes, moments, critical, activation.deep_limit())
