"""Gram matrices of a kernel on training and test inputs: what every prediction is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tangency.models.arrays import real_array
from tangency.models.errors import InputError
from tangency.theory.prediction.sources import evaluate

__all__ = ["Block", "Grams", "as_array", "matrix", "mean_diagonal", "product", "restore", "targets"]

KINDS = ("nngp", "ntk")
#: Rows of a Gram matrix that are read at a time where it is walked through.
ROWS = 1024


@dataclass(frozen=True)
class Block:
    """One kernel on training and test inputs.

    Attributes
    ----------
    train : (n, n) or (n, n, K, K) array
        Between training inputs. With four axes it is the kernel of all pairs of K outputs, as
        ``empirical_ntk(..., outputs="full")`` gives it; with two, the outputs do not mix.
    cross : (m, n) or (m, n, K, K) array, optional
        Between test inputs (rows) and training inputs.
    test : (m, m) or (m, m, K, K) array, optional
        Between test inputs; covariances need it.

    Raises
    ------
    InputError
        For shapes that do not fit each other, a NaN or an infinity.
    """

    train: np.ndarray
    cross: np.ndarray | None = None
    test: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("train", "cross", "test"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _checked(name, value))
        n = self.train.shape[0]
        if self.train.shape[1] != n or n == 0:
            raise InputError(f"train has shape {self.train.shape}: a Gram matrix is (n, n), n >= 1")
        tail = self.train.shape[2:]
        if self.cross is not None and self.cross.shape[1:] != (n, *tail):
            raise InputError(
                f"cross has shape {self.cross.shape}: (m, {n}{_tail(tail)}), test by train"
            )
        if self.test is not None:
            if self.cross is None:
                raise InputError("test is given without cross, the kernel of test by train inputs")
            m = self.cross.shape[0]
            if self.test.shape != (m, m, *tail):
                raise InputError(f"test has shape {self.test.shape}: ({m}, {m}{_tail(tail)})")

    @property
    def outputs(self) -> int | None:
        """K where the kernel is of all pairs of outputs, None where the outputs do not mix."""
        return self.train.shape[2] if self.train.ndim == 4 else None


@dataclass(frozen=True)
class Grams:
    """The kernels of a network on training and test inputs.

    Attributes
    ----------
    nngp, ntk : Block, optional
        The covariance of the outputs at initialisation, and the tangent kernel. A
        :class:`Block`, or a tuple of its arrays (train, cross, test).
    """

    nngp: Block | None = None
    ntk: Block | None = None

    def __post_init__(self) -> None:
        for kind in KINDS:
            value = getattr(self, kind)
            if value is not None and not isinstance(value, Block):
                arrays = value if isinstance(value, tuple) else (value,)
                object.__setattr__(self, kind, Block(*arrays))
        if self.nngp is None and self.ntk is None:
            raise InputError("Grams needs nngp, ntk or both")
        if self.nngp is not None and self.ntk is not None:
            shapes = [
                tuple(None if a is None else a.shape[:2] for a in (b.train, b.cross))
                for b in (self.nngp, self.ntk)
            ]
            if shapes[0] != shapes[1]:
                raise InputError(f"nngp and ntk are of different inputs: {shapes[0]}, {shapes[1]}")

    @classmethod
    def of(
        cls,
        kernel: Any,
        x: Any,
        x_test: Any = None,
        *,
        get: str | tuple[str, ...] = KINDS,
        covariance: bool = True,
    ) -> Grams:
        """Evaluate a kernel on training and test inputs.

        Parameters
        ----------
        kernel : Kernel or callable
            What :func:`tangency.theory.kernels.as_kernel` accepts: a kernel of tangency, a
            neural-tangents ``kernel_fn``, or a function (x1, x2) -> array, of which only one
            kind can be asked.
        x : (n, ...) array
        x_test : (m, ...) array, optional
        get : {"nngp", "ntk"} or both
        covariance : bool
            Whether to evaluate the (m, m) block between test inputs.

        Raises
        ------
        InputError
            For a kernel that is none, or inputs that do not fit.
        """
        names = (get,) if isinstance(get, str) else tuple(get)
        if not names or set(names) - set(KINDS):
            raise InputError(f"get={get!r}: 'nngp', 'ntk' or both")
        parts = [evaluate(kernel, x, None, names)]
        if x_test is not None:
            parts.append(evaluate(kernel, x_test, x, names))
            if covariance:
                parts.append(evaluate(kernel, x_test, None, names))
        return cls(**{name: Block(*(part[name] for part in parts)) for name in names})

    def block(self, kind: str) -> Block:
        """The block of "nngp" or "ntk".

        Raises
        ------
        InputError
            Where it was not computed.
        """
        if kind not in KINDS:
            raise InputError(f"get={kind!r}: 'nngp' or 'ntk'")
        found: Block | None = getattr(self, kind)
        if found is None:
            raise InputError(f"the Gram matrices have no {kind}: evaluate them with get={kind!r}")
        return found


def matrix(gram: np.ndarray) -> np.ndarray:
    """A Gram matrix as float64, (n1, n2), or (n1 K, n2 K) for all pairs of outputs."""
    if gram.ndim == 4:
        n1, n2, k, _ = gram.shape
        gram = gram.transpose(0, 2, 1, 3).reshape(n1 * k, n2 * k)
    return np.asarray(gram, np.float64)


def product(gram: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """``matrix(gram) @ columns`` in float64, without a float64 copy of the whole Gram matrix."""
    k = gram.shape[2] if gram.ndim == 4 else 1
    out = np.empty((len(gram) * k, columns.shape[1]))
    for i in range(0, len(gram), ROWS):
        out[i * k : (i + ROWS) * k] = matrix(gram[i : i + ROWS]) @ columns
    return out


def mean_diagonal(gram: np.ndarray) -> float:
    """Mean of a Gram matrix's diagonal: the unit of every ridge.

    Raises
    ------
    InputError
        Where it is not positive.
    """
    diagonal = np.einsum("iikk->ik", gram) if gram.ndim == 4 else np.diagonal(gram)
    mean = float(diagonal.mean(dtype=np.float64))
    if not mean > 0:
        raise InputError(f"the Gram matrix has mean diagonal {mean:.3g}: a kernel's is positive")
    return mean


def targets(
    name: str, y: Any, rows: int, outputs: int | None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Targets as the columns that a Gram matrix acts on, and the shape of one sample's target.

    Where the kernel mixes K outputs, sample and output are one axis and there is one column.
    """
    y = real_array(name, y)
    if y.ndim == 0 or len(y) != rows:
        raise InputError(f"{name} has shape {y.shape}, the kernel is of {rows} samples")
    if outputs is not None and y.shape[1:] != (outputs,):
        raise InputError(
            f"{name} has shape {y.shape}, the kernel of all pairs of outputs needs "
            f"({rows}, {outputs})"
        )
    y = y.astype(np.float64)
    if not np.isfinite(y).all():
        raise InputError(f"{name} has a NaN or infinite entry")
    return y.reshape(-1, 1) if outputs is not None else y.reshape(rows, -1), y.shape[1:]


