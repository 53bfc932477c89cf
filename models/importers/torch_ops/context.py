"""What the readers of ATen ops see: a call with bound arguments, constants, lazy conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tangency.models import activations
from tangency.models.builder import Builder, Value
from tangency.models.errors import InputError, UnsupportedError
from tangency.models.ops import Shape

__all__ = [
    "READERS",
    "Call",
    "Const",
    "Missing",
    "Reader",
    "Truth",
    "identity",
    "is_variable",
    "reads",
]

Handler = Callable[["Call"], Any]

#: Handlers of the ATen ops by name, without namespace, overload and in-place underscore.
READERS: dict[str, Handler] = {}


def reads(*names: str) -> Callable[[Handler], Handler]:
    """Enter a handler in :data:`READERS`."""

    def enter(handler: Handler) -> Handler:
        for name in names:
            READERS[name] = handler
        return handler

    return enter


@dataclass(frozen=True, eq=False)
class Const:
    """A tensor that does not depend on the input; trainable when a parameter is in it."""

    tensor: Any
    trainable: bool = False

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return tuple(int(s) for s in self.tensor.shape)


@dataclass(frozen=True, eq=False)
class Truth:
    """A condition on variables, held back until something chooses by it.

    ``how`` is ``">"`` or ``">="`` between two operands (Value or Const), or ``"and"``, ``"or"``
    between two conditions (Truth or boolean Const).
    """

    how: str
    x: Any
    y: Any

    @property
    def shape(self) -> Shape:
        """Its shape, broadcast."""
        return tuple(int(s) for s in np.broadcast_shapes(self.x.shape, self.y.shape))


@dataclass(frozen=True)
class Missing:
    """A result that the graph has no place for, such as the indices of a maximum."""

    what: str


def is_variable(item: Any) -> bool:
    """Whether an argument, or anything in it, depends on the input."""
    if isinstance(item, list | tuple):
        return any(map(is_variable, item))
    return isinstance(item, Value | Truth | Missing)


@dataclass
class Reader:
    """The builder, and the names of the module's parameters.

    Attributes
    ----------
    builder : Builder
        Where the graph is written.
    names : dict
        Name of a parameter by :func:`identity` of its tensor.
    computed : set of str
        Names of parameters that stand for ones that a parametrisation computes.
    """

    builder: Builder
    names: dict[Any, str] = field(default_factory=dict)
    computed: frozenset[str] = frozenset()
    _stores: dict[int, str] = field(default_factory=dict)

    def enter(self, name: str, tensor: Any) -> None:
        """Remember a parameter or buffer, and its transpose if it is a matrix."""
        if tensor.numel():
            self._stores.setdefault(tensor.untyped_storage().data_ptr(), name)
            self.names.setdefault(identity(tensor), name)
        if tensor.numel() and tensor.ndim == 2:
            self.names.setdefault(identity(tensor.t()), f"{name}.T")

    def key(self, const: Const, role: str) -> str:
        """Key for a constant: the module's own name of it, or the layer's with the role."""
        key = self.names.get(identity(const.tensor)) or f"{self.builder.scope}.{role}"
        if const.trainable:
            self._note(key, const.tensor)
        return key

    def _note(self, key: str, tensor: Any) -> None:
        """Which entries of a parameter a weight holds: views show it by their memory."""
        store = tensor.untyped_storage()
        name = self._stores.get(store.data_ptr())
        if name is None or key in self.computed:
            self.builder.gains.computed(key)
            return
        whole = self.builder.gains.entries(name, (store.nbytes() // tensor.element_size(),))
        steps = [s * whole.itemsize for s in tensor.stride()]
        start = whole[tensor.storage_offset() :]
        self.builder.gains.note(
            key, np.lib.stride_tricks.as_strided(start, tuple(tensor.shape), steps, writeable=False)
        )

    def array(self, const: Const) -> np.ndarray:
        """The constant as an array that fits the network's dtype; 0-d numbers are weakly typed."""
        tensor = const.tensor.detach()
        array = np.array(tensor.cpu().resolve_conj().numpy(), order="C")
        if array.dtype.kind in "iub" or array.ndim == 0:
            array = array.astype(self.builder.dtype)
        return array


def identity(tensor: Any) -> Any:
    """What two tensors that are the same entries of the same memory have in common."""
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride())


