"""Weights that a module computes from others (``torch.nn.utils.parametrize``), computed once.

Spectral, Björck and Frobenius normalisation, orthogonal and weight-normed layers: what acts on the
input is the effective weight, and that is what a network holds, under the weight's own name.
"""

from __future__ import annotations

from typing import Any

__all__ = ["fix_parametrized", "parametrized_names"]


def parametrized_names(module: Any) -> frozenset[str]:
    """Paths of the tensors that the module's parametrisations compute."""
    from torch.nn.utils import parametrize

    return frozenset(
        f"{path}.{name}" if path else name
        for path, part in module.named_modules()
        if parametrize.is_parametrized(part)
        for name in part.parametrizations
    )


def fix_parametrized(module: Any) -> None:
    """Replace every parametrised tensor of a copied module by its value in evaluation mode.

    Some parametrisations (power iteration in each call) write on their own state, so that the
    weight is not quite the same in every call: it is taken once. The classes that torch makes for
    parametrised modules are shared with the original, and stay as they are.
    """
    import torch
    from torch.nn.utils import parametrize

    for path, part in list(module.named_modules()):
        inner = "parametrizations" in path.split(".")  # goes with the weight that it computes
        if inner or not parametrize.is_parametrized(part):
            continue
        with torch.no_grad():
            values = {name: getattr(part, name).detach().clone() for name in part.parametrizations}
        learnt = {
            name: any(True for _ in chain.parameters(recurse=False))
            for name, chain in part.parametrizations.items()
        }
        del part._modules["parametrizations"]
        part.__class__ = part.__class__.__bases__[0]  # as torch does on removal
        for name, value in values.items():
            if learnt[name]:
                part.register_parameter(name, torch.nn.Parameter(value))
            else:
                part.register_buffer(name, value)
