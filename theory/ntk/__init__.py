"""Neural tangent kernels of networks."""

from tangency.theory.ntk.empirical import empirical_ntk
from tangency.theory.ntk.result import EmpiricalNTK

__all__ = ["EmpiricalNTK", "empirical_ntk"]
