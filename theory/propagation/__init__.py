"""Signal propagation: what depth and width do to variances, correlations, kernels and features."""

from tangency.theory.propagation.criticality import (
    CorrelationRate,
    Edge,
    Phase,
    correlation_rate,
    edge_of_chaos,
    phase,
)
from tangency.theory.propagation.datasheet import Datasheet, datasheet
from tangency.theory.propagation.datasheets import write_datasheets
from tangency.theory.propagation.differential import DifferentialEnsemble, sample_dntk
from tangency.theory.propagation.ensembles import (
    Ensemble,
    orthogonal_weights,
    sample_ensemble,
    sample_ntk,
)
from tangency.theory.propagation.features import (
    FeatureMovement,
    feature_movement,
    linear_feature_limit,
)
from tangency.theory.propagation.finite_width import FiniteWidth, finite_width
from tangency.theory.propagation.information import (
    AspectRatio,
    mixture_information,
    optimal_aspect_ratio,
    output_information,
    vertex_growth,
)
from tangency.theory.propagation.maps import DepthMap
from tangency.theory.propagation.parametrisation import Parametrisation, parametrisation
from tangency.theory.propagation.residual import (
    ResidualFlow,
    ResidualSample,
    residual_flow,
    sample_residual,
)
from tangency.theory.propagation.universality import UniversalityClass, universality_class

__all__ = [
    "AspectRatio",
    "CorrelationRate",
    "Datasheet",
    "DepthMap",
    "DifferentialEnsemble",
    "Edge",
    "Ensemble",
    "FeatureMovement",
    "FiniteWidth",
    "Parametrisation",
    "Phase",
    "ResidualFlow",
    "ResidualSample",
    "UniversalityClass",
    "correlation_rate",
    "datasheet",
    "edge_of_chaos",
    "feature_movement",
    "finite_width",
    "linear_feature_limit",
    "mixture_information",
    "optimal_aspect_ratio",
    "orthogonal_weights",
    "output_information",
    "parametrisation",
    "phase",
    "residual_flow",
    "sample_dntk",
    "sample_ensemble",
    "sample_ntk",
    "sample_residual",
    "universality_class",
    "vertex_growth",
    "write_datasheets",
]
