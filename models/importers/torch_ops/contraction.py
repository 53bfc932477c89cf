"""``einsum``: axes moved and merged so that a product of matrices, or of entries, remains."""

from __future__ import annotations

from math import prod
from typing import Any

from tangency.models.builder import Value
from tangency.models.importers.torch_ops.context import Call, Const, reads
from tangency.models.importers.torch_ops.linear import product
from tangency.models.importers.torch_ops.operands import multiply
from tangency.models.importers.torch_ops.reductions import total

__all__: list[str] = []

Operand = Value | Const


@reads("einsum")
def einsum(call: Call) -> Any:
    operands = [x if isinstance(x, Const) else call.value(x) for x in call["tensors"]]
    labels, out = _labels(call, str(call["equation"]), [len(x.shape) for x in operands])
    for axes in labels:
        call.require(len(set(axes)) == len(axes), "a label twice in one operand is not read")
    value, axes = operands[0], labels[0]
    for i, (other, names) in enumerate(zip(operands[1:], labels[1:], strict=True)):
        later = set(out).union(*labels[i + 2 :])
        value, axes = _contract(call, value, axes, other, names, later)
    value, axes = _summed(call, value, axes, set(out))
    call.require(set(axes) == set(out), "an output label that no operand has")
    return _ordered(call, value, axes, out)


def _labels(call: Call, equation: str, ranks: list[int]) -> tuple[list[str], str]:
    text = equation.replace(" ", "")
    left, _, right = text.partition("->")
    terms = left.split(",")
    named = [len(t.replace("...", "")) for t in terms]
    widest = max(
        (r - n for t, r, n in zip(terms, ranks, named, strict=True) if "..." in t), default=0
    )
    dots = "0123456789"[:widest]

    def spelt(term: str, rank: int | None = None) -> str:
        wide = widest if rank is None else rank - len(term.replace("...", ""))
        return term.replace("...", dots[widest - wide :])

    labels = [spelt(t, r) for t, r in zip(terms, ranks, strict=True)]
    if "->" not in text:
        once = "".join(labels)
        right = dots + "".join(sorted(c for c in set(once) - set(dots) if once.count(c) == 1))
        return labels, right
    return labels, spelt(right)


def _ordered(call: Call, x: Operand, axes: str, wanted: str) -> Any:
    perm = [axes.index(c) for c in wanted]
    if perm == sorted(perm):
        return x
    if isinstance(x, Const):
        return Const(x.tensor.permute(perm), x.trainable)
    return call.builder.transpose(x, perm)


def _summed(call: Call, x: Operand, axes: str, kept: set[str]) -> tuple[Any, str]:
    gone = [i for i, c in enumerate(axes) if c not in kept]
    left = "".join(c for c in axes if c in kept)
    if not gone:
        return x, axes
    if isinstance(x, Const):
        return Const(x.tensor.sum(gone), x.trainable), left
    shape = tuple(s for i, s in enumerate(x.shape) if i not in gone)
    return total(call, x, gone, shape), left


def _shaped(call: Call, x: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(x, Const):
        return Const(x.tensor.reshape(shape), x.trainable)
    return call.builder.reshape(x, shape)


def _contract(
    call: Call, x: Operand, xs: str, y: Operand, ys: str, later: set[str]
) -> tuple[Any, str]:
    """Two operands made one, with the labels that are still wanted later."""
    x, xs = _summed(call, x, xs, later | set(ys))
    y, ys = _summed(call, y, ys, later | set(xs))
    if isinstance(x, Const) and isinstance(y, Value):
        x, xs, y, ys = y, ys, x, xs
    size = dict(zip(ys, y.shape, strict=True)) | dict(zip(xs, x.shape, strict=True))
    same = all(x.shape[xs.index(c)] == y.shape[ys.index(c)] for c in set(xs) & set(ys))
    call.require(same, "an axis of size one broadcast against a longer one is not read")
    both = [c for c in xs if c in ys and c in later]
    inner = [c for c in xs if c in ys and c not in later]
    left, right = [c for c in xs if c not in ys], [c for c in ys if c not in xs]
    sizes = [tuple(size[c] for c in part) for part in (both, left, inner, right)]
    lead, m, k, n = (prod(s) for s in sizes)
    x = _ordered(call, x, xs, "".join(both + left + inner))
    y = _ordered(call, y, ys, "".join(both + inner + right))
    if not inner:
        x = _shaped(call, x, (*sizes[0], *sizes[1], *(1,) * len(right)))
        y = _shaped(call, y, (*sizes[0], *(1,) * len(left), *sizes[3]))
        return multiply(call, x, y), "".join(both + left + right)
    if both:
        x, y = _shaped(call, x, (lead, m, k)), _shaped(call, y, (lead, k, n))
    else:
        x, y = _shaped(call, x, (*sizes[1], k)), _shaped(call, y, (k, n))
    out = product(call, x, y)
    return _shaped(call, out, (*sizes[0], *sizes[1], *sizes[3])), "".join(both + left + right)
