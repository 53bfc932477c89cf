"""Bounds of a network's output over a set of inputs, true in real arithmetic."""

from tangency.verify.bounds.box import Box
from tangency.verify.bounds.engine import METHODS, bound, margins
from tangency.verify.bounds.result import Bounds
from tangency.verify.bounds.robustness import Robustness, certify_robust

__all__ = ["METHODS", "Bounds", "Box", "Robustness", "bound", "certify_robust", "margins"]
