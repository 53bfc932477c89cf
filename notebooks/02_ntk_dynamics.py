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
# # The neural tangent kernel, and how a wide network trains
#
# Gradient descent changes a network $f(x; w)$ through the *neural tangent kernel*
#
# $$\Theta(x, x') = \Big\langle \frac{\partial f(x)}{\partial w},\,
#   \frac{\partial f(x')}{\partial w} \Big\rangle .$$
#
# Jacot, Gabriel and Hongler (arXiv 1806.07572) proved two things as the width $m$ grows: at random
# initialisation $\Theta$ tends to a fixed kernel $\Theta_\infty$, and training leaves it there. The
# network then trains as a *linear* model, whose whole course has a closed form. We watch both.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import tangency
from tangency.theory import Grams, gradient_flow_mse, infinite_kernel, max_learning_rate
from tangency.theory.kernels import Dense, Relu

plt.rcParams["figure.dpi"] = 80

# %% [markdown]
# ## A network and its infinite twin
#
# One hidden layer of $m$ ReLUs, in the parametrisation of the theorem, all weights drawn from
# $N(0, 1)$:
#
# $$f(x) = \frac{1}{\sqrt m} \sum_{j=1}^{m} a_j\, \mathrm{relu}\Big(\sqrt{2/d}\; w_j \cdot x\Big).$$
#
# The inputs are points of a circle and the target is a smooth function of the angle.

# %%
N = 12
ANGLES = np.linspace(0, 2 * np.pi, 200, endpoint=False)
SEEN = np.linspace(0, 2 * np.pi, N, endpoint=False) + 0.1


def on_circle(angle):
    """Points of R^2 with norm sqrt 2."""
    return np.sqrt(2.0) * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def answer(angle):
    """The function to learn."""
    return np.cos(angle) + 0.5 * np.sin(2 * angle)


x, x_test, y = on_circle(SEEN), on_circle(ANGLES), answer(SEEN)[:, None]


def forward(params, x):
    """The finite network."""
    hidden = jax.nn.relu(x @ params["w"])
    return (hidden / np.sqrt(params["a"].shape[0])) @ params["a"]


def drawn(width, seed):
    """Random weights."""
    rng = np.random.default_rng([seed, width])
    first, second = rng.normal(size=(2, width)), rng.normal(size=(width, 1))
    return {"w": first.astype(np.float32), "a": second.astype(np.float32)}


twin = infinite_kernel([Dense(W_std=2**0.5), Relu(), Dense()])
limit = twin(x).ntk

# %% [markdown]
# ## Width fixes the kernel
#
# `empirical_ntk` computes $\Theta$ of the weights at hand. Each entry is a mean over $m$ neurons,
# so that its distance from the limit falls as $m^{-1/2}$.

# %%
small_x = x.astype(np.float32)
widths = np.array([32, 128, 512, 2048])
distance = np.zeros((len(widths), 12))
for i, width in enumerate(widths):
    network = tangency.from_jax(forward, small_x, params=drawn(width, 0))
    for seed in range(12):
        params = drawn(width, seed)
        drawn_again = network.replace({"w": params["w"].T, "a": params["a"].T})
        kernel = tangency.empirical_ntk(drawn_again, small_x).ntk
        distance[i, seed] = np.linalg.norm(kernel - limit) / np.linalg.norm(limit)
mean = distance.mean(axis=1)
error = distance.std(axis=1) / np.sqrt(distance.shape[1])
slope = float(np.polyfit(np.log(widths), np.log(mean), 1)[0])

figure, axes = plt.subplots(figsize=(6.0, 3.6), layout="constrained")
axes.errorbar(widths, mean, 2 * error, fmt="o", capsize=3, label="mean of 12 draws (2 s.e.)")
law = np.exp(np.mean(np.log(mean) + 0.5 * np.log(widths))) * widths**-0.5
axes.loglog(widths, law, "-", color="C0", label="theory: $m^{-1/2}$")
axes.set_xlabel("width $m$ (neurons)")
axes.set_ylabel(r"$\|\Theta - \Theta_\infty\| \,/\, \|\Theta_\infty\|$")
axes.set_title(f"fitted exponent {slope:.2f}")
axes.legend()
plt.show()

