"""Composites: layers that exporters write as several ONNX nodes, found again by their structure.

Before a node is read, the nodes behind it are looked at. Where they are a layer of the catalogue,
that layer is written, and the nodes inside it, which nothing takes any more, fall away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tangency.models import activations
from tangency.models.builder import Value
from tangency.models.importers.onnx_ops import Const, Item
from tangency.models.importers.onnx_pairs import maxmin
from tangency.models.importers.onnx_scalar import CANDIDATES, LINEAR, SCALAR, grid
from tangency.models.ops import LayerNorm, Softmax

if TYPE_CHECKING:
    from tangency.models.importers.onnx_trace import Tracer

__all__ = ["Patterns"]

#: Nodes that the formula of one activation has at most.
DEPTH = 24


class Patterns:
    """Finds composites that end in a node.

    Parameters
    ----------
    tracer : Tracer
        Holds the graph and what its values are by now.
    """

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.place: dict[str, int] = {}
        self.producers: dict[str, Any] = {}
        for i, node in enumerate(tracer.graph.node):
            for output in node.output:
                self.producers[output] = node
                self.place[output] = i

    def match(self, node: Any) -> Item | None:
        """The value of the composite that ends in this node, or None."""
        op = node.op_type
        if op in ("Mul", "Div", "Sub", "Add", "Log", "Reciprocal", "Neg"):
            found = self._activation(node)
            if found is None and op in ("Mul", "Div"):
                found = self._layer_norm(node) or self._softmax(node)
            return found
        if op in ("Concat", "Reshape", "Transpose", "Flatten"):
            return maxmin(self, node)
        return None

    # --- looking at the graph -------------------------------------------------------------------

    def item(self, name: str) -> Item | None:
        """What a name stands for by now."""
        return self.tracer.items.get(name)

    def made_by(self, name: str, *ops: str) -> Any:
        """The node that gives this name, if it is of one of these op types."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type in ops else None

    def scalar(self, name: str) -> float | None:
        """The constant of one entry that a name stands for, or None."""
        item = self.item(name)
        if isinstance(item, Const) and item.array.size == 1 and item.array.dtype.kind in "fiu":
            return float(item.array.reshape(-1)[0])
        return None

    def attribute(self, node: Any, name: str, default: Any = None) -> Any:
        """An attribute of a node."""
        from onnx.helper import get_attribute_value

        for attribute in node.attribute:
            if attribute.name == name:
                return get_attribute_value(attribute)
        return default

    def reduced(self, node: Any) -> tuple[int, ...] | None:
        """Axes of a reduction that keeps them, or None."""
        item = self.item(node.input[0])
        if not isinstance(item, Value) or not self.attribute(node, "keepdims", 1):
            return None
        axes = self.attribute(node, "axes")
        if axes is None and len(node.input) > 1:
            given = self.item(node.input[1])
            axes = given.array.reshape(-1) if isinstance(given, Const) else None
        if axes is None or not len(axes):
            return None
        rank = len(item.shape)
        if not all(-rank <= int(a) < rank for a in axes):
            return None
        return tuple(sorted({int(a) % rank for a in axes}))

    # --- activations ----------------------------------------------------------------------------

    def _activation(self, node: Any) -> Value | None:
        """A function of one variable with scalar constants that is one of the catalogue."""
        behind = self._behind(node)
        for source in sorted(behind, key=lambda n: self.place.get(n, -1)):
            value = self.item(source)
            if not isinstance(value, Value):
                continue
            between: set[str] = set()
            if not self._only(node, source, between, [0]):
                continue
            points = grid(between)
            for name, params in CANDIDATES.get(frozenset(between - LINEAR), ()):
                record = activations.get(name, **params)
                with np.errstate(all="ignore"):
                    ours = self._evaluate(node, source, points, {})
                    theirs = np.asarray(record(points))
                f32 = self.tracer.builder.dtype == "float32"
                rtol, atol = (3e-7, 1e-7) if f32 else (1e-13, 1e-14)
                if np.shape(ours) == points.shape and np.allclose(ours, theirs, rtol, atol):
                    return self.tracer.builder.activation(value, record)
        return None

    def _behind(self, node: Any) -> set[str]:
        """Names of the variables that this node may be a function of."""
        seen: set[str] = set()
        stack = [n for n in node.input if n]
        while stack and len(seen) < DEPTH:
            name = stack.pop(0)
            if name in seen or isinstance(self.item(name), Const):
                continue
            seen.add(name)
            inner = self.producers.get(name)
            if inner is not None and inner.op_type in SCALAR:
                stack.extend(n for n in inner.input if n)
        return seen

    def _only(self, node: Any, source: str, ops: set[str], count: list[int]) -> bool:
        """Whether the node depends on the source and scalars alone; collects its op types."""
        count[0] += 1
        if node.op_type not in SCALAR or count[0] > DEPTH:
            return False
        ops.add(node.op_type)
        for name in node.input:
            if not name or name == source or self.scalar(name) is not None:
                continue
            inner = self.producers.get(name)
            if inner is None or not self._only(inner, source, ops, count):
                return False
        return True

    def _evaluate(self, node: Any, source: str, points: np.ndarray, known: dict[str, Any]) -> Any:
        def value(name: str) -> Any:
            if name == source:
                return points
            number = self.scalar(name)
            if number is not None:
                return number
            if name not in known:
                known[name] = self._evaluate(self.producers[name], source, points, known)
            return known[name]

        inputs = [value(n) if n else None for n in node.input]
        return SCALAR[node.op_type](lambda n, d: self.attribute(node, n, d), *inputs)

    # --- normalisation ----------------------------------------------------------------------------

    def _root(self, name: str) -> str | None:
        """What is under the square root that a name stands for."""
        node = self.made_by(name, "Sqrt", "Pow")
        if node is None or (node.op_type == "Pow" and self.scalar(node.input[1]) != 0.5):
            return None
        return str(node.input[0])

    def _layer_norm(self, node: Any) -> Value | None:
        """``d / sqrt(mean(d^2) + eps)``, d being x less its mean or x itself."""
        pairs = [(node.input[0], node.input[1])]
        if node.op_type == "Mul":
            pairs = []
            for a, b in ((0, 1), (1, 0)):
                inverse = self.made_by(node.input[b], "Reciprocal", "Div")
                if inverse is None:
                    continue
                if inverse.op_type == "Reciprocal":
                    pairs.append((node.input[a], inverse.input[0]))
                elif self.scalar(inverse.input[0]) == 1.0:
                    pairs.append((node.input[a], inverse.input[1]))
        for centred, root in pairs:
            inside = self._root(root)
            added = self.made_by(inside, "Add") if inside else None
            if added is None:
                continue
            for a, b in ((0, 1), (1, 0)):
                eps = self.scalar(added.input[b])
                mean = self.made_by(added.input[a], "ReduceMean")
                if eps is None or not eps >= 0 or mean is None:
                    continue
                found = self._norm_of(centred, mean, eps)
                if found is not None:
                    return found
        return None

    def _norm_of(self, centred: str, mean: Any, eps: float) -> Value | None:
        axes = self.reduced(mean)
        square = self.made_by(mean.input[0], "Pow", "Mul")
        if axes is None or square is None:
            return None
        if square.op_type == "Pow":
            if self.scalar(square.input[1]) != 2.0:
                return None
        elif square.input[0] != square.input[1]:
            return None
        if not self._same(square.input[0], centred):
            return None
        centre = self._centre(centred, axes)
        value = self.item(centre or centred)
        if not isinstance(value, Value):
            return None
        node, own = self.tracer.builder.aligned(value, *axes)
        op = LayerNorm(own, eps, centre is not None)
        return self.tracer.builder.emit(op, [node], view=value.shape)

    def _centre(self, name: str, axes: tuple[int, ...]) -> str | None:
        """x, if the name stands for x less its mean over these axes."""
        node = self.made_by(name, "Sub")
        mean = self.made_by(node.input[1], "ReduceMean") if node is not None else None
        if mean is None or mean.input[0] != node.input[0] or self.reduced(mean) != axes:
            return None
        return str(node.input[0])

    def _same(self, a: str, b: str) -> bool:
        """Whether two names stand for one value, perhaps computed twice."""
        if a == b:
            return True
        x, y = self.made_by(a, "Sub"), self.made_by(b, "Sub")
        if x is None or y is None or x.input[0] != y.input[0]:
            return False
        u, v = self.made_by(x.input[1], "ReduceMean"), self.made_by(y.input[1], "ReduceMean")
        return x.input[1] == y.input[1] or (
            None not in (u, v)
            and u.input[0] == v.input[0]
            and self.reduced(u) is not None
            and self.reduced(u) == self.reduced(v)
        )

    def _softmax(self, node: Any) -> Value | None:
        """``exp(u) / sum exp(u)``, u perhaps less its maximum."""
        total, exp = self.made_by(node.input[-1], "ReduceSum"), self.made_by(node.input[0], "Exp")
        if node.op_type != "Div" or total is None or exp is None:
            return None
        axes = self.reduced(total)
        if total.input[0] != node.input[0] or axes is None or len(axes) != 1:
            return None
        name = exp.input[0]
        less = self.made_by(name, "Sub")
        top = self.made_by(less.input[1], "ReduceMax") if less is not None else None
        if top is not None and top.input[0] == less.input[0] and self.reduced(top) == axes:
            name = less.input[0]
        value = self.item(name)
        if not isinstance(value, Value):
            return None
        index, own = self.tracer.builder.aligned(value, *axes)
        return self.tracer.builder.emit(Softmax(own[0]), [index], view=value.shape)