@dataclass
class Call:
    """One call of an ATen op.

    Attributes
    ----------
    reader : Reader
        The builder and the names.
    name : str
        The op, without namespace, overload and in-place underscore.
    target : OpOverload
        The op itself.
    args : dict
        Arguments by their names in the op's schema, defaults filled in.
    shape : tuple of int or None
        Shape of the result, where it is one tensor of known shape.
    shapes : tuple
        Shapes of the results, where there are several.
    """

    reader: Reader
    name: str
    target: Any
    args: dict[str, Any]
    shape: Shape | None
    shapes: tuple[Shape, ...] = ()

    @property
    def builder(self) -> Builder:
        """Where the graph is written."""
        return self.reader.builder

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument that not every overload has."""
        found = self.args.get(name)
        return default if found is None else found

    def out(self) -> Shape:
        """Shape of the result; where tracing left it open, the op says it on an empty tensor."""
        if self.shape is not None:
            return self.shape
        import torch

        def emptied(item: Any) -> Any:
            if isinstance(item, list | tuple):
                return [emptied(i) for i in item]
            if isinstance(item, Value | Truth | Const):
                return torch.empty(item.shape, device="meta")
            return item

        return tuple(int(s) for s in self.run(emptied(list(self.args.values()))).shape)

    def run(self, arguments: list[Any]) -> Any:
        """Run the op itself in torch on other arguments, in the order of ``args``."""
        named = {a.name for a in self.target._schema.arguments if a.kwarg_only}
        given = dict(zip(self.args, arguments, strict=True))
        plain = [x for name, x in given.items() if name not in named]
        return self.target(*plain, **{name: x for name, x in given.items() if name in named})

    def refuse(self, why: str) -> UnsupportedError:
        """The error for a form of the op that has no place in the graph."""
        return UnsupportedError(f"layer {self.builder.scope!r}: {self.target}: {why}")

    def require(self, condition: Any, why: str) -> None:
        """Refuse unless the condition holds."""
        if not condition:
            raise self.refuse(why)

    def value(self, item: Any = "self") -> Value:
        """An argument (or its name) as a variable; constants become nodes."""
        if isinstance(item, str):
            item = self.args[item]
        if isinstance(item, Value):
            return item
        if isinstance(item, Truth):
            from tangency.models.importers.torch_ops.choices import as_number

            return as_number(self, item)
        const = self.const(item)
        return self.builder.constant(
            self.reader.array(const),
            key=self.reader.key(const, "constant"),
            trainable=const.trainable,
        )

    def const(self, item: Any) -> Const:
        """A number or constant as a Const; refuses variables."""
        if isinstance(item, Const):
            return item
        if isinstance(item, bool | int | float):
            import torch

            return Const(torch.tensor(float(item), dtype=torch.float64))
        raise self.refuse("takes a constant where the model gives it something computed")

    def array(self, item: Any) -> np.ndarray:
        """A constant as an array."""
        return self.reader.array(self.const(item))

    def param(self, item: Any, role: str) -> tuple[str, np.ndarray]:
        """Key and array of a constant argument in a role."""
        const = self.const(item)
        return self.reader.key(const, role), self.reader.array(const)

    def fixed(self, **items: Any) -> list[str]:
        """Which of these roles hold constants that training does not change."""
        return [
            role for role, item in items.items() if item is not None and not _trained(self, item)
        ]

    def apply(self, name: str, value: Value, /, **params: Any) -> Value:
        """An activation of the catalogue on a variable."""
        try:
            record = activations.get(name, **params)
        except InputError as error:  # a parameter that the record does not accept
            raise self.refuse(str(error)) from None
        return self.builder.activation(value, record)

    def axis(self, name: str = "dim", *, of: str = "self") -> int:
        """An axis argument, from 0."""
        return int(self.args[name]) % max(len(self.args[of].shape), 1)

    def axes(self, dims: Iterable[int] | int | None, rank: int) -> tuple[int, ...]:
        """Axes from 0, in order; none or an empty list means all."""
        if dims is None:
            return tuple(range(rank))
        listed = [dims] if isinstance(dims, int) else list(dims)
        return tuple(sorted(d % max(rank, 1) for d in listed)) if listed else tuple(range(rank))


def _trained(call: Call, item: Any) -> bool:
    return call.const(item).trainable
