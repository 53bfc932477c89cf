"""How tight interval bounds are: propagation tightness, its theory, and its experiments."""

from tangency.verify.tightness.embedding import Embedding, embedding_experiment, expected_growth
from tangency.verify.tightness.exact import TrueTightness, true_tightness
from tangency.verify.tightness.growth import (
    InitialTightness,
    depth_bound,
    expected_tightness,
    initial_tightness,
)
from tangency.verify.tightness.invariance import PathSigns, opposed_minors, path_signs
from tangency.verify.tightness.local import Tightness, local_tightness
from tangency.verify.tightness.reconstruction import Reconstruction, train_reconstruction

__all__ = [
    "Embedding",
    "InitialTightness",
    "PathSigns",
    "Reconstruction",
    "Tightness",
    "TrueTightness",
    "depth_bound",
    "embedding_experiment",
    "expected_growth",
    "expected_tightness",
    "initial_tightness",
    "local_tightness",
    "opposed_minors",
    "path_signs",
    "train_reconstruction",
    "true_tightness",
]
