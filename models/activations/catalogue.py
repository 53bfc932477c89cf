"""The catalogue: importing this module registers every family."""

from tangency.models.activations import (
    elementary,
    gates,
    rationals,
    registry,
    relus,
    sigmoids,
    smoothed,
    waves,
)

FAMILIES = (elementary, gates, rationals, relus, sigmoids, smoothed, waves)
"""The modules in which the records are written."""

registry.close()
