"""A network's kernel as a kernel object of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.prediction.sources import default_kernel, diagonal, evaluate, shaped

__all__ = ["SklearnKernel"]

try:
    from sklearn.gaussian_process.kernels import GenericKernelMixin, Kernel
except ImportError:
    Kernel = object

    class GenericKernelMixin:  # type: ignore[no-redef]
        """Stands in where scikit-learn is not installed."""


class SklearnKernel(GenericKernelMixin, Kernel):  # type: ignore[misc]
    """A kernel for ``GaussianProcessRegressor(kernel=...)`` and ``SVC(kernel=...)``.

    It has no hyperparameters of its own and composes with scikit-learn's kernels:
    ``ConstantKernel() * SklearnKernel(k) + WhiteKernel()`` fits a scale and a noise.

    Parameters
    ----------
    kernel : Kernel or callable, optional
        As for :class:`NTKRegressor`.
    get : {"ntk", "nngp"}
    input_shape : tuple of int, optional
        Of one input of the kernel, where X has flat rows.
    """

    def __init__(
        self,
        kernel: Any = None,
        get: str = "ntk",
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.kernel = kernel
        self.get = get
        self.input_shape = input_shape

    def __call__(self, X: Any, Y: Any = None, eval_gradient: bool = False) -> Any:
        """Kernel between X and Y (default X); with ``eval_gradient`` also the empty gradient.

        Raises
        ------
        InputError
            For ``eval_gradient`` between two sets, and inputs that the kernel does not take.
        """
        X = np.asarray(X)
        # SVC gives the training inputs twice: the symmetric case has an exact diagonal.
        if Y is not None and (Y is X or np.array_equal(X, Y)):
            if eval_gradient:
                raise InputError("eval_gradient is for one set of inputs: leave Y out")
            Y = None
        other = None if Y is None else shaped(np.asarray(Y), self.input_shape)
        gram = evaluate(self._kernel(), shaped(X, self.input_shape), other, (self.get,))[self.get]
        gram = gram.astype(np.float64, copy=False)
        if not eval_gradient:
            return gram
        if Y is not None:
            raise InputError("eval_gradient is for one set of inputs: leave Y out")
        return gram, np.empty((len(X), len(X), 0))

    def diag(self, X: Any) -> np.ndarray:
        """Diagonal of the kernel of X, (n,)."""
        values = diagonal(self._kernel(), shaped(np.asarray(X), self.input_shape), self.get)
        return np.asarray(values, np.float64)

    def is_stationary(self) -> bool:
        """Networks' kernels depend on more than the difference of the inputs."""
        return False

    def __repr__(self) -> str:
        name = "" if self.kernel is None else getattr(self.kernel, "__name__", repr(self.kernel))
        return f"SklearnKernel({name}{', ' if name else ''}get={self.get!r})"

    def _kernel(self) -> Any:
        return default_kernel() if self.kernel is None else self.kernel
