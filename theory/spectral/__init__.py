"""What a kernel's spectrum decides: expected errors, profiles, deep limits, learnt kernels."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tangency.theory.spectral.circle import CircleModel as CircleModel
    from tangency.theory.spectral.circle import CircleOptimum as CircleOptimum
    from tangency.theory.spectral.classifiers import deep_kernel_scores as deep_kernel_scores
    from tangency.theory.spectral.classifiers import hilbert_scores as hilbert_scores
    from tangency.theory.spectral.classifiers import (
        nearest_neighbour_scores as nearest_neighbour_scores,
    )
    from tangency.theory.spectral.classifiers import (
        singular_kernel_scores as singular_kernel_scores,
    )
    from tangency.theory.spectral.deep_features import FeatureRisk as FeatureRisk
    from tangency.theory.spectral.deep_features import LayerConstants as LayerConstants
    from tangency.theory.spectral.deep_features import deep_feature_risk as deep_feature_risk
    from tangency.theory.spectral.deep_features import feature_covariances as feature_covariances
    from tangency.theory.spectral.deep_features import layer_constants as layer_constants
    from tangency.theory.spectral.depth import DepthLimit as DepthLimit
    from tangency.theory.spectral.depth import deep_correlation as deep_correlation
    from tangency.theory.spectral.depth import depth_limit as depth_limit
    from tangency.theory.spectral.depth import explicit_activation as explicit_activation
    from tangency.theory.spectral.depth import optimal_sine as optimal_sine
    from tangency.theory.spectral.depth import singular_kernel as singular_kernel
    from tangency.theory.spectral.dimension import EigenMeasurement as EigenMeasurement
    from tangency.theory.spectral.dimension import effective_dimension as effective_dimension
    from tangency.theory.spectral.dimension import measure_eigenstructure as measure_eigenstructure
    from tangency.theory.spectral.kernel_machine import DeepKernelMachine as DeepKernelMachine
    from tangency.theory.spectral.kernel_machine import (
        deep_kernel_machine as deep_kernel_machine,
    )
    from tangency.theory.spectral.profiles import CutOff as CutOff
    from tangency.theory.spectral.profiles import GradientDescent as GradientDescent
    from tangency.theory.spectral.profiles import GradientFlow as GradientFlow
    from tangency.theory.spectral.profiles import Interpolation as Interpolation
    from tangency.theory.spectral.profiles import Profile as Profile
    from tangency.theory.spectral.profiles import Ridge as Ridge
    from tangency.theory.spectral.profiles import spectral_regression as spectral_regression
    from tangency.theory.spectral.risk import Risk as Risk
    from tangency.theory.spectral.risk import optimal_ridge as optimal_ridge
    from tangency.theory.spectral.risk import power_law as power_law
    from tangency.theory.spectral.risk import ridge_risk as ridge_risk

#: Module -> the public names that live in it.
_HOMES = {
    "circle": (
        "CircleModel",
        "CircleOptimum",
    ),
    "classifiers": (
        "deep_kernel_scores",
        "hilbert_scores",
        "nearest_neighbour_scores",
        "singular_kernel_scores",
    ),
    "deep_features": (
        "FeatureRisk",
        "LayerConstants",
        "deep_feature_risk",
        "feature_covariances",
        "layer_constants",
    ),
    "kernel_machine": (
        "DeepKernelMachine",
        "deep_kernel_machine",
    ),
    "depth": (
        "DepthLimit",
        "deep_correlation",
        "depth_limit",
        "explicit_activation",
        "optimal_sine",
        "singular_kernel",
    ),
    "dimension": (
        "EigenMeasurement",
        "effective_dimension",
        "measure_eigenstructure",
    ),
    "profiles": (
        "CutOff",
        "GradientDescent",
        "GradientFlow",
        "Interpolation",
        "Profile",
        "Ridge",
        "spectral_regression",
    ),
    "risk": (
        "Risk",
        "optimal_ridge",
        "power_law",
        "ridge_risk",
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CircleModel",
    "CircleOptimum",
    "CutOff",
    "DeepKernelMachine",
    "DepthLimit",
    "EigenMeasurement",
    "FeatureRisk",
    "GradientDescent",
    "GradientFlow",
    "Interpolation",
    "LayerConstants",
    "Profile",
    "Ridge",
    "Risk",
    "deep_correlation",
    "deep_feature_risk",
    "deep_kernel_machine",
    "deep_kernel_scores",
    "depth_limit",
    "effective_dimension",
    "explicit_activation",
    "feature_covariances",
    "hilbert_scores",
    "layer_constants",
    "measure_eigenstructure",
    "nearest_neighbour_scores",
    "optimal_ridge",
    "optimal_sine",
    "power_law",
    "ridge_risk",
    "singular_kernel",
    "singular_kernel_scores",
    "spectral_regression",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
