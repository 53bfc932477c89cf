# ---
# jupyter:
#   jupytext:
#     formats: py:percent,ipynb
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a trained torch model to its certificate
#
# A network that reads handwritten digits was trained in PyTorch. Three questions about it:
#
# 1. How much can its output change when its input changes a little? (a *Lipschitz constant*)
# 2. Which of its answers cannot be changed by any small perturbation? (*certified robustness*)
# 3. Why should anyone else believe the answers? (a *certificate* that can be checked)
#
# Everything that is called *certified* here holds in real arithmetic, for exactly these weights.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import tangency

plt.rcParams["figure.dpi"] = 80
ROOT = next(p for p in [Path.cwd(), *Path.cwd().parents] if (p / "examples/train.py").is_file())

# %% [markdown]
# ## The model
#
# Two hidden layers of 32 ReLUs. `examples/train.py` trained it on scikit-learn's digits, 8 x 8
# pixels between 0 and 1, and 200 of them were kept aside.

# %%
module = nn.Sequential(
    nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
)
module.load_state_dict(torch.load(ROOT / "examples/digits_relu.pt", weights_only=True))

with np.load(ROOT / "examples/digits_test.npz") as data:
    x, y = data["x"], data["y"]

with torch.no_grad():
    answers = module(torch.tensor(x)).numpy()
print(f"accuracy on {len(x)} held-out digits: {(answers.argmax(1) == y).mean():.1%}")

# %% [markdown]
# ## One graph for every question
#
# `from_torch` exports the module, and compares the result with torch at random inputs before it
# returns it. The hash in a certificate is of this graph and of its exact weights.

# %%
network = tangency.from_torch(module, x[:1])
print(network)
difference = float(np.abs(np.asarray(network(x)) - answers).max())
print(f"largest difference from torch: {difference:.1e}")

# %% [markdown]
# ## How steep is it?
#
# The Lipschitz constant is the least $L$ with
#
# $$\|f(x) - f(x')\|_2 \le L\, \|x - x'\|_2 \quad\text{for all } x, x'.$$
#
# The product of the layers' norms bounds it from above, loosely. LipSDP (Fazlyab et al., arXiv
# 1906.04893) finds a better bound as the value of a semidefinite programme; tangency then proves
# that value with directed rounding. An attack, which searches for a steep point, bounds it from
# below. The truth lies between.

# %%
lipschitz = tangency.lipschitz_bound(network)
print(f"product of norms       {lipschitz.product:8.3f}")
print(f"LipSDP, certified      {lipschitz.upper:8.3f}   (certified: {lipschitz.certified})")
print(f"attained by an attack  {lipschitz.lower:8.3f}")

# %%
rng = np.random.default_rng(1)
first, second = rng.uniform(size=(2, 4000, 64)).astype(np.float32)
second[2000:] = first[2000:] + 0.05 * (second[2000:] - first[2000:])  # half of the pairs are close
outputs = [np.asarray(network(points), dtype=np.float64) for points in (first, second)]
steepness = np.linalg.norm(outputs[0] - outputs[1], axis=1) / np.linalg.norm(first - second, axis=1)

figure, axes = plt.subplots(figsize=(7.0, 3.4), layout="constrained")
axes.hist(steepness, bins=60, color="0.7", label="4,000 random pairs of images")
for value, colour, label in (
    (lipschitz.lower, "C2", "attained by an attack"),
    (lipschitz.upper, "C0", "certified upper bound"),
    (lipschitz.product, "C3", "product of norms"),
):
    axes.axvline(value, color=colour, label=f"{label}: {value:.2f}")
axes.set_xlabel("change of the 10 outputs / change of the 64 pixels, both in l2")
axes.set_ylabel("number of pairs")
axes.legend(fontsize="small")
plt.show()

# %% [markdown]
# Random pairs come nowhere near the constant: sampling says nothing about the worst case. That is
# why the gap between *attained* and *certified* is what one looks at.
#
# ## Which answers are safe?
#
# Now let every pixel change by up to $\varepsilon$. A digit is *verified* if the margin
# $f_y(x') - \max_{j \ne y} f_j(x')$ is proved positive for every such $x'$; it is *refuted* if an
# attack finds an $x'$ where it is not. CROWN carries linear bounds backwards through the network;
# interval arithmetic (IBP) is cheaper and looser.

# %%
radii = [0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1]
found = {
    method: [tangency.certify_robust(network, x, y, eps, method=method) for eps in radii]
    for method in ("crown", "ibp")
}
figure, axes = plt.subplots(figsize=(7.0, 3.6), layout="constrained")
refuted = [100 * result.attacked_accuracy for result in found["crown"]]
crown = [100 * result.certified_accuracy for result in found["crown"]]
axes.plot(radii, refuted, "v-", color="C3", label="not refuted by the attack (upper bound)")
axes.plot(radii, crown, "o-", color="C0", label="certified by CROWN (lower bound)")
intervals = [100 * result.certified_accuracy for result in found["ibp"]]
axes.plot(radii, intervals, "s--", color="C1", label="certified by IBP (lower bound)")
axes.fill_between(radii, crown, refuted, color="0.9", label="undecided")
axes.set_xlabel(r"radius $\varepsilon$ (pixel values, which lie in 0 to 1)")
axes.set_ylabel("share of the 200 digits (%)")
axes.set_ylim(0, 102)
axes.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## A proof that travels
#
# A certificate holds the claim, the hash of the network and what the proof needs. `check` reads the
# model and proves the claim again, with NumPy alone and without any part of the search. Change one
# weight in its last bit and it refuses.

# %%
robust = found["crown"][radii.index(0.02)]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "robust.cert"
    tangency.write_certificate(path, robust, network)
    checked = tangency.check(path, network)

    with torch.no_grad():
        bias = module[4].bias
        bias[0] = torch.nextafter(bias[0], torch.tensor(9.0))
    refused = tangency.check(path, tangency.from_torch(module, x[:1]))

print(f"the network itself: holds = {checked.holds}\n  {checked.claim}\n")
print(f"one bit changed:    holds = {refused.holds}\n  {refused.reason}")

# %% [markdown]
# ## What must hold
#
# The last cell of each notebook states its claims as assertions; the test suite runs it.

# %%
assert difference < 1e-4
assert lipschitz.certified
assert steepness.max() <= lipschitz.lower <= lipschitz.upper < lipschitz.product
for results in found.values():
    for eps, result in zip(radii, results, strict=True):
        assert result.certified
        assert not np.any(result.verified & result.attacked)
        assert np.all(result.margin_lower <= result.margin_upper)
        noise = rng.choice([-eps, eps], size=x.shape)
        shifted = np.asarray(network((x + 0.999 * noise).astype(np.float32)))
        assert np.all(shifted.argmax(1)[result.verified] == y[result.verified])
assert np.all(np.array(crown) >= np.array(intervals))
assert checked.holds
assert not refused.holds
