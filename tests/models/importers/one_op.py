"""Fifty-nine small torch modules, one for each op of the coverage table in reference/bounds.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class After(nn.Module):
    """A function of the outputs of some layers, all of which take the input."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(*(layer(x) for layer in self.layers))


class Attention(nn.Module):
    """Self-attention written by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.q(x) @ self.k(x).transpose(-2, -1) / x.shape[-1] ** 0.5
        return torch.softmax(scores, dim=-1) @ self.v(x)


class SelfAttention(nn.Module):
    """nn.MultiheadAttention of a sequence with itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Einsum(nn.Module):
    """A bilinear form by einsum of a weight and a variable."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,ij->bj", x, self.weight)


def _unary() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    return {
        "relu": F.relu,
        "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "silu": F.silu,
        "softsign": F.softsign,
        "logsigmoid": F.logsigmoid,
        "exp": torch.exp,
        "log": lambda x: torch.log(x.square() + 0.5),
        "sin": torch.sin,
        "cos": torch.cos,
        "tan": lambda x: torch.tan(torch.tanh(x)),
        "atan": torch.atan,
        "sqrt": lambda x: torch.sqrt(x.square() + 0.5),
        "abs": torch.abs,
        "square": torch.square,
        "cube": lambda x: x**3,
        "reciprocal": lambda x: torch.reciprocal(x.square() + 0.5),
        "sign": torch.sign,
        "floor": lambda x: torch.floor(3 * x),
        "gelu": F.gelu,
        "erf": torch.erf,
        "elu": lambda x: F.elu(x, 0.7),
        "selu": F.selu,
        "celu": lambda x: F.celu(x, 0.7),
        "softplus": F.softplus,
        "mish": F.mish,
        "hardtanh": lambda x: F.hardtanh(x, -0.4, 0.3),
        "relu6": lambda x: F.relu6(8 * x),
        "clamp": lambda x: torch.clamp(x, -0.25, 0.5),
        "hardswish": lambda x: F.hardswish(4 * x),
        "hardsigmoid": lambda x: F.hardsigmoid(4 * x),
        "glu": lambda x: F.glu(x, dim=-1),
        "softmax": lambda x: torch.softmax(x, dim=-1),
        "log_softmax": lambda x: torch.log_softmax(x, dim=-1),
        "logsumexp": lambda x: torch.logsumexp(x, dim=-1, keepdim=True),
        "mean": lambda x: x.mean(dim=-1, keepdim=True),
        "norm": lambda x: x.norm(dim=-1, keepdim=True),
        "max": lambda x: x.max(dim=-1, keepdim=True).values,
        "where": lambda x: torch.where(x > 0.1, 2 * x, torch.sin(x)),
        "sort": lambda x: torch.sort(x, dim=-1).values,
    }


def one_op_modules() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Module and shape of one sample by the op's name; the weights are seeded by it."""
    made: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {}
    for name, function in _unary().items():
        made[name] = (lambda f=function: After(f, nn.Linear(5, 6)), (5,))  # type: ignore[misc]

    def two(function: Callable[..., Any]) -> Callable[[], nn.Module]:
        return lambda: After(function, nn.Linear(5, 6), nn.Linear(5, 6))

    def pairs(x: torch.Tensor) -> torch.Tensor:
        halves = x.view(x.shape[0], -1, 2)
        return torch.stack((halves.amax(-1), halves.amin(-1)), dim=-1).flatten(1)

    made["mul"] = (two(torch.mul), (5,))
    made["div"] = (two(lambda a, b: a / (b.square() + 0.5)), (5,))
    made["maximum"] = (two(torch.maximum), (5,))
    made["minimum"] = (two(torch.minimum), (5,))
    made["maxmin"] = (lambda: nn.Sequential(nn.Linear(5, 6), After(pairs, nn.Identity())), (5,))
    made["layer_norm"] = (lambda: nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6)), (5,))
    made["attention"] = (lambda: Attention(4), (3, 4))
    made["batch_norm"] = (lambda: nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6)), (5,))
    made["lstm_cell"] = (lambda: After(lambda h: h[0], nn.LSTMCell(5, 4)), (5,))
    made["prelu"] = (lambda: nn.Sequential(nn.Linear(5, 6), nn.PReLU(6)), (5,))
    made["einsum"] = (lambda: nn.Sequential(nn.Linear(5, 6), Einsum()), (5,))
    made["scaled_dot_product_attention"] = (
        lambda: After(F.scaled_dot_product_attention, *(nn.Linear(4, 4) for _ in range(3))),
        (3, 4),
    )
    made["multihead_attention"] = (lambda: SelfAttention(4, 2), (3, 4))
    made["group_norm"] = (lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4)), (2, 7))
    made["max_pool1d"] = (lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.MaxPool1d(2)), (2, 8))
    made["avg_pool1d"] = (lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.AvgPool1d(2)), (2, 8))
    made["conv_transpose1d"] = (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.ConvTranspose1d(3, 2, 3, stride=2)),
        (2, 7),
    )
    modules = {}
    for i, (name, (make, shape)) in enumerate(made.items()):
        with torch.random.fork_rng():
            torch.manual_seed(i)
            modules[name] = (_settled(make()), shape)
    return modules


def _settled(module: nn.Module) -> nn.Module:
    """Running statistics that are not the trivial ones, and evaluation mode."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2.0)
    return module.eval()
