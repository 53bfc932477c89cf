"""The three example networks, as torch modules and as JAX functions of the same weights.

All take a scikit-learn digit as 64 numbers in [0, 1] (pixel / 16) and give 10 logits.
"""

from __future__ import annotations

from typing import Any

NAMES = ("digits_relu", "digits_maxmin", "digits_conv")


def torch_model(name: str) -> Any:
    """The torch module, untrained: load its state from ``<name>.pt``."""
    from torch import nn

    class MaxMin(nn.Module):
        """(a, b) -> (max, min) on adjacent pairs."""

        def forward(self, x: Any) -> Any:
            pairs = x.unflatten(-1, (-1, 2))
            return pairs.sort(dim=-1, descending=True).values.flatten(-2)

    if name == "digits_relu":
        return nn.Sequential(
            nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
        )
    if name == "digits_maxmin":
        return nn.Sequential(
            nn.Linear(64, 32), MaxMin(), nn.Linear(32, 32), MaxMin(), nn.Linear(32, 10)
        )
    if name == "digits_conv":
        return nn.Sequential(
            nn.Unflatten(-1, (1, 8, 8)),
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32, 10),
        )
    raise ValueError(f"unknown example {name!r}: one of {', '.join(NAMES)}")


def jax_model(name: str) -> Any:
    """A JAX function ``(params, x)``; params are the arrays of ``<name>.npz``."""
    import jax
    import jax.numpy as jnp

    def maxmin(x: Any) -> Any:
        pairs = x.reshape(*x.shape[:-1], -1, 2)
        return jnp.stack([pairs.max(-1), pairs.min(-1)], -1).reshape(x.shape)

    def mlp(activation: Any) -> Any:
        def apply(params: Any, x: Any) -> Any:
            x = activation(x @ params["0.weight"].T + params["0.bias"])
            x = activation(x @ params["2.weight"].T + params["2.bias"])
            return x @ params["4.weight"].T + params["4.bias"]

        return apply

    def conv(params: Any, x: Any) -> Any:
        x = x.reshape(-1, 1, 8, 8)
        for key in ("1", "3"):
            padding = ((1, 1), (1, 1))  # JAX's "SAME" would pad on one side only
            x = jax.lax.conv_general_dilated(x, params[f"{key}.weight"], (2, 2), padding)
            x = jax.nn.relu(x + params[f"{key}.bias"][:, None, None])
        return x.reshape(x.shape[0], -1) @ params["6.weight"].T + params["6.bias"]

    models = {
        "digits_relu": mlp(jax.nn.relu),
        "digits_maxmin": mlp(maxmin),
        "digits_conv": conv,
    }
    return models[name]
