"""Hierarchical polynomials, the three-layer networks that learn them, and who does not."""

from tangency.theory.hierarchical.complexity import (
    Exponent,
    SampleComplexity,
    fit_exponent,
    sample_complexity,
    samples_needed,
)
from tangency.theory.hierarchical.descent import descend
from tangency.theory.hierarchical.estimator import ThreeLayerRegressor
from tangency.theory.hierarchical.hermite import (
    hermite,
    hermite_basis,
    hermite_coefficients,
    hermite_sum,
    hermite_tensor,
    information_exponent,
)
from tangency.theory.hierarchical.kernel_baseline import (
    HeldOutKernelRidge,
    arc_cosine_ntk,
    inner_product_kernel,
)
from tangency.theory.hierarchical.linear_stage import LinearStage, held_out_ridge
from tangency.theory.hierarchical.network import (
    InnerLayer,
    ThreeLayerNetwork,
    feature_correlation,
    inner_layer,
)
from tangency.theory.hierarchical.targets import HierarchicalTarget, hierarchical_target
from tangency.theory.hierarchical.training import (
    Training,
    train_feature,
    train_layerwise,
    train_layerwise_seeds,
)
from tangency.theory.hierarchical.two_layer_baseline import TwoLayerRegressor

__all__ = [
    "Exponent",
    "HeldOutKernelRidge",
    "HierarchicalTarget",
    "InnerLayer",
    "LinearStage",
    "SampleComplexity",
    "ThreeLayerNetwork",
    "ThreeLayerRegressor",
    "Training",
    "TwoLayerRegressor",
    "arc_cosine_ntk",
    "descend",
    "feature_correlation",
    "fit_exponent",
    "held_out_ridge",
    "hermite",
    "hermite_basis",
    "hermite_coefficients",
    "hermite_sum",
    "hermite_tensor",
    "hierarchical_target",
    "information_exponent",
    "inner_layer",
    "inner_product_kernel",
    "sample_complexity",
    "samples_needed",
    "train_feature",
    "train_layerwise",
    "train_layerwise_seeds",
]
