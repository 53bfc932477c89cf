"""All rules, entered in the emitter's table by importing their modules."""

from tangency.models.importers.jaxpr import (
    rules_elementwise,
    rules_groups,
    rules_linear,
    rules_pool,
    rules_select,
    rules_shape,
)
from tangency.models.importers.jaxpr.emitter import RULES, Emitter

__all__ = ["RULES", "Emitter"]

MODULES = (rules_elementwise, rules_groups, rules_linear, rules_pool, rules_select, rules_shape)
