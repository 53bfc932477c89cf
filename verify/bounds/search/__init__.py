"""Fast estimates in JAX: sweeps, and slopes that are optimised.

Nothing here is proved. The slopes found are handed to the rigorous walk, which proves the offsets
that belong to them. Importing this package imports JAX only when a search begins.
"""

from tangency.verify.bounds.search.alpha import Optimised, optimised
from tangency.verify.bounds.search.engine import JaxEngine

__all__ = ["JaxEngine", "Optimised", "optimised"]
