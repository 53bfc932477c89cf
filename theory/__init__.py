"""Theory of networks: tangent kernels and what they predict."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "tangency.theory":  # the folder was imported by its bare name from the checkout
    raise ImportError("this folder is the package tangency.theory: pip install -e . and import it")

if TYPE_CHECKING:
    from tangency.theory.kernels import Gram as Gram
    from tangency.theory.kernels import InfiniteKernel as InfiniteKernel
    from tangency.theory.kernels import Kernel as Kernel
    from tangency.theory.kernels import as_kernel as as_kernel
    from tangency.theory.kernels import infinite_kernel as infinite_kernel
    from tangency.theory.ntk import EmpiricalNTK as EmpiricalNTK
    from tangency.theory.ntk import NTKOperator as NTKOperator
    from tangency.theory.ntk import empirical_ntk as empirical_ntk
    from tangency.theory.ntk import evolution as evolution
    from tangency.theory.ntk import linearise as linearise
    from tangency.theory.ntk import project_ntk as project_ntk
    from tangency.theory.prediction import Grams as Grams
    from tangency.theory.prediction import KernelRidge as KernelRidge
    from tangency.theory.prediction import NTKClassifier as NTKClassifier
    from tangency.theory.prediction import NTKRegressor as NTKRegressor
    from tangency.theory.prediction import SklearnKernel as SklearnKernel
    from tangency.theory.prediction import ensemble_prediction as ensemble_prediction
    from tangency.theory.prediction import gp_posterior as gp_posterior
    from tangency.theory.prediction import gradient_flow as gradient_flow
    from tangency.theory.prediction import gradient_flow_mse as gradient_flow_mse
    from tangency.theory.prediction import kernel_ridge as kernel_ridge
    from tangency.theory.prediction import max_learning_rate as max_learning_rate

_HOMES = {
    "kernels": ("Gram", "InfiniteKernel", "Kernel", "as_kernel", "infinite_kernel"),
    "ntk": (
        "EmpiricalNTK",
        "NTKOperator",
        "empirical_ntk",
        "evolution",
        "linearise",
        "project_ntk",
    ),
    "prediction": (
        "Grams",
        "KernelRidge",
        "NTKClassifier",
        "NTKRegressor",
        "SklearnKernel",
        "ensemble_prediction",
        "gp_posterior",
        "gradient_flow",
        "gradient_flow_mse",
        "kernel_ridge",
        "max_learning_rate",
    ),
}
_HOME = {name: folder for folder, names in _HOMES.items() for name in names}

__all__ = [
    "EmpiricalNTK",
    "Gram",
    "Grams",
    "InfiniteKernel",
    "Kernel",
    "KernelRidge",
    "NTKClassifier",
    "NTKOperator",
    "NTKRegressor",
    "SklearnKernel",
    "as_kernel",
    "empirical_ntk",
    "ensemble_prediction",
    "evolution",
    "gp_posterior",
    "gradient_flow",
    "gradient_flow_mse",
    "infinite_kernel",
    "kernel_ridge",
    "linearise",
    "max_learning_rate",
    "project_ntk",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"tangency.theory.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
