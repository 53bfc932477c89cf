"""What search and checker both read of a network: its layers as a chain, derived from the graph.

Nothing here searches. A certificate is checked against what these modules derive from the model's
own graph and weights, and a search works on the same.
"""
