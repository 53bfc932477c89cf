"""The Lipschitz engine: one storage recursion for all layers, its minimisation, its proof.

`search.engine_bound` is what the rest of the house calls.
"""
