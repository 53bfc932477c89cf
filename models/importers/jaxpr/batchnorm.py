"""Batch norm in inference: behind the folded constants, its four parameters are found again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tangency.models.importers.jaxpr.terms import Const, Eqn, Ref, Var, scalar_of

__all__ = ["find_batch_norm"]

_LAYOUT = {"reshape", "broadcast_in_dim", "squeeze", "expand_dims", "copy", "convert_element_type"}
Maker = Callable[[Ref], Eqn | None]


def find_batch_norm(end: Eqn, maker: Maker) -> Eqn | None:
    """``(x - mean) * (rsqrt(var + eps) * scale) + bias`` as one equation ``@batch_norm``.

    ``maker`` gives the equation that makes a variable. Scale and bias may be missing.
    """
    roles: dict[str, Const] = {}
    last, bias = _constant_operand(end, "add")
    eqn: Eqn | None = end
    if bias is not None and last is not None:
        roles["bias"], eqn = _source(bias), maker(last)
    if eqn is None:
        return None
    scaled, gain = _constant_operand(eqn, "mul")
    found = _gain(gain) if gain is not None else None
    centred = maker(scaled) if scaled is not None else None
    if found is None or centred is None or centred.prim != "sub":
        return None
    x, mean = centred.inputs
    if not isinstance(x, Var) or not isinstance(mean, Const):
        return None
    var, eps, scale = found
    roles.update({"mean": _source(mean), "var": var, **({"weight": scale} if scale else {})})
    axis = _channel(x, mean)
    if axis is None or any(c.array.shape != (x.shape[axis],) for c in roles.values()):
        return None
    for folded in (gain, bias):
        if folded is not None and _channel(x, folded) != axis:
            return None
    params = {"axis": axis, "eps": eps, "roles": tuple(roles)}
    return Eqn("@batch_norm", params, (x, *roles.values()), end.outs)


def _constant_operand(eqn: Eqn, prim: str) -> tuple[Var | None, Const | None]:
    if eqn.prim == prim:
        for a, b in (eqn.inputs, eqn.inputs[::-1]):
            if isinstance(a, Var) and isinstance(b, Const):
                return a, b
    return None, None


def _source(c: Const) -> Const:
    """The tensor behind changes of shape alone."""
    while c.origin and c.origin[0] in _LAYOUT and c.origin[2][0].dtype == c.dtype:
        c = c.origin[2][0]
    return c


def _parts(c: Const, prim: str) -> tuple[Const, ...]:
    c = _source(c)
    return c.origin[2] if c.origin and c.origin[0] == prim else ()


def _gain(c: Const) -> tuple[Const, float, Const | None] | None:
    """(var, eps, scale) of ``rsqrt(var + eps) * scale``."""
    for root, scale in ((c, None), *zip(_parts(c, "mul"), _parts(c, "mul")[::-1], strict=True)):
        inside = _parts(root, "rsqrt")
        terms = _parts(inside[0], "add") if inside else ()
        for var, small in (terms, terms[::-1]) if terms else ():
            eps = scalar_of(small)
            if eps is not None and small.key is None and var.key is not None:
                return _source(var), eps, None if scale is None else _source(scale)
    return None


def _channel(x: Var, c: Const) -> int | None:
    """The only axis of x along which a constant varies."""
    if c.array.ndim != len(x.shape):
        return None
    long = [i for i, s in enumerate(c.array.shape) if s != 1]
    return long[0] if len(long) == 1 and np.ndim(c.array) else None
