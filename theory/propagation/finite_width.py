r"""Finite width: the first corrections in ``1 / n`` to variance, kernel and tangent kernel.

For one input, hidden layers of one width ``n``, weights ``N(0, C_W / n)``, and a tangent kernel
with ``lambda_b`` for biases and ``lambda_W / n`` for weights:

- ``E[z_i z_j] = delta_ij (K + K1 / n)``; the connected ``E[z_i^2 z_j^2] - ... = V / n`` (i != j);
- ``E[H_ij] = delta_ij (H + H1 / n)``;
- ``Cov(H_ij, H_kl) = (d_ij d_kl A + d_ik d_jl B + d_il d_jk B) / n``;
- ``Cov(z_i z_j, H_kl) = (d_ij d_kl D + d_ik d_jl F + d_il d_jk F) / n``;
- ``E[dH_ijk z_l] = (d_il d_jk P + d_ij d_kl Q + d_ik d_jl Q) / n`` for the differential ``dH`` of
  the tangent kernel, whose first index is the neuron that is differentiated twice.

With ``O = lambda_W phi^2 + C_W H phi'^2``, primes for ``d/dK`` of averages:

.. math:: K1' &= \chi_\parallel K1 + \tfrac12 C_W \langle\phi^2\rangle'' V, \\
   V' &= \chi_\parallel^2 V + C_W^2 (\langle\phi^4\rangle - \langle\phi^2\rangle^2), \\
   D' &= \chi_\parallel \chi_\perp D + \chi_\parallel \langle O\rangle' V
         + C_W (\langle\phi^2 O\rangle - \langle\phi^2\rangle \langle O\rangle), \\
   F' &= \chi_\parallel^2 F + C_W^2 H \langle\phi^2 \phi'^2\rangle, \\
   A' &= \chi_\perp^2 A + 2 \chi_\perp \langle O\rangle' D + (\langle O\rangle')^2 V
         + \langle O^2\rangle - \langle O\rangle^2, \\
   B' &= \chi_\perp^2 B + C_W^2 H^2 \langle\phi'^4\rangle, \\
   H1' &= \chi_\perp H1 + \langle O\rangle' K1 + \tfrac12 \langle O\rangle'' V
         + C_W \langle\phi'^2\rangle' (D + 2F), \\
   P' &= \chi_\parallel \chi_\perp P + C_W^2 H^2 \langle\phi \phi'^2 \phi''\rangle
         + C_W \chi_\perp \langle\phi \phi''\rangle B, \\
   Q' &= \chi_\parallel \chi_\perp Q + C_W^2 H^2 \langle\phi \phi'^2 \phi''\rangle
         + C_W \chi_\parallel \langle\phi'^2\rangle' H F + \lambda_W F' / C_W.

Derived here by conditioning on the layer before, and tested against networks drawn at random.
Averages with ``phi''`` are integrated by parts: of a kink they hold what smoothed ones tend to.

References
----------
Roberts, Yaida, Hanin, "The Principles of Deep Learning Theory", arXiv 2106.10165, chapters 4, 8
and 11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.activations import Activation
from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.propagation.gauss import Array, average_slopes, averages
from tangency.theory.propagation.maps import DepthMap

__all__ = ["FiniteWidth", "finite_width"]


@dataclass(frozen=True, eq=False)
class FiniteWidth:
    """Leading corrections layer by layer; every array is ``(depth,)``, entry 0 the first layer.

    Attributes
    ----------
    activation : Activation
    kernel, kernel_correction : arrays
        ``K`` and ``K1``.
    vertex : array
        ``V``.
    ntk, ntk_correction : arrays
        ``H`` and ``H1``.
    a, b, d, f : arrays
        The fluctuations ``A, B, D, F`` of the tangent kernel.
    p, q : arrays
        The correlations ``P`` and ``Q`` of its differential with the preactivations.
    """

    activation: Activation
    kernel: Array
    kernel_correction: Array
    vertex: Array
    ntk: Array
    ntk_correction: Array
    a: Array
    b: Array
    d: Array
    f: Array
    p: Array
    q: Array

    @property
    def normalised_vertex(self) -> Array:
        """``V / K^2``; divided by the width it is the size of the non-Gaussianity."""
        return self.vertex / self.kernel**2

    @property
    def ntk_variance(self) -> Array:
        """``n Var(H_ii) / H^2 = (A + 2 B) / H^2``: relative variance of the NTK, times width."""
        return np.asarray((self.a + 2.0 * self.b) / self.ntk**2)

    def plot(self) -> Any:
        """Growth with depth; a matplotlib Figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        axes = figure.add_subplot()
        depth = np.arange(1, len(self.kernel) + 1)
        axes.plot(depth, self.normalised_vertex, label="V / K²: four-point vertex")
        axes.plot(depth, self.ntk_variance, "--", label="n Var(NTK) / NTK²")
        axes.set_xlabel("layer ℓ")
        axes.set_ylabel("correction × width")
        axes.set_title(f"Finite-width corrections, {self.activation}")
        axes.legend()
        return figure


