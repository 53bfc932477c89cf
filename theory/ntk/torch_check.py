"""The layer-wise gradients of one sample against autograd's: which parameters hooks may hold."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["agrees", "true_gradients"]

#: Relative difference from autograd's gradient from which on a parameter is not trusted to hooks.
AGREEMENT = {torch.float32: 1e-3, torch.float64: 1e-9}


def true_gradients(
    module: Any, parameters: dict[str, Any], two: torch.Tensor, mix: torch.Tensor
) -> dict[int, torch.Tensor]:
    """Gradient of ``mix . f(x)`` at the first of two samples, by the id of each parameter.

    Parameters
    ----------
    two : (2, *input_shape) tensor
    mix : (1, K) tensor
    """
    leaves = list(parameters.values())
    with torch.enable_grad():
        value = (module(two).reshape(2, -1)[:1] * mix).sum()
    found: Any = [None] * len(leaves)
    if value.requires_grad:
        found = torch.autograd.grad(value, leaves, allow_unused=True)
    return {
        id(p): torch.zeros_like(p) if g is None else g for p, g in zip(leaves, found, strict=True)
    }


def agrees(mine: Any, rule: Any, exact: dict[int, torch.Tensor], parameter: Any) -> bool:
    """Whether a rule gives autograd's gradient of the first of two samples.

    Parameters
    ----------
    mine : sequence of (Call, cotangents (2, 1, *output shape))
        The calls of one layer.
    rule : callable
        ``rule(call, cotangents)`` gives gradients (2, 1, p).
    """
    try:
        with torch.no_grad():
            if not all(c.of(2) for c, _ in mine):
                return False
            formed = sum(rule(c, b) for c, b in mine)[0, 0].reshape(parameter.shape)
    except RuntimeError:
        return False
    true = exact[id(parameter)]
    return bool(float((formed - true).norm()) <= AGREEMENT[parameter.dtype] * float(true.norm()))
