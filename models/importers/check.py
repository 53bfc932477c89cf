"""The check that every import passes: the network and the model agree at random inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tangency.models.errors import UnsupportedError
from tangency.models.network import Network

__all__ = ["RTOL", "check_import"]

#: Largest error relative to the largest output, by dtype of the network.
RTOL = {"float32": 1e-5, "float64": 1e-12}

Reference = Callable[..., Any]


def check_import(
    network: Network,
    reference: Reference,
    *,
    batched: bool,
    samples: int = 3,
    seed: int = 0,
    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray] | None = None,
    rtol: float | None = None,
) -> float:
    """Compare a network with the model that it was imported from, at random inputs.

    Parameters
    ----------
    network : Network
        What was imported.
    reference : callable
        The framework's own evaluation: NumPy arrays in, one for each input, in the network's
        dtype; an array or a sequence of arrays out. With ``batched`` it takes and gives a batch
        axis in front, and is also asked for a batch of ``samples``, so that a model which mixes
        its samples is found out.
    draw : callable, optional
        Makes an input of a shape; standard normal entries by default. Where the model gives no
        finite number there (a logarithm, say), positive entries are tried too.
    rtol : float, optional
        Largest error allowed, in place of that of :data:`RTOL`.

    Returns
    -------
    float
        The largest error relative to the largest finite output.

    Raises
    ------
    UnsupportedError
        When they differ by more than :data:`RTOL`, or samples of a batch influence each other.
    """
    rng = np.random.default_rng(seed)
    allowed = RTOL[network.dtype] if rtol is None else rtol
    draws = [draw] if draw else [_normal, _positive]
    worst, seen = 0.0, False
    for make in draws:
        batch = [make(rng, (samples, *s)).astype(network.dtype) for s in network.input_shapes]
        ours = _listed(network.evaluate(*batch))
        single = [
            _listed(reference(*(x[i : i + 1] if batched else x[i] for x in batch)))
            for i in range(samples)
        ]
        join = np.concatenate if batched else np.stack
        theirs = [join([s[k] for s in single]) for k in range(len(single[0]))]
        if len(theirs) != len(ours):
            raise UnsupportedError(f"the model has {len(theirs)} outputs, {len(ours)} were found")
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            error, finite = _error(a, b)
            seen = seen or finite
            worst = max(worst, error)
            if not error <= allowed:
                raise UnsupportedError(
                    f"the imported network differs from the model by {error:.2e} relative in "
                    f"output {k} (allowed {allowed:.0e}): an op was misread, please "
                    "report it"
                )
        if batched:
            _check_batch(reference, batch, theirs, allowed)
        if seen:
            return worst
    return worst


def _check_batch(reference: Reference, batch: list[Any], theirs: list[Any], rtol: float) -> None:
    try:
        whole = _listed(reference(*batch))
    except Exception:  # a model whose batch size is written in it: no samples to be mixed
        return
    for a, b in zip(whole, theirs, strict=True):
        if a.shape != b.shape:
            raise UnsupportedError(
                f"the model gives shape {a.shape} for a batch of {len(b)} samples, whose single "
                f"outputs make {b.shape}: the batch is not the axis of its output that it is of "
                "its input"
            )
        error = _error(a, b)[0]
        # A framework may round a batch otherwise than one sample: ten times the tolerance.
        if not error <= 10 * rtol:
            raise UnsupportedError(
                "the outputs of a batch differ from those of its samples one by one (relative "
                f"{error:.2e}): the model mixes its samples (batch norm in training mode, dropout "
                "or a mean over the batch?); put it in evaluation mode"
            )


def _error(a: Any, b: Any) -> tuple[float, bool]:
    """Largest difference relative to the largest finite entry; whether any entry was finite."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise UnsupportedError(f"the network gives shape {a.shape}, the model {b.shape}")
    fine = np.isfinite(a) & np.isfinite(b)
    with np.errstate(invalid="ignore"):
        same = fine | (np.isnan(a) & np.isnan(b)) | (a == b)
    if not same.all():
        return float("inf"), bool(fine.any())
    if not fine.any():
        return 0.0, False
    scale = max(float(np.abs(b[fine]).max()), np.finfo(float).tiny)
    return float(np.abs(a[fine] - b[fine]).max()) / scale, True


def _listed(outputs: Any) -> Sequence[np.ndarray]:
    if isinstance(outputs, tuple | list):
        return [np.asarray(y) for y in outputs]
    return [np.asarray(outputs)]


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape)


def _positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.1, 0.9, shape)
