"""The result of a tangent kernel computation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tangency.models.errors import InputError

__all__ = ["EmpiricalNTK"]


@dataclass(frozen=True)
class EmpiricalNTK:
    """An empirical neural tangent kernel.

    Attributes
    ----------
    ntk : (n1, n2) or (n1, n2, K) or (n1, n2, K, K) array
        The kernel, as ``outputs`` says.
    outputs : {"trace", "diagonal", "full", "sum"}
        What was done with the K outputs: see :func:`tangency.theory.empirical_ntk`.
    symmetric : bool
        Whether both sets of inputs are one.
    seconds : float
        Wall-clock time of the computation.
    error : float or None
        For ``sum``: relative Frobenius distance of ``ntk x identity`` from the full kernel, on
        a block of samples drawn at random. An estimate, no bound.
    error_samples : int or None
        Rows of that block.
    """

    ntk: np.ndarray
    outputs: str
    symmetric: bool
    seconds: float
    error: float | None = None
    error_samples: int | None = None

    @property
    def matrix(self) -> np.ndarray:
        """The kernel as a matrix: (n1, n2), or for ``full`` the Gram matrix (n1 K, n2 K).

        Raises
        ------
        InputError
            For ``diagonal``, which is K matrices.
        """
        if self.outputs == "diagonal":
            raise InputError("the kernel of each output is a matrix of its own: take ntk[..., k]")
        if self.outputs in ("trace", "sum"):
            return self.ntk
        n1, n2, k, _ = self.ntk.shape
        return self.ntk.transpose(0, 2, 1, 3).reshape(n1 * k, n2 * k)

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues of the symmetric kernel in descending order, float64.

        Raises
        ------
        InputError
            When the kernel is not symmetric.
        """
        if not self.symmetric:
            raise InputError("eigenvalues: the kernel is between two sets; leave x2 out")
        return np.linalg.eigvalsh(self.matrix.astype(np.float64))[::-1]

    def as_dict(self) -> dict[str, Any]:
        """Shape, extreme eigenvalues and time, as plain numbers."""
        data: dict[str, Any] = {
            "shape": list(self.ntk.shape),
            "dtype": str(self.ntk.dtype),
            "outputs": self.outputs,
            "certified": False,
            "seconds": self.seconds,
        }
        if self.symmetric and self.outputs != "diagonal":
            top, least = float(self.eigenvalues[0]), float(self.eigenvalues[-1])
            data |= {"trace": float(np.trace(self.matrix)), "largest": top, "least": least}
        if self.error is not None:
            data |= {"error": self.error, "error_samples": self.error_samples}
        return data

    def plot(self) -> Any:
        """A matplotlib figure: the kernel as an image, and its spectrum when symmetric."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4) if self.symmetric else (5.5, 4), layout="constrained")
        axes = figure.subplots(1, 2 if self.symmetric else 1, squeeze=False)[0]
        matrix = self.ntk.mean(-1) if self.outputs == "diagonal" else self.matrix
        image = axes[0].imshow(matrix, interpolation="nearest", cmap="viridis")
        axes[0].set(title="empirical NTK", xlabel="sample of x2", ylabel="sample of x1")
        figure.colorbar(image, ax=axes[0], label="kernel value")
        if self.symmetric:
            values = np.linalg.eigvalsh(matrix.astype(np.float64))[::-1]
            # Those at the rounding floor would only show noise, and a log axis has no place
            # for the negative ones.
            floor = values[0] * np.finfo(self.ntk.dtype).eps * len(values)
            axes[1].semilogy(np.arange(1, len(values) + 1), np.maximum(values, floor), ".-")
            axes[1].axhline(floor, color="0.6", lw=0.8, ls="--", label="rounding floor")
            axes[1].set(title="spectrum", xlabel="index", ylabel="eigenvalue")
            axes[1].legend()
        return figure
