"""What stands where in a graph: nonlinearities, what depends on what, where everything meets."""

from __future__ import annotations

from tangency.models.network import Network
from tangency.models.ops import Householder, MaxPool
from tangency.models.structure import Node
from tangency.verify.chain import unroll
from tangency.verify.chain.unroll import _nonlinearity

__all__ = ["bends", "frontier", "is_plain", "sources_of"]


def is_plain(network: Network) -> bool:
    """Whether a network is a chain of affine segments and elementwise or sorting layers."""
    nodes = network.structure.nodes
    needed = set(network.structure.ancestors(network.structure.outputs))
    if any(isinstance(nodes[i].op, Householder | MaxPool) for i in needed):
        return False
    sources = sources_of(network)
    begin = network.structure.inputs[0]
    for end, node in enumerate(nodes):
        if end in needed and bends(node):
            if sources[node.inputs[0]] != {begin}:
                return False
            begin = end
    return sources[network.structure.outputs[0]] == {begin}


def bends(node: Node) -> bool:
    """Whether a node is a nonlinearity that a chain can hold."""
    return _nonlinearity(node) or isinstance(node.op, Householder | MaxPool)


def frontier(network: Network, stops: set[int]) -> set[int]:
    """The stops that the output depends on directly, through whatever is not a stop."""
    found: set[int] = set()
    seen: set[int] = set()
    stack = list(network.structure.outputs)
    while stack:
        i = stack.pop()
        if i in stops:
            found.add(i)
        elif i not in seen:
            seen.add(i)
            stack.extend(network.structure.nodes[i].inputs)
    return found


def sources_of(network: Network) -> list[set[int]]:
    """For each node, the input or nonlinearities that it is an affine function of."""
    return unroll.sources_of(network, bends, "prelu, group_sort, householder and max_pool")
