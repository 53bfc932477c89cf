"""``tangency ntk MODEL --data X.npz``: the empirical neural tangent kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tangency.cli.common import (
    Progress,
    emit,
    head,
    load_data,
    load_model,
    model_options,
    output_options,
    save_arrays,
    save_plot,
)

__all__ = ["command"]


@click.command(name="ntk")
@model_options
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="File of inputs: .npz with an array x, or .npy.",
)
@click.option(
    "--outputs",
    type=click.Choice(["trace", "diagonal", "full"]),
    default="trace",
    show_default=True,
    help="Mean over the outputs, each output on its own, or all pairs of outputs.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float64",
    show_default=True,
    help="Precision of the computation.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Use the first samples only.")
@output_options
def command(
    model: Path,
    data: Path,
    outputs: str,
    dtype: str,
    limit: int | None,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
    **reading: Any,
) -> None:
    """Compute the empirical neural tangent kernel of a model on a data set.

    The kernel is that of the model's weights: Theta(x, x') = J(x) J(x')^T, with J the Jacobian of
    the outputs in the trainable weights. --out FILE.npz writes it as the array ntk.
    """
    from tangency.theory import empirical_ntk

    network = load_model(model, **reading).astype(dtype)
    x, _ = load_data(data, network)
    with Progress("tangent kernel") as progress:
        result = empirical_ntk(network, x[:limit], outputs=outputs, progress=progress)
    if out is not None:
        save_arrays(out, ntk=result.ntk)
    if plot is not None:
        save_plot(plot, result)
    numbers = result.as_dict()
    answer = head(network, model) | numbers | {"out": None if out is None else str(out)}
    lines = [
        f"{model}: empirical NTK on {len(x[:limit])} samples of {data}",
        f"  shape         {tuple(numbers['shape'])}  {dtype}, outputs: {outputs}",
    ]
    if "largest" in numbers:
        ratio = numbers["largest"] / numbers["least"] if numbers["least"] > 0 else float("inf")
        lines += [
            f"  trace         {numbers['trace']:.6g}",
            f"  eigenvalues   {numbers['largest']:.6g} ... {numbers['least']:.6g}"
            f"  (condition {ratio:.3g}) estimate, {dtype}",
        ]
    lines.append(f"  time          {result.seconds:.2f} s")
    emit(as_json, answer, "\n".join(lines))
