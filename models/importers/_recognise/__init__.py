"""Activations, softmax, norms and PReLU, found again in a graph by their structure.

One recogniser serves all importers: it reads the graph that they have written (:mod:`.graph`), in
exact arithmetic (:mod:`.terms`, :mod:`.piecewise`), and compares expressions with the formulas of
the catalogue (:mod:`.templates`). No function is ever evaluated at sample points.
"""

from tangency.models.importers._recognise.graph import recognise

__all__ = ["recognise"]
