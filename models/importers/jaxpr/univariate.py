"""Which activation of the catalogue a few element-wise equations are: tried, then compared.

Names are only hints. A candidate is taken when it agrees with the equations in float64 at several
hundred points: a grid, random points, tiny ones, and points about every constant in them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import product

import numpy as np

from tangency.models import activations
from tangency.models.activations import Activation
from tangency.models.errors import InputError
from tangency.models.importers.jaxpr.evaluate import evaluate
from tangency.models.importers.jaxpr.regions import Region
from tangency.models.importers.jaxpr.terms import Var, scalar_of
from tangency.models.namespace import numpy_namespace

__all__ = ["Catalogue"]

#: Functions of jax.nn and the records that they are, where the names differ.
_RECORDS = {
    "hard_sigmoid": "hardsigmoid",
    "hard_silu": "hardswish",
    "hard_swish": "hardswish",
    "hard_tanh": "hardtanh",
    "log_sigmoid": "logsigmoid",
    "soft_sign": "softsign",
    "swish": "silu",
}
#: Records with parameters, in the order in which they are tried; the common ones without first.
_FREE = (
    "relu",
    "relu6",
    "silu",
    "gelu",
    "gelu_tanh",
    "mish",
    "hardswish",
    "selu",
    "logsigmoid",
    "quick_gelu",
)
_TUNED = {
    "softplus": ("beta",),
    "leaky_relu": ("negative_slope",),
    "elu": ("alpha",),
    "celu": ("alpha",),
    "hardsigmoid": ("alpha", "beta"),
    "hardtanh": ("min_val", "max_val"),
    "threshold": ("threshold", "value"),
    "softshrink": ("lambd",),
    "hardshrink": ("lambd",),
    "swish": ("beta",),
    "snake": ("a",),
    "smelu": ("beta",),
}
#: Left out: the identity and a record whose value is that of another.
_SKIPPED = {"identity", "helu", "clip", "prelu", "power", "sine", "round"}


class Catalogue:
    """Finds the record of a region, and remembers it for regions that look the same.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Type of the network: it says how exact the constants of the model are.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self._known: dict[object, Activation | None] = {}

    def find(self, region: Region, hints: list[str]) -> Activation | None:
        """The record that an element-wise region computes, or None."""
        numbers = [scalar_of(c) for c in region.constants]
        plain = all(c.key is None for c in region.constants)  # a parameter is no mere number
        if not region.elementwise or region.affine or not plain or None in numbers:
            return None
        look = _signature(region, hints)
        if look not in self._known:
            self._known[look] = self._search(region, hints, [n for n in numbers if n is not None])
        return self._known[look]

    def _search(self, region: Region, hints: list[str], numbers: list[float]) -> Activation | None:
        points = _points(tuple(numbers))
        y = evaluate(region.eqns, {region.entry: points}, region.result)
        if y.shape != points.shape or y.dtype == bool:
            return None
        for record in _candidates(hints, numbers):
            if _agree(y, _values(record, points), points, self.dtype):
                return record
        return None


def _signature(region: Region, hints: list[str]) -> object:
    place: dict[Var, int] = {region.entry: 0}
    parts = []
    for eqn in region.eqns:
        args = tuple(place[r] if isinstance(r, Var) else str(scalar_of(r)) for r in eqn.inputs)
        shown = tuple((k, str(v)) for k, v in eqn.params.items() if k in _MATTER)
        parts.append((eqn.prim, shown, args))
        place[eqn.out] = len(place)
    return (*parts, *hints)


_MATTER = {"y", "rounding_method", "new_dtype"}


def _points(numbers: tuple[float, ...]) -> np.ndarray:
    rng = np.random.default_rng(20)
    spread = [np.linspace(-20, 20, 81), 3 * rng.standard_normal(120), rng.uniform(-1, 1, 40)]
    tiny = np.array([1e-12, 1e-6, 1e-3])
    about = [
        s * (c + d * max(1.0, abs(c)))
        for c in numbers
        if abs(c) < 1e6
        for d in (-0.1, -1e-3, 0.0, 1e-3, 0.1)
        for s in (-1.0, 1.0)
    ]
    return np.concatenate([*spread, tiny, -tiny, about])


def _candidates(hints: list[str], numbers: list[float]) -> Iterator[Activation]:
    values = _parameters(numbers)
    order = [_RECORDS.get(h, h) for h in reversed(hints)]
    order += ["gelu_tanh"] if "gelu" in order else []
    order += [*_FREE, *_TUNED, *activations.names()]
    for name in dict.fromkeys(order):
        if name in _TUNED:
            roles = _TUNED[name]
            yield activations.get(name)
            for given in product(values, repeat=len(roles)):
                record = _tuned(name, tuple(zip(roles, given, strict=True)))
                if record is not None:
                    yield record
        elif name in activations.names() and name not in _SKIPPED:
            record = activations.get(name)
            if not record.params:
                yield record


def _parameters(numbers: list[float]) -> list[float]:
    """What a parameter of the record may be: 1, or what the equations have, perhaps inverted."""
    found = [1.0]
    for c in numbers:
        found += [c, -c, *([1.0 / c] if c else [])]
    found += [a / b for a, b in product(numbers, repeat=2) if b]
    finite = [c for c in dict.fromkeys(found) if np.isfinite(c) and abs(c) < 1e6]
    return finite[:20]


@functools.lru_cache(maxsize=4096)
def _tuned(name: str, params: tuple[tuple[str, float], ...]) -> Activation | None:
    given = dict(params)
    if given.get("alpha") == 0 or given.get("lambd") == 0:
        return None  # the ReLU, the identity
    if name == "threshold" and given["threshold"] == given["value"]:
        return None  # a clip
    if name == "leaky_relu" and given["negative_slope"] in (0.0, 1.0):
        return None  # the ReLU, the identity
    try:
        return activations.get(name, **given)
    except InputError:  # values that the record does not accept
        return None


def _values(record: Activation, points: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        y = record.value(numpy_namespace, points)
    return np.broadcast_to(np.asarray(y, np.float64), points.shape)


def _agree(y: np.ndarray, z: np.ndarray, points: np.ndarray, dtype: str) -> bool:
    """Whether the equations (y) and a record (z) are one function, but for rounded constants.

    A constant that is off by one part in 10^8, as float32 constants are, is felt up to x^2 times
    as much in a Gaussian tail. Where the record is exactly zero, so are the equations.
    """
    fine = np.isfinite(y) & np.isfinite(z)
    with np.errstate(invalid="ignore"):
        if not (fine | (np.isnan(y) & np.isnan(z)) | (y == z)).all() or not fine.any():
            return False
    y, z, x = y[fine], z[fine], points[fine]
    if np.abs(y[z == 0]).max(initial=0.0) > 1e-15:
        return False
    unit, noise = (2e-7, 1e-12) if dtype == "float32" else (1e-14, 1e-14)
    return bool((np.abs(y - z) <= unit * (2 + x * x) * np.abs(z) + noise * (1 + np.abs(x))).all())
