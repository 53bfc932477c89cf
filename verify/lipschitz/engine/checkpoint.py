"""A file that keeps the search's best point, so that a killed search goes on where it was.

The file is replaced whole, never written in part: whatever ends the process, the last point saved
is there. It holds multipliers in powers of two of their own, so that a resumed search may choose
others; it says of which chain they are, and it proves nothing.
"""

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tangency.files import replacing, why
from tangency.models.arrays import read_npz
from tangency.models.errors import InputError
from tangency.verify.certificate.layers import (
    Activation,
    GroupSort,
    Householder,
    Slopes,
)
from tangency.verify.certificate.matrix import Array
from tangency.verify.chain.chain import Chain

__all__ = ["Checkpoint", "Point", "fingerprint"]

_FORMAT = "tangency lipschitz checkpoint 1"
_EVERY = 2.0  # seconds between two writings


@dataclass(frozen=True, eq=False)
class Point:
    """A point of a search.

    Parameters
    ----------
    theta : (d,) array
        Logarithms of the multipliers, and what the norms add.
    mu : float
        The barrier's weight there.
    square : float
        The bound's square in the objective's scale.
    exponents : tuple of int
        Of the assembly.
    """

    theta: Array
    mu: float
    square: float
    exponents: tuple[int, ...]


def fingerprint(chain: Chain) -> str:
    """Return a hash of all that a bound of a chain depends on: weights, radii, constraints.

    Examples
    --------
    >>> one, two = (Chain.from_matrices([[[s]], [[1.0]]]) for s in (1.0, 2.0))
    >>> fingerprint(one) == fingerprint(one), fingerprint(one) == fingerprint(two)
    (True, False)
    """
    digest = hashlib.sha256()

    def add(*parts: Any) -> None:
        for part in parts:
            array = np.ascontiguousarray(part, dtype="<f8")
            digest.update(repr(array.shape).encode() + array.tobytes())

    def describe(activation: Activation, width: int) -> None:
        digest.update(type(activation).__name__.encode())
        if isinstance(activation, Slopes):
            add(*activation.arrays(width))
        elif isinstance(activation, GroupSort):
            add(activation.size)
        elif isinstance(activation, Householder):
            add(activation.normals)
        else:
            if activation.output is not None:
                add(activation.output.midpoint)
                add(0.0 if activation.output.radius is None else activation.output.radius)
            describe(activation.inner, width)

    for k, weight in enumerate(chain.weights):
        add(weight.midpoint, 0.0 if weight.radius is None else weight.radius)
        if k < len(chain.activations):
            describe(chain.activations[k], weight.shape[0])
    return digest.hexdigest()


class Checkpoint:
    """The file of one search, with a point for each output that it bounds.

    Parameters
    ----------
    path : Path
    chain : Chain
    question : str
        Norms of input and output, as the answer states them.
    points : int
        How many outputs are searched one by one.

    Raises
    ------
    InputError
        If the file is there and is no checkpoint, or that of another network or question.
    """

    def __init__(self, path: Path, chain: Chain, question: str, points: int = 1) -> None:
        self.path = Path(path)
        self.key = fingerprint(chain)
        self.question = question
        self.points: list[Point | None] = [None] * points
        self._saved, self._fresh = -math.inf, False
        try:
            there = self.path.exists()
        except OSError as error:  # a name that is too long
            raise InputError(f"{path}: {why(error)}") from None
        if there:
            self._read()
        elif not self.path.parent.is_dir():
            raise InputError(f"{path}: the folder of the checkpoint does not exist")

    def start(self, index: int, exponents: Sequence[int], parts: Sequence[slice]) -> Point | None:
        """Return the point saved for an output in the scales given, if there is one.

        Parameters
        ----------
        index : int
        exponents : sequence of int
            Of the assembly that the search is in.
        parts : sequence of slice
            Of theta: the head, each layer, the tail.
        """
        point = self.points[index]
        if point is None or point.theta.shape != (parts[-1].stop,):
            return None
        theta, later = point.theta.copy(), 0
        if len(point.exponents) != len(exponents):
            return None
        for k in range(len(exponents) - 2, -1, -1):
            later += exponents[k + 1] - point.exponents[k + 1]
            theta[parts[k + 1]] -= 2.0 * math.log(2.0) * later
        later += exponents[0] - point.exponents[0]  # the head has the scale of the input's storage
        theta[parts[0]] -= 2.0 * math.log(2.0) * later
        return replace(point, theta=theta, exponents=tuple(exponents))

    def keep(self, index: int, point: Point, *, last: bool = False) -> None:
        """Note a point, and write the file if the last writing is a while ago.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        before = self.points[index]
        if before is None or point.theta is not before.theta or point.mu != before.mu:
            self.points[index] = point
            self._fresh = True
        if self._fresh and (last or time.monotonic() - self._saved >= _EVERY):
            self._write()
            self._saved, self._fresh = time.monotonic(), False

    def _write(self) -> None:
        arrays: dict[str, Any] = {
            "format": np.array(_FORMAT),
            "chain": np.array(self.key),
            "question": np.array(self.question),
            "points": np.array(len(self.points)),
        }
        for i, point in enumerate(self.points):
            if point is not None:
                arrays[f"theta_{i}"] = point.theta
                arrays[f"state_{i}"] = np.array([point.mu, point.square])
                arrays[f"exponents_{i}"] = np.array(point.exponents, dtype=np.int64)
        try:
            with replacing(self.path) as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({why(error)})") from None

    def _read(self) -> None:
        try:
            arrays = read_npz(self.path.read_bytes())
            kind = str(arrays["format"])
            chain, question = str(arrays["chain"]), str(arrays["question"])
            count = int(arrays["points"])
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror or error}") from None
        except Exception as error:  # whatever a file of another kind, or a damaged one, raises
            raise InputError(f"{self.path}: not a checkpoint of a search ({error})") from None
        if kind != _FORMAT:
            raise InputError(f"{self.path}: not a checkpoint of this version ({kind})")
        if chain != self.key:
            raise InputError(
                f"{self.path}: a checkpoint of another network (hash {chain[:12]}, this one has "
                f"{self.key[:12]}): give another file"
            )
        if question != self.question or count != len(self.points):
            raise InputError(
                f"{self.path}: a checkpoint of the constant {question}, not {self.question}: give "
                "another file"
            )
        for i in range(count):
            if f"theta_{i}" in arrays:
                mu, square = (float(v) for v in arrays[f"state_{i}"])
                exponents = tuple(int(e) for e in arrays[f"exponents_{i}"])
                theta = np.asarray(arrays[f"theta_{i}"], dtype=np.float64)
                if math.isfinite(mu) and np.isfinite(theta).all():
                    self.points[i] = Point(theta, mu, square, exponents)
