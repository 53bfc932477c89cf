"""What a training gives back: the network and the curves of its losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tangency.models.network import Network

__all__ = ["Training"]


@dataclass(frozen=True, eq=False)
class Training:
    """A trained network and one entry an epoch of what was seen on the training set.

    The curves are means over the batches of an epoch, in the network's dtype and while the
    weights move; nothing in them is certified. Of a trained network,
    :func:`tangency.verify.bounds.certify_robust` tells what is true.

    Attributes
    ----------
    network : Network
        With the weights of the last step.
    losses : (epochs,) array
        The loss that was descended.
    accuracy : (epochs,) array
        Fraction of samples classified as labelled.
    verified : (epochs,) array
        Fraction of samples whose bounds of the margins at the epoch's radius are positive.
    radii : (epochs,) array
        The radius of each epoch.
    loss : str
        Name of the loss.
    eps : float
        The radius that training ended with.
    seconds : float
        Wall-clock time, compilation included.
    """

    network: Network
    losses: np.ndarray = field(repr=False)
    accuracy: np.ndarray = field(repr=False)
    verified: np.ndarray = field(repr=False)
    radii: np.ndarray = field(repr=False)
    loss: str
    eps: float
    seconds: float
    certified: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        curves = ("losses", "accuracy", "verified", "radii")
        return {
            "loss": self.loss,
            "eps": self.eps,
            "epochs": len(self.losses),
            "certified": self.certified,
            "seconds": self.seconds,
            **{name: getattr(self, name).tolist() for name in curves},
        }

    def plot(self) -> Any:
        """Loss, and accuracy with the radius, against the epoch: a matplotlib Figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        epochs = np.arange(1, len(self.losses) + 1)
        left.semilogy(epochs, self.losses)
        left.set(xlabel="epoch", ylabel=f"{self.loss} loss")
        right.plot(epochs, self.accuracy, label="accuracy")
        right.plot(epochs, self.verified, label="verified at the radius of the epoch")
        if self.eps > 0:
            right.plot(epochs, self.radii / self.eps, ":", color="grey", label="radius / eps")
        right.set(xlabel="epoch", ylabel="fraction", ylim=(-0.02, 1.05))
        right.legend(loc="lower right")
        return figure
