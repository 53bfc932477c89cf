"""The recogniser on the graph that an importer has written, whatever the framework.

From each node backwards, the nodes between it and one node on which alone it depends are a
*region*. Its expression in the entry is put into normal form and compared with the templates; the
largest region that is one is written as one op. What is none stays as the model has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

from tangency.models.activations import Activation
from tangency.models.builder import Builder, Value
from tangency.models.importers._recognise.piecewise import Namespace, Piecewise, Term
from tangency.models.importers._recognise.reductions import reduce_max, reduce_sum
from tangency.models.importers._recognise.templates import (
    exact,
    group_of,
    norm,
    prelu_slope,
    record_of,
)
from tangency.models.importers._recognise.terms import (
    NoFormError,
    constant,
    entry,
    exp,
    inverse,
    log,
    parameter,
)
from tangency.models.importers._recognise.writing import Match, rewritten
from tangency.models.ops import (
    Activate,
    Add,
    Broadcast,
    Constant,
    Extremum,
    Input,
    LayerNorm,
    LogSumExp,
    Product,
    Quotient,
    Reduce,
    ReduceExtremum,
    Reshape,
    Scale,
    Select,
    Shape,
    Softmax,
    Subtract,
    Transpose,
)
from tangency.models.structure import Node, Param

__all__ = ["recognise"]

#: The longest composite of the frameworks takes about twenty nodes.
_LONGEST = 48
_JOINS = (Add, Subtract, Product, Quotient, Extremum, Select, Scale, Activate)
_GROUPS = (Reshape, Broadcast, Transpose, Reduce, ReduceExtremum, LogSumExp, Softmax, LayerNorm)
Frame = tuple[int | None, ...]
"""For each axis of a node, the axis of the entry that it is; None for an axis of size one."""
Form = tuple[Piecewise, Frame]


@dataclass(frozen=True)
class Weight:
    """A tensor of parameters under a shape, in which its entries keep their order."""

    key: str
    shape: Shape


def recognise(
    builder: Builder, ends: Sequence[Value], *, scalars: bool = False, named: bool = True
) -> list[Value]:
    """Write recognised regions as single ops; the values of the outputs.

    Parameters
    ----------
    builder : Builder
        Holds the graph; nodes that no output needs are taken out.
    ends : sequence of Value
        The outputs.
    scalars : bool
        Whether a trainable weight of one entry is a mere number (ONNX calls all constants weights).
    named : bool
        Whether nodes bear the names of the model's layers; if not, ops are named by what they are.
    """
    forms = _Forms(builder, scalars)
    needed = {v.node for v in ends} | set(builder.inputs)
    found: dict[int, Match] = {}
    for i in range(len(builder.nodes) - 1, -1, -1):
        if i not in needed:
            continue
        match = forms.match(i)
        if match is None:
            needed.update(builder.nodes[i].inputs)
        else:
            found[i] = match
            needed.add(match[0])
    if not found:
        return list(ends)
    return rewritten(builder, ends, sorted(needed), found, named=named)


class _Forms:
    """Normal forms of nodes in terms of the nodes before them."""

    def __init__(self, builder: Builder, scalars: bool) -> None:
        self.builder = builder
        self.scalars = scalars
        self._known: dict[tuple[int, int], Form | None] = {}
        # What is computed twice (a tensor under another shape, say) is one node here.
        first: dict[object, int] = {}
        self._same: list[int] = []
        for i, node in enumerate(builder.nodes):
            inputs = tuple(self._same[j] for j in node.inputs)
            own = i if isinstance(node.op, Input) else -1
            key = (node.op, inputs, tuple((p.role, p.key) for p in node.params), own)
            self._same.append(first.setdefault(key, i))

    # --- regions ------------------------------------------------------------------------------

    def match(self, end: int) -> Match | None:
        """The largest region that ends here and is a template: its entry, and what it is."""
        node = self.builder.nodes[end]
        if not isinstance(node.op, _JOINS):
            return None
        # An op of the framework that is a record by itself is that record, but for a mere clip.
        own = isinstance(node.op, Activate) and node.op.activation.name != "clip"
        for start, size in reversed(list(self._entries(end))):
            if own and size == 1:
                continue
            found = self._template(start, end)
            if found is not None:
                return start, found
        return None

    def _entries(self, end: int) -> Iterator[tuple[int, int]]:
        """The nodes on which alone a node depends, nearest first, and how many lie between."""
        nodes = self.builder.nodes
        frontier = self._variables(end)
        for size in range(1, _LONGEST):
            if len(frontier) == 1:
                yield next(iter(frontier)), size
            # The latest goes first: none that depends on it can come up again.
            latest = max(frontier, default=-1)
            if latest < 0 or not isinstance(nodes[latest].op, (*_JOINS, *_GROUPS)):
                return
            frontier = (frontier - {latest}) | self._variables(latest)

    def _variables(self, i: int) -> set[int]:
        nodes = self.builder.nodes
        inputs = {self._same[j] for j in nodes[i].inputs}
        return {j for j in inputs if self._fixed(j) is None}

    def _fixed(self, j: int) -> Param | None:
        """The tensor that a node is, whatever its input: a constant, perhaps in another shape."""
        node = self.builder.nodes[j]
        while isinstance(node.op, Reshape | Broadcast):
            node = self.builder.nodes[node.inputs[0]]
        return node.params[0] if isinstance(node.op, Constant) else None

    def _template(self, start: int, end: int) -> Any:
        form = self.form(start, end)
        if form is None:
            return None
        shapes = [self.builder.nodes[i].shape for i in (start, end)]
        whole = prod(shapes[0]) == prod(shapes[1])
        axes = _long(shapes[0])
        order = [a for a in form[1] if a is not None]
        if order != sorted(order):
            return None  # a transpose is part of it
        try:
            if whole and not any(a.kind in ("sum", "max", "param") for a in _atoms(form[0])):
                return record_of(form[0], self.builder.dtype)
            slope = prelu_slope(form[0]) if whole else None
            if slope is not None and len(slope[1]) <= 1:
                return slope
            group = group_of(form[0], axes)
        except NoFormError:
            return None
        return group if group is None or whole == (group.kind != "log_sum_exp") else None

    # --- forms ----------------------------------------------------------------------------------

    def form(self, start: int, i: int) -> Form | None:
        """Node i as a function of an entry of node ``start``, or None."""
        i = self._same[i]
        key = (start, i)
        if key not in self._known:
            try:
                self._known[key] = self._form(start, i)
            except NoFormError:
                self._known[key] = None
        return self._known[key]

    def _need(self, start: int, i: int) -> Form:
        form = self.form(start, i)
        if form is None:
            raise NoFormError("an input without a form")
        return form

    def _form(self, start: int, i: int) -> Form:
        node = self.builder.nodes[i]
        if i == start:
            axes = _long(node.shape)
            frame = tuple(a if a in axes else None for a in range(len(node.shape)))
            return Piecewise((entry(axes),)), frame
        op = node.op
        if isinstance(op, _GROUPS):
            return self._group(start, node)
        if not isinstance(op, _JOINS):
            raise NoFormError(op.kind)
        operands = [self._operand(start, j) for j in node.inputs]
        operands += [self._weight(p, p.shape) for p in node.params]
        values, frame = self._aligned(operands, start, node.shape)
        nx = Namespace(constants=False)
        terms = [Term(v, exact) for v in values]
        return _JOINED[type(op)](nx, op, *terms).value, frame

    def _operand(self, start: int, j: int) -> Form | Weight:
        fixed = self._fixed(j)
        return self._need(start, j) if fixed is None else self._weight(fixed, self._shape(j))

    def _shape(self, j: int) -> Shape:
        return self.builder.nodes[j].shape

    def _weight(self, param: Param, shape: Shape) -> Form | Weight:
        """A number, or a tensor of parameters under a shape."""
        array = self.builder.weights[param.key]
        if array.size == 1 and (self.scalars or not param.trainable):
            number = constant(exact(array.reshape(-1)[0]))
            return Piecewise((number,)), (None,) * len(shape)
        if prod(shape) != array.size or " " in param.key:
            raise NoFormError("a tensor that is repeated")
        return Weight(param.key, shape)

    def _aligned(
        self, operands: Sequence[Form | Weight], start: int, shape: Shape
    ) -> tuple[list[Piecewise], Frame]:
        """Operands that broadcast as NumPy's do, and which axis of the entry each axis is."""
        rank = len(shape)
        frame: list[int | None] = [None] * rank
        for own in (o[1] for o in operands if not isinstance(o, Weight)):
            for d, axis in enumerate(own, rank - len(own)):
                if axis is not None and frame[d] not in (None, axis):
                    raise NoFormError("axes crossed")
                frame[d] = axis if axis is not None else frame[d]
        axes = [a for a in frame if a is not None]
        if len(set(axes)) < len(axes):
            raise NoFormError("axes crossed")
        if any(s != 1 and a is None for s, a in zip(shape, frame, strict=True)):
            frame = list(self._whole(start, shape, tuple(frame)))
        values = []
        for o in operands:
            if not isinstance(o, Weight):
                values.append(o[0])
                continue
            sizes = enumerate(o.shape, rank - len(o.shape))
            along = [frame[d] for d, s in sizes if s != 1]
            axes = [a for a in along if a is not None]
            if len(axes) < len(along) or axes != sorted(axes):
                raise NoFormError("a parameter that does not lie along the axes of the entry")
            values.append(Piecewise((parameter(o.key, axes),)))
        return values, tuple(frame)

    def _whole(self, start: int, shape: Shape, frame: Frame) -> Frame:
        """The frame of what is repeated along axes that no entry has named yet.

        What is repeated does not vary along such an axis, and a parameter varies along it alone:
        it may be called by any axis of the entry of that size. The others must agree later.
        """
        own = {a: s for a, s in enumerate(self.builder.nodes[start].shape) if s != 1}
        known = [None] * (len(shape) - len(frame)) + list(frame)
        if [s for s in shape if s != 1] == list(own.values()):
            axes = iter(own)
            wide = tuple(next(axes) if s != 1 else None for s in shape)
            if all(k in (None, a) for k, a in zip(known, wide, strict=True)):
                return wide
        free = [a for a in own if a not in known]
        for d, s in enumerate(shape):
            if s != 1 and known[d] is None:
                axis = next((a for a in free if own[a] == s), None)
                if axis is None:
                    raise NoFormError("entries repeated along a new axis")
                known[d] = axis
                free.remove(axis)
        return tuple(known)

    def _group(self, start: int, node: Node) -> Form:
        nodes, op = self.builder.nodes, node.op
        (i,) = node.inputs
        value, frame = self._need(start, i)
        shape, own = nodes[i].shape, nodes[start].shape
        if isinstance(op, Reshape):
            long = [(a, s) for a, s in zip(frame, shape, strict=True) if s != 1]
            if [s for _, s in long] != [s for s in node.shape if s != 1]:
                raise NoFormError("entries that move")
            kept = iter(a for a, _ in long)
            return value, tuple(next(kept) if s != 1 else None for s in node.shape)
        if isinstance(op, Transpose):
            return value, tuple(frame[p] for p in op.permutation)
        if isinstance(op, Broadcast):
            return value, self._whole(start, node.shape, frame)
        along = op.axes if not isinstance(op, Softmax) else (op.axis,)  # type: ignore[attr-defined]
        dims = {a % len(shape) for a in along}
        over = frozenset(a for d in dims if (a := frame[d]) is not None)
        count = prod(own[a] for a in over)
        if prod(shape[d] for d in dims) != count:
            raise NoFormError("a sum of equal entries")
        kept_frame = tuple(a for d, a in enumerate(frame) if d not in dims)
        p = value.single
        if isinstance(op, LayerNorm):
            if node.params:
                raise NoFormError("a norm with weights")
            return Piecewise((norm(p, over, count, exact(op.eps), center=op.center),)), frame
        if isinstance(op, Reduce):
            out = reduce_sum(p, over, count)
            out = out.times(Fraction(1, count)) if op.how == "mean" else out
        elif isinstance(op, ReduceExtremum):
            sign = 1 if op.how == "max" else -1
            out = reduce_max(p.times(sign), over, count).times(sign)
        else:
            out = reduce_sum(exp(p), over, count)
            if isinstance(op, Softmax):
                return Piecewise((exp(p) * inverse(out),)), frame
            out = log(out)
        return Piecewise((out,)), kept_frame


def _long(shape: Sequence[int]) -> frozenset[int]:
    return frozenset(i for i, s in enumerate(shape) if s != 1)


def _atoms(form: Piecewise) -> Iterator[Any]:
    return (a for p in (*form.pieces, *form.points) for a in p.atoms())


_JOINED: dict[type, Any] = {
    Activate: lambda nx, op, x: _applied(op.activation, nx, x),
    Add: lambda nx, op, x, y: x + y,
    Subtract: lambda nx, op, x, y: x - y,
    Product: lambda nx, op, x, y: x * y,
    Quotient: lambda nx, op, x, y: x / y,
    Extremum: lambda nx, op, x, y: nx.maximum(x, y) if op.how == "max" else nx.minimum(x, y),
    Select: lambda nx, op, x, y, a, b: nx.where(x > y if op.strict else x >= y, a, b),
    Scale: lambda nx, op, x, c: x / c if op.inverse else x * c,
}


def _applied(record: Activation, nx: Namespace, x: Term) -> Term:
    try:
        y = record.value(nx, x)
    except NoFormError:
        raise
    except Exception as error:  # whatever a user's formula does
        raise NoFormError(str(error)) from None
    if not isinstance(y, Term):
        raise NoFormError("a constant")
    return y
