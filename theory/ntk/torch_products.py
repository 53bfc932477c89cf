"""J^T v and J u of a torch module, for the kernel as an operator and for linearisation."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch

__all__ = ["TorchProducts", "frozen_copy"]


class TorchProducts:
    """Products with the Jacobian of a module in its trainable parameters.

    Parameters
    ----------
    model : TorchModel
        Its inputs checked already.
    """

    def __init__(self, model: Any) -> None:
        self._module = model.module
        self._parameters = model.parameters
        self._dtype, self._device = model.dtype_torch, model.device

    def back(self, x: Any, v: np.ndarray, total: Any) -> list[torch.Tensor]:
        """``total + J(x)^T v`` by one backward pass, a tensor for each parameter."""
        parameters = list(self._parameters.values())
        cotangent = torch.from_numpy(np.array(v, copy=True)).to(self._device, self._dtype)
        with torch.enable_grad():
            out = self._module(x)
        found = torch.autograd.grad(
            out, parameters, cotangent.reshape(out.shape), allow_unused=True
        )
        grown = [
            torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
        ]
        return grown if total is None else [a + b for a, b in zip(total, grown, strict=True)]

    def forth(self, x: Any, u: list[torch.Tensor]) -> np.ndarray:
        """``J(x) u`` (n, K), in forward mode."""
        detached = {name: p.detach() for name, p in self._parameters.items()}
        tangents = dict(zip(detached, (t.detach() for t in u), strict=True))

        def outputs(params: Any) -> Any:
            return torch.func.functional_call(self._module, params, (x,))

        _, moved = torch.func.jvp(outputs, (detached,), (tangents,))
        return np.asarray(moved.detach().reshape(len(x), -1).cpu().numpy())

    def tangent(self, moved: dict[str, np.ndarray]) -> list[torch.Tensor]:
        """A direction in the parameters, for :meth:`forth`."""
        return [torch.as_tensor(moved[k], dtype=self._dtype, device=self._device)
                for k in self._parameters]  # fmt: skip

    def value(self, x: Any, weights: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """Outputs (n, K), of other parameters where given."""
        chosen = {
            name: p.detach() if weights is None else torch.as_tensor(weights[name]).to(p)
            for name, p in self._parameters.items()
        }
        with torch.no_grad():
            out = torch.func.functional_call(self._module, chosen, (x,))
        return np.asarray(out.reshape(len(x), -1).cpu().numpy())


def frozen_copy(model: Any) -> tuple[Any, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A copy of a module, its trainable parameters and its other tensors, as NumPy arrays."""
    module = deepcopy(model.module)
    start = {k: p.detach().cpu().numpy().copy() for k, p in model.parameters.items()}
    every = [*module.named_parameters(), *module.named_buffers()]
    fixed = {k: t.detach().cpu().numpy().copy() for k, t in every if k not in start}
    return module, start, fixed
