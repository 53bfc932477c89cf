"""The empirical kernel over a training: how far and where to it moves."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.theory.ntk.alignment import alignment, centred_alignment, label_kernel
from tangency.theory.ntk.empirical import empirical_ntk

__all__ = ["Evolution", "evolution"]


@dataclass(frozen=True)
class Evolution:
    """A kernel at T checkpoints.

    Attributes
    ----------
    steps : (T,) array
        Where each checkpoint stands: as given, else 0, 1, ...
    alignment : (T,) array
        Of each kernel with the first.
    cka : (T,) array
        The same of the centred kernels.
    change : (T,) array
        ``|K_t - K_0| / |K_0|``.
    velocity : (T,) array
        ``1 - cka`` with the checkpoint before; zero at the first.
    trace : (T,) array
        Mean diagonal.
    label_alignment : (T,) array or None
        Centred alignment with ``Y Y^T`` of the targets.
    kernels : (T, n, n) array or None
        The kernels, where they were asked to be kept.
    seconds : float
        Wall-clock time.
    """

    steps: np.ndarray
    alignment: np.ndarray
    cka: np.ndarray
    change: np.ndarray
    velocity: np.ndarray
    trace: np.ndarray
    label_alignment: np.ndarray | None
    kernels: np.ndarray | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The curves as plain lists."""
        names = ("steps", "alignment", "cka", "change", "velocity", "trace", "label_alignment")
        values = {name: getattr(self, name) for name in names}
        data = {name: v.tolist() for name, v in values.items() if v is not None}
        return data | {"seconds": self.seconds}

    def plot(self) -> Any:
        """A matplotlib figure: alignments, and the change and velocity."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(self.steps, self.alignment, ".-", label="alignment with the first")
        left.plot(self.steps, self.cka, ".-", label="centred (CKA)")
        if self.label_alignment is not None:
            left.plot(self.steps, self.label_alignment, ".-", label="with the labels")
        left.set(title="alignment", xlabel="step")
        left.legend()
        right.plot(self.steps, self.change, ".-", label="relative change")
        right.plot(self.steps, self.velocity, ".-", label="velocity")
        right.set(title="movement", xlabel="step")
        right.legend()
        return figure


def evolution(
    checkpoints: Iterable[Any],
    x: Any,
    y: Any | None = None,
    *,
    steps: Any | None = None,
    outputs: str = "trace",
    keep: bool = False,
    memory: int | None = None,
    device: str | None = None,
) -> Evolution:
    """Follow the empirical kernel over checkpoints of one training.

    Parameters
    ----------
    checkpoints : iterable of Network or torch.nn.Module
        Each is used before the next is asked for, so that a generator may train one module on.
    x : (n, *input_shape) array or tensor
    y : (n,) or (n, m) array, optional
        Labels (integers) or targets, for the label-gradient alignment.
    steps : (T,) array, optional
        Steps or epochs of the checkpoints.
    outputs : {"trace", "sum"}
        Which (n, n) kernel: see :func:`tangency.theory.empirical_ntk`.
    keep : bool
        Whether to return the kernels.
    memory : int, optional
    device : {"cpu", "cuda"}, optional
        As for the kernel.

    Raises
    ------
    InputError
        For no checkpoint, or steps of another number.

    References
    ----------
    Fort et al., "Deep learning versus kernel learning", arXiv 2010.15110 (kernel velocity); Mok,
    Na, Kim, Han, Yoon, "Demystifying the neural tangent kernel from a practical perspective", CVPR
    2022 (label-gradient alignment).
    """
    start = time.perf_counter()
    if outputs not in ("trace", "sum"):
        raise InputError(f"outputs={outputs!r}: trace or sum, one (n, n) kernel a checkpoint")
    options: dict[str, Any] = {"device": device} | ({} if memory is None else {"memory": memory})
    targets = None if y is None else label_kernel(y, len(x))
    kernels: list[np.ndarray] = []
    first = before = None
    rows: list[tuple[float, ...]] = []
    for model in checkpoints:
        kernel = empirical_ntk(model, x, outputs=outputs, sample=1, **options).ntk
        kernel = kernel.astype(np.float64)
        first = kernel if first is None else first
        before = kernel if before is None else before
        norm = float(np.linalg.norm(first))
        rows.append((
            alignment(kernel, first),
            centred_alignment(kernel, first),
            float(np.linalg.norm(kernel - first)) / norm if norm else 0.0,
            1.0 - centred_alignment(kernel, before) if rows else 0.0,
            float(np.mean(np.diag(kernel))),
            0.0 if targets is None else centred_alignment(kernel, targets),
        ))  # fmt: skip
        before = kernel
        if keep:
            kernels.append(kernel)
    if not rows:
        raise InputError("no checkpoints: give at least one")
    where = np.arange(len(rows)) if steps is None else np.asarray(steps)
    if where.shape != (len(rows),):
        raise InputError(f"steps of shape {where.shape} for {len(rows)} checkpoints")
    columns = np.array(rows).T
    return Evolution(
        steps=where,
        alignment=columns[0],
        cka=columns[1],
        change=columns[2],
        velocity=columns[3],
        trace=columns[4],
        label_alignment=None if targets is None else columns[5],
        kernels=np.stack(kernels) if keep else None,
        seconds=time.perf_counter() - start,
    )
