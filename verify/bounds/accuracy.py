"""Certified accuracy over a data set at one or several radii; finished batches are kept on disk.

A checkpoint decides nothing: it keeps the slopes that a search chose and the points that an attack
found, and a run that goes on from it proves and evaluates all of them again, which is one pass
where the search took many. Only of the joint search, which leaves too many slopes to keep, and of
estimates are the bounds themselves read back; the former are then not called certified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

import numpy as np

from tangency._version import __version__
from tangency.files import locked, why
from tangency.models.errors import InputError, NotProvedError
from tangency.models.network import Network
from tangency.verify.bounds.engine import check_classifier
from tangency.verify.bounds.jobs import Job
from tangency.verify.bounds.perturbations import Perturbations
from tangency.verify.bounds.records import Records
from tangency.verify.bounds.robustness import Robustness, certify_robust, margin_at
from tangency.verify.certificate.outputs import LinearWitness, Method, NodeSlopes
from tangency.verify.checking_outputs import lower_bounds
from tangency.verify.result import radius_label
from tangency.verify.sets import around, input_sets
from tangency.verify.spec import margin_spec

__all__ = ["AccuracyCurve", "certified_accuracy"]

Array = Any
Progress = Callable[[int, int], None]

_DEFAULTS = {
    p.name: p.default
    for p in signature(certify_robust).parameters.values()
    if p.default is not p.empty and p.name not in ("batch", "progress")
}
COLUMNS = ("margin_lower", "margin_upper", "prediction", "read")


@dataclass(frozen=True, eq=False)
class AccuracyCurve:
    """Verdicts on N samples at E radii.

    Attributes
    ----------
    eps : (E,) array
        Radii, rising.
    verified, attacked : (E, N) array of bool
        Proved robust; refuted by a point that was found.
    margin_lower, margin_upper : (E, N) array
        Proved bounds of the least margin on the ball.
    prediction, labels : (N,) array of int
        Class at the sample itself, and the label.
    method, attack : str
        How the two sides were found.
    norm : {"inf", "2", "1"}
        Of the balls.
    certified : bool
        Whether the lower sides are all proved in real arithmetic, in this run.
    read : (E, N) array of bool
        Lower sides that were taken from a checkpoint as they stand.
    seconds : float
        Wall-clock time of this run.
    """

    eps: Array
    verified: Array = field(repr=False)
    attacked: Array = field(repr=False)
    margin_lower: Array = field(repr=False)
    margin_upper: Array = field(repr=False)
    prediction: Array = field(repr=False)
    labels: Array = field(repr=False)
    method: str
    attack: str
    norm: str
    certified: bool
    read: Array = field(repr=False)
    seconds: float

    @property
    def clean_accuracy(self) -> float:
        """Fraction of samples predicted as labelled."""
        return float(np.mean(self.prediction == self.labels))

    @property
    def certified_accuracy(self) -> Array:
        """Fraction of samples proved robust at each radius, ``(E,) array``."""
        return self.verified.mean(axis=1)

    @property
    def attacked_accuracy(self) -> Array:
        """Fraction of samples not refuted at each radius, ``(E,) array``."""
        return 1.0 - self.attacked.mean(axis=1)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, as the command prints them."""
        return {
            "eps": self.eps.tolist(),
            "certified_accuracy": self.certified_accuracy.tolist(),
            "attacked_accuracy": self.attacked_accuracy.tolist(),
            "clean_accuracy": self.clean_accuracy,
            "mean_margin_lower": self.margin_lower.mean(axis=1).tolist(),
            "verified": self.verified.tolist(),
            "attacked": self.attacked.tolist(),
            "samples": len(self.labels),
            "norm": f"l{self.norm}",
            "method": self.method,
            "attack": self.attack,
            "certified": self.certified,
            "read_from_checkpoint": int(self.read.sum()),
            "seconds": self.seconds,
        }

    def plot(self) -> Any:
        """Certified fraction against the radius, the attack above it: a matplotlib Figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        axes = figure.add_subplot()
        word = "certified" if self.certified else "estimate"
        axes.axhline(self.clean_accuracy, color="0.6", linestyle="--", label="clean")
        if self.attack != "none":
            label = f"not refuted by attack ({self.attack})"
            axes.plot(self.eps, self.attacked_accuracy, marker="v", label=label)
        axes.plot(self.eps, self.certified_accuracy, marker="o", label=f"{word} ({self.method})")
        axes.set_ylim(-0.02, 1.05)
        axes.set_xlabel(rf"{radius_label(self.norm)} $\varepsilon$")
        axes.set_ylabel(f"fraction of {len(self.labels)} samples")
        axes.set_title(r"Accuracy under perturbations")
        axes.grid(alpha=0.3)
        axes.legend()
        return figure


def certified_accuracy(
    network: Network,
    x: Array,
    labels: Array,
    eps: float | Sequence[float],
    *,
    batch: int = 64,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> AccuracyCurve:
    """Certified accuracy of a classifier at one or several radii.

    Parameters
    ----------
    network, x, labels
        As in :func:`certify_robust`, which also takes the further ``options``.
    eps : float or sequence of float
        Radii >= 0 in the norm ``norm``, that of infinity without this option.
    batch : int
        Samples bounded at once; each finished batch is kept.
    checkpoint : path, optional
        A file to which finished batches are appended, and from which a run of the same network,
        data and options goes on: their bounds are proved again with the slopes that it holds. With
        ``mode="joint"`` they are read as they stand, and the answer is not ``certified``.
    progress : callable (done, total), optional
        Called after each batch, in samples times radii.

    Raises
    ------
    InputError
        As :func:`certify_robust`; for no radius, or a checkpoint that is of another run or
        version, damaged, or in use by another process.
    """
    start = perf_counter()
    radii = np.sort(np.atleast_1d(np.asarray(eps, dtype=np.float64)))
    if radii.ndim != 1 or radii.size == 0:
        raise InputError("eps is empty: give one radius or a list of them")
    labels = np.asarray(labels)
    how = _DEFAULTS | options
    how["norm"] = str(how["norm"])
    job = Job(*(how[name] for name in ("method", "rigorous", "plain", "mode", "steps")))
    parts: list[list[dict[str, Array]]] = []
    done = 0
    with _opened(checkpoint, _key(network, x, labels, radii, batch, how)) as file:
        for e, radius in enumerate(radii):
            parts.append([])
            for i in range(0, len(x), batch):
                own = x[i : i + batch], labels[i : i + batch], float(radius)
                if file is not None and (e, i) in file:
                    part = _again(network, *own, file.read((e, i)), how["norm"], how["clip"])
                else:
                    part, keep = _found(certify_robust(network, *own, batch=batch, **options))
                    if file is not None:
                        file.add((e, i), keep)
                parts[-1].append(part)
                done += len(own[0])
                if progress is not None:
                    progress(done, len(radii) * len(x))
    low, high, best, read = (
        np.stack([np.concatenate([part[name] for part in row]) for row in parts])
        for name in COLUMNS
    )
    return AccuracyCurve(
        eps=radii,
        verified=low > 0,
        attacked=high <= 0,
        margin_lower=low,
        margin_upper=high,
        labels=labels,
        prediction=best[0],
        method=job.method,
        attack=how["attack"],
        norm=how["norm"],
        certified=job.certified and not read.any(),
        read=read,
        seconds=perf_counter() - start,
    )


@contextmanager
def _opened(path: str | Path | None, key: str) -> Iterator[Records | None]:
    """The checkpoint of a run, for this process alone."""
    if path is None:
        yield None
        return
    with ExitStack() as held:
        try:
            held.enter_context(locked(path))
        except BlockingIOError as error:
            raise InputError(
                f"{path}: {error.strerror}: give each run a checkpoint of its own"
            ) from None
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({why(error)})") from None
        yield Records(Path(path), key)


def _found(part: Robustness) -> tuple[dict[str, Array], dict[str, Array]]:
    """Columns of a batch, and what is kept of it."""
    columns = {name: getattr(part, name) for name in COLUMNS[:3]}
    columns["read"] = np.zeros(part.samples, dtype=bool)
    keep = {"points": part.points}
    if part.statement is None:
        return columns, keep | {"margin_lower": part.margin_lower}
    nodes = part.statement.slopes
    slopes = {f"slopes {i} {k}": v for i, own in nodes.items() for k, v in enumerate(own)}
    witness = {
        "method": np.array(part.statement.method),
        "plain": np.array(part.statement.plain),
        "nodes": np.array([[i, len(own)] for i, own in nodes.items()], dtype=int).reshape(-1, 2),
    }
    return columns, keep | witness | slopes


def _again(
    network: Network,
    x: Array,
    labels: Array,
    eps: float,
    kept: dict[str, Array],
    norm: str,
    clip: tuple[float, float] | None,
) -> dict[str, Array]:
    """Columns of a batch: all that can be proved of it with what was kept, proved."""
    x = np.array(x, dtype=np.float64, order="C")
    spec = margin_spec(labels, check_classifier(network))
    points = _array(kept, "points", x.shape)
    holds = Perturbations(x, eps, norm, clip).holds(points)
    points = np.where(holds.reshape((-1,) + (1,) * (x.ndim - 1)), points, x)
    read = "margin_lower" in kept
    if read:
        low = _array(kept, "margin_lower", (len(x),))
    else:
        (region,) = input_sets(network, around(x, eps, norm, clip))
        try:
            low = lower_bounds(network, region, spec, _witness(kept)).min(axis=1)
        except NotProvedError as error:
            raise InputError(f"the checkpoint is damaged: {error}") from None
    return {
        "margin_lower": low,
        "margin_upper": margin_at(network, points, spec),
        "prediction": network.astype("float64").evaluate(x).argmax(axis=1),
        "read": np.full(len(x), read),
    }


def _array(kept: dict[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    array = kept.get(name)
    if array is None or array.shape != shape or array.dtype != np.float64 or np.isnan(array).any():
        raise InputError(f"the checkpoint is damaged: {name} of a batch is not what it was")
    return array


def _witness(kept: dict[str, Array]) -> LinearWitness:
    """Any slopes prove something: what was altered may loosen a bound, and cannot falsify it."""
    try:
        nodes = [
            (i, [kept[f"slopes {i} {k}"] for k in range(count)])
            for i, count in kept["nodes"].tolist()
        ]
        method = kept["method"].item()
        fits = method in get_args(Method) and all(
            v.dtype in (np.float32, np.float64) and np.isfinite(v).all()
            for _, own in nodes
            for v in own
        )
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError("the checkpoint is damaged: the slopes of a batch are not what they were")
    slopes = tuple(NodeSlopes(i, tuple(v.astype(np.float64) for v in own)) for i, own in nodes)
    return LinearWitness(method, bool(kept.get("plain", False)), slopes)


def _key(
    network: Network, x: Array, labels: Array, radii: Array, batch: int, options: dict[str, Any]
) -> str:
    digest = hashlib.sha256(f"{__version__} {network.hash}".encode())
    for array in (np.asarray(x), labels, radii):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(repr((batch, sorted(options.items(), key=lambda item: item[0]))).encode())
    return digest.hexdigest()
