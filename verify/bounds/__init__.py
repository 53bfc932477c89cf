"""Bounds of a network's output over a set of inputs, true in real arithmetic."""

from tangency.verify.bounds.ball import Ball
from tangency.verify.bounds.box import Box
from tangency.verify.bounds.engine import bound, margins
from tangency.verify.bounds.jobs import METHODS
from tangency.verify.bounds.result import Bounds
from tangency.verify.bounds.robustness import Robustness, certify_robust
from tangency.verify.bounds.weight_boxes import perturbed

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
