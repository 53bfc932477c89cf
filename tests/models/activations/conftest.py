"""Reference arithmetic for the activation tests: the same formulas in mpmath."""

import mpmath
import pytest

from tangency.models.activations.jets import jet

mpmath.mp.dps = 60


class MpNamespace:
    pi = mpmath.pi
    constant = staticmethod(mpmath.mpf)

    def __getattr__(self, name):
        names = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh"}
        names |= {"arctanh": "atanh", "rint": "nint", "abs": "fabs"}
        return getattr(mpmath, names.get(name, name))

    def sigmoid(self, x):
        return 1 / (1 + mpmath.exp(-x))

    def softplus(self, x):
        return mpmath.log1p(mpmath.exp(x)) if x < 0 else x + mpmath.log1p(mpmath.exp(-x))

    def where(self, condition, a, b):
        return a if condition else b

    def maximum(self, a, b):
        return b if a <= b else a

    def minimum(self, a, b):
        return b if a > b else a


# The record clamps against overflow in float32; this is the function itself.
PLAIN = {"golu": lambda nx, x: x * nx.exp(-nx.exp(-x))}


class Exact:
    """phi and phi' in 60 digits; the derivative always by jets, never by the record's own."""

    namespace = MpNamespace()

    @staticmethod
    def formula(record):
        return PLAIN.get(record.name, record.value)

    def value(self, record, x):
        return mpmath.mpf(self.formula(record)(self.namespace, mpmath.mpf(x)))

    def slope(self, record, x):
        return mpmath.mpf(jet(self.formula(record), self.namespace, mpmath.mpf(x), 1).d1)


@pytest.fixture(scope="session")
def exact():
    return Exact()
