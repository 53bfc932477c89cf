"""Ordinary torch layers, imported and bounded: no sample of the box escapes.

The 59 one-op networks (and tan) of the comparison with auto_LiRPA: an affine layer, the op, an
affine layer where that is possible.
"""

import importlib.util

import numpy as np
import pytest

from tangency.models import UnsupportedError
from tangency.verify.bounds import Box, bound

torch = pytest.importorskip("torch")
if importlib.util.find_spec("tangency.models.importers.torch") is None:
    pytest.skip("this checkout has no torch importer", allow_module_level=True)

nn, F = torch.nn, torch.nn.functional

ELEMENTWISE = {
    "relu": torch.relu,
    "leaky_relu": nn.LeakyReLU(0.1),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "softsign": nn.Softsign(),
    "logsigmoid": nn.LogSigmoid(),
    "exp": torch.exp,
    "log": lambda x: torch.log(x * x + 0.5),
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": lambda x: torch.tan(0.2 * torch.tanh(x)),
    "atan": torch.atan,
    "sqrt": lambda x: torch.sqrt(x * x + 0.5),
    "abs": torch.abs,
    "square": torch.square,
    "cube": lambda x: x**3,
    "reciprocal": lambda x: torch.reciprocal(x * x + 0.5),
    "sign": torch.sign,
    "floor": torch.floor,
    "gelu": nn.GELU(),
    "erf": torch.erf,
    "elu": nn.ELU(),
    "selu": nn.SELU(),
    "celu": nn.CELU(1.5),
    "softplus": nn.Softplus(),
    "mish": nn.Mish(),
    "hardtanh": nn.Hardtanh(),
    "relu6": nn.ReLU6(),
    "clamp": lambda x: torch.clamp(x, -0.5, 0.7),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "prelu": nn.PReLU(6),
    "mul": lambda x: x * torch.sigmoid(x),
    "div": lambda x: x / (1.0 + torch.exp(-x)),
    "maximum": lambda x: torch.maximum(x, x.flip(-1)),
    "minimum": lambda x: torch.minimum(x, 0.3 * x),
    "softmax": nn.Softmax(-1),
    "log_softmax": nn.LogSoftmax(-1),
    "layer_norm": nn.LayerNorm(6),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "sort": lambda x: torch.sort(x, dim=-1).values,
    "batch_norm": nn.BatchNorm1d(6),
    "max_min": lambda x: torch.cat(
        [torch.maximum(x[:, ::2], x[:, 1::2]), torch.minimum(x[:, ::2], x[:, 1::2])], -1
    ),
    "mean": lambda x: x - x.mean(-1, keepdim=True),
    "norm": lambda x: x / (1.0 + torch.linalg.vector_norm(x, dim=-1, keepdim=True)),
    "logsumexp": lambda x: x - torch.logsumexp(x, -1, keepdim=True),
    "max_axis": lambda x: x - x.amax(-1, keepdim=True),
    "einsum": lambda x: torch.einsum("bi,bj->bij", x, x).sum(-1),
    "group_norm": nn.GroupNorm(2, 6),
}


class Wrapped(nn.Module):
    """Affine, the op, affine."""

    def __init__(self, op):
        super().__init__()
        self.first, self.op, self.last = nn.Linear(5, 6), op, nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.op(self.first(x)))


class Halved(nn.Module):
    def forward(self, x):
        return F.glu(x, -1)


class OwnAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        scores = self.q(x) @ self.k(x).transpose(-2, -1) / 2.0
        return torch.softmax(scores, -1) @ self.v(x)


class TorchAttention(OwnAttention):
    def forward(self, x):
        return F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.heads(x, x, x, need_weights=False)[0]


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(4, 3)

    def forward(self, x):
        h, c = self.cell(x[:, 0])
        h, c = self.cell(x[:, 1], (h, c))
        return torch.cat([h, c], -1)


SHAPED = {
    "glu": (Halved, (6,)),
    "attention": (OwnAttention, (3, 4)),
    "scaled_dot_product_attention": (TorchAttention, (3, 4)),
    "multihead_attention": (Heads, (3, 4)),
    "lstm_cell": (Cell, (2, 4)),
    "max_pool1d": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.MaxPool1d(2)), (2, 8)),
    "avg_pool1d": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.AvgPool1d(2)), (2, 8)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2), (2, 5)),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten()), (1, 5, 5)),
}


def module_of(name):
    if name in SHAPED:
        make, shape = SHAPED[name]
        return make(), shape
    return Wrapped(ELEMENTWISE[name]), (5,)


@pytest.mark.parametrize("name", [*ELEMENTWISE, *SHAPED])
def test_no_sample_escapes(name):
    from tangency.models import from_torch

    torch.manual_seed(3)
    rng = np.random.default_rng(3)
    module, shape = module_of(name)
    module.eval()
    try:
        network = from_torch(module, torch.zeros((1, *shape)) + 0.1)
    except UnsupportedError as error:
        pytest.xfail(f"the importer refuses it: {error}")
    wide = network.astype("float64")
    for eps in (0.3, 0.01, 0.0):
        x = rng.normal(size=shape)
        box = Box.around(x, eps)
        found = bound(network, box)
        inner = rng.uniform(box.lower, box.upper, size=(400, *shape))
        corner = np.where(rng.random((400, *shape)) < 0.5, box.lower, box.upper)
        pick = rng.random((400,) + (1,) * len(shape)) < 0.5
        y = wide.evaluate(np.where(pick, inner, corner))
        slack = 1e-13 * max(1.0, np.abs(y).max())  # rounding of the evaluation
        assert (found.lower <= y + slack).all()
        assert (y <= found.upper + slack).all()
        if eps == 0.0:
            assert (found.upper - found.lower).max() <= 1e-9 * max(1.0, np.abs(y).max())
