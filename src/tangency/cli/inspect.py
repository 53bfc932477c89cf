"""``tangency inspect MODEL``: the table of layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tangency.cli.common import OutputPath, Outputs, head, load_model, model_options, plot_option

__all__ = ["command"]


@click.command(name="inspect")
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--out", type=OutputPath(), help="Save the network to this file of tangency's.")
@plot_option("Write a picture of the parameters by layer")
def command(
    model: Path, as_json: bool, out: Path | None, plot: Path | None, **reading: Any
) -> None:
    """Print a model as a table of its layers.

    N in a shape is the batch axis. The hash names the graph and its exact weights: certificates
    refer to it.
    """
    from tangency.cli.common import save_plot
    from tangency.models.table import WeightPlot, rows

    network = load_model(model, **reading)
    files = Outputs()
    files.write(out, network.save)
    files.write(plot, save_plot, WeightPlot(network))
    keys = ("index", "layer", "op", "takes", "shape", "parameters")
    data = head(network, model) | {
        "dtype": network.dtype,
        "inputs": network.input_shapes,
        "outputs": network.output_shapes,
        "parameters": network.size,
        "layers": [dict(zip(keys, row, strict=True)) for row in rows(network)],
    }
    files.emit(as_json, data, str(network))
