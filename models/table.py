"""The text form of a network: a table of its layers."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, Any

from tangency.models.errors import InputError

if TYPE_CHECKING:
    from tangency.models.network import Network

__all__ = ["WeightPlot", "rows", "table"]

Row = tuple[str, str, str, str, str, str]
HEADER: Row = ("#", "layer", "op", "takes", "shape", "parameters")


def rows(network: Network) -> list[Row]:
    """One row a node: number, layer, op with attributes, inputs, shape, parameters."""
    out: list[Row] = []
    for i, node in enumerate(network.structure.nodes):
        text = node.op.describe()
        shape = "(" + ", ".join(["N", *map(str, node.shape)]) + ")"
        params = ", ".join(
            f"{p.role} {'x'.join(map(str, p.shape)) or 'scalar'}" for p in node.params
        )
        op = node.op.kind + (f" {text}" if text else "")
        out.append((str(i), node.name, op, " ".join(map(str, node.inputs)), shape, params))
    return out


def table(network: Network) -> str:
    """The rows as aligned text, with a line of totals; N is the batch axis."""
    body = rows(network)
    widths = [min(60, max(len(row[c]) for row in [HEADER, *body])) for c in range(6)]

    def line(row: Iterable[str]) -> str:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        return "  ".join(cells).rstrip()

    try:
        name = f"sha256 {network.hash[:16]}"
    except InputError:  # an activation that nothing can follow
        name = "no sha256"
    total = f"{network.size:,} trainable parameters, {network.dtype}, {name}"
    return "\n".join([line(HEADER), line("-" * w for w in widths), *map(line, body), total])


class WeightPlot:
    """The number of parameters of each layer, as a picture."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def plot(self) -> Any:
        """A matplotlib figure with one bar a layer that has parameters."""
        from matplotlib.figure import Figure

        nodes = [n for n in self.network.structure.nodes if n.params]
        counts = [sum(prod(p.shape) for p in n.params) for n in nodes]
        figure = Figure(figsize=(7, 1.2 + 0.3 * len(nodes)), layout="constrained")
        axes = figure.subplots()
        bars = axes.barh([n.name for n in nodes], counts, color="tab:blue")
        axes.bar_label(bars, [f"{c:,}" for c in counts], padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set(xlabel="parameters", title=f"{self.network.size:,} trainable parameters")
        return figure
