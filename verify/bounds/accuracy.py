"""Certified accuracy over a data set at one or several radii; finished batches are kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tangency.models.errors import InputError
from tangency.models.network import Network
from tangency.verify.bounds.robustness import Robustness, certify_robust

__all__ = ["AccuracyCurve", "certified_accuracy"]

Array = Any
Progress = Callable[[int, int], None]

#: What is kept of each sample; the scores' bounds are not.
COLUMNS = ("verified", "attacked", "margin_lower", "margin_upper", "prediction")


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
    certified : bool
        Whether the lower sides are proved in real arithmetic.
    seconds : float
        Wall-clock time of this run; parts that a checkpoint held cost nothing.
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
    certified: bool
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
            "norm": "linf",
            "method": self.method,
            "attack": self.attack,
            "certified": self.certified,
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
        axes.set_xlabel(r"$\ell_\infty$ radius $\varepsilon$")
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
        Radii >= 0 in the l-infinity norm.
    batch : int
        Samples bounded at once; each finished batch is kept.
    checkpoint : path, optional
        A ``.npz`` file to which finished batches are written, and from which a run of the same
        network, data and options goes on.
    progress : callable (done, total), optional
        Called after each batch, in samples times radii.

    Raises
    ------
    InputError
        As :func:`certify_robust`; for no radius, or a checkpoint of another run.
    """
    start = perf_counter()
    radii = np.sort(np.atleast_1d(np.asarray(eps, dtype=np.float64)))
    if radii.ndim != 1 or radii.size == 0:
        raise InputError("eps is empty: give one radius or a list of them")
    labels = np.asarray(labels)
    store = _Store(checkpoint, _key(network, x, labels, radii, batch, options))
    total, done = len(radii) * len(x), 0
    method = attack = ""
    certified = True
    for e, radius in enumerate(radii):
        for i in range(0, len(x), batch):
            if (e, i) not in store:
                part = certify_robust(
                    network,
                    x[i : i + batch],
                    labels[i : i + batch],
                    float(radius),
                    batch=batch,
                    **options,
                )
                store.add((e, i), part)
            done += len(x[i : i + batch])
            if progress is not None:
                progress(done, total)
    columns = store.columns(len(radii), range(0, len(x), batch))
    method, attack, certified = store.provenance
    return AccuracyCurve(
        eps=radii,
        labels=labels,
        prediction=columns.pop("prediction")[0],
        method=method,
        attack=attack,
        certified=certified,
        seconds=perf_counter() - start,
        **columns,
    )


class _Store:
    """Finished batches by (radius, first sample), mirrored in a file where one is given."""

    def __init__(self, path: str | Path | None, key: str) -> None:
        self._path = None if path is None else Path(path)
        self._key = key
        self._parts: dict[tuple[int, int], dict[str, Array]] = {}
        self.provenance = ("", "", True)
        if self._path is not None and self._path.exists():
            self._read(self._path)

    def __contains__(self, place: tuple[int, int]) -> bool:
        return place in self._parts

    def add(self, place: tuple[int, int], part: Robustness) -> None:
        self._parts[place] = {name: getattr(part, name) for name in COLUMNS}
        self.provenance = (part.method, part.attack, part.certified)
        if self._path is not None:
            self._write(self._path)

    def columns(self, radii: int, starts: range) -> dict[str, Array]:
        """Every column as ``(E, N) array``."""
        return {
            name: np.stack(
                [np.concatenate([self._parts[e, i][name] for i in starts]) for e in range(radii)]
            )
            for name in COLUMNS
        }

    def _read(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except Exception as error:  # whatever a file that is no archive raises
            raise InputError(f"{path}: not a checkpoint of bounds ({error})") from None
        if "key" not in arrays or str(arrays.pop("key")) != self._key:
            raise InputError(
                f"{path}: the checkpoint of another network, data set, radii or options: "
                "give another name, or remove the file"
            )
        method, attack, certified = (str(v) for v in arrays.pop("provenance"))
        self.provenance = (method, attack, certified == "True")
        for name, array in arrays.items():
            e, i, column = name.split("/")
            self._parts.setdefault((int(e), int(i)), {})[column] = array

    def _write(self, path: Path) -> None:
        arrays = {
            f"{e}/{i}/{name}": array
            for (e, i), part in self._parts.items()
            for name, array in part.items()
        }
        provenance = np.array([str(v) for v in self.provenance])
        # Written beside and moved over: a kill leaves one whole file, the old or the new.
        beside = path.with_name(path.name + ".part")
        try:
            with beside.open("wb") as file:
                np.savez(file, key=np.array(self._key), provenance=provenance, **arrays)
            os.replace(beside, path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def _key(
    network: Network, x: Array, labels: Array, radii: Array, batch: int, options: dict[str, Any]
) -> str:
    digest = hashlib.sha256(network.hash.encode())
    for array in (np.asarray(x), labels, radii):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(repr((batch, sorted(options.items(), key=lambda item: item[0]))).encode())
    return digest.hexdigest()
