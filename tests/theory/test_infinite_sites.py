"""Ops on sites, exactly: with one random layer the NNGP is a sum of squares of a Jacobian."""

import numpy as np
import pytest
import torch
from torch import nn

from tangency.models import from_torch
from tangency.theory import infinite_kernel


class Between(nn.Module):
    """One layer of random weights, something without weights, and a flattening."""

    def __init__(self, layer, after, before=None):
        super().__init__()
        self.layer, self.after, self.before = layer, after, before or (lambda x: x)

    def forward(self, x):
        return torch.flatten(self.after(self.layer(self.before(x))), 1)


class Readout(nn.Module):
    def __init__(self, inner, width):
        super().__init__()
        self.inner, self.end = inner, nn.Linear(width, 1, bias=False)

    def forward(self, x):
        return self.end(self.inner(x))


def conv(*args, **options):
    return nn.Conv2d(2, 3, *args, bias=False, **options)


def functional(name, **options):
    return lambda x: getattr(nn.functional, name)(x, **options)


CASES = {
    "conv_transpose": (nn.ConvTranspose2d(2, 3, 3, bias=False), nn.Identity()),
    "conv_transpose_stride": (
        nn.ConvTranspose2d(2, 3, (3, 2), (2, 3), (1, 0), (1, 0), bias=False), nn.Identity()
    ),
    "dilated": (conv(2, dilation=(2, 1), padding=(1, 0)), nn.Identity()),
    "pad": (conv(3), functional("pad", pad=(1, 0, 2, 1))),
    "slice": (conv(3, padding=1), lambda x: x[:, :, 1:, ::2]),
    "gather": (conv(3, padding=1), lambda x: x[:, :, [2, 0, 0]]),
    "transpose": (conv((3, 2)), lambda x: x.permute(0, 1, 3, 2).reshape(-1, 3, 20)[:, :, 3:9]),
    "channels_last": (conv((3, 2)), lambda x: x.permute(0, 2, 3, 1)[:, 1:, :2].sum(2)),
    "sum": (conv(3), lambda x: x.sum((2, 3))),
    "mean_of_rows": (conv(3), lambda x: x.mean(2)),
    "nearest": (conv(3), functional("interpolate", scale_factor=2, mode="nearest")),
    "bilinear": (conv(3), functional("interpolate", size=(7, 5), mode="bilinear")),
    "pool_real": (
        conv(3), functional("avg_pool2d", kernel_size=3, stride=2, padding=1,
                            count_include_pad=False)
    ),
    "pool_padded": (conv(3), functional("avg_pool2d", kernel_size=2, stride=1, padding=1)),
    "scaled": (conv(3), lambda x: x * 3.0 / 0.5),
    "tokens": (
        nn.Linear(4, 3, bias=False),
        lambda x: x.mean(1),
        lambda x: x.reshape(-1, 2, 3, 2, 6)[..., :4].permute(0, 2, 3, 1, 4).reshape(-1, 12, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_one_random_layer(name):
    module = Between(*CASES[name]).double()
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(3, 2, 6, 6)))
    weight = next(module.parameters())
    (jacobian,) = torch.autograd.functional.jacobian(
        lambda w: torch.func.functional_call(module, {"layer.weight": w}, x), (weight,)
    )
    fan_in = weight[0].numel()
    if isinstance(module.layer, nn.ConvTranspose2d):
        fan_in = weight.shape[0] * weight[0, 0].numel()
    rows = jacobian.reshape(*jacobian.shape[:2], -1)
    exact = (torch.einsum("new,mew->nm", rows, rows) / fan_in / rows.shape[1]).numpy()

    whole = Readout(module, rows.shape[1]).double().eval()
    kernel = infinite_kernel(from_torch(whole, x[:1]))
    gram = kernel(x.numpy())
    np.testing.assert_allclose(gram.nngp, exact, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(gram.ntk, 2.0 * exact, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(kernel.diagonal(x.numpy(), get="nngp"), np.diag(exact), rtol=1e-12)
