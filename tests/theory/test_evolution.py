"""Alignment against closed forms, and a kernel followed over a training."""

from __future__ import annotations

import numpy as np
import pytest

from tangency.models import InputError, from_layers
from tangency.theory.ntk import alignment, centred_alignment, empirical_ntk, evolution
from tangency.theory.ntk.alignment import label_kernel

RNG = np.random.default_rng(9)


def networks(count=3):
    layers = [(RNG.standard_normal((m, n)), RNG.standard_normal(m)) for n, m in ((3, 6), (6, 2))]
    first = from_layers(layers, "tanh")
    made = [first]
    for _ in range(count - 1):
        made.append(made[-1].replace({
            k: w + 0.4 * RNG.standard_normal(w.shape) for k, w in made[-1].weights.items()
        }))  # fmt: skip
    return made


def test_alignment_in_closed_form():
    a, b = np.diag([1.0, 0, 0]), np.ones((3, 3))
    assert alignment(a, a) == pytest.approx(1)
    assert alignment(a, b) == pytest.approx(1 / 3)
    assert alignment(a, 5 * b) == pytest.approx(1 / 3)
    assert alignment(a, np.zeros((3, 3))) == 0
    x, y = RNG.standard_normal((6, 2)), RNG.standard_normal((6, 3))
    shifted = x + 10
    assert centred_alignment(x @ x.T, shifted @ shifted.T) == pytest.approx(1)
    # CKA of features is |X^T Y|^2 / (|X^T X| |Y^T Y|) of centred X and Y.
    cx, cy = x - x.mean(0), y - y.mean(0)
    want = np.linalg.norm(cx.T @ cy) ** 2
    want /= np.linalg.norm(cx.T @ cx) * np.linalg.norm(cy.T @ cy)
    assert centred_alignment(x @ x.T, y @ y.T) == pytest.approx(want)


def test_label_kernel():
    same = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(label_kernel([4, 7, 4], 3), same)
    np.testing.assert_allclose(label_kernel([1.0, -2.0], 2), [[1, -2], [-2, 4]])


def test_curves_are_those_of_the_kernels():
    nets, x = networks(), RNG.standard_normal((8, 3))
    y = np.arange(8) % 2
    found = evolution(iter(nets), x, y, steps=[0, 10, 20], keep=True)
    kernels = [empirical_ntk(net, x).ntk for net in nets]
    np.testing.assert_allclose(found.kernels, kernels, rtol=1e-12)
    for t, kernel in enumerate(kernels):
        norm = np.linalg.norm(kernels[0])
        assert found.alignment[t] == pytest.approx(alignment(kernel, kernels[0]))
        assert found.cka[t] == pytest.approx(centred_alignment(kernel, kernels[0]))
        assert found.change[t] == pytest.approx(np.linalg.norm(kernel - kernels[0]) / norm)
        assert found.trace[t] == pytest.approx(np.trace(kernel) / 8)
        want = centred_alignment(kernel, label_kernel(y, 8))
        assert found.label_alignment[t] == pytest.approx(want)
    assert found.alignment[0] == pytest.approx(1)
    assert found.velocity[0] == 0
    assert found.velocity[2] == pytest.approx(1 - centred_alignment(kernels[2], kernels[1]))
    assert found.change[1] > 1e-3
    assert found.as_dict()["steps"] == [0, 10, 20]
    assert found.plot().axes[0].get_title() == "alignment"
    without = evolution(nets[:1], x, outputs="sum")
    assert without.label_alignment is None
    assert without.kernels is None
    assert "label_alignment" not in without.as_dict()


def test_training_turns_the_kernel_towards_the_labels():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))
    x = torch.randn(40, 2)
    y = torch.sign(x[:, :1] * x[:, 1:])  # not linear, so features must be learned

    def train():
        yield module
        optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
        for _ in range(2):
            for _ in range(150):
                optimiser.zero_grad()
                ((module(x) - y) ** 2).mean().backward()
                optimiser.step()
            yield module

    found = evolution(train(), x, y.numpy())
    assert found.label_alignment[-1] > 1.5 * found.label_alignment[0] > 0
    assert found.cka[-1] < 0.99
    assert found.velocity[1] > found.velocity[2]


def test_what_is_refused():
    nets, x = networks(1), RNG.standard_normal((4, 3))
    for call, says in [
        (lambda: evolution([], x), "no checkpoints"),
        (lambda: evolution(nets, x, steps=[1, 2]), r"steps of shape \(2,\)"),
        (lambda: evolution(nets, x, outputs="full"), "outputs='full'"),
        (lambda: evolution(nets, x, np.ones(3)), r"targets of shape \(3,\)"),
        (lambda: evolution(nets, x, np.full(4, np.nan)), "NaN"),
        (lambda: alignment(np.eye(2), np.eye(3)), "two equal matrices"),
        (lambda: centred_alignment(np.ones((2, 3)), np.ones((2, 3))), "not square"),
    ]:
        with pytest.raises(InputError, match=says):
            call()
