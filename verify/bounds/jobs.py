"""What is to be computed, and how: the options of a bound in one record, checked."""

from __future__ import annotations

from dataclasses import dataclass

from tangency.models.errors import InputError
from tangency.models.network import Network

__all__ = ["LINEAR", "METHODS", "Job"]

LINEAR = ("crown-ibp", "crown", "forward", "alpha-crown")
METHODS = ("ibp", *LINEAR)
MODES = ("last", "joint")


@dataclass(frozen=True)
class Job:
    """A method and its options.

    Attributes
    ----------
    method : {"ibp", "crown-ibp", "crown", "forward", "alpha-crown"}
        How.
    rigorous : bool
        Proved in NumPy float64, or estimated in JAX in the network's dtype.
    plain : bool
        As the literature has it, with no intersection.
    mode : {"last", "joint"}
        Of alpha-CROWN: whether the slopes before intermediate bounds are optimised as well.
    steps : int
        Of alpha-CROWN.

    Raises
    ------
    InputError
        For an option that there is not.
    """

    method: str = "ibp"
    rigorous: bool = True
    plain: bool = False
    mode: str = "last"
    steps: int = 20

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method {self.method!r}: bounds are computed by {', '.join(METHODS)}")
        if self.mode not in MODES:
            raise InputError(f"mode {self.mode!r}: alpha-crown has the modes {', '.join(MODES)}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise InputError(f"steps is {self.steps!r}: give a number of steps >= 1")

    @staticmethod
    def single(network: Network) -> bool:
        """Whether a network has one input and one output, as certificates about outputs take."""
        return len(network.structure.inputs) == len(network.structure.outputs) == 1

    @property
    def certified(self) -> bool:
        """Whether the bounds hold in real arithmetic; what is carried forwards always does."""
        return self.rigorous or self.method in ("ibp", "forward")
