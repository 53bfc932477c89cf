"""Bounds of a network's output over a set of inputs, true in real arithmetic."""

from tangency.verify.bounds.engine import bound, margins
from tangency.verify.bounds.jobs import METHODS
from tangency.verify.bounds.robustness import Robustness, certify_robust
from tangency.verify.bounds.weight_boxes import perturbed
from tangency.verify.result import Bounds
from tangency.verify.sets import Ball, Box

__all__ = [
    "METHODS",
    "Ball",
    "Bounds",
    "Box",
    "Robustness",
    "bound",
    "certify_robust",
    "margins",
    "perturbed",
]
