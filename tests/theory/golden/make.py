"""Make golden.npz: the kernels of every case, by neural-tangents in float64.

Run in an environment of its own; the package is archived and imports on no current JAX:

    python3.11 -m venv nt
    nt/bin/pip install -r pins.txt && nt/bin/pip install --no-deps neural-tangents==0.6.5
    nt/bin/python make.py
"""

import sys
import types
import warnings
from pathlib import Path

# The only part that needs TensorFlow, and no kernel needs it.
sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
from cases import CASES, inputs  # noqa: E402
from neural_tangents import stax  # noqa: E402


class Stax:
    """neural_tangents.stax under the names and arguments of tangency.theory.kernels."""

    def __init__(self, parametrisation):
        self.parametrisation = parametrisation

    def __getattr__(self, name):
        return getattr(stax, name)

    def Dense(self, width=1, W_std=1.0, b_std=None):
        return stax.Dense(width, W_std, b_std, parameterization=self.parametrisation)

    def Conv(self, channels, size, stride=None, padding="SAME", W_std=1.0, b_std=None):
        kind = self.parametrisation
        return stax.Conv(channels, size, stride, padding, W_std, b_std, parameterization=kind)

    def residual(self, branch):
        return self.parallel(stax.Identity(), branch)

    def parallel(self, *branches, meet=None):
        meet = meet or stax.FanInSum()
        return stax.serial(stax.FanOut(len(branches)), stax.parallel(*branches), meet)

    def concat(self, *branches):
        return self.parallel(*branches, meet=stax.FanInConcat())

    def product(self, *branches):
        return self.parallel(*branches, meet=stax.FanInProd())

    def LayerNorm(self, axes, eps):
        return stax.LayerNorm((*(a + 1 for a in axes), -1), eps)

    def Attention(
        self, channels, key=1.0, query=1.0, value=1.0, out=1.0, b_std=None, *, mechanism="softmax",
        position="none", position_std=1.0, position_in_values=False,
    ):  # fmt: skip
        return stax.GlobalSelfAttention(
            channels, 4, 4, 2,
            W_key_std=key, W_query_std=query, W_value_std=value, W_out_std=out, b_std=b_std,
            attention_mechanism=mechanism.upper(), pos_emb_type=position.upper(),
            W_pos_emb_std=position_std, val_pos_emb=position_in_values,
        )  # fmt: skip


def main():
    out = {}
    for name, (kind, parametrisation, build) in CASES.items():
        _, _, kernel_fn = build(Stax(parametrisation))
        x1, x2 = inputs(kind)
        same, cross = kernel_fn(x1, None, ("nngp", "ntk")), kernel_fn(x1, x2, ("nngp", "ntk"))
        for label, kernel in (("same", same), ("cross", cross)):
            for which in ("nngp", "ntk"):
                out[f"{name}/{label}/{which}"] = np.asarray(getattr(kernel, which))
    np.savez_compressed(Path(__file__).with_name("golden.npz"), **out)


if __name__ == "__main__":
    main()
