"""How layers are put together: in series, side by side, with a sum, a product or a concatenation.

>>> from tangency.theory.kernels.layers import Dense
>>> from tangency.theory.kernels.layers_activations import Relu
>>> block = residual(serial(Relu(), Dense(64)))
>>> type(block).__name__
'Branches'
"""

from __future__ import annotations

from dataclasses import dataclass

from tangency.models.errors import InputError
from tangency.theory.kernels.layers import Identity, Layer
from tangency.theory.kernels.plan_builder import PlanBuilder

__all__ = ["Branches", "Serial", "concat", "parallel", "product", "repeat", "residual", "serial"]


@dataclass(frozen=True)
class Serial(Layer):
    """Layers one behind the other."""

    layers: tuple[Layer, ...]

    def grow(self, plan: PlanBuilder, node: int) -> int:
        """Add the layers to a plan."""
        for layer in self.layers:
            node = layer.grow(plan, node)
        return node


@dataclass(frozen=True)
class Branches(Layer):
    """Branches of one input that meet again: ``how`` is "sum", "product" or "concat"."""

    branches: tuple[Layer, ...]
    how: str = "sum"

    def grow(self, plan: PlanBuilder, node: int) -> int:
        """Add the branches and their meeting to a plan."""
        ends = [branch.grow(plan, node) for branch in self.branches]
        meet = {"sum": plan.add, "product": plan.product, "concat": plan.concat}
        return meet[self.how](ends)


def serial(*layers: Layer) -> Serial:
    """Layers one behind the other."""
    for layer in layers:
        if not isinstance(layer, Layer):
            raise InputError(f"{layer!r} is no layer: give instances such as Dense(512)")
    return Serial(tuple(layers))


def repeat(layer: Layer, times: int) -> Serial:
    """The same layer ``times`` times, each with weights of its own."""
    return Serial((layer,) * times)


def parallel(*branches: Layer, how: str = "sum") -> Branches:
    """Branches of one input that meet in a "sum", "product" or "concat"."""
    if how not in ("sum", "product", "concat"):
        raise InputError(f"how = {how!r}: branches meet in a 'sum', 'product' or 'concat'")
    if not branches:
        raise InputError("parallel needs one branch or more")
    serial(*branches)
    return Branches(tuple(branches), how)


def residual(branch: Layer, *, shortcut: Layer | None = None) -> Branches:
    """``shortcut(x) + branch(x)``; the shortcut is the input itself by default."""
    return parallel(Identity() if shortcut is None else shortcut, branch)


def product(*branches: Layer) -> Branches:
    """The product of branches, entry by entry."""
    return parallel(*branches, how="product")


def concat(*branches: Layer) -> Branches:
    """Branches side by side in the channels, as in dense networks."""
    return parallel(*branches, how="concat")
