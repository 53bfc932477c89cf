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
# # Lipschitz constants of MaxMin networks
#
# MaxMin sorts neighbouring neurons in pairs, $(a, b) \mapsto (\max(a, b), \min(a, b))$. It changes
# no norm and loses no gradient, and so it is the activation of choice where a network must not be
# steep. But how steep is a trained one? We follow Pauli et al. (ICLR 2024, arXiv 2401.14033), who
# gave the first semidefinite programme that knows what sorting is.

# %%
import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import tangency
from tangency.verify.lipschitz import Chain, bound_chain
from tangency.verify.lipschitz.reference import maxmin_as_relu, reference_bound

plt.rcParams["figure.dpi"] = 80
ROOT = next(p for p in [Path.cwd(), *Path.cwd().parents] if (p / "examples/train.py").is_file())

# %% [markdown]
# ## MaxMin by itself
#
# Sorting keeps distances or shrinks them: its Lipschitz constant is exactly 1. One can also write
# it with ReLUs, $\max(a, b) = b + \mathrm{relu}(a - b)$, and hand it to a method that knows only
# that the slope of a ReLU lies in $[0, 1]$. Such a method cannot see that the ReLUs move together.

# %%
alone = Chain.from_matrices([np.eye(2), np.eye(2)], "maxmin")
sorting = bound_chain(alone, attack=False).upper
rewritten = reference_bound(alone, rewriting=maxmin_as_relu("two_relu")).value
print(f"knowing that it sorts     {sorting:.6f}")
print(f"rewritten with two ReLUs  {rewritten:.6f}   (the square root of 2 is {2**0.5:.6f})")

# %% [markdown]
# Every layer of a network pays this factor again: a method that cannot sort is worse than the plain
# product of norms as soon as there are a few layers.
#
# ## Small networks, where the truth can be enclosed
#
# With 12 hidden neurons there are $2^6 = 64$ ways to sort. The largest norm of
# $W_2 P W_1$ over all permutations $P$ of the pairs bounds the constant from above, whatever
# inputs there are, and the attack bounds it from below. No theorem says that the semidefinite bound
# meets them; on most of these networks it does, to six digits, and on some it is about 1 % above.

# %%
rows = []
for seed in range(12):
    rng = np.random.default_rng([2024, seed])
    first, second = rng.normal(size=(12, 6)), rng.normal(size=(4, 12))
    patterns = []
    for swaps in itertools.product((False, True), repeat=6):
        order = np.arange(12).reshape(6, 2)
        order[np.array(swaps)] = order[np.array(swaps)][:, ::-1]
        patterns.append(np.linalg.norm(second @ first[order.ravel()], 2))
    bound = bound_chain(Chain.from_matrices([first, second], "maxmin"), seed=seed)
    rows.append((bound.lower, max(patterns), bound.upper, bound.product))
small = np.array(rows)

figure, axes = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
names = ("attained by an attack", "all 64 patterns", "LipSDP for MaxMin, certified", "product")
for column, (name, mark) in enumerate(zip(names, "vxos", strict=True)):
    style = {"markerfacecolor": "none"} if mark == "o" else {}
    axes.plot(small[:, column] / small[:, 1], mark, label=name, **style)
axes.set_xlabel("random 6-12-4 network (number)")
axes.set_ylabel("bound / largest norm over patterns")
axes.set_ylim(0.95, 1.15 * (small[:, 3] / small[:, 1]).max())
axes.legend(fontsize="small", ncols=2)
plt.show()

# %% [markdown]
# ## A trained network
#
# `examples/digits_maxmin.npz` holds a 64-32-32-10 MaxMin network, trained on scikit-learn's digits.

# %%
with np.load(ROOT / "examples/digits_maxmin.npz") as data:
    weights = [(data[f"{i}.weight"], data[f"{i}.bias"]) for i in (0, 2, 4)]
digits = tangency.from_layers(weights, "maxmin")
trained = {"digits 64-32-32-10": tangency.lipschitz_bound(digits)}

# %% [markdown]
# ## The networks of the paper
#
# Where the authors' weight files are at hand (MNIST networks of 784 inputs and 10 outputs), we
# bound four of them. Beside our numbers stand those of the programme as the paper ran it,
# recomputed from the same weights. Ours also uses, exactly, that sorting keeps the sum of each
# pair; the paper's theorem has multipliers for that, which its experiments leave at zero. The
# advantage grows with depth. Without the files the table has the one network above, and nothing
# else changes.

# %%
PAPER = {
    "2 layers of 16": ("weights_l2_2fc_16.mat", 23.4615, 22.5944),
    "2 layers of 64": ("weights_l2_2fc_64.mat", 83.9875, 73.774),
    "5 layers of 32": ("weights_l2_5fc_32.mat", 298.415, 224.526),
    "8 layers of 32": ("weights_l2_8fc_32.mat", 780.044, 401.033),
}
FILES = ROOT.parent / "shared" / "data" / "maxmin"
published = {}
for name, (file, product, paper) in PAPER.items():
    if (FILES / file).is_file():
        trained[name] = tangency.lipschitz_bound(tangency.from_mat(FILES / file))
        published[name] = (product, paper)

print(f"{'network':20} {'attack':>9} {'certified':>10} {'paper':>9} {'product':>9}")
for name, bound in trained.items():
    paper = f"{published[name][1]:9.3f}" if name in published else f"{'-':>9}"
    print(f"{name:20} {bound.lower:9.3f} {bound.upper:10.3f} {paper} {bound.product:9.3f}")

# %%
figure, axes = plt.subplots(figsize=(8.0, 3.8), layout="constrained")
places = np.arange(len(trained))
lower = np.array([bound.lower for bound in trained.values()])
for shift, label, values, colour in (
    (-0.27, "product of norms", [b.product for b in trained.values()], "C3"),
    (
        0.0,
        "paper's programme",
        [published[n][1] if n in published else np.nan for n in trained],
        "C1",
    ),
    (0.27, "tangency, certified", [b.upper for b in trained.values()], "C0"),
):
    axes.bar(places + shift, np.array(values) / lower, 0.25, label=label, color=colour)
axes.axhline(1.0, color="k", linewidth=1, label="attained by an attack")
axes.set_xticks(places, list(trained), fontsize="small")
axes.set_ylabel("upper bound / attained slope (l2)")
axes.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## What must hold

# %%
assert 1.0 <= sorting <= 1.0 + 1e-3
assert abs(rewritten - 2**0.5) < 1e-3
assert np.all(small[:, 0] <= small[:, 1] * (1 + 1e-9))
assert np.all(small[:, 1] <= small[:, 2])
assert np.all(small[:, 2] < small[:, 3])
assert np.median(small[:, 2] / small[:, 1]) < 1.001
for name, bound in trained.items():
    assert bound.certified
    assert bound.lower <= bound.upper < bound.product
    if name in published:
        product, paper = published[name]
        assert abs(bound.product / product - 1) < 1e-4
        assert bound.upper < paper