def finite_width(
    layer: DepthMap,
    depth: int,
    *,
    variance: float = 1.0,
    ntk_bias: float = 0.0,
    ntk_weight: float = 1.0,
    first_ntk: float | None = None,
) -> FiniteWidth:
    """Run the recursions from the first layer, which is Gaussian, to layer ``depth``.

    Parameters
    ----------
    layer : DepthMap
        Activation and initialisation.
    depth : int
        Number of layers of preactivations.
    variance : float
        ``K`` of the first layer, ``C_b + C_W |x|^2 / n_0``.
    ntk_bias, ntk_weight : float
        ``lambda_b`` and ``lambda_W``; ``H`` with (1, 1) at ``C_W`` in NTK parametrisation is that
        of ``lambda_b = C_b``, ``lambda_W = C_W``.
    first_ntk : float, optional
        ``H`` of the first layer; by default ``lambda_b + lambda_W |x|^2 / n_0`` for this variance.

    Raises
    ------
    InputError
        If the depth or the variance is not positive.
    UnsupportedError
        If the activation jumps: its tangent kernel does not exist.
    """
    if depth < 1 or not variance > 0.0:
        raise InputError(f"depth and variance must be positive, not {depth} and {variance}")
    record = layer.activation
    if record.staircase or record.jumps:
        raise UnsupportedError(f"{record} jumps: finite-width corrections need a slope")
    c_w, c_b = layer.weight_variance, layer.bias_variance
    if first_ntk is None:
        first_ntk = ntk_bias + ntk_weight * max(variance - c_b, 0.0) / c_w
    now = {"k": variance, "h": first_ntk} | dict.fromkeys(
        ("k1", "v", "h1", "a", "b", "d", "f", "p", "q"), 0.0
    )
    rows = [now]
    for _ in range(depth - 1):
        now = _next(record, now, c_w, c_b, ntk_weight, ntk_bias)
        rows.append(now)
    table = {key: np.array([row[key] for row in rows]) for key in now}
    names = ("k", "k1", "v", "h", "h1", "a", "b", "d", "f", "p", "q")
    return FiniteWidth(record, *(table[name] for name in names))


def _next(
    record: Activation, s: dict[str, float], c_w: float, c_b: float, weight: float, bias: float
) -> dict[str, float]:
    """One layer of the recursions."""

    def functionals(f: Array, d: Array) -> list[Array]:
        g, e = f * f, d * d
        return [g, e, g * g, g * e, e * e]

    (g, e, gg, ge, ee), (g1, e1, *_), (g2, e2, *_) = (
        (float(x) for x in row) for row in averages(record, s["k"], functionals, 2)
    )
    cubes = float(average_slopes(record, s["k"], lambda f, d: [f * d**3])[0])
    bent, twice = (cubes - ee) / 3.0, g1 - e  # <phi phi'^2 phi''> and <phi phi''>
    along, across, h, v = c_w * g1, c_w * e, s["h"], s["v"]
    slope = weight * g1 + c_w * h * e1  # of <O> in K
    bend = weight * g2 + c_w * h * e2
    spread = weight**2 * (gg - g * g) + 2.0 * weight * c_w * h * (ge - g * e)
    spread += (c_w * h) ** 2 * (ee - e * e)
    kept = (c_w * h) ** 2 * bent
    crossed = along**2 * s["f"] + c_w**2 * h * ge
    mixed = weight * (gg - g * g) + c_w * h * (ge - g * e)
    return {
        "k": c_b + c_w * g,
        "k1": along * s["k1"] + 0.5 * c_w * g2 * v,
        "v": along**2 * v + c_w**2 * (gg - g * g),
        "h": bias + weight * g + across * h,
        "h1": across * s["h1"]
        + slope * s["k1"]
        + 0.5 * bend * v
        + c_w * e1 * (s["d"] + 2.0 * s["f"]),
        "a": across**2 * s["a"] + 2.0 * across * slope * s["d"] + slope**2 * v + spread,
        "b": across**2 * s["b"] + (c_w * h) ** 2 * ee,
        "d": along * across * s["d"] + along * slope * v + c_w * mixed,
        "f": crossed,
        "p": along * across * s["p"] + kept + c_w * across * twice * s["b"],
        "q": along * across * s["q"]
        + kept
        + c_w * along * e1 * h * s["f"]
        + weight / c_w * crossed,
    }
