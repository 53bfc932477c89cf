"""An implicit layer as a model of its own: saved, read, and named by a hash, as a Network is."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from tangency.files import replacing, why
from tangency.models.arrays import read_npz
from tangency.models.errors import InputError, UnsupportedError
from tangency.verify.certificate.layers import GroupSort, Slopes
from tangency.verify.certificate.matrix import Array, Matrix
from tangency.verify.chain.chain import constraint_named

__all__ = ["ImplicitLayer"]

_FORMAT = "tangency-implicit 1"


@dataclass(frozen=True, eq=False)
class ImplicitLayer:
    """The map x -> C z, z = phi(W z + U x + b).

    Parameters
    ----------
    W, U, C : (n, n), (n, m), (p, n) arrays
        Kept in float64, to which float32 widens without loss.
    activation : str, (a, b), Slopes or GroupSort
        phi, as :func:`tangency.verify.lipschitz.implicit.implicit_bound` takes it.
    b : (n,) array, optional
        Zero where not given; no bound depends on it.

    Raises
    ------
    InputError
        If shapes do not fit, a number is not finite, or the activation is unknown.
    UnsupportedError
        For an activation other than one of slopes or sorting.

    Notes
    -----
    A bound by `implicit_bound(layer.W, layer.U, layer.C, activation=layer.activation)` becomes a
    file by :func:`tangency.verify.write_certificate` with the layer in the place of the network;
    ``tangency check`` takes that file and the one that :meth:`save` writes.

    Examples
    --------
    >>> layer = ImplicitLayer([[-3.0]], [[1.0]], [[1.0]])
    >>> layer.input_shape, layer.output_shape, layer.constraint.upper
    ((1,), (1,), 1.0)
    """

    W: Array
    U: Array
    C: Array
    activation: Any = "relu"
    b: Array | None = None

    def __post_init__(self) -> None:
        for name in "WUC":
            object.__setattr__(self, name, Matrix.of(getattr(self, name), name=name).midpoint)
        n = len(self.W)
        if self.W.shape != (n, n) or len(self.U) != n or self.C.shape[1] != n:
            raise InputError(
                f"W {self.W.shape}, U {self.U.shape} and C {self.C.shape} do not fit: they are "
                "(n, n), (n, m) and (p, n)"
            )
        if self.b is not None:
            bias = Matrix.of(np.reshape(np.asarray(self.b), (1, -1)), name="b").midpoint[0]
            if bias.shape != (n,):
                raise InputError(f"b must be {n} numbers, not {np.shape(self.b)}")
            object.__setattr__(self, "b", bias)
        given = self.constraint
        given.groups(n) if isinstance(given, GroupSort) else given.arrays(n)

    @property
    def constraint(self) -> Slopes | GroupSort:
        """What a bound uses of the activation."""
        found, _ = constraint_named(self.activation)
        if not isinstance(found, Slopes | GroupSort):
            raise UnsupportedError("implicit layers take slopes and GroupSort")
        return found

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of x."""
        return (self.U.shape[1],)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of C z."""
        return (len(self.C),)

    @property
    def hash(self) -> str:
        """SHA-256 of the weights and of what bounds use of the activation.

        A certificate names the layer by this hash.
        """
        given, parts = self.constraint, [self.W, self.U, self.C]
        kind = "slopes"
        if isinstance(given, GroupSort):
            kind = f"sort {given.size} {given.descending}"
        else:
            parts += given.arrays(len(self.W))
        parts.append(np.zeros(len(self.W)) if self.b is None else self.b)
        digest = sha256(repr([_FORMAT, kind, [part.shape for part in parts]]).encode())
        for part in parts:
            digest.update(np.ascontiguousarray(part, dtype="<f8").tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the layer to a .npz file.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        arrays: dict[str, Any] = {"format": _FORMAT, "W": self.W, "U": self.U, "C": self.C}
        if self.b is not None:
            arrays["b"] = self.b
        given = self.activation
        if isinstance(given, Slopes):
            arrays["lower"], arrays["upper"] = given.arrays(len(self.W))
        elif isinstance(given, GroupSort):
            arrays["group"] = np.array([given.size, given.descending])
        else:
            arrays["activation"] = np.asarray(given)
        try:
            with replacing(path) as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({why(error)})") from None

    @classmethod
    def load(cls, path: str | Path) -> ImplicitLayer:
        """Read a layer that :meth:`save` wrote: nothing in the file is run.

        Raises
        ------
        InputError
            If the file is no such layer; the message names the file.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from None
        try:
            held = read_npz(content)
            if str(held["format"]) != _FORMAT:
                raise InputError("of another format")
            given: Any = held.get("activation")
            if given is not None:
                given = str(given) if given.dtype.kind == "U" else tuple(given.tolist())
            elif "group" in held:
                size, descending = held["group"].tolist()
                given = GroupSort(int(size), descending=bool(descending))
            else:
                given = Slopes(held["lower"], held["upper"])
            return cls(held["W"], held["U"], held["C"], given, held.get("b"))
        except Exception as error:  # whatever a file that is no archive, or a damaged one, raises
            raise InputError(
                f"{path}: not an implicit layer written by ImplicitLayer.save ({error})"
            ) from None
