"""Layers of torch modules in the layer-wise form: what each holds, and its own gradients.

A layer is recorded by a forward hook: its input, and the edge of the graph where its output
leaves. Cotangents are taken at that edge, which an in-place activation behind it does not move.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tangency.theory.ntk.patches import patches

__all__ = ["Call", "TorchAlgebra", "kind_of", "normalised", "pair", "recording", "sizes"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CHANNEL_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)
POSITION_NORMS = (nn.LayerNorm, *((nn.RMSNorm,) if hasattr(nn, "RMSNorm") else ()))
KINDS = (
    ((nn.Linear,), "linear"),
    (CONVOLUTIONS, "conv"),
    (CHANNEL_NORMS, "channel_norm"),
    (POSITION_NORMS, "position_norm"),
    ((nn.Embedding,), "index"),
    ((nn.PReLU,), "prelu"),
)


class TorchAlgebra:
    """:class:`tangency.theory.ntk.contraction.Algebra` of torch."""

    blocks = 8
    xp = np

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device

    def array(self, x: Any) -> Any:
        """A tensor on the module's device."""
        return torch.as_tensor(x, dtype=self.dtype, device=self.device)

    def host(self, x: Any) -> np.ndarray:
        """A NumPy array."""
        return np.asarray(x.cpu().numpy())

    def einsum(self, path: str, *arrays: Any) -> Any:
        """Einstein summation."""
        return torch.einsum(path, *arrays)

    def each(self, function: Any, *arrays: Any) -> Any:
        """Loop over the first axis."""
        return torch.stack([function(*entry) for entry in zip(*arrays, strict=True)])

    def same(self, left: Any, right: Any) -> Any:
        """Whether two indices agree and train a row."""
        return ((left[:, None, None] == right[None]) & (left[:, None, None] >= 0)).to(self.dtype)

    def concatenate(self, arrays: Sequence[Any], axis: int) -> Any:
        """Join along an axis."""
        return torch.cat(list(arrays), axis)


@dataclass
class Call:
    """One call of a layer during a forward pass."""

    module: Any
    input: Any
    version: int
    edge: Any
    shape: tuple[int, ...]

    def of(self, n: int) -> bool:
        """Whether input and output have an axis of n samples in front."""
        return all(v[:1] == (n,) for v in (self.shape, tuple(self.input.shape)))


def kind_of(module: Any) -> str | None:
    """How a module's parameters enter; None where only autograd knows.

    A subclass that overrides ``forward`` is not what its base class is.
    """
    for classes, kind in KINDS:
        for cls in classes:
            if isinstance(module, cls) and type(module).forward is cls.forward:
                return None if kind == "index" and module.max_norm is not None else kind
    return None


@contextmanager
def recording(modules: Sequence[Any], copied: set[int]) -> Iterator[list[Call]]:
    """Record every call of the modules; inputs of those in ``copied`` (by id) are kept as copies.

    A layer's input that something later overwrites in place must be copied.
    """
    calls: list[Call] = []

    def hook(module: Any, args: tuple[Any, ...], output: Any) -> None:
        if args and isinstance(output, torch.Tensor) and output.requires_grad:
            x = args[0].detach()
            x = x.clone() if id(module) in copied else x
            edge = torch.autograd.graph.get_gradient_edge(output)
            calls.append(Call(module, x, x._version, edge, tuple(output.shape)))

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def sizes(call: Call) -> tuple[int, int, int]:
    """(P, I, O) of a call of a linear layer, a convolution or an embedding."""
    module = call.module
    if isinstance(module, nn.Linear):
        return prod(call.shape[1:-1]), module.in_features, module.out_features
    if isinstance(module, nn.Embedding):
        return prod(call.shape[1:-1]), module.num_embeddings, module.embedding_dim
    return prod(call.shape[2:]), prod(module.weight.shape[1:]), module.out_channels


def pair(call: Call, b: Any) -> tuple[Any, Any]:
    """Inputs (n, P, I), or indices (n, P), and cotangents (n, K, P, O) of a call.

    Parameters
    ----------
    b : (n, K, *output shape) tensor
    """
    module, x, (n, k) = call.module, call.input, b.shape[:2]
    if isinstance(module, nn.Linear):
        return x.reshape(n, -1, x.shape[-1]), b.reshape(n, k, -1, b.shape[-1])
    if isinstance(module, nn.Embedding):
        index = x.reshape(n, -1)
        if module.padding_idx is not None:
            index = index.masked_fill(index == module.padding_idx, -1)
        return index, b.reshape(n, k, -1, b.shape[-1])
    rows = _rows(module, x)
    return rows, b.reshape(n, k, b.shape[2], -1).transpose(2, 3)


