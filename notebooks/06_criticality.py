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
# # Criticality, and the choice of an activation
#
# Before a deep network can learn, signals must get through it. Of an infinitely wide network the
# theory says exactly how. With weights of variance $C_W/\text{fan-in}$ and biases of variance
# $C_b$, one layer maps the variance $q$ of a neuron and the correlation $c$ of two inputs,
#
# $$q' = C_b + C_W\, E\,\phi(z)^2, \qquad
#   c' = \frac{C_b + C_W\, E\,\phi(z_1)\,\phi(z_2)}{q'},$$
#
# with Gaussian $z$ of variance $q$ and correlation $c$. Whether inputs merge or part in the deep is
# decided by one number, $\chi = C_W\, E\,\phi'(z)^2$: *ordered* for $\chi < 1$, *chaotic* for
# $\chi > 1$, and between them the *edge of chaos* (Poole et al., arXiv 1606.05340; Schoenholz et
# al., arXiv 1611.01232; Hayou, Doucet and Rousseau, arXiv 1902.06853).

# %%
import matplotlib.pyplot as plt
import numpy as np

from tangency.theory.propagation import (
    DepthMap,
    correlation_rate,
    edge_of_chaos,
    phase,
    sample_ensemble,
    universality_class,
)

plt.rcParams["figure.dpi"] = 80

# %% [markdown]
# ## Three phases of tanh
#
# Without biases, tanh is critical at $C_W = 1$. We follow two inputs of correlation 0.5 through 60
# layers on both sides of the edge and on it.

# %%
settings = {"ordered": (0.8, 0.05), "critical": (1.0, 0.0), "chaotic": (2.25, 0.0025)}
figure, axes = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
phases = {}
for name, (weight, bias) in settings.items():
    layer = DepthMap("tanh", weight, bias)
    phases[name] = phase(layer)
    apart = layer.correlations(0.5, 0.5, 60)
    label = f"{name}: $C_W$ = {weight:g}, $C_b$ = {bias:g}"
    axes.semilogy(np.arange(61), apart, ".-", markersize=3, label=label)
    found = phases[name]
    print(f"{name:9} chi = {found.perpendicular:.4f}, deep correlation {found.correlation:.4f}")
axes.set_xlabel("layer")
axes.set_ylabel("$1 - c$ (0: the inputs have merged)")
axes.set_ylim(1e-12, 1.5)
axes.legend(fontsize="small")
plt.show()

# %% [markdown]
# In the ordered phase two inputs merge at an exponential rate, and a network deeper than a few
# dozen layers cannot tell them apart. In the chaotic phase they part until nothing of their
# likeness is left. Only on the edge does information travel far.
#
# ## On the edge the activation matters
#
# There the inputs still merge, but slowly, and how slowly depends on the smoothness of $\phi$:
#
# $$1 - c_\ell \sim \frac{9 \pi^2}{2\, \ell^2} \;\;\text{(ReLU)}, \qquad
#   1 - c_\ell \sim \frac{\beta_q}{\ell} \;\;\text{(smooth activations)},$$
#
# so that smooth activations carry differences further than ReLU. `edge_of_chaos` gives the edge of
# any activation record, `correlation_rate` the constant.

# %%
DEPTH = 3000
edges = {"relu": 1.0, "tanh": 0.5, "erf": 0.5}
courses = {}
for name, q in edges.items():
    point = edge_of_chaos(name, [q])
    layer = DepthMap(name, float(point.weight_variances[0]), float(point.bias_variances[0]))
    courses[name] = (layer.correlations(0.5, q, DEPTH), correlation_rate(name, q))

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.0), layout="constrained")
places = np.unique(np.geomspace(1, DEPTH, 40).astype(int))
for colour, (name, (apart, rate)) in zip(("C0", "C1", "C2"), courses.items(), strict=True):
    left.loglog(places, apart[places], ".", color=colour, label=f"{name}, $q$ = {edges[name]:g}")
    far = places[places > 30]
    law = rate.constant / far.astype(float) ** rate.power
    left.loglog(
        far, law, "-", color=colour, label=rf"theory: {rate.constant:.3g} / $\ell^{rate.power}$"
    )
left.set_xlabel(r"layer $\ell$")
left.set_ylabel("$1 - c$ of two inputs")
left.set_title("on the edge of chaos", fontsize="medium")
left.legend(fontsize="small")
for name in ("tanh", "elu", "silu", "relu"):
    curve = edge_of_chaos(name, np.geomspace(1e-2, 10.0, 40))
    spread = np.sqrt(curve.bias_variances), np.sqrt(curve.weight_variances)
    right.plot(*spread, "o" if name == "relu" else "-", label=name)
right.set_xlabel(r"$\sqrt{C_b}$ (standard deviation of the biases)")
right.set_ylabel(r"$\sqrt{C_W}$ (of the weights, times $\sqrt{\mathrm{fan-in}}$)")
right.set_title("where the edge lies", fontsize="medium")
right.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## Classes of activations
#
# Variances must survive the depth as well. Roberts, Yaida and Hanin (arXiv 2106.10165) sort
# activations by what the variance does at criticality: ReLU and its kin keep any variance
# (*scale-invariant*); tanh lets it fall as a power of the depth ($K^* = 0$); others have only a
# *half-stable* point, which a small push leaves, or no critical point at all.

# %%
classes = {}
for name in ("relu", "leaky_relu", "tanh", "sin", "gelu", "silu", "softplus"):
    classes[name] = universality_class(name)
    print(f"{name:11} {classes[name]}")

# %% [markdown]
# ## Does a network of finite width know?
#
# We draw 400 ReLU networks of width 64 and look at the variance after 30 layers. Its mean stays at
# 1 only for the critical $C_W = 2$: everywhere else it grows or dies as $(C_W / 2)^{\ell}$. But
# single networks scatter, with a variance that grows with depth over width.

# %%
variances = (1.6, 2.0, 2.4)
ensembles = {
    c: sample_ensemble(DepthMap("relu", c), 64, 31, draws=400, seed=int(10 * c)) for c in variances
}
figure, axes = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
for colour, (c, ensemble) in zip(("C0", "C2", "C3"), ensembles.items(), strict=True):
    label = f"$C_W$ = {c:g}, mean of 400 networks (2 s.e.)"
    axes.errorbar(
        np.arange(31), ensemble.mean, 2 * ensemble.mean_error, fmt=".", color=colour, label=label
    )
    axes.plot(np.arange(31), (c / 2) ** np.arange(31), "-", color=colour)
axes.set_yscale("log")
axes.set_xlabel("layer (lines: theory)")
axes.set_ylabel("mean square of a neuron")
axes.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## What must hold

# %%
assert phases["ordered"].name == "ordered"
assert phases["ordered"].perpendicular < 1 < phases["chaotic"].perpendicular
assert phases["critical"].name == "critical"
assert phases["chaotic"].correlation < 0.99
relu_rate, tanh_rate = courses["relu"][1], courses["tanh"][1]
assert relu_rate.power == 2
assert abs(relu_rate.constant / (4.5 * np.pi**2) - 1) < 1e-12
assert tanh_rate.power == 1
for apart, rate in courses.values():
    assert abs(apart[-1] * DEPTH**rate.power / rate.constant - 1) < 0.02
assert classes["relu"].name == "scale-invariant"
assert classes["relu"].weight_variance == 2.0
assert classes["tanh"].name == "K* = 0"
assert classes["gelu"].name == "half-stable"
for c, ensemble in ensembles.items():
    theory = (c / 2) ** np.arange(31)
    assert np.all(np.abs(ensemble.mean - theory) <= 5 * ensemble.mean_error)
