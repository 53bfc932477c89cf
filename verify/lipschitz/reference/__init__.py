"""Reference solvers: the published inequalities written out in cvxpy, to compare the engine with.

Readable rather than fast, for networks of up to about a hundred neurons. Their values are
estimates of a conic solver, not proofs.
"""

from tangency.verify.lipschitz.reference.estimate import Estimate
from tangency.verify.lipschitz.reference.inequality import reference_bound
from tangency.verify.lipschitz.reference.rewriting import ReluForm, maxmin_as_relu

__all__ = ["Estimate", "ReluForm", "maxmin_as_relu", "reference_bound"]
