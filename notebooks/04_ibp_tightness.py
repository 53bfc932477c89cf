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
# # How tight are interval bounds?
#
# Interval bound propagation (IBP) pushes a box through a network layer by layer, and forgets at
# every layer how the neurons hang together. It is the cheapest bound there is and on ordinary
# networks a very loose one. Yet networks *trained* with it are certified best. Mao, Müller, Fischer
# and Vechev (ICLR 2024, arXiv 2306.10426) explained why by one number, the *tightness*
#
# $$\tau = \frac{\text{width of the optimal box}}{\text{width of the IBP box}} \in [0, 1].$$

# %%
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np

import tangency
from tangency.verify.tightness import expected_tightness, initial_tightness, local_tightness
from tangency.verify.training import initialised, train

plt.rcParams["figure.dpi"] = 80

# %% [markdown]
# ## Where the loss comes from
#
# Two linear layers, $f(x) = W_2 W_1 x$, on a box of radius $\varepsilon$. The optimal box has the
# half-widths $|W_2 W_1|\,\varepsilon$, and IBP's are $|W_2|\,|W_1|\,\varepsilon$: it takes absolute
# values too early, and paths that cancel are added. Below, $f(x) = (x_1 + x_2) + (x_1 - x_2)$: the
# paths of $x_2$ cancel, and half of the width is not real.

# %%
matrices = [np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([[1.0, 1.0]])]
small = local_tightness(tangency.from_layers(matrices, "identity"), np.zeros(2))
print(
    f"optimal half-width {small.optimal.item()}, interval half-width {small.interval.item()}, "
    f"tau = {small.tau.item()}"
)

# %% [markdown]
# ## Random networks: wider is looser
#
# For Gaussian weights and $w$ hidden neurons the ratio of the expected widths is known,
#
# $$\tau(w) = \sqrt{\pi}\; \frac{\Gamma\big(\frac{w + 1}{2}\big)}{w\,\Gamma\big(\frac w2\big)}
#   \approx \sqrt{\frac{\pi}{2 w}},$$
#
# and each further layer multiplies it by about the same factor: interval bounds of a deep random
# network are loose *exponentially in the depth*.

# %%
widths = [16, 64, 256, 1024]
linear = initial_tightness(widths, draws=60, seed=11)
layers = [2, 3, 4, 5]
deep = initial_tightness(100, layers=layers, draws=60, seed=12)
slope = float(np.polyfit(layers, np.log(deep.ratio), 1)[0])
law = math.log(expected_tightness(100))

figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 3.8), layout="constrained")
left.errorbar(widths, linear.ratio, 2 * linear.error, fmt="o", label="60 random networks (2 s.e.)")
left.loglog(widths, linear.expected, "-", color="C0", label="theory")
asymptote = [math.sqrt(math.pi / (2 * w)) for w in widths]
left.loglog(widths, asymptote, ":", color="k", label=r"$\sqrt{\pi / 2w}$")
left.set_xlabel("hidden width $w$ (neurons), two layers")
left.set_ylabel(r"tightness $\tau$")
left.legend(fontsize="small")
right.errorbar(layers, deep.ratio, 2 * deep.error, fmt="o", label="60 random networks (2 s.e.)")
right.semilogy(layers, deep.expected, "-", color="C0", label=r"theory: $\tau(100)^{L - 1}$")
right.set_xticks(layers)
right.set_xlabel("linear layers $L$ of width 100")
right.set_ylabel(r"tightness $\tau$")
right.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## Training decides
#
# Four noisy clusters in twelve dimensions, a small ReLU network, two trainings from the same
# weights: on the samples alone, and on the worst case that IBP computes. Only the second one is
# paid for being tight.

# %%
EPS = 0.05
rng = np.random.default_rng(13)
centres = rng.uniform(0.2, 0.8, size=(4, 12))
y = rng.integers(0, 4, size=600)
x = (centres[y] + 0.08 * rng.normal(size=(600, 12))).astype(np.float32)
sizes = [12, 48, 48, 4]
zeros = [np.zeros((m, n)) for n, m in itertools.pairwise(sizes)]
networks = {"random weights": initialised(tangency.from_layers(zeros, "relu"), seed=14)}
for name, loss in (("standard training", "standard"), ("interval training", "ibp")):
    start = networks["random weights"]
    networks[name] = train(start, x, y, eps=EPS, loss=loss, epochs=20, seed=15).network

tau = {name: local_tightness(net, x[:200], labels=y[:200]) for name, net in networks.items()}
robust = {
    (name, method): tangency.certify_robust(net, x[:200], y[:200], EPS, method=method)
    for name, net in networks.items()
    for method in ("ibp", "crown")
}
print(f"{'':20} {'tau':>6} {'clean':>7} {'attack':>7} {'CROWN':>7} {'IBP':>7}")
for name in networks:
    ibp, crown = robust[name, "ibp"], robust[name, "crown"]
    print(
        f"{name:20} {tau[name].mean:6.3f} {crown.clean_accuracy:7.1%} "
        f"{crown.attacked_accuracy:7.1%} {crown.certified_accuracy:7.1%} "
        f"{ibp.certified_accuracy:7.1%}"
    )

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 3.8), layout="constrained")
for (name, found), colour in zip(tau.items(), ("0.5", "C0", "C2"), strict=True):
    values = found.tau.ravel()
    left.hist(values, bins=np.linspace(0, 1, 41), color=colour, alpha=0.6, label=name)
left.set_xlabel(r"local tightness $\tau$ of a margin")
left.set_ylabel("number of margins (200 samples, 3 each)")
left.legend(fontsize="small")
kinds = ("standard training", "interval training")
places = np.arange(4)
for shift, name, colour in ((-0.2, kinds[0], "C0"), (0.2, kinds[1], "C2")):
    ibp, crown = robust[name, "ibp"], robust[name, "crown"]
    heights = [
        100 * crown.clean_accuracy,
        100 * crown.attacked_accuracy,
        100 * crown.certified_accuracy,
        100 * ibp.certified_accuracy,
    ]
    right.bar(places + shift, heights, 0.38, color=colour, label=name)
right.set_xticks(
    places, ["clean", "not refuted\nby attack", "certified,\nCROWN", "certified,\nIBP"]
)
right.set_ylabel("share of samples (%)")
right.set_title(rf"radius $\varepsilon$ = {EPS:g} in every coordinate")
right.legend(fontsize="small")
plt.show()

# %% [markdown]
# On most samples both networks are safe, and CROWN proves it of both. The interval bounds prove it
# only of the network that was trained on them: fewer of its paths cancel, and the cheapest bound
# has become a good one.
#
# ## What must hold

# %%
assert small.tau.item() == 0.5
assert np.abs(linear.ratio / linear.expected - 1).max() <= 0.02
gamma = [
    math.sqrt(math.pi) * math.exp(math.lgamma((w + 1) / 2) - math.lgamma(w / 2)) / w for w in widths
]
np.testing.assert_allclose(linear.expected, gamma, rtol=1e-9)
assert abs(slope - law) <= 0.03
assert tau["interval training"].mean > tau["standard training"].mean
assert tau["interval training"].mean > tau["random weights"].mean
for name in networks:
    ibp, crown = robust[name, "ibp"], robust[name, "crown"]
    assert ibp.certified
    assert crown.certified
    assert ibp.certified_accuracy <= ibp.attacked_accuracy
    assert crown.certified_accuracy <= crown.attacked_accuracy
best = {name: robust[name, "ibp"].certified_accuracy for name in networks}
assert best["interval training"] > best["standard training"]
