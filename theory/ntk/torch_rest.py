"""What the torch front end takes in, and the gradients that only autograd knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from tangency.models.errors import InputError

__all__ = ["checked_module", "rest_gradients", "samples"]


def checked_module(module: Any) -> tuple[dict[str, Any], torch.dtype, torch.device]:
    """Trainable parameters by name, dtype and device of a module fit for a kernel.

    Raises
    ------
    InputError
        For a layer whose output for a sample depends on the batch or on chance, by name; no
        trainable parameter; more than one dtype or device.
    """
    for name, m in module.named_modules():
        where = f"{name or 'the module'} ({type(m).__name__})"
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and (
            m.training or m.running_mean is None
        ):
            raise InputError(
                f"{where} takes its statistics from the batch, so a sample has no gradient of its "
                "own: call module.eval(), with track_running_stats"
            )
        if isinstance(m, nn.modules.dropout._DropoutNd) and m.training and m.p > 0:
            raise InputError(f"{where} is in training mode, so random: call module.eval()")
    parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
    if not parameters:
        raise InputError("the module has no parameter with requires_grad, so no tangent kernel")
    kinds = {(p.dtype, p.device) for p in parameters.values()}
    dtype, device = next(iter(kinds))
    if len(kinds) > 1 or dtype not in (torch.float32, torch.float64):
        got = ", ".join(sorted(f"{d} on {v}" for d, v in kinds))
        raise InputError(f"the parameters are {got}: one of float32, float64 on one device")
    return parameters, dtype, device


def samples(name: str, x: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Samples as a tensor: floating-point ones of the module's dtype, integers as they are."""
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(np.ascontiguousarray(x))
    if not isinstance(x, torch.Tensor):
        raise InputError(f"{name} is a {type(x).__name__}: give a torch tensor or a NumPy array")
    if x.is_floating_point() and x.dtype != dtype:
        raise InputError(f"{name} is {x.dtype} and the module {dtype}: give x.to({dtype})")
    if x.is_complex():
        raise InputError(f"{name} is {x.dtype}: real numbers are needed")
    if x.ndim == 0 or x.numel() == 0:
        raise InputError(f"{name} is empty, of shape {tuple(x.shape)}: give at least one sample")
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise InputError(f"{name} has a NaN or infinite entry")
    return x.detach().to(device)


def rest_gradients(
    module: Any, parameters: dict[str, Any], x: torch.Tensor, directions: torch.Tensor
) -> list[torch.Tensor]:
    """Gradients (n, K', p) of the named parameters, by torch.func and else a sample at a time."""
    detached = {name: p.detach() for name, p in parameters.items()}
    k = len(directions)

    def one(sample: Any) -> Any:
        def outputs(params: Any) -> Any:
            return torch.func.functional_call(module, params, (sample[None],)).reshape(-1)

        _, back = torch.func.vjp(outputs, detached)
        return torch.func.vmap(lambda d: back(d)[0])(directions)

    try:
        grown = torch.func.vmap(one)(x)
        return [grown[name].detach().reshape(len(x), k, -1) for name in parameters]
    except (RuntimeError, ValueError, NotImplementedError):
        return _one_by_one(module, list(parameters.values()), x, directions)


def _one_by_one(
    module: Any, parameters: list[Any], x: torch.Tensor, directions: torch.Tensor
) -> list[torch.Tensor]:
    """The same by plain autograd, for modules that torch.func cannot map over samples."""
    k = len(directions)
    found = [x.new_zeros((len(x), k, p.numel()), dtype=p.dtype) for p in parameters]
    for i in range(len(x)):
        with torch.enable_grad():
            out = module(x[i : i + 1]).reshape(-1)
        for a, d in enumerate(directions):
            grads = torch.autograd.grad(
                out, parameters, d, retain_graph=a + 1 < k, allow_unused=True
            )
            for g, whole in zip(grads, found, strict=True):
                if g is not None:
                    whole[i, a] = g.reshape(-1)
    return found
