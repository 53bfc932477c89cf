"""Golden values of neural-tangents' predictions: writes predictions.npz beside this file.

    python tests/theory/golden/make_predictions.py

in an environment of Python 3.11 with ``neural-tangents==0.6.5`` (without its dependencies),
``jax==0.4.23 jaxlib==0.4.23 frozendict numpy<2 scipy<1.13``. TensorFlow is not needed: the one
module that imports it is replaced by an empty one.
"""

import sys
import types
from pathlib import Path

sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")

import jax  # noqa: E402

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import neural_tangents as nt  # noqa: E402
import numpy as np  # noqa: E402
from neural_tangents import stax  # noqa: E402

TIMES = np.array([0.5, 20.0, 1000.0])
RATE = 0.3
REGULAR = 1e-2  # relative to the mean diagonal, as diag_reg_absolute_scale=False has it

rng = np.random.default_rng(5)
x, x_test = rng.normal(size=(7, 3)), rng.normal(size=(4, 3))
y = rng.normal(size=(7, 2))
f0, f0_test = rng.normal(size=(7, 2)), rng.normal(size=(4, 2))
_, _, kernel = stax.serial(
    stax.Dense(1, W_std=1.4, b_std=0.3), stax.Erf(), stax.Dense(1, W_std=1.4, b_std=0.3)
)
out = {"x": x, "x_test": x_test, "y": y, "f0": f0, "f0_test": f0_test, "t": TIMES, "rate": RATE}
out["regular"] = REGULAR
grams = {}
for name, (a, b) in {"train": (x, None), "cross": (x_test, x), "test": (x_test, None)}.items():
    grams[name] = kernel(a, b, ("nngp", "ntk"))
    out[f"nngp_{name}"], out[f"ntk_{name}"] = grams[name].nngp, grams[name].ntk

for regular in (0.0, REGULAR):
    tag = "ridge" if regular else "free"
    flow = nt.predict.gradient_descent_mse(grams["train"].ntk, y, RATE, diag_reg=regular)
    got = [flow(t, f0, f0_test, grams["cross"].ntk) for t in TIMES]
    out[f"flow_train_{tag}"] = np.stack([g[0] for g in got])
    out[f"flow_test_{tag}"] = np.stack([g[1] for g in got])
    ensemble = nt.predict.gradient_descent_mse_ensemble(
        kernel, x, y, learning_rate=RATE, diag_reg=regular
    )
    for get in ("nngp", "ntk"):
        rows = [ensemble(t=t, x_test=x_test, get=get, compute_cov=True) for t in [*TIMES, None]]
        out[f"{get}_mean_{tag}"] = np.stack([r.mean for r in rows])
        out[f"{get}_cov_{tag}"] = np.stack([r.covariance for r in rows])
        rows = [ensemble(t=t, x_test=None, get=get, compute_cov=True) for t in TIMES]
        out[f"{get}_train_mean_{tag}"] = np.stack([r.mean for r in rows])
        out[f"{get}_train_cov_{tag}"] = np.stack([r.covariance for r in rows])
    infer = nt.predict.gp_inference(grams["train"], y, diag_reg=regular)
    for get in ("nngp", "ntk"):
        got = infer(get, grams["cross"], grams["test"])
        out[f"gp_{get}_mean_{tag}"], out[f"gp_{get}_cov_{tag}"] = got.mean, got.covariance


def cross_entropy(f, target):
    """Softmax cross-entropy, summed."""
    return -jnp.sum(target * jax.nn.log_softmax(f))


labels = np.eye(2)[rng.integers(0, 2, 7)]
flow = nt.predict.gradient_descent(cross_entropy, grams["train"].ntk, labels, RATE)
got = [flow(t, f0, f0_test, grams["cross"].ntk) for t in (0.5, 5.0)]
out["labels"], out["entropy_t"] = labels, np.array([0.5, 5.0])
out["entropy_train"] = np.stack([g.fx_train if hasattr(g, "fx_train") else g[0] for g in got])
out["entropy_test"] = np.stack([g.fx_test if hasattr(g, "fx_test") else g[1] for g in got])
out["max_rate"] = nt.predict.max_learning_rate(grams["train"].ntk, y_train_size=y.size, eps=0.0)
out["max_rate_momentum"] = nt.predict.max_learning_rate(
    grams["train"].ntk, y_train_size=y.size, momentum=0.5, eps=0.0
)
here = Path(__file__).resolve().parent
np.savez_compressed(here / "predictions.npz", **{k: np.asarray(v) for k, v in out.items()})
