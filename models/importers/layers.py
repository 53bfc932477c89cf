"""Networks from plain lists of NumPy weights: the shortest way in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tangency.models import activations
from tangency.models.activations import Activation
from tangency.models.arrays import check_array
from tangency.models.builder import Builder, Value
from tangency.models.errors import InputError
from tangency.models.network import Network
from tangency.models.ops import GroupSort

__all__ = ["from_layers"]


def from_layers(
    layers: Sequence[Any],
    activation: str | Activation | Sequence[str | Activation] = "relu",
    *,
    source: str = "",
) -> Network:
    """A fully connected network ``W_l phi(... phi(W_1 x + b_1) ...) + b_l``.

    Parameters
    ----------
    layers : sequence of (m, n) array or of pairs ((m, n) array, (m,) array or None)
        Weights, or weights and biases, float32 or float64 alike, first layer first.
    activation : str, Activation or a sequence of them
        Between the layers: a name of the catalogue, a record, ``"maxmin"``, or
        ``"groupsort<n>"`` for groups of n; a sequence gives one for each gap.

    Raises
    ------
    InputError
        Naming the layer: a shape that does not fit, an integer, non-contiguous or non-finite
        array, an unknown activation.

    Examples
    --------
    >>> import numpy as np
    >>> net = from_layers([np.eye(2), np.ones((1, 2))], "maxmin")
    >>> net.evaluate(np.array([1.0, 3.0]))
    array([4.])
    """
    if not isinstance(layers, Sequence) or not layers:
        raise InputError("layers: give a sequence of weight matrices, at least one")
    pairs = [_pair(i, layer) for i, layer in enumerate(layers)]
    dtypes = {str(a.dtype) for pair in pairs for a in pair if a is not None}
    if len(dtypes) > 1:
        raise InputError(f"layers: dtypes {sorted(dtypes)} are mixed, give one")
    gaps = len(pairs) - 1
    between = [activation] * gaps if isinstance(activation, str | Activation) else list(activation)
    if len(between) != gaps:
        raise InputError(f"activation: {len(pairs)} layers take {gaps}, got {len(between)}")
    builder = Builder(dtypes.pop())
    value = builder.input((1, pairs[0][0].shape[1]))
    for i, (weight, bias) in enumerate(pairs):
        builder.scope = f"layer{i}"
        value = builder.dense(value, weight, bias, keys=(f"layer{i}.weight", f"layer{i}.bias"))
        if i < gaps:
            builder.scope = f"activation{i}"
            value = _activate(builder, value, between[i])
    return builder.finish([value], source=source)


def _pair(i: int, layer: Any) -> tuple[np.ndarray, np.ndarray | None]:
    weight, bias = layer if isinstance(layer, tuple | list) and len(layer) == 2 else (layer, None)
    check_array(f"layer {i}: the weight", weight, finite=True)
    weight = np.asarray(weight)
    if weight.ndim != 2 or 0 in weight.shape:
        raise InputError(f"layer {i}: the weight has shape {weight.shape}, a matrix is needed")
    if bias is not None:
        check_array(f"layer {i}: the bias", bias, finite=True)
        bias = np.asarray(bias)
        if bias.shape != weight.shape[:1]:
            raise InputError(f"layer {i}: bias {bias.shape} does not fit weight {weight.shape}")
    return weight, bias


def _activate(builder: Builder, value: Value, activation: str | Activation) -> Value:
    if isinstance(activation, Activation):
        return builder.activation(value, activation)
    name = activation.lower()
    size = (
        "2" if name == "maxmin" else name.removeprefix("groupsort") if "groupsort" in name else ""
    )
    if size.isdigit():
        return builder.emit(GroupSort(int(size)), [value.node], view=value.shape)
    return builder.activation(value, activations.get(name))
