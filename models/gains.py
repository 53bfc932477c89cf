"""How each weight of a network stands to the parameters of the model that it was imported from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from tangency.models.ops import Shape

__all__ = ["Entries", "Gains"]

#: Which entry of all parameters, numbered through, each entry of a tensor is; -1 for none.
Entries = np.ndarray


@dataclass
class Gains:
    """Notes that importers take: a weight's entries, and the factor that they carry.

    The derivative of a network by its parameters is that by its weights only where every weight
    is a parameter, or a part of one, that nothing else holds; a common factor is known as the
    weight's gain. :meth:`settled` says for which weights this holds.
    """

    _starts: dict[str, int] = field(default_factory=dict)
    _total: int = 0
    _notes: dict[str, list[tuple[Entries, float]]] = field(default_factory=dict)
    _computed: set[str] = field(default_factory=set)

    def entries(self, name: str, shape: Shape) -> Entries:
        """The entries of a whole parameter."""
        size = prod(shape)
        if name not in self._starts:
            self._starts[name] = self._total
            self._total += size
        start = self._starts[name]
        return np.arange(start, start + size).reshape(shape)

    def note(self, key: str, entries: Entries, gain: float = 1.0) -> None:
        """The weight ``key`` is ``gain`` times these entries of the parameters."""
        notes = self._notes.setdefault(key, [])
        if not any(g == gain and np.array_equal(e, entries) for e, g in notes):
            notes.append((entries, gain))

    def computed(self, key: str) -> None:
        """The weight ``key`` depends on the parameters in another way."""
        self._computed.add(key)

    def held(self, key: str) -> list[tuple[Entries, float]]:
        """What was noted of a weight; nothing where it is computed in another way, in part even."""
        notes = [] if key in self._computed else self._notes.get(key, [])
        return notes if all(e.size and e.min() >= 0 and g for e, g in notes) else []

    def settled(self, held: Mapping[str, int]) -> dict[str, float | None]:
        """The gain of each weight; None where there is no such factor.

        Parameters
        ----------
        held : mapping of str to int
            How many different weights of the network there are of each name that was noted.
        """
        met = np.zeros(self._total, np.uint8)
        for notes in self._notes.values():
            for entries, _ in notes:
                flat = entries[entries >= 0]
                if flat.size:
                    first = int(flat.min())
                    times = np.minimum(np.bincount(flat - first), 2)
                    place = slice(first, first + len(times))
                    met[place] = np.minimum(met[place] + times, 2)
        return {key: self._gain(key, held[key], met) for key in held}

    def _gain(self, key: str, count: int, met: Entries) -> float | None:
        notes = self._notes.get(key, [])
        if key in self._computed or count > max(len(notes), 1) or len({g for _, g in notes}) > 1:
            return None
        if any(e.min(initial=0) < 0 or met[e].max(initial=0) > 1 for e, _ in notes):
            return None
        return notes[0][1] or None if notes else 1.0
