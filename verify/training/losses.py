"""Losses of robust training as plain JAX functions of the weights: differentiate, jit, or mix them.

Each is a mean of cross entropies over a batch. The robust ones put in place of the scores the
worst margins that a bound leaves possible on the ball: since the cross entropy falls with every
margin, they are upper bounds of the loss at any attack.

References
----------
Gowal et al., "On the effectiveness of interval bound propagation for training verifiably robust
models", arXiv 1810.12715. Zhang et al., "Towards stable and efficient training of verifiably
robust neural networks", arXiv 1906.06316.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tangency.models.ops import jax_backend
from tangency.models.structure import Structure
from tangency.verify.training.margins import check_scores, crown_ibp_margins, ibp_margins

__all__ = ["crown_ibp_loss", "ibp_loss", "standard_loss"]

Array = Any
Weights = Mapping[str, Array]
Clip = tuple[float, float] | None


def standard_loss(structure: Structure, weights: Weights, x: Array, y: Array) -> Array:
    """Cross entropy of the scores at the samples themselves.

    Parameters
    ----------
    structure : Structure
        Of one input and one output, a vector of K scores.
    weights : mapping of str to array
        Its weights; may be traced.
    x : (N, *shape) array
        Samples.
    y : (N,) array of int
        Labels.

    Raises
    ------
    UnsupportedError
        For a network that is no such classifier.
    """
    import jax.numpy as jnp

    check_scores(structure)
    scores = structure.apply(jax_backend(), weights, [x])
    own = jnp.take_along_axis(scores, y[:, None], axis=1)
    return _cross_entropy(own - scores)


def ibp_loss(
    structure: Structure,
    weights: Weights,
    x: Array,
    y: Array,
    eps: Array,
    *,
    kappa: Array = 0.5,
    clip: Clip = None,
) -> Array:
    """``kappa`` parts of the standard loss and ``1 - kappa`` parts of that of interval margins.

    Parameters
    ----------
    structure, weights, x, y
        As in :func:`standard_loss`.
    eps : scalar or array that broadcasts to x
        Radius of the l-infinity balls.
    kappa : scalar
        Share of the standard loss; 0 gives an upper bound of the worst loss on the balls.
    clip : (float, float), optional
        Range of valid inputs, which the balls do not leave.

    Raises
    ------
    UnsupportedError
        For a network that is no such classifier, or an op without a rule, by its layer's name.

    Examples
    --------
    >>> import jax, numpy as np
    >>> from tangency.models import from_layers
    >>> net = from_layers([np.eye(2, dtype="float32")])
    >>> x, y = np.array([[1.0, 0.0]], "float32"), np.array([0])
    >>> gradient = jax.grad(ibp_loss, argnums=1)(net.structure, dict(net.weights), x, y, 0.25)
    >>> sorted(gradient)
    ['layer0.weight']
    """
    worst = ibp_margins(structure, weights, x, y, eps, clip=clip)
    return kappa * standard_loss(structure, weights, x, y) + (1 - kappa) * _cross_entropy(worst)


def crown_ibp_loss(
    structure: Structure,
    weights: Weights,
    x: Array,
    y: Array,
    eps: Array,
    *,
    kappa: Array = 0.5,
    beta: Array = 1.0,
    clip: Clip = None,
) -> Array:
    """As :func:`ibp_loss`, with margins that are ``beta`` parts CROWN-IBP's, the rest intervals'.

    The gradient is that of the value for ReLU, leaky ReLU and PReLU; around other activations
    the slopes of the lines, which are allowed to be any, count as constants.

    Parameters
    ----------
    structure, weights, x, y, eps, kappa, clip
        As in :func:`ibp_loss`.
    beta : scalar in [0, 1]
        Share of the CROWN-IBP bounds: a mixture of two lower bounds is one. Usually taken from 1
        to 0 while eps grows.

    Raises
    ------
    UnsupportedError
        As :func:`ibp_loss`.
    """
    linear, interval = crown_ibp_margins(structure, weights, x, y, eps, clip=clip)
    worst = beta * linear + (1 - beta) * interval
    return kappa * standard_loss(structure, weights, x, y) + (1 - kappa) * _cross_entropy(worst)


def _cross_entropy(margins: Array) -> Array:
    """Mean of ``log sum_j exp(-margin_j)``; the label's own margin is among them, zero."""
    import jax

    return jax.nn.logsumexp(-margins, axis=1).mean()