def channel(call: Call, b: Any, bias: bool) -> tuple[Any, Any] | None:
    """Gradients (n, C, I) of each channel for one cotangent, and the factors (n, K, C) of all.

    None where the cotangents of some sample and channel are not multiples of one another.
    """
    n, k, c = b.shape[:3]
    flat = b.reshape(n, k, c, -1)
    best = flat.abs().sum(3).argmax(1)  # (n, C): the output that weighs most
    m = flat.gather(1, best[:, None, :, None].expand(n, 1, c, flat.shape[3]))[:, 0]
    square = m.square().sum(2)[:, None]
    factors = torch.einsum("nacp,ncp->nac", flat, m) / torch.where(square > 0, square, 1)
    # Rounding may part them by a few units in the last place of the largest of the channel.
    room = 64 * torch.finfo(b.dtype).eps * m.abs().amax(2)
    for a in range(k):
        gap = torch.addcmul(flat[:, a], factors[:, a, :, None], m, value=-1).abs_().amax(2)
        if bool((gap > room).any()):
            return None
    g = torch.einsum("npi,ncp->nci", _rows(call.module, call.input), m)
    return (torch.cat([g, m.sum(2)[..., None]], 2) if bias else g), factors


def _rows(module: Any, x: Any) -> Any:
    """Windows (n, P, C prod(kernel)) of a convolution's input."""
    kernel, dilation = module.kernel_size, module.dilation
    if module.padding == "same":
        spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        ends = [(s // 2, s - s // 2) for s in spans]
    elif module.padding == "valid":
        ends = [(0, 0)] * len(kernel)
    else:
        ends = [(p, p) for p in module.padding]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    pads = list(chain(*reversed(ends)))
    if any(pads):
        x = F.pad(x, pads, mode=mode)
    return patches(torch.stack, x, kernel, module.stride, dilation)


def normalised(call: Call, b: Any) -> Any:
    """Gradients (n, K, p) in the weight of a norm or a PReLU."""
    module, x, (n, k) = call.module, call.input, b.shape[:2]
    kind = kind_of(module)
    if kind == "prelu":
        x = x.clamp(max=0)
        if module.num_parameters == 1:
            return torch.einsum("nr,nkr->nk", x.reshape(n, -1), b.reshape(n, k, -1))[..., None]
    elif kind == "position_norm":
        shape = tuple(module.normalized_shape)
        centred = isinstance(module, nn.LayerNorm)
        norm = F.layer_norm if centred else F.rms_norm
        x = norm(x, shape, eps=module.eps)
        size = prod(shape)
        return torch.einsum("nrp,nkrp->nkp", x.reshape(n, -1, size), b.reshape(n, k, -1, size))
    elif isinstance(module, nn.GroupNorm):
        x = F.group_norm(x, module.num_groups, eps=module.eps)
    elif isinstance(module, CHANNEL_NORMS[:3]):
        x = F.batch_norm(x, module.running_mean, module.running_var, eps=module.eps)
    else:
        own = module.running_mean is None
        x = F.instance_norm(
            x, module.running_mean, module.running_var, use_input_stats=own, eps=module.eps
        )
    channels = x.shape[1]
    return torch.einsum("ncr,nkcr->nkc", x.reshape(n, channels, -1), b.reshape(n, k, channels, -1))


def bias_gradient(call: Call, b: Any) -> Any:
    """Gradients (n, K, p) in the bias of a layer."""
    n, k = b.shape[:2]
    kind = kind_of(call.module)
    if kind == "linear":
        return b.reshape(n, k, -1, b.shape[-1]).sum(2)
    if kind == "position_norm":
        return b.reshape(n, k, -1, prod(call.module.normalized_shape)).sum(2)
    return b.reshape(n, k, b.shape[2], -1).sum(3)


def weight_gradient(call: Call, b: Any) -> Any:
    """Gradients (n, K, p) in the weight of a layer, of any kind."""
    kind = kind_of(call.module)
    n, k = b.shape[:2]
    if kind in ("channel_norm", "position_norm", "prelu"):
        return normalised(call, b)
    a, rows = pair(call, b)
    if kind == "index":
        table = rows.new_zeros((n, k, call.module.num_embeddings, rows.shape[-1]))
        where = a.clamp(min=0)[:, None, :, None].expand(rows.shape)
        keep = (a >= 0)[:, None, :, None]
        return table.scatter_add_(2, where, rows * keep).reshape(n, k, -1)
    groups = getattr(call.module, "groups", 1)
    if groups == 1 and kind == "conv":  # as one product of matrices, without a copy of either
        return torch.bmm(b.reshape(n, k * b.shape[2], -1), a).reshape(n, k, -1)
    if groups == 1:
        return torch.einsum("npi,nkpo->nkoi", a, rows).reshape(n, k, -1)
    a = a.reshape(n, a.shape[1], groups, -1)
    rows = rows.reshape(n, k, rows.shape[2], groups, -1)
    return torch.einsum("npgi,nkpgo->nkgoi", a, rows).reshape(n, k, -1)
