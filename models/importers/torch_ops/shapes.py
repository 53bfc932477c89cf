"""Ops that only show the same entries under another shape, in another order, or repeated."""

from __future__ import annotations

from typing import Any

from tangency.models.builder import Value
from tangency.models.importers.torch_ops.context import Call, Missing, reads

__all__ = ["spread"]


@reads(
    *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous", "clone"),
    *("detach", "alias", "lift_fresh", "lift_fresh_copy", "_unsafe_view", "view_as", "reshape_as"),
    *("ravel", "atleast_1d", "atleast_2d", "atleast_3d", "positive", "conj", "resolve_conj"),
    *("_reshape_alias", "view_copy", "squeeze_copy", "unsqueeze_copy", "alias_copy"),
)
def same_entries(call: Call) -> Value:
    return call.builder.reshape(call.value(), call.out())


@reads("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
def dropout(call: Call) -> Any:
    train = call.get("train", False) and call["p"] > 0
    call.require(not train, "dropout is in training mode, where it is random; call module.eval()")
    value = call.value("input")
    return (value, Missing("the mask of dropout")) if call.name == "native_dropout" else value


@reads("to", "_to_copy", "type_as", "float", "double")
def cast(call: Call) -> Value:
    # A cast to another dtype is refused where the dtype of every result is looked at.
    return call.value()


@reads("expand", "expand_as", "broadcast_to")
def expand(call: Call) -> Value:
    return call.builder.broadcast(call.value(), call.out())


@reads("repeat", "tile")
def repeat(call: Call) -> Value:
    times = [int(r) for r in call.get("repeats", call.get("dims"))]
    value = call.value()
    rank = max(len(times), len(value.shape))
    shape = (1,) * (rank - len(value.shape)) + value.shape
    times = [1] * (rank - len(times)) + times
    call.require(min(times) > 0, "no copies leave nothing")
    # Copies of axis i stand before it: (r_0, s_0, r_1, s_1, ...).
    before = [size for s in shape for size in (1, s)]
    after = [size for s, r in zip(shape, times, strict=True) for size in (r, s)]
    return spread(call, value, before, after, [s * r for s, r in zip(shape, times, strict=True)])


@reads("repeat_interleave")
def repeat_interleave(call: Call) -> Value:
    call.require(isinstance(call.get("repeats"), int), "counts for each entry are not read")
    value, n = call.value(), int(call["repeats"])
    if call.get("dim") is None:
        value = call.builder.reshape(value, (_size(value),))
    axis = (call.get("dim") or 0) % len(value.shape)
    lead, size, rest = value.shape[:axis], value.shape[axis], value.shape[axis + 1 :]
    before, after = (*lead, size, 1, *rest), (*lead, size, n, *rest)
    return spread(call, value, before, after, (*lead, size * n, *rest))


def spread(call: Call, value: Value, before: Any, after: Any, shape: Any) -> Value:
    """Seen as ``before``, broadcast to ``after``, seen as ``shape``; axes of one are left out."""
    keep = [i for i, (b, a) in enumerate(zip(before, after, strict=True)) if (b, a) != (1, 1)]
    wide = call.builder.reshape(value, (1, *(before[i] for i in keep)))
    wide = call.builder.broadcast(wide, (1, *(after[i] for i in keep)))
    return call.builder.reshape(wide, shape)


def _size(value: Value) -> int:
    size = 1
    for s in value.shape:
        size *= s
    return size


@reads("permute", "permute_copy")
def permute(call: Call) -> Value:
    return call.builder.transpose(call.value(), call["dims"])


@reads("transpose", "swapaxes", "swapdims", "t", "mT", "numpy_T", "adjoint", "t_copy")
def transpose(call: Call) -> Value:
    value = call.value()
    perm = list(range(len(value.shape)))
    if call.name == "numpy_T" or (call.name in ("t", "t_copy") and len(perm) == 2):
        perm = perm[::-1]
    elif call.name in ("mT", "adjoint"):
        perm[-2], perm[-1] = perm[-1], perm[-2]
    elif call.name not in ("t", "t_copy") and perm:
        a = call.get("dim0", call.get("axis0", 0)) % len(perm)
        b = call.get("dim1", call.get("axis1", 0)) % len(perm)
        perm[a], perm[b] = perm[b], perm[a]
    return call.builder.transpose(value, perm)


@reads("movedim", "moveaxis")
def movedim(call: Call) -> Value:
    value = call.value()
    rank = len(value.shape)
    source, target = call.args["source"], call.args["destination"]
    moved = [s % rank for s in ([source] if isinstance(source, int) else source)]
    places = [t % rank for t in ([target] if isinstance(target, int) else target)]
    rest = iter(i for i in range(rank) if i not in moved)
    at = dict(zip(places, moved, strict=True))
    return call.builder.transpose(value, [at[i] if i in at else next(rest) for i in range(rank)])


@reads("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(call: Call) -> Value:
    value, b = call.value(), call.builder
    r = int(call.get("upscale_factor", call.get("downscale_factor")))
    lead, (c, h, w) = value.shape[:-3], value.shape[-3:]
    n = len(lead)
    if call.name == "pixel_shuffle":
        wide = b.reshape(value, (*lead, c // r**2, r, r, h, w))
        order = (n, n + 3, n + 1, n + 4, n + 2)
    else:
        wide = b.reshape(value, (*lead, c, h // r, r, w // r, r))
        order = (n, n + 2, n + 4, n + 1, n + 3)
    return b.reshape(b.transpose(wide, (*range(n), *order)), call.out())


@reads("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> Value:
    value, b, g = call.value(), call.builder, int(call["groups"])
    n, c, *space = value.shape
    wide = b.transpose(
        b.reshape(value, (n, g, c // g, *space)), (0, 2, 1, *range(3, 3 + len(space)))
    )
    return b.reshape(wide, value.shape)
