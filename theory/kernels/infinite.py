"""The kernels of an infinitely wide network: its Gaussian process and its tangent kernel.

>>> import numpy as np
>>> from tangency.theory.kernels import Dense, Relu, infinite_kernel, serial
>>> kernel = infinite_kernel(serial(Dense(512), Relu(), Dense(1)))
>>> kernel(np.eye(2), get="ntk").round(4)
array([[0.5   , 0.0796],
       [0.0796, 0.5   ]])

References
----------
Jacot, Gabriel, Hongler, arXiv 1806.07572; Arora et al., arXiv 1904.11955; Novak et al.,
"Neural Tangents", arXiv 1912.02803.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tangency.models import Network
from tangency.models.activations.formula import digest_of
from tangency.models.errors import InputError, UnsupportedError
from tangency.theory.kernels import infinite_tiles as tiles
from tangency.theory.kernels.content import content
from tangency.theory.kernels.kernel import KINDS, Get, Gram, Kernel, selected, wanted
from tangency.theory.kernels.layers import Layer
from tangency.theory.kernels.layers_branches import serial
from tangency.theory.kernels.plan import Plan
from tangency.theory.kernels.plan_builder import PlanBuilder
from tangency.theory.kernels.plan_network import plan_of_network
from tangency.theory.kernels.walk import walk

__all__ = ["InfiniteKernel", "infinite_kernel"]

Array = np.ndarray[Any, np.dtype[np.float64]]

_WORTH_COMPILING = 100_000  # pairs of samples and sites from which on compiled code is loaded


@dataclass(frozen=True, eq=False)
class InfiniteKernel:
    """The kernel of an architecture; see :func:`infinite_kernel`.

    Calling it gives a :class:`Gram`. With ``x2=None`` one triangle is computed and
    mirrored, and the diagonal is that of :meth:`diagonal`, exact to rounding.

    Attributes
    ----------
    layers : Layer or Network
    parametrisation : {"ntk", "standard"}
    weight_variance, bias_variance : float
        Of a Network's layers.
    dtype, method, n_jobs
        As given to :func:`infinite_kernel`.
    """

    layers: Layer | Network
    parametrisation: str = "ntk"
    weight_variance: float = 1.0
    bias_variance: float = 0.0
    dtype: str = "float64"
    method: str = "auto"
    n_jobs: int = 1
    _plans: dict[tuple[int, ...], Plan] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """The kernel without its plans, which are made anew where it arrives."""
        return {**self.__dict__, "_plans": {}}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the kernel is made of: equal for equal kernels, in any process.

        Raises
        ------
        InputError
            If it holds a function that cannot be followed, or a layer of a class that is not ours.
        """
        return digest_of(
            content(self.layers),
            *(self.parametrisation, self.weight_variance, self.bias_variance, self.dtype),
        )

    def plan(self, input_shape: tuple[int, ...]) -> Plan:
        """The steps for samples of a shape."""
        shape = tuple(input_shape)
        if shape not in self._plans:
            if isinstance(self.layers, Network):
                plan = plan_of_network(
                    self.layers,
                    parametrisation=self.parametrisation,
                    weight_variance=self.weight_variance,
                    bias_variance=self.bias_variance,
                )
                if shape != plan.input_shape:
                    raise InputError(f"the network takes samples {plan.input_shape}, got {shape}")
            else:
                plan = _plan_of_layers(self.layers, shape, self.parametrisation)
            self._plans[shape] = plan
        return self._plans[shape]

    def __call__(self, x1: Any, x2: Any = None, *, get: Get = KINDS) -> Any:
        """The kernel between two batches.

        Parameters
        ----------
        x1 : array (n1, *sample)
            Channels last for layers; as the network takes them for a Network.
        x2 : array (n2, *sample), optional
            ``x1`` by default.
        get : "nngp", "ntk" or a tuple of both

        Returns
        -------
        Gram, or the array (n1, n2) alone where ``get`` is one name.
        """
        names = wanted(get)
        x1 = tiles.batch("x1", x1)
        plan = self.plan(x1.shape[1:])
        symmetric = x2 is None
        x2 = x1 if x2 is None else tiles.batch("x2", x2)
        if x2.shape[1:] != x1.shape[1:]:
            raise InputError(f"samples of x1 are {x1.shape[1:]}, those of x2 {x2.shape[1:]}")
        compiled = self._compiled(plan, len(x1) * len(x2))
        if compiled is not None:
            return compiled(x1, None if symmetric else x2, get=get)
        out = {name: np.empty((len(x1), len(x2)), self.dtype) for name in names}
        rows, cols = tiles.tile_shape(plan, len(x1), len(x2), symmetric=symmetric)
        for i in range(0, len(x1), rows):
            for j in range(i if symmetric else 0, len(x2), cols):
                here, there = slice(i, i + rows), slice(j, j + cols)
                same = symmetric and i == j
                tile = tiles.tile(plan, x1[here], None if same else x2[there], names)
                for name, array in tile.items():
                    out[name][here, there] = array
                    if symmetric and not same:
                        out[name][there, here] = array.T
        gram = Gram(out.get("nngp"), out.get("ntk"), symmetric)
        return selected(gram, get)

    def diagonal(self, x: Any, *, get: Get = KINDS) -> Any:
        """The kernel of each sample with itself, ``(n,)``."""
        names = wanted(get)
        x = tiles.batch("x", x)
        plan = self.plan(x.shape[1:])
        step = max(1, tiles.TILE_ENTRIES // plan.widest_site_pair)
        parts: dict[str, list[Array]] = {name: [np.empty(0)] for name in names}
        for i in range(0, len(x), step):
            state = walk(plan, (x[i : i + step],), cross=False, ntk="ntk" in names)
            for name in names:
                parts[name].append(tiles.values(state.own[0], name))
        joined = {name: np.concatenate(p).astype(self.dtype) for name, p in parts.items()}
        return selected(Gram(joined.get("nngp"), joined.get("ntk")), get)

    def _compiled(self, plan: Plan, entries: int) -> Kernel | None:
        """Compiled code for the plan, where there is some and its loading pays."""
        size = entries * plan.widest_site_pair
        if self.method == "reference" or (self.method == "auto" and size < _WORTH_COMPILING):
            return None
        from tangency.theory.kernels.cntk import FusedConv
        from tangency.theory.kernels.cntk_stages import cut
        from tangency.theory.kernels.fused import FusedDense
        from tangency.theory.kernels.fused_rows import fits

        if fits(plan):
            return FusedDense(plan, self.dtype, n_jobs=self.n_jobs)
        if any(node.full for node in plan.nodes) and cut(plan) is not None:
            return FusedConv(plan, self.dtype, n_jobs=self.n_jobs)
        if self.method == "fused":
            raise UnsupportedError("no compiled code takes this plan: leave method='auto'")
        return None


def _plan_of_layers(layers: Layer, shape: tuple[int, ...], parametrisation: str) -> Plan:
    builder = PlanBuilder(parametrisation)
    sites, channels = shape[:-1], shape[-1]
    node = builder.source(sites, channels, lambda x: x.reshape(len(x), -1, channels))
    return builder.finish(layers.grow(builder, node), shape)


def infinite_kernel(
    network_or_layers: Any,
    *,
    parametrisation: str = "ntk",
    weight_variance: float | None = None,
    bias_variance: float | None = None,
    dtype: str = "float64",
    method: str = "auto",
    n_jobs: int = 1,
) -> InfiniteKernel:
    """The NNGP and NTK of an architecture in the limit of infinite width.

    Parameters
    ----------
    network_or_layers : Network, Layer or sequence of Layers
        Of a Network only the architecture enters, not the weights.
    parametrisation : {"ntk", "standard"}
        ``ntk``: ``f = W_std / sqrt(fan in) W x + b_std b``, W and b ~ N(0, 1). ``standard``: the
        same function at initialisation, with W_std and b_std in the weights.
    weight_variance, bias_variance : float, optional
        ``W_std^2`` (default 1) and ``b_std^2`` (default 0) of all layers of a Network; layers
        carry their own.
    dtype : {"float64", "float32"}
        Of the result; covariances are carried in float64.
    method : {"auto", "reference", "fused"}
        ``auto`` takes compiled code for large matrices where the plan fits it. That of
        convolutions carries covariances: entries of two images that nearly coincide are right
        to about 1e-9, those of the reference to 1e-13.
    n_jobs : int
        Threads of the compiled code.

    Raises
    ------
    InputError
        For options out of range, or variances beside layers.
    UnsupportedError
        For a layer without an infinite-width limit that is carried; the message names it.
    """
    if parametrisation not in ("ntk", "standard"):
        raise InputError(f"parametrisation {parametrisation!r}: it is 'ntk' or 'standard'")
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype {dtype!r}: it is 'float32' or 'float64'")
    if method not in ("auto", "reference", "fused"):
        raise InputError(f"method {method!r}: it is 'auto', 'reference' or 'fused'")
    options = (str(dtype), method, n_jobs)
    given = {"weight_variance": weight_variance, "bias_variance": bias_variance}
    for name, value in given.items():
        if value is not None and not (np.isfinite(value) and value >= 0.0):
            raise InputError(f"{name} = {value}: a finite number from 0")
    if isinstance(network_or_layers, Network):
        weight = 1.0 if weight_variance is None else float(weight_variance)
        bias = 0.0 if bias_variance is None else float(bias_variance)
        kernel = InfiniteKernel(network_or_layers, parametrisation, weight, bias, *options)
        kernel.plan(network_or_layers.input_shape)
        return kernel
    if any(value is not None for value in given.values()):
        raise InputError("layers carry W_std and b_std of their own: leave the variances out")
    layers = network_or_layers
    if isinstance(layers, list | tuple):
        layers = serial(*layers)
    if not isinstance(layers, Layer):
        raise InputError(
            f"{type(layers).__name__} is neither a Network nor layers: make a Network of a model "
            "first, by from_torch, from_jax or load"
        )
    return InfiniteKernel(layers, parametrisation, 1.0, 0.0, *options)
