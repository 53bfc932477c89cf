"""A model's linearisation in its weights, and how far training leaves it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.network import Network
from tangency.theory.ntk.empirical import front_end
from tangency.theory.ntk.jax_kernel import JaxModel
from tangency.theory.ntk.products import JaxProducts

__all__ = ["LinearisationError", "Linearised", "linearise"]


@dataclass(frozen=True)
class LinearisationError:
    """How far a model is from its linearisation along a path of weights.

    Attributes
    ----------
    distance : (T,) array
        ``|w_t - w_0| / |w_0|`` over the trainable weights.
    error : (T,) array
        Root mean square over samples and outputs of ``f_t - f_lin,t``.
    relative : (T,) array
        The same over the root mean square of ``f_t - f_0``: how much of the change is not linear;
        zero where nothing has changed.
    """

    distance: np.ndarray
    error: np.ndarray
    relative: np.ndarray

    def plot(self) -> Any:
        """A matplotlib figure: both errors along the path."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(self.distance, self.error, ".-", label="root mean square error")
        axes.plot(self.distance, self.relative, ".-", label="share of the change")
        axes.set(title="linearisation error", xlabel="distance moved / norm of the weights")
        axes.legend()
        return figure


class Linearised:
    """``f_lin(x; w) = f(x; w_0) + J(x; w_0) (w - w_0)``, a callable; see :func:`linearise`."""

    def __init__(self, network: Any) -> None:
        self._model = front_end(network)
        self._products: Any
        if isinstance(self._model, JaxModel):
            self._products = JaxProducts(network)
            self._start = {k: network.weights[k] for k in network.structure.trainable}
            self._fixed = {k: w for k, w in network.weights.items() if k not in self._start}
        else:
            from tangency.theory.ntk.torch_products import TorchProducts, frozen_copy

            module, self._start, self._fixed = frozen_copy(self._model)
            self._model = front_end(module)
            self._products = TorchProducts(self._model)

    def __call__(self, x: Any, weights: Any) -> np.ndarray:
        """Linearised outputs.

        Parameters
        ----------
        x : (n, *input_shape) array or tensor
        weights : Network, torch.nn.Module or mapping of str to array
            The weights w: a model of the same structure, or trainable weights by name (those left
            out have not moved).

        Returns
        -------
        (n, K) array

        Raises
        ------
        InputError
            For unknown weights, other shapes, or buffers (running statistics) that differ: the
            linearisation is in the trainable weights alone.
        """
        x = self._model.inputs("x", x)
        return np.asarray(self._products.value(x) + self._change(x, self._moved(weights)))

    def error(self, x: Any, path: Iterable[Any]) -> LinearisationError:
        """Distance of a model from its linearisation along a path.

        Parameters
        ----------
        x : (n, *input_shape) array or tensor
        path : iterable of Network or torch.nn.Module
            Checkpoints of a training, each used before the next is asked for.
        """
        x = self._model.inputs("x", x)
        start = self._products.value(x).astype(np.float64)
        norm = _norm(self._start.values())
        rows = []
        for point in path:
            moved = self._moved(point)
            values = self._products.value(x, {**self._start, **self._fixed, **self._full(moved)})
            change = values.astype(np.float64) - start
            gap = change - self._change(x, moved)
            size = float(np.sqrt(np.mean(change**2)))
            error = float(np.sqrt(np.mean(gap**2)))
            rows.append((_norm(moved.values()) / norm, error, error / size if size else 0.0))
        if not rows:
            raise InputError("the path is empty: give at least one checkpoint")
        distance, error_, relative = np.array(rows).T
        return LinearisationError(distance, error_, relative)

    def _change(self, x: Any, moved: dict[str, Any]) -> Any:
        return self._products.forth(x, self._products.tangent(moved))

    def _full(self, moved: dict[str, Any]) -> dict[str, Any]:
        return {k: self._start[k] + d for k, d in moved.items()}

    def _moved(self, weights: Any) -> dict[str, Any]:
        """``w - w_0`` for every trainable weight, as NumPy arrays by name."""
        given = _by_name(weights)
        for key, value in given.items():
            if key in self._fixed:
                if not np.array_equal(value, self._fixed[key]):
                    raise InputError(
                        f"{key} is no trainable weight and has changed: the linearisation is in "
                        "the trainable weights alone"
                    )
            elif key not in self._start:
                raise InputError(f"the model has no weight {key!r}")
            elif value.shape != self._start[key].shape:
                want = self._start[key].shape
                raise InputError(f"{key} has shape {value.shape}, the model's is {want}")
        moved = {}
        for key, start in self._start.items():
            new = np.asarray(given.get(key, start), start.dtype)
            moved[key] = new - start
        return moved


def linearise(network: Any) -> Linearised:
    """The first-order Taylor expansion of a model in its trainable weights.

    Parameters
    ----------
    network : Network or torch.nn.Module
        At its weights w_0, which are copied: training the module on does not move the expansion.

    Returns
    -------
    Linearised
        ``f_lin(x, weights)``, and ``f_lin.error(x, checkpoints)`` along a training path.

    References
    ----------
    Lee et al., "Wide neural networks of any depth evolve as linear models under gradient descent",
    arXiv 1902.06720, section 2.2.
    """
    return Linearised(network)


def _by_name(weights: Any) -> dict[str, np.ndarray]:
    if isinstance(weights, Network):
        return dict(weights.weights)
    if hasattr(weights, "named_parameters"):
        named = [*weights.named_parameters(), *weights.named_buffers()]
        weights = {name: p for name, p in named}
    if not hasattr(weights, "items"):
        raise InputError(f"weights are a {type(weights).__name__}: give a model or a mapping")
    return {
        key: np.asarray(w.detach().cpu().numpy() if hasattr(w, "detach") else w)
        for key, w in weights.items()
    }


def _norm(arrays: Iterable[np.ndarray]) -> float:
    return float(np.sqrt(sum(float(np.sum(np.square(a, dtype=np.float64))) for a in arrays)))
