"""Tiles of the tangent kernel of a torch module, natively (torch front end).

Linear layers, convolutions, norms, embeddings and PReLU take the layer-wise form. Before the first
tile the gradients so formed are compared with autograd's on one sample; a parameter whose gradient
differs (used elsewhere too, samples not on the first axis), and every parameter of another kind of
module, goes through ``torch.func`` instead. So the answer does not rest on what a module is called.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch

from tangency.models.errors import InputError
from tangency.theory.ntk.contraction import Site, cheaper, contract, footprint, symmetric
from tangency.theory.ntk.tiles import Replanned
from tangency.theory.ntk.torch_check import agrees, true_gradients
from tangency.theory.ntk.torch_rest import checked_module, rest_gradients, samples
from tangency.theory.ntk.torch_sites import (
    Call,
    TorchAlgebra,
    bias_gradient,
    channel,
    kind_of,
    pair,
    recording,
    sizes,
    weight_gradient,
)

__all__ = ["TorchModel"]


class TorchModel:
    """A torch.nn.Module as the kernel engine sees it: see :class:`.tiles.Model`.

    Parameters
    ----------
    module : torch.nn.Module
        Of one floating-point dtype, on one device, one tensor in and one out. The parameters with
        ``requires_grad`` are the trainable weights.

    Raises
    ------
    InputError
        For no trainable parameter, mixed dtypes, batch norm or dropout in training mode, by name.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.parameters, self.dtype_torch, self.device = checked_module(module)
        self.dtype = np.dtype(str(self.dtype_torch).removeprefix("torch."))
        self.size = 0
        self.algebra = TorchAlgebra(self.dtype_torch, self.device)
        owners = Counter(
            id(p) for m in module.modules() for p in m._parameters.values() if p is not None
        )
        # Which roles of which layers are held by hooks: settled by the first samples.
        self._roles: dict[int, tuple[bool, bool]] = {}
        self._layers: list[Any] = []
        for m in module.modules():
            own = {role: m._parameters.get(role) for role in ("weight", "bias")}
            live = [p is not None and p.requires_grad and owners[id(p)] == 1 for p in own.values()]
            if kind_of(m) is not None and any(live):
                self._layers.append(m)
                self._roles[id(m)] = (live[0], live[1])
        self._copied: set[int] = set()
        self._rest = dict(self.parameters)
        self._sizes: dict[int, tuple[int, int, int]] = {}
        self._work = 0
        # Convolutions whose channels stay apart up to the outputs, as far as samples have shown.
        self._apart: dict[int, bool] = {}

    @property
    def home(self) -> str:
        """The device of the module."""
        return str(self.device.type)

    def scope(self) -> Any:
        """Context of the arrays that :meth:`sites` returns."""
        return torch.no_grad()

    def inputs(self, name: str, x: Any) -> torch.Tensor:
        """Checked samples as a tensor on the module's device."""
        x = samples(name, x, self.dtype_torch, self.device)
        if not self.size:
            self._settle(x)
        return x

    def numbers(self, outputs: str, n: int, k: int, features: int = 0) -> tuple[int, int]:
        """Numbers that the sites of one sample hold, and those of the passes besides."""
        held = k * sum(p.numel() for p in self._rest.values())
        for m in self._layers:
            weight, bias = self._roles[id(m)]
            if weight and id(m) in self._sizes:
                held += footprint(self._kind(m, outputs, n, k, features), k, self._sizes[id(m)])
            held += k * sum(
                m._parameters[r].numel()
                for r, live in (("weight", weight and id(m) not in self._sizes), ("bias", bias))
                if live
            )
        return held, self._work * k

    def sites(
        self, x: Any, directions: Any, *, outputs: str, n: int, chunk: int, features: int = 0
    ) -> Any:
        """What the sites hold for the samples x, ``chunk`` of them at a time."""
        directions = torch.as_tensor(directions, dtype=self.dtype_torch, device=self.device)
        plan: list[Site] = []
        held: list[list[Any]] = []
        for start in range(0, len(x), chunk):
            part = x[start : start + chunk]
            plan, arrays = self._chunk(part, directions, outputs, n, features)
            if not held:
                shape = [[(len(x), *a.shape[1:]) for a in site] for site in arrays]
                if len(part) == len(x):
                    return plan, arrays
                held = [
                    [a.new_empty(s) for a, s in zip(site, each, strict=True)]
                    for site, each in zip(arrays, shape, strict=True)
                ]
            for whole, piece in zip(held, arrays, strict=True):
                for w, p in zip(whole, piece, strict=True):
                    w[start : start + chunk] = p
        return plan, held

    def product(self, left: Any, right: Any, outputs: str) -> np.ndarray:
        """Kernel of two tiles."""
        with self.scope():
            return self.algebra.host(contract(self.algebra, left[0], left[1], right[1], outputs))

    def own(self, tile: Any, outputs: str) -> np.ndarray:
        """Kernel of a tile with itself."""
        with self.scope():
            return self.algebra.host(symmetric(self.algebra, tile[0], tile[1], outputs))

    def whole(self, x: Any, directions: Any, *, outputs: str, chunk: int) -> np.ndarray:
        """Kernel of one tile with itself."""
        held = self.sites(x, directions, outputs=outputs, n=len(x), chunk=chunk)
        return self.own(held, outputs)

    # --- the passes -----------------------------------------------------------------------

    def _kind(self, m: Any, outputs: str, n: int, k: int, features: int) -> str:
        if getattr(m, "groups", 1) > 1:
            return "gradient"
        if kind_of(m) == "index":
            return "index" if outputs != "project" else "gradient"
        return cheaper(outputs, n, k, self._sizes[id(m)], features)

    def _passes(self, x: Any, directions: Any) -> tuple[Any, list[Call], list[Any]]:
        """Outputs (n, K), the calls of the layers, and cotangents (n, K', *shape) of each call.

        Those of a call whose output has no axis of samples are None, and :func:`agrees` refuses it.
        """
        with torch.enable_grad(), recording(self._layers, self._copied) as calls:
            out = self.module(x)
            if not isinstance(out, torch.Tensor) or out.ndim == 0 or out.shape[0] != len(x):
                got = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
                raise InputError(
                    f"the module returns {got} for {len(x)} samples: give one of a tensor (n, ...)"
                )
            out = out.reshape(len(x), -1)
        stale = {id(c.module) for c in calls if c.input._version != c.version}
        if stale - self._copied:
            self._copied |= stale
            return self._passes(x, directions)
        if directions is None:
            directions = torch.eye(out.shape[1], dtype=self.dtype_torch, device=self.device)
        found = [
            out.new_zeros((len(x), len(directions), *c.shape[1:])) if c.of(len(x)) else None
            for c in calls
        ]
        if calls and out.requires_grad:
            edges = [c.edge for c in calls]
            for a, d in enumerate(directions):
                grads = torch.autograd.grad(
                    out,
                    edges,
                    d.expand_as(out),
                    retain_graph=a + 1 < len(directions),
                    allow_unused=True,
                )
                for b, g in zip(found, grads, strict=True):
                    if g is not None and b is not None:
                        b[:, a] = g
        return out.detach(), calls, found

    def _chunk(
        self, x: Any, directions: Any, outputs: str, n: int, features: int
    ) -> tuple[list[Site], list[list[Any]]]:
        _, calls, cotangents = self._passes(x, directions)
        plan, held = [], []
        with torch.no_grad():
            for m in self._layers:
                mine = [(c, b) for c, b in zip(calls, cotangents, strict=True) if c.module is m]
                weight, bias = self._roles[id(m)]
                if not mine or not (weight or bias):
                    continue
                if weight and id(m) in self._sizes:
                    kind = self._kind(m, outputs, n, len(directions), features)
                    by_channel = self._channel(m, mine, bias, outputs)
                    if by_channel is not None:
                        plan.append(Site("channel"))
                        held.append(list(by_channel))
                        continue
                    if kind != "gradient":
                        pairs = [pair(c, b) for c, b in mine]
                        # A layer called twice: its positions are those of both calls.
                        plan.append(Site(kind, bias))
                        held.append(
                            [
                                pairs[0][i]
                                if len(pairs) == 1
                                else torch.cat([p[i] for p in pairs], 1 + i)
                                for i in (0, 1)
                            ]
                        )
                        continue
                if weight:
                    plan.append(Site("gradient"))
                    held.append([reduce(add, (weight_gradient(c, b) for c, b in mine))])
                if bias:
                    plan.append(Site("gradient"))
                    held.append([reduce(add, (bias_gradient(c, b) for c, b in mine))])
            del cotangents
        if self._rest:
            rest = rest_gradients(self.module, self._rest, x, directions)
            plan += [Site("gradient")] * len(rest)
            held += [[g] for g in rest]
        return plan, held

    def _channel(self, m: Any, mine: Any, bias: bool, outputs: str) -> Any:
        """What a convolution holds channel by channel, or None where that is not so.

        The first samples decide; later ones that contradict them start the kernel afresh.
        """
        (call, b), apart = mine[0], self._apart.get(id(m))
        fits = kind_of(m) == "conv" and m.groups == 1 and len(mine) == 1 and b.shape[1] > 1
        if not fits or apart is False or outputs == "project" or b[0, 0, 0].numel() == 1:
            return None
        first = replace(call, input=call.input[:1])
        seen = apart or channel(first, b[:1], bias) is not None
        held = channel(call, b, bias) if seen else None
        self._apart[id(m)] = held is not None
        if apart and held is None:
            raise Replanned
        return held

    def _settle(self, x: Any) -> None:
        """Compare the layer-wise gradients of one sample with autograd's."""
        two = x[:2] if len(x) > 1 else torch.cat([x, x])
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            try:
                out = self.module(two)
            except Exception as error:  # whatever a user's module raises
                reason = str(error).strip().partition("\n")[0]
                shape = tuple(two.shape)
                raise InputError(f"the module fails on samples {shape}: {reason}") from error
        if not isinstance(out, torch.Tensor) or out.ndim == 0 or out.shape[0] != 2:
            got = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            raise InputError(
                f"the module returns {got} for 2 samples: give one of a tensor (n, ...)"
            )
        size = out.reshape(2, -1).shape[1]
        mix = torch.randn((1, size), generator=generator, dtype=self.dtype_torch).to(self.device)
        _, calls, cotangents = self._passes(two, mix)
        exact = true_gradients(self.module, self.parameters, two, mix)
        covered = set()
        for m in self._layers:
            mine = [(c, b) for c, b in zip(calls, cotangents, strict=True) if c.module is m]
            roles = []
            rules = zip(("weight", "bias"), (weight_gradient, bias_gradient), strict=True)
            for live, (role, rule) in zip(self._roles[id(m)], rules, strict=True):
                fits = live and bool(mine) and agrees(mine, rule, exact, m._parameters[role])
                roles.append(fits)
                if fits:
                    covered.add(id(m._parameters[role]))
            self._roles[id(m)] = (roles[0], roles[1])
            if mine and roles[0] and kind_of(m) in ("linear", "conv", "index"):
                each = [sizes(c) for c, _ in mine]
                self._sizes[id(m)] = (sum(s[0] for s in each), *each[0][1:])
        self._layers = [m for m in self._layers if any(self._roles[id(m)])]
        numbers = [int(np.prod(c.shape[1:])) for c in calls]
        self._work = 2 * sum(numbers)
        self._rest = {n: p for n, p in self.parameters.items() if id(p) not in covered}
        self.size = size
