"""What has no infinite-width limit, or cannot be a kernel's input, is named."""

import numpy as np
import pytest
import torch
from torch import nn

from tangency.models import InputError, UnsupportedError, from_torch
from tangency.theory import infinite_kernel
from tangency.theory.kernels import Activation as Act
from tangency.theory.kernels import (
    AvgPool,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    LayerNorm,
    Relu,
    concat,
    residual,
    serial,
)


def imported(module, shape):
    return from_torch(module.eval(), torch.zeros(1, *shape))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        return self.a(torch.relu(self.a(x)))


def _sequential(*layers):
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("module", "shape", "match"),
    [
        (_sequential(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 1)),
         (2, 5, 5), "max_pool"),
        (_sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(36, 1)),
         (2, 5, 5), "groups"),
        (_sequential(nn.Conv2d(2, 4, 3)), (2, 5, 5), "sites"),
        (_sequential(nn.Linear(4, 4), nn.ReLU(), nn.Tanh(), nn.Linear(4, 1)), (4,), "Gaussian"),
        (_sequential(nn.ReLU()), (4,), "no random weights"),
        (Twice(), (4,), "shares"),
    ],
)  # fmt: skip
def test_unsupported_networks_are_named(module, shape, match):
    with pytest.raises(UnsupportedError, match=match):
        infinite_kernel(imported(module, shape))


X = np.ones((2, 3, 3, 2))


@pytest.mark.parametrize(
    ("layers", "error", "match"),
    [
        ([Relu(), Dense(1)], UnsupportedError, "Gaussian"),
        ([Conv(1, (3,)), Flatten(), Dense(1)], InputError, "one number"),
        ([Conv(1, (9, 9), padding="VALID"), Flatten()], InputError, "does not fit"),
        ([Conv(1, (3, 3), padding="same"), Flatten()], InputError, "'SAME'"),
        ([Conv(1)], UnsupportedError, "Flatten"),
        ([Flatten(), GlobalAvgPool(), Dense(1)], InputError, "spatial axes"),
        ([Conv(1), Relu(), residual(Relu()), Flatten()], UnsupportedError, "Gaussian"),
        ([Conv(1), residual(Act("identity")), Flatten()], UnsupportedError, "share"),
        ([Conv(1), concat(Conv(2), serial(Conv(1, (1, 1)), AvgPool())), Flatten()], InputError,
         "concatenation"),
        ([Conv(1, W_std=-1.0), Flatten()], InputError, "W_std"),
        ([Flatten(), Dropout(0.5), Dense(1)], UnsupportedError, "input"),
        ([Dense(1), Dropout(0.0), Flatten()], InputError, "keep"),
        ([Dense(1), Relu(), LayerNorm(), Flatten()], UnsupportedError, "layer norm"),
    ],
)  # fmt: skip
def test_errors_say_what_is_accepted(layers, error, match):
    with pytest.raises(error, match=match):
        infinite_kernel(layers)(X)


def test_errors_of_the_kernel():
    kernel = infinite_kernel([Dense(1)])
    for call in (
        lambda: kernel(X[:, 0, 0], get="nope"),
        lambda: kernel(X[:, 0, 0], X),
        lambda: kernel(np.ones(3)),
        lambda: kernel(np.full((2, 2), np.nan)),
        lambda: infinite_kernel([Dense(1)], weight_variance=2.0),
        lambda: infinite_kernel([Dense(1)], parametrisation="mup"),
        lambda: infinite_kernel("relu"),
        lambda: infinite_kernel([Dense(1)], dtype="float16"),
        lambda: infinite_kernel([Dense(1)], method="quick"),
        lambda: serial(Dense),
    ):
        with pytest.raises(InputError):
            call()


def test_a_method_that_does_not_fit():
    with pytest.raises(UnsupportedError, match="auto"):
        infinite_kernel([Conv(1), Flatten(), Dense(1)], method="fused")(X)
