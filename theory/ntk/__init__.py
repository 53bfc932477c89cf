"""Neural tangent kernels of networks with their weights: exact, projected, matrix-free."""

from tangency.theory.ntk.alignment import alignment, centred_alignment
from tangency.theory.ntk.checkpoints import Evolution, evolution
from tangency.theory.ntk.empirical import empirical_ntk
from tangency.theory.ntk.linearisation import LinearisationError, Linearised, linearise
from tangency.theory.ntk.products import NTKOperator
from tangency.theory.ntk.projection import ProjectedNTK, project_ntk
from tangency.theory.ntk.result import EmpiricalNTK
from tangency.theory.ntk.spectra import Spectrum, spectrum

__all__ = [
    "EmpiricalNTK",
    "Evolution",
    "LinearisationError",
    "Linearised",
    "NTKOperator",
    "ProjectedNTK",
    "Spectrum",
    "alignment",
    "centred_alignment",
    "empirical_ntk",
    "evolution",
    "linearise",
    "project_ntk",
    "spectrum",
]
