"""The rigorous core: what is proved here rests on NumPy's float64 and nothing of the search."""

from tangency.verify.certificate.chain import ChainWitness, check_chain
from tangency.verify.certificate.definite import (
    Definiteness,
    definiteness,
    is_positive_definite,
)
from tangency.verify.certificate.layers import (
    Activation,
    GroupSort,
    Householder,
    Residual,
    Slopes,
)
from tangency.verify.certificate.matrix import Matrix
from tangency.verify.certificate.norms import spectral_norm_bound
from tangency.verify.certificate.source import Samples, Source

__all__ = [
    "Activation",
    "ChainWitness",
    "Definiteness",
    "GroupSort",
    "Householder",
    "Matrix",
    "Residual",
    "Samples",
    "Slopes",
    "Source",
    "check_chain",
    "definiteness",
    "is_positive_definite",
    "spectral_norm_bound",
]
