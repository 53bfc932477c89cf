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
# # Hierarchical polynomials: what three layers learn and kernels do not
#
# Take a target that is built in two steps, a polynomial $p$ of many inputs and a curve $g$ of the
# one number that results:
#
# $$h(x) = g(p(x)), \qquad p(x) \propto \sum_{i=1}^{L} (\text{products of } k
#   \text{ directions of } x), \qquad x \sim N(0, I_d).$$
#
# A kernel sees a polynomial of degree $kq$ ($q$ the degree of $g$) and needs about $d^{kq}$
# samples. Wang, Nichani and Lee (arXiv 2311.13774) proved that a three-layer network trained layer
# by layer needs only about $d^k$: the first stage finds the *feature* $p$, the second fits the
# curve $g$ to it. (For $k = 2$ Nichani, Damian and Lee, arXiv 2305.06986, had $d^4$ before.) Here
# $k = q = 2$.

# %%
import matplotlib.pyplot as plt
import numpy as np

from tangency.theory.hierarchical import (
    HeldOutKernelRidge,
    ThreeLayerRegressor,
    feature_correlation,
    hierarchical_target,
    inner_layer,
    train_feature,
)

plt.rcParams["figure.dpi"] = 80
SEEDS = range(3)

# %% [markdown]
# ## The target
#
# $p$ is a sum of $L = d/2$ products of two orthogonal directions, scaled to variance 1, and
# $g(z) = (z + h_2(z)) / \sqrt 2$ with $h_2(z) = (z^2 - 1)/\sqrt 2$. For large $L$ the feature is
# nearly Gaussian and $h$ has mean near 0 and variance near 1.

# %%
target = hierarchical_target(16, rng=np.random.default_rng(0))
samples, values = target.sample(20_000, np.random.default_rng(1))
feature = target.feature(samples)
print(f"d = {target.dimension}, L = {target.terms}, k = {target.degree}, q = {target.outer_degree}")
print(f"variance of the feature {feature.var():.3f}, of the target {values.var():.3f}")

# %% [markdown]
# ## Stage 1: how many samples until the feature appears?
#
# We train the inner layer alone and measure the correlation of what it learnt with $p$. With
# infinitely many samples it tends not to 1 but to
#
# $$\frac{1}{\sqrt{1 + 2 / L}},$$
#
# because the best quadratic for $h$ is $p$ with a small admixture of $p^2$'s quadratic part. If
# $d^2$ is the right count, the curves of different dimensions fall together when the samples
# are counted in units of $d^2$.

# %%
dimensions = (8, 12, 16)
multiples = np.array([1, 2, 4, 8, 16, 32, 64])


def learnt(dimension, seed):
    """Correlation with p at each sample size, and its limit."""
    rng = np.random.default_rng([seed, dimension])
    target = hierarchical_target(dimension, rng=rng)
    inner = inner_layer(dimension, rng=rng)
    x, y = target.sample(int(multiples[-1]) * dimension**2, rng)
    found = []
    for multiple in multiples:
        n = int(multiple) * dimension**2
        stage = train_feature(inner, (x[:n], y[:n]), ridges=(0.1, 1.0, 10.0))
        found.append(feature_correlation(inner, stage.coefficients, target))
    return np.array(found), target.asymptotic_correlation()


curves = {}
for d in dimensions:
    runs = [learnt(d, seed) for seed in SEEDS]
    curves[d] = (np.array([run[0] for run in runs]), runs[0][1])

figure, axes = plt.subplots(figsize=(7.0, 4.0), layout="constrained")
for colour, (d, (found, limit)) in zip(("C0", "C1", "C2"), curves.items(), strict=True):
    middle = np.median(found, axis=0)
    spread = np.abs(np.array([found.min(axis=0), found.max(axis=0)]) - middle)
    axes.errorbar(multiples, middle, spread, fmt="o-", capsize=3, color=colour, label=f"d = {d}")
    axes.axhline(limit, color=colour, linestyle=":")
axes.set_xscale("log", base=2)
axes.set_xticks(multiples, [str(m) for m in multiples])
axes.set_xlabel("samples / $d^2$")
axes.set_ylabel("correlation with $p$ (median and range of 3 seeds)")
axes.set_title(r"dotted: the limit at this $L$, $1 / \sqrt{1 + 2/L}$", fontsize="medium")
axes.legend()
plt.show()

# %% [markdown]
# ## Both stages, against a kernel
#
# Now the whole learner, with $n = 8 d^2$ samples, and kernel ridge regression by the tangent kernel
# of a ReLU network on the same samples. Both choose their ridge on held-out data. The error is
# that on new samples over the target's variance: 1 is what a constant achieves.


# %%
def errors(dimension, seed):
    """Test errors of both learners."""
    rng = np.random.default_rng([seed, dimension, 8])
    target = hierarchical_target(dimension, rng=rng)
    x, y = target.sample(8 * dimension**2, rng)
    test, truth = target.sample(4_000, rng)
    learners = (
        ThreeLayerRegressor(random_state=seed),
        HeldOutKernelRidge(ridges=(1e-2, 1e-1, 1.0), folds=3, random_state=seed),
    )
    return [
        float(np.mean((learner.fit(x, y).predict(test) - truth) ** 2) / np.var(truth))
        for learner in learners
    ]


sizes = (8, 14, 20)
table = {d: np.array([errors(d, seed) for seed in SEEDS]) for d in sizes}
print(" d     n   three layers   kernel   ratio (medians)")
ratios = {}
for d, rows in table.items():
    layers, kernel = np.median(rows, axis=0)
    ratios[d] = float(np.median(rows[:, 1] / rows[:, 0]))
    print(f"{d:2d} {8 * d * d:5d}   {layers:12.3f} {kernel:8.3f} {ratios[d]:7.2f}")

# %%
figure, axes = plt.subplots(figsize=(6.0, 3.8), layout="constrained")
for column, (name, colour) in enumerate(
    (("three layers, trained layer by layer", "C0"), ("NTK ridge regression", "C3"))
):
    values = np.array([table[d][:, column] for d in sizes])
    middle = np.median(values, axis=1)
    spread = np.abs(np.array([values.min(axis=1), values.max(axis=1)]) - middle)
    axes.errorbar(sizes, middle, spread, fmt="o-", capsize=3, color=colour, label=name)
axes.set_ylim(0, 1)
axes.set_xticks(sizes)
axes.set_xlabel("dimension $d$ of the inputs, with $n = 8 d^2$ samples")
axes.set_ylabel("test error / variance of the target")
axes.legend(fontsize="small")
plt.show()

# %% [markdown]
# With a fixed multiple of $d^2$ samples the three-layer network keeps learning as the dimension
# grows, while the kernel falls behind: it would need about $d^4$. `papers/2024_wang_hierarchical`
# measures the exponents themselves, with confidence intervals, up to $d = 44$.
#
# ## What must hold

# %%
for d, (found, limit) in curves.items():
    np.testing.assert_allclose(limit, 1 / np.sqrt(1 + 2 / (d // 2)), rtol=1e-12)
    middle = np.median(found, axis=0) / limit
    assert abs(middle[-1] - 1) < 0.05  # with 64 d^2 samples
    assert middle[0] < 0.9 < middle[3]  # the feature appears between d^2 and 8 d^2
at_eight = [float(np.median(found[:, 3]) / limit) for found, limit in curves.values()]
assert max(at_eight) - min(at_eight) < 0.1
assert ratios[20] > 1.2 * ratios[8]
for rows in table.values():
    assert np.all(rows[:, 0] < rows[:, 1])
