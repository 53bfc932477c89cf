"""What is recognised: the records of the catalogue, softmax and its kin, norms, PReLU.

A template is the record's own formula in normal form; frameworks that write another formula of
the same function mostly come to the same form by themselves (:mod:`.terms`), and where a constant
is rounded otherwise the template is written once more. A parameter is read off the expression and
then *checked*: a record is accepted when its form, with these parameters, is the expression's.

Irrational constants (and decimals such as 0.044715) are floats in a model. A template has them as
the roundings of the exact ones in the network's dtype, bit for bit; the record that is imported
computes with the exact ones. All other numbers of a model are kept exactly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np

from tangency.models import activations
from tangency.models.activations import Activation
from tangency.models.activations.registry import is_of_catalogue
from tangency.models.errors import InputError
from tangency.models.importers._recognise.piecewise import Namespace, Piecewise, Term
from tangency.models.importers._recognise.reductions import reduce_sum
from tangency.models.importers._recognise.terms import (
    ZERO,
    Atom,
    Axes,
    NoFormError,
    Poly,
    constant,
    entry,
    exp,
    inverse,
    log,
    power,
    root,
)

__all__ = ["Group", "exact", "form_of", "group_of", "prelu_slope", "record_of"]

#: Two records may be one function: the first of these is meant, then the first by name.
_FIRST = ("relu", "relu6", "sigmoid", "tanh", "silu", "gelu", "gelu_tanh", "square", "cube")
Formula = Callable[[Any, Any], Any]


def exact(c: float) -> Fraction:
    """The number that a float is."""
    return Fraction(float(c))


def form_of(formula: Formula, *, dtype: str = "") -> Piecewise:
    """The normal form of a formula of x.

    With a ``dtype``, its constants are rounded to that type, and irrational ones may be in it.
    Without, all its floats are the numbers that they are, and NoFormError is raised for one that is
    irrational.
    """

    def rounded(c: float) -> Fraction:
        return Fraction(float(np.dtype(dtype).type(c)))

    x = Term(Piecewise((entry(),)), rounded if dtype else exact)
    result = formula(Namespace(constants=bool(dtype)), x)
    if not isinstance(result, Term):
        raise NoFormError("a constant")
    return result.value


# --- activations ----------------------------------------------------------------------------------


def _gelu(half: float) -> Formula:
    return lambda nx, x: 0.5 * x * (1.0 + nx.erf(half * x))


def _gelu_tanh(scale: float) -> Formula:
    return lambda nx, x: 0.5 * x * (1.0 + nx.tanh(scale * (x + 0.044715 * x**3)))


def _sixth(nx: Any, x: Any) -> Any:
    return x * nx.minimum(nx.maximum(x * (1.0 / 6.0) + 0.5, 0.0), 1.0)


def _other(dtype: str) -> tuple[tuple[str, str, Formula], ...]:
    """Other formulas of records, with constants that round otherwise, and to which type."""
    own = np.dtype(dtype).type
    root_2, root_2_over_pi = own(math.sqrt(2.0)), np.sqrt(own(2.0 / math.pi))
    return (
        # x/sqrt(2), as the record has it, is x sqrt(1/2); and that may be 1/sqrt(2), divided in
        # the model's dtype.
        ("gelu", dtype, _gelu(math.sqrt(0.5))),
        ("gelu", dtype, _gelu(float(own(1.0) / root_2))),
        # jnp.sqrt(2 / jnp.pi) is the root, in the model's dtype, of a rounded number.
        ("gelu_tanh", dtype, _gelu_tanh(float(root_2_over_pi))),
        # x hardsigmoid(x) has 1/6 as a float: of ONNX, and of the record.
        ("hardswish", dtype, _sixth),
        ("hardswish", "float64", _sixth),
        # torch and JAX divide by 6; 1/6 in the record is a float64.
        ("hardsigmoid", dtype, lambda nx, x: nx.minimum(nx.maximum(x + 3.0, 0.0), 6.0) / 6.0),
    )


@functools.lru_cache(maxsize=8)
def _plain(dtype: str, names: tuple[str, ...]) -> dict[str, Activation]:
    """Records without parameters by the texts of their forms."""
    table: dict[str, Activation] = {}
    formulas: list[tuple[str, str, Formula]] = []
    for name in dict.fromkeys((*_FIRST, *names)):
        record = activations.get(name)
        if not record.params and name != "identity":
            # The roundings of constants are taken for them in the catalogue's own formulas alone.
            formulas.append((name, dtype if is_of_catalogue(record) else "", record.value))
    for name, own, formula in (*formulas, *_other(dtype)):
        # A formula of a user may be any code: what has no form is not recognised.
        try:
            table.setdefault(form_of(formula, dtype=own).text, activations.get(name))
        except Exception:
            continue
    return table


def record_of(form: Piecewise, dtype: str) -> Activation | None:
    """The record that a function of one entry is, or None."""
    if not form.cuts and form.pieces[0].line is not None:
        return None  # affine
    known = _plain(dtype, activations.names()).get(form.text)
    if known is not None:
        return known
    for name, params in _guesses(form):
        # Parameters are floats: those that are none exactly are not rounded to one.
        if any(Fraction(float(c)) != c for c in params.values()):
            continue
        given = {role: float(c) for role, c in params.items()}
        if name == "clip":
            given = {"min": -math.inf, "max": math.inf, **given}
        try:
            record = activations.get(name, **given)
            if form_of(record.value).text == form.text:
                return record
        except (InputError, NoFormError, ZeroDivisionError):
            continue
    return None


def _guesses(form: Piecewise) -> Iterator[tuple[str, dict[str, Fraction]]]:
    """Records with parameters that the form may be, by what stands in it: all are checked."""
    pieces, cuts = form.pieces, form.cuts
    lines = [p.line for p in pieces if p.line is not None]
    if len(lines) == len(pieces):
        ends = [a for a, _ in (lines[0], lines[-1])]
        if len(cuts) == 1:
            yield "leaky_relu", {"negative_slope": lines[0][1]}
            yield "clip", {"min": cuts[0]}
            yield "clip", {"max": cuts[0]}
            yield "threshold", {"threshold": cuts[0], "value": ends[0]}
        elif len(cuts) == 2:
            yield "hardtanh", {"min_val": ends[0], "max_val": ends[1]}
            yield "hardsigmoid", {"alpha": lines[1][1], "beta": lines[1][0]}
            yield "softshrink", {"lambd": cuts[1]}
            yield "hardshrink", {"lambd": cuts[1]}
        return
    if len(cuts) == 2:
        yield "smelu", {"beta": cuts[1]}
        return
    numbers = dict.fromkeys(abs(c) for p in pieces for c in p.numbers())
    kinds = {atom.kind for p in pieces for atom in p.atoms()} - {"x"}
    if len(cuts) == 1 and kinds == {"exp"}:
        for name in ("elu", "celu"):
            yield from ((name, {"alpha": c}) for c in numbers)
    named = {"softplus": ("softplus", "beta"), "sigmoid": ("swish", "beta"), "sin": ("snake", "a")}
    if not cuts and len(kinds) == 1 and kinds <= named.keys():
        name, role = named[kinds.pop()]
        yield from ((name, {role: c}) for c in numbers)
    if not cuts and not kinds and len(pieces[0].terms) == 1:
        ((monomial, _),) = pieces[0].terms
        yield "power", {"n": Fraction(monomial[0][1])}


# --- softmax, norms, PReLU ------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """A function of all entries along some axes.

    Attributes
    ----------
    kind : str
        ``softmax``, ``log_softmax``, ``log_sum_exp`` or ``layer_norm``.
    axes : frozenset of int
        The axes of the entry.
    eps, center
        Of a layer norm.
    roles : tuple of (str, str)
        Of a layer norm: ``weight`` and ``bias``, and the parameters that they are.
    """

    kind: str
    axes: Axes
    eps: float = 0.0
    center: bool = True
    roles: tuple[tuple[str, str], ...] = ()


def group_of(form: Piecewise, axes: Axes) -> Group | None:
    """The function of many entries of a tensor with these axes that a form is, or None."""
    if form.cuts:
        return None
    (found,) = form.pieces
    sums = {(a.over, a.count) for a in found.atoms() if a.kind == "sum"}
    if len(sums) != 1:
        return None
    ((over, count),) = sums
    x = entry(axes)
    kinds = {a.kind for a in found.atoms()}
    if "exp" in kinds:
        # Subtracting anything that is constant along the axes, such as the maximum, changes
        # nothing: e^(x - m) sums to e^-m sum e^x, and the normal form has no m.
        sum_exp = reduce_sum(exp(x), over, count)
        templates = {
            "softmax": exp(x) * inverse(sum_exp),
            "log_sum_exp": log(sum_exp),
            "log_softmax": x - log(sum_exp),
        }
        return next((Group(k, over) for k, p in templates.items() if p == found), None)
    return _norm(found, x, over, count) if "sqrt" in kinds else None


def _norm(found: Poly, x: Poly, over: Axes, count: int) -> Group | None:
    """Layer or RMS norm, with weight and bias that vary along just the axes of the norm."""
    under = {a.args[0] for a in found.atoms() if a.kind == "sqrt"}
    learned = {a for a in found.atoms() if a.kind == "param"}
    if len(under) != 1 or len(learned) > 2 or any(a.axes != over for a in learned):
        return None
    eps = dict(under.pop().terms).get((), Fraction(0))
    if eps < 0 or Fraction(float(eps)) != eps:
        return None
    named = sorted(learned, key=lambda a: a.text)
    for center in (True, False):
        normed = norm(x, over, count, eps, center=center)
        for roles in permutations(("weight", "bias"), len(named)):
            y = normed
            given = dict(zip(roles, named, strict=True))
            if "weight" in given:
                y = y * Poly.of(given["weight"])
            if "bias" in given:
                y = y + Poly.of(given["bias"])
            if y == found:
                names = tuple((role, name_of(given[role])) for role in sorted(given, reverse=True))
                return Group("layer_norm", over, float(eps), center, names)
    return None


def norm(x: Poly, over: Axes, count: int, eps: Fraction, *, center: bool) -> Poly:
    """``d / sqrt(mean d^2 + eps)``, d being x less its mean, or x.

    Multiplied out, the mean of ``(x - m)^2`` is that of ``x^2`` less ``m^2``: models that compute
    the variance in either way come to this form.
    """
    d = x - reduce_sum(x, over, count).times(Fraction(1, count)) if center else x
    variance = reduce_sum(power(d, 2), over, count).times(Fraction(1, count))
    return d * inverse(root(variance + constant(eps)))


def name_of(atom: Atom) -> str:
    """The name of a parameter."""
    return atom.text.split(" ")[1]


def prelu_slope(form: Piecewise) -> tuple[str, Axes] | None:
    """The parameter of ``x if x > 0 else slope x`` and the axes along which it varies, or None."""
    if form.cuts != (Fraction(0),) or form.points[0] != ZERO:
        return None
    left, right = form.pieces
    slopes = [a for a in left.atoms() if a.kind == "param"]
    if len(slopes) != 1 or right != entry() or left != Poly.of(slopes[0]) * entry():
        return None
    return name_of(slopes[0]), slopes[0].axes
