"""Training for certified robustness: losses of interval and CROWN-IBP bounds, and a small loop."""

from tangency.verify.training.initialisation import INITIALISATIONS, initialised
from tangency.verify.training.loop import LOSSES, train
from tangency.verify.training.losses import crown_ibp_loss, ibp_loss, standard_loss
from tangency.verify.training.result import Training
from tangency.verify.training.schedule import Schedule

__all__ = [
    "INITIALISATIONS",
    "LOSSES",
    "Schedule",
    "Training",
    "crown_ibp_loss",
    "ibp_loss",
    "initialised",
    "standard_loss",
    "train",
]