def restore(f: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Columns (..., N, C) back to predictions (..., m, *shape)."""
    size = int(np.prod(shape, dtype=int))
    count = f.shape[-2] * f.shape[-1] // max(1, size)
    return f.reshape(*f.shape[:-2], count, *shape)


def as_array(name: str, value: Any) -> np.ndarray:
    """An array as it is, and an EmpiricalNTK (which says what it did with outputs) as its array.

    Raises
    ------
    InputError
        For what is no array of real numbers, such as a model or a kernel that is not evaluated.
    """
    if hasattr(value, "ntk") and hasattr(value, "outputs"):
        value = value.ntk
    if callable(value):
        raise InputError(
            f"{name} is a {type(value).__name__} and no array: give its Gram matrix, such as "
            "infinite_kernel(network)(x, get='ntk') or empirical_ntk(network, x)"
        )
    array: np.ndarray = real_array(name, value)
    return array


def _checked(name: str, value: Any) -> np.ndarray:
    array = as_array(name, value)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} is {array.dtype}: a kernel is an array of real numbers")
    if array.ndim not in (2, 4) or (array.ndim == 4 and array.shape[2] != array.shape[3]):
        raise InputError(f"{name} has shape {array.shape}: (n1, n2) or (n1, n2, K, K)")
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    # By rows, as the array may be a memory-map that is larger than the memory.
    if not all(np.isfinite(array[i : i + ROWS]).all() for i in range(0, len(array), ROWS)):
        raise InputError(f"{name} has a NaN or infinite entry")
    return array


def _tail(shape: tuple[int, ...]) -> str:
    return "".join(f", {k}" for k in shape)
