"""What kernels predict: posteriors, gradient flow, ensembles, and scikit-learn's estimators.

Everything but the estimators takes a :class:`Grams`, the kernel on the training and test inputs
computed once, so that a kernel that took a night is not evaluated again for each question.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tangency.theory.prediction.ensemble import Ensemble as Ensemble
    from tangency.theory.prediction.ensemble import ensemble_prediction as ensemble_prediction
    from tangency.theory.prediction.estimators import NTKClassifier as NTKClassifier
    from tangency.theory.prediction.estimators import NTKRegressor as NTKRegressor
    from tangency.theory.prediction.flow import Flow as Flow
    from tangency.theory.prediction.flow import gradient_flow_mse as gradient_flow_mse
    from tangency.theory.prediction.grams import Block as Block
    from tangency.theory.prediction.grams import Grams as Grams
    from tangency.theory.prediction.losses import Loss as Loss
    from tangency.theory.prediction.noise import NoiseFloorWarning as NoiseFloorWarning
    from tangency.theory.prediction.noise import noise_floor as noise_floor
    from tangency.theory.prediction.ode import gradient_flow as gradient_flow
    from tangency.theory.prediction.posterior import Posterior as Posterior
    from tangency.theory.prediction.posterior import gp_posterior as gp_posterior
    from tangency.theory.prediction.ridge import KernelRidge as KernelRidge
    from tangency.theory.prediction.ridge import kernel_ridge as kernel_ridge
    from tangency.theory.prediction.sklearn_kernel import SklearnKernel as SklearnKernel
    from tangency.theory.prediction.stability import max_learning_rate as max_learning_rate

#: Public name -> the module that it lives in.
_HOMES = {
    "Block": "grams",
    "Ensemble": "ensemble",
    "Flow": "flow",
    "Grams": "grams",
    "KernelRidge": "ridge",
    "Loss": "losses",
    "NTKClassifier": "estimators",
    "NTKRegressor": "estimators",
    "NoiseFloorWarning": "noise",
    "Posterior": "posterior",
    "SklearnKernel": "sklearn_kernel",
    "ensemble_prediction": "ensemble",
    "gp_posterior": "posterior",
    "gradient_flow": "ode",
    "gradient_flow_mse": "flow",
    "kernel_ridge": "ridge",
    "max_learning_rate": "stability",
    "noise_floor": "noise",
}

__all__ = [
    "Block",
    "Ensemble",
    "Flow",
    "Grams",
    "KernelRidge",
    "Loss",
    "NTKClassifier",
    "NTKRegressor",
    "NoiseFloorWarning",
    "Posterior",
    "SklearnKernel",
    "ensemble_prediction",
    "gp_posterior",
    "gradient_flow",
    "gradient_flow_mse",
    "kernel_ridge",
    "max_learning_rate",
    "noise_floor",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the estimators load scikit-learn."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
