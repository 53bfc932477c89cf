"""Network: the one form in which every analysis takes a trained model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tangency.models.arrays import check_array
from tangency.models.errors import InputError
from tangency.models.ops import Activate, Shape, jax_backend, numpy_backend
from tangency.models.structure import Structure

__all__ = ["Network"]


class Network:
    """An immutable typed graph with its weights; calling it evaluates it in JAX.

    Parameters
    ----------
    structure : Structure
        The graph, hashable.
    weights : mapping of str to array
        One array for each key of the structure, in the structure's dtype.
    source : str, optional
        Where the network came from, for messages.

    Raises
    ------
    InputError
        For a missing or superfluous weight, a wrong shape or dtype, a NaN or an infinite entry;
        the message names the weight.

    Examples
    --------
    >>> import numpy as np
    >>> from tangency.models import from_layers
    >>> net = from_layers([np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, -1.0]])], "relu")
    >>> net.evaluate(np.array([[1.0, 1.0]]))
    array([[-4.]])
    """

    __slots__ = ("__weakref__", "_hash", "source", "structure", "weights")

    structure: Structure
    weights: Mapping[str, np.ndarray]
    source: str
    _hash: str | None

    def __init__(
        self, structure: Structure, weights: Mapping[str, Any], *, source: str = ""
    ) -> None:
        shapes = structure.param_shapes
        if set(weights) != set(shapes):
            missing, extra = sorted(set(shapes) - set(weights)), sorted(set(weights) - set(shapes))
            raise InputError(f"weights missing: {missing or 'none'}; not in the graph: {extra}")
        held = {}
        for key, shape in shapes.items():
            array = np.asarray(weights[key])
            if array.dtype != structure.dtype:
                raise InputError(
                    f"weight {key!r} is {array.dtype}, the network is {structure.dtype}"
                )
            if array.shape != shape:
                raise InputError(f"weight {key!r} has shape {array.shape}, its layer takes {shape}")
            if not np.isfinite(array).all():
                raise InputError(f"weight {key!r} has a NaN or infinite entry")
            array = np.array(array, order="C")
            array.flags.writeable = False
            held[key] = array
        object.__setattr__(self, "structure", structure)
        object.__setattr__(self, "weights", MappingProxyType(held))
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "_hash", None)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Network is immutable: make a new one with .replace(weights=...)")

    # --- what it is -----------------------------------------------------------------------

    @property
    def dtype(self) -> str:
        """``"float32"`` or ``"float64"``."""
        return self.structure.dtype

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Shapes of the inputs, of one sample."""
        return tuple(self.structure.nodes[i].shape for i in self.structure.inputs)

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        """Shapes of the outputs, of one sample."""
        return tuple(self.structure.nodes[i].shape for i in self.structure.outputs)

    @property
    def input_shape(self) -> Shape:
        """Shape of the only input; InputError when there are several."""
        if len(self.input_shapes) != 1:
            raise InputError(f"this needs a network of one input, this has {self.input_shapes}")
        return self.input_shapes[0]

    @property
    def output_shape(self) -> Shape:
        """Shape of the only output; InputError when there are several."""
        if len(self.output_shapes) != 1:
            raise InputError(f"this needs a network of one output, this has {self.output_shapes}")
        return self.output_shapes[0]

    @property
    def size(self) -> int:
        """Number of trainable parameters."""
        return sum(self.weights[key].size for key in self.structure.trainable)

    @property
    def hash(self) -> str:
        """SHA-256 of the function: the graph and the exact weights; names of layers do not enter.

        A certificate names the network by this hash. An activation of the catalogue enters by name
        and parameters, a user's own with its formula.

        Raises
        ------
        InputError
            If a user's activation has a formula that cannot be followed.
        """
        for node in self.structure.nodes:
            if isinstance(node.op, Activate):
                node.op.activation.check_same()
        if self._hash is None:
            from tangency.models.file import encode_op

            digest = hashlib.sha256()
            s = self.structure
            # The shapes say where in the bytes that follow each weight begins and ends.
            graph = [
                [encode_op(n.op), n.inputs, n.shape, [(p.role, p.shape) for p in n.params]]
                for n in s.nodes
            ]
            head = [graph, s.inputs, s.outputs, s.dtype]
            digest.update(json.dumps(head, sort_keys=True).encode())
            for node in s.nodes:
                for p in node.params:
                    digest.update(np.asarray(self.weights[p.key], dtype=f"<f{_width(s)}").tobytes())
            object.__setattr__(self, "_hash", digest.hexdigest())
        return str(self._hash)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Network) and self.hash == other.hash)

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        ends = " -> ".join(
            ", ".join(map(str, shapes)) for shapes in (self.input_shapes, self.output_shapes)
        )
        count = len(self.structure.nodes)
        return f"Network({ends}, {count} nodes, {self.size:,} parameters, {self.dtype})"

    def __str__(self) -> str:
        from tangency.models.table import table

        return table(self)

    # --- what it does ---------------------------------------------------------------------

    def __call__(self, *inputs: Any) -> Any:
        """Evaluate in JAX.

        Parameters
        ----------
        *inputs : arrays
            One for each input, ``(N, *shape)``, or all of them one sample, ``shape``.

        Returns
        -------
        JAX array (N, *output_shape), or one sample's, or a tuple for several outputs.

        Raises
        ------
        InputError
            For a wrong number, shape or dtype of inputs, or a non-contiguous NumPy array.
        """
        arrays, single = self._inputs(inputs)
        with precision(self.dtype):
            outputs = _compiled(self.structure)(dict(self.weights), arrays)
            return _drop_batch(outputs) if single else outputs

    def evaluate(self, *inputs: Any) -> Any:
        """Evaluate in NumPy, without JAX: the same shapes and errors as a call."""
        arrays, single = self._inputs(inputs)
        arrays = [np.asarray(x, self.dtype) for x in arrays]
        with np.errstate(all="ignore"):
            outputs = self.structure.apply(numpy_backend(), self.weights, arrays)
        return _drop_batch(outputs) if single else outputs

    def _inputs(self, inputs: tuple[Any, ...]) -> tuple[list[Any], bool]:
        shapes = self.input_shapes
        if len(inputs) != len(shapes):
            raise InputError(f"the network takes {len(shapes)} inputs {shapes}, got {len(inputs)}")
        for i, x in enumerate(inputs):
            check_array(f"input {i}" if len(inputs) > 1 else "the input", x, dtype=self.dtype)
        if all(tuple(x.shape) == s for x, s in zip(inputs, shapes, strict=True)):
            return [x[None] for x in inputs], True
        batches = {x.shape[0] if x.ndim else None for x in inputs}
        fits = all(tuple(x.shape[1:]) == s for x, s in zip(inputs, shapes, strict=True))
        if len(batches) != 1 or not fits:
            got = ", ".join(str(tuple(x.shape)) for x in inputs)
            want = ", ".join(f"(N, {', '.join(map(str, s))})" for s in shapes)
            raise InputError(f"the network takes {want}, got {got}")
        return list(inputs), False

    # --- other networks made of it ----------------------------------------------------------

    def replace(self, weights: Mapping[str, Any]) -> Network:
        """The same graph with some weights replaced."""
        return Network(self.structure, {**self.weights, **weights}, source=self.source)

    def astype(self, dtype: str) -> Network:
        """The network in another dtype; from float64 to float32 the weights are rounded."""
        s = self.structure
        structure = Structure(s.nodes, s.inputs, s.outputs, dtype)
        with np.errstate(over="ignore"):  # an overflow becomes the error of an infinite weight
            weights = {key: w.astype(dtype) for key, w in self.weights.items()}
        return Network(structure, weights, source=self.source)

    def save(self, path: str | Path) -> None:
        """Write the network to one file, read back by :meth:`load` bit by bit."""
        from tangency.models.file import save

        save(self, path)

    @staticmethod
    def load(path: str | Path) -> Network:
        """Read a file written by :meth:`save`."""
        from tangency.models.file import load

        return load(path)


def _width(structure: Structure) -> int:
    return int(np.dtype(structure.dtype).itemsize)


def _drop_batch(outputs: Any) -> Any:
    return tuple(y[0] for y in outputs) if isinstance(outputs, tuple) else outputs[0]


def precision(dtype: str) -> Any:
    """Context in which JAX computes in ``dtype``; its global setting is left alone."""
    import jax

    wide = dtype == "float64"
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(wide)
    import jax.experimental as old  # before JAX 0.8

    return old.enable_x64() if wide else old.disable_x64()  # type: ignore[attr-defined]


@lru_cache(maxsize=256)
def _compiled(structure: Structure) -> Any:
    """The compiled evaluation that all networks of one structure share."""
    import jax

    backend = jax_backend()
    return jax.jit(lambda weights, inputs: structure.apply(backend, weights, inputs))