# %% [markdown]
# ## The course of training, in closed form
#
# With the kernel fixed, gradient descent with rate $\eta$ on $\frac12 \|f - y\|^2$ gives after $t$
# steps
#
# $$f_t = y + (1 - \eta\, \Theta_\infty)^t (f_0 - y)$$
#
# on the training points: each eigenvector of the kernel is learnt at its own speed, and the
# largest eigenvalue sets the largest stable rate, $2 / \lambda_{\max}$. We train finite networks
# with real gradient descent and compare.

# %%
grams = Grams.of(twin, x, x_test)
largest_rate = max_learning_rate(grams.ntk)
rate = 0.25 * largest_rate
times = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512])


@jax.jit
def descend(params, steps):
    """Plain gradient descent on half the sum of squares."""

    def loss(p):
        return 0.5 * jnp.sum((forward(p, x) - y) ** 2)

    def step(_, p):
        return jax.tree.map(lambda value, slope: value - rate * slope, p, jax.grad(loss)(p))

    return jax.lax.fori_loop(0, steps, step, params)


def course(width, seed=0):
    """Losses of a trained network and of the theory from the same start, and the last outputs."""
    params = drawn(width, seed)
    flow = gradient_flow_mse(
        grams,
        y,
        t=times,
        learning_rate=rate,
        discrete=True,
        f0=np.asarray(forward(params, x)),
        f0_test=np.asarray(forward(params, x_test)),
    )
    losses, before = [], 0
    for t in times:
        params, before = descend(params, int(t) - before), int(t)
        losses.append(0.5 * float(np.sum((np.asarray(forward(params, x)) - y) ** 2)))
    expected = 0.5 * np.sum((flow.train - y) ** 2, axis=(1, 2))
    return (
        np.array(losses),
        expected,
        np.asarray(forward(params, x_test))[:, 0],
        flow.test[-1][:, 0],
    )


courses = {width: course(width) for width in (64, 1024, 16384)}

figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 3.8), layout="constrained")
for colour, (width, (losses, expected, _, _)) in zip(
    ("C3", "C1", "C0"), courses.items(), strict=True
):
    left.loglog(times + 1, losses, "o", color=colour, label=f"network, $m$ = {width}")
    left.loglog(times + 1, expected, "-", color=colour)
left.set_xlabel("gradient steps + 1")
left.set_ylabel(r"loss $\frac{1}{2}\|f - y\|^2$ (lines: theory)")
left.legend(fontsize="small")
_, _, network_end, theory_end = courses[16384]
right.plot(ANGLES, answer(ANGLES), "-", color="0.7", label="target")
right.plot(ANGLES, network_end, "-", color="C0", label="network, $m$ = 16384")
right.plot(ANGLES, theory_end, "--", color="k", label="theory")
right.plot(SEEN, y[:, 0], "ko", markersize=4, label="training points")
right.set_xlabel("angle of the input (radians)")
right.set_ylabel(f"output after {times[-1]} steps")
right.legend(fontsize="small")
plt.show()

# %% [markdown]
# The theory knows nothing of the trained weights: only the kernel, the data and where the network
# started. The narrow network leaves its line because its kernel is neither the limit nor constant.

# %%
apart = {width: float(np.abs(found[2] - found[3]).max()) for width, found in courses.items()}
for width, value in apart.items():
    print(f"m = {width:6d}: largest distance from the theory on the circle {value:.3f}")

# %% [markdown]
# ## The edge of stability of the linear theory
#
# Just below $2/\lambda_{\max}$ descent converges, just above it diverges.

# %%
final = {}
for share in (0.98, 1.02):
    flow = gradient_flow_mse(grams, y, t=2000, learning_rate=share * largest_rate, discrete=True)
    final[share] = float(np.abs(flow.train - y).max())
    print(f"rate {share:.2f} x 2/lambda_max: error after 2,000 steps {final[share]:.2e}")

# %% [markdown]
# ## What must hold

# %%
assert abs(slope + 0.5) < 0.1
assert apart[16384] < 0.05 < apart[64]
losses, expected, _, _ = courses[16384]
assert np.all(np.abs(np.log(losses / expected)) < 0.5)
eigenvalues = np.linalg.eigvalsh(limit)
np.testing.assert_allclose(largest_rate, 2.0 / eigenvalues[-1], rtol=1e-9)
assert final[0.98] < 0.1
assert final[1.02] > 1e3
