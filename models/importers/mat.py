"""``from_mat``: weights in a MATLAB file, as a cell array of matrices."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np

from tangency.models import activations
from tangency.models.activations import Activation
from tangency.models.builder import Builder, Value
from tangency.models.errors import InputError, TangencyError
from tangency.models.importers.layers import from_layers
from tangency.models.importers.mat_read import read_mat
from tangency.models.importers.paths import read_file
from tangency.models.network import Network
from tangency.models.ops import Add, GroupSort

__all__ = ["from_mat"]

FORMS = "the path of a .mat file (version 5 to 7) that holds a cell array of weight matrices"
HDF5 = b"\x89HDF"


def from_mat(
    path: str | os.PathLike[str],
    *,
    activation: str | Activation = "maxmin",
    variable: str = "W",
    bias: str = "b",
    residual: bool | Literal["auto"] = False,
) -> Network:
    """Import the weights of a MATLAB file as a fully connected network.

    The cell array ``W`` holds the weight matrices, first layer first, and the cell array ``b``,
    where there is one, a bias for each; the activation stands between the layers.

    Parameters
    ----------
    path : path
        The file. The evaluation is in the dtype of the matrices, float64 as a rule.
    activation : str or Activation
        ``"maxmin"`` (pairs sorted, the larger first), ``"groupsort<n>"``, or a name or record of
        the catalogue.
    variable, bias : str
        Names of the two cell arrays.
    residual : bool or "auto"
        Whether the layers between the first and the last are ``x + phi(W x)``; the first layer
        is ``W x``, with nothing behind it. ``"auto"``: when the file's name begins with
        ``resweights``.

    Raises
    ------
    InputError
        For a file that cannot be read, lacks the variable, or holds matrices that do not fit;
        names the file and the layer.
    """
    if residual not in (True, False, "auto"):
        raise InputError(f"residual is {residual!r}: True, False and 'auto' are accepted")
    label = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
    if not label:
        raise InputError(f"got a {type(path).__name__}: give {FORMS}")
    content = _variables(label, (variable, bias))
    if variable not in content:
        names = ", ".join(sorted(content)) or "none"
        raise InputError(f"{label}: has no variable {variable!r}; it holds: {names}")
    weights = _cells(label, variable, content[variable])
    biases: list[np.ndarray | None] = [None] * len(weights)
    if bias in content:
        biases = [_column(label, bias, b) for b in _cells(label, bias, content[bias])]
        if len(biases) != len(weights):
            raise InputError(
                f"{label}: {len(weights)} matrices in {variable!r}, {len(biases)} vectors in "
                f"{bias!r}"
            )
    layers = list(zip(weights, biases, strict=True))
    if residual == "auto":
        residual = os.path.basename(label).startswith("resweights")
    try:
        if residual:
            return _residual(layers, activation, label)
        return from_layers(layers, activation, source=label)
    except TangencyError as error:
        raise type(error)(f"{label}: {error}") from None


def _variables(label: str, wanted: tuple[str, str]) -> dict[str, Any]:
    """The variables of a MATLAB file, those wanted with their content."""
    data = read_file(label, FORMS)
    if data[:4] == HDF5 or data[:10] == b"MATLAB 7.3":
        raise InputError(f"{label}: is a MATLAB 7.3 (HDF5) file; save it with -v7; {FORMS} is read")
    try:
        return read_mat(data, wanted)
    except InputError as error:
        raise InputError(f"{label}: not a readable MATLAB file: {error}; give {FORMS}") from None


def _cells(label: str, name: str, value: Any) -> list[np.ndarray]:
    """The entries of a cell array, or the only matrix of a plain one."""
    entries = [value] if isinstance(value, np.ndarray) else value
    if isinstance(entries, str) or not entries:
        what = "an empty cell array" if entries == [] else f"a {entries}"
        raise InputError(f"{label}: {name!r} is {what}; a cell array of matrices is needed")
    for i, cell in enumerate(entries):
        what = f"{label}: {name}{{{i + 1}}}"
        if not isinstance(cell, np.ndarray) or cell.dtype not in (np.float32, np.float64):
            kind = cell if isinstance(cell, str) else cell.dtype
            raise InputError(f"{what} is {kind}; a matrix of doubles or singles is needed")
        if cell.ndim != 2:
            raise InputError(f"{what} has shape {cell.shape}; a matrix is needed")
    return list(entries)


def _column(label: str, name: str, matrix: np.ndarray) -> np.ndarray:
    if matrix.size != max(matrix.shape):
        raise InputError(f"{label}: {name} holds a {matrix.shape} matrix; vectors are needed")
    return matrix.reshape(-1)


def _residual(
    layers: list[tuple[np.ndarray, np.ndarray | None]], activation: str | Activation, label: str
) -> Network:
    """``x <- x + phi(W x + b)`` between a first and a last affine layer."""
    if len(layers) < 2:
        raise InputError("residual=True needs a first and a last layer, there is one matrix")
    for i, (weight, _) in enumerate(layers[1:-1], 1):
        width = layers[0][0].shape[0]
        if weight.shape != (width, width):
            raise InputError(
                f"layer {i}: residual=True needs a {width} x {width} matrix, got {weight.shape}"
            )
    # Every matrix is checked, and the activation too, by the plain network of the same layers.
    plain = from_layers(layers, activation)
    builder = Builder(plain.dtype)
    value = builder.input(plain.input_shape and (1, *plain.input_shape))
    last = len(layers) - 1
    for i, (weight, bias) in enumerate(layers):
        builder.scope = f"layer{i}"
        keys = (f"layer{i}.weight", f"layer{i}.bias")
        inner = builder.dense(value, weight, bias, keys=keys)
        if 0 < i < last:
            builder.scope = f"activation{i}"
            inner = _activate(builder, inner, activation)
            builder.scope = f"sum{i}"
            inner = builder.elementwise(Add(), value, inner)
        value = inner
    return builder.finish([value], source=label)


def _activate(builder: Builder, value: Value, activation: str | Activation) -> Value:
    if isinstance(activation, Activation):
        return builder.activation(value, activation)
    name = activation.lower()
    size = "2" if name == "maxmin" else name.removeprefix("groupsort")
    if size.isdigit():
        return builder.emit(GroupSort(int(size)), [value.node], view=value.shape)
    return builder.activation(value, activations.get(name))
