"""What the fully connected recursion needs of each sample alone: variances and shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.theory.kernels.duals_base import DualFunction
from tangency.theory.kernels.duals_rectified import Rectified
from tangency.theory.kernels.plan import Activate, Affine, Mix, Norm, Plan, Scale, Source

__all__ = ["Rows", "fits", "kink_of", "prepare"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """One batch, ready for tiles.

    Attributes
    ----------
    unit : array (n, d)
        The samples over their norms, float64.
    roots : tuple of arrays (n,)
        Square roots of the variances behind each node of the plan.
    shares : dict
        By node: (4, n) of an Affine with a bias, (branches, n) of a Mix.
    nngp, ntk : array (n,)
        The diagonal of the kernel.
    """

    unit: Array
    roots: tuple[Array, ...]
    shares: dict[int, Array]
    nngp: Array
    ntk: Array

    def cut(self, here: slice, dtype: Any) -> Rows:
        """Some of the samples, the vectors in the type of the recursion."""
        roots = tuple(r[here].astype(dtype) for r in self.roots)
        shares = {i: s[:, here].astype(dtype) for i, s in self.shares.items()}
        return Rows(self.unit[here], roots, shares, self.nngp[here], self.ntk[here])


def fits(plan: Plan) -> bool:
    """Whether a plan is on vectors and made of steps that the fused recursion carries."""
    for node in plan.nodes:
        step = node.step
        if node.sites != () or not isinstance(
            step, Source | Affine | Activate | Mix | Norm | Scale
        ):
            return False
        if isinstance(step, Affine) and step.table is not None:
            return False
        if isinstance(step, Norm) and (step.groups is not None or step.gain or step.shift):
            return False
    return len(plan.extract) == 1


def kink_of(dual: DualFunction) -> float | None:
    """``(a - b)^2 / ((a^2 + b^2) pi)`` of ``a min(x, 0) + b max(x, 0)``; None for other duals."""
    if not isinstance(dual, Rectified) or dual.n != 1:
        return None
    squares = dual.a**2 + dual.b**2
    return (dual.a - dual.b) ** 2 / (squares * math.pi) if squares > 0.0 else None


def prepare(plan: Plan, x: Array) -> Rows:
    """Walk the plan with each sample beside itself."""
    flat = np.ascontiguousarray(plan.extract[0](x).reshape(len(x), -1), dtype=np.float64)
    norm, unit = _directions(flat)
    roots: list[Array] = []
    tangents: list[Array] = []
    shares: dict[int, Array] = {}
    for i, node in enumerate(plan.nodes):
        step = node.step
        if isinstance(step, Source):
            roots.append(norm / math.sqrt(flat.shape[1]))
            tangents.append(np.zeros(len(x)))
            continue
        before, ntk = roots[node.inputs[0]], tangents[node.inputs[0]]
        q = before**2
        if isinstance(step, Affine):
            roots.append(np.sqrt(step.weight * q + step.bias))
            tangents.append(step.weight_gain * q + step.bias_gain + step.weight * ntk)
            if step.bias != 0.0 or step.bias_gain != 0.0:
                terms = (step.weight, step.bias, step.weight_gain, step.bias_gain)
                tops = (before, np.ones_like(before)) * 2
                shares[i] = _over(
                    [math.sqrt(t) * v for t, v in zip(terms, tops, strict=True)], roots[i]
                )
        elif isinstance(step, Activate):
            roots.append(np.sqrt(step.dual.variance(q)))
            tangents.append(ntk * step.dual.slope_variance(q))
        elif isinstance(step, Mix):
            parts = [
                math.sqrt(w) * roots[k] for w, k in zip(step.weights, node.inputs, strict=True)
            ]
            roots.append(np.sqrt(sum(p**2 for p in parts)))
            tangents.append(
                sum(
                    (w * tangents[k] for w, k in zip(step.weights, node.inputs, strict=True)),
                    0.0 * ntk,
                )
            )
            shares[i] = _over(parts, roots[i])
        elif isinstance(step, Norm):
            factor = 1.0 / (q + step.eps) if step.eps > 0.0 else _over([np.ones_like(q)], q)[0]
            roots.append(before * np.sqrt(factor))
            tangents.append(ntk * factor)
        else:
            assert isinstance(step, Scale)
            roots.append(before * math.sqrt(step.square))
            tangents.append(ntk * step.square)
    return Rows(unit, tuple(roots), shares, roots[-1] ** 2, tangents[-1])


def _directions(x: Array) -> tuple[Array, Array]:
    """Norms, and rows of norm 1 (or 0)."""
    square = np.einsum("ij,ij->i", x, x)
    if np.all((square == 0.0) | ((square > 1e-280) & (square < 1e280))) and (
        not (square == 0.0).any() or not x[square == 0.0].any()
    ):
        norm = np.sqrt(square)
        return norm, x * _over([np.ones_like(norm)], norm)[0][:, None]
    # The square of a float64 may overflow or vanish where its norm does neither.
    top = np.abs(x).max(axis=1, initial=0.0)
    scaled = x / np.where(top > 0.0, top, 1.0)[:, None]
    norm = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
    return norm * top, scaled / np.where(norm > 0.0, norm, 1.0)[:, None]


def _over(parts: list[Array], root: Array) -> Array:
    """Shares of a standard deviation; none where there is no variance."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([np.where(root > 0.0, p / root, 0.0) for p in parts])
