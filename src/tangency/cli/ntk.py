"""``tangency ntk MODEL --data X.npz``: the empirical neural tangent kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tangency.cli.common import (
    Outputs,
    Progress,
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
    type=click.Choice(["trace", "diagonal", "full", "sum"]),
    default="trace",
    show_default=True,
    help="Mean over the outputs, each output on its own, all pairs of outputs, or the kernel of "
    "their sum, with its error on a sampled block.",
)
@click.option(
    "--spectrum",
    type=click.IntRange(min=1),
    metavar="T",
    help="Top T eigenvalues and the density of the full kernel, without forming it.",
)
@click.option(
    "--features",
    type=click.IntRange(min=1),
    metavar="K",
    help="K random features for each output of each sample, instead of the kernel.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn.")
@click.option(
    "--memory",
    type=click.IntRange(min=1),
    metavar="MIB",
    help="Memory for what the layers hold of a tile of samples; by default 256, and up to 4096 for "
    "the kernel on a GPU.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float64",
    show_default=True,
    help="Precision of the computation.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="Where it is computed from the layers [default: cuda where CuPy and a GPU are there].",
)
@click.option("--limit", type=click.IntRange(min=1), help="Use the first samples only.")
@output_options
def command(
    model: Path,
    data: Path,
    outputs: str,
    dtype: str,
    limit: int | None,
    spectrum: int | None,
    features: int | None,
    seed: int,
    memory: int | None,
    device: str | None,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
    **reading: Any,
) -> None:
    """Compute the empirical neural tangent kernel of a model on a data set.

    The kernel is that of the model's weights: Theta(x, x') = J(x) J(x')^T, with J the Jacobian of
    the outputs in the trainable weights. --out FILE.npz writes it as the array ntk; with --features
    the array features, with --spectrum the arrays top, residual, nodes and weights.
    """
    if spectrum is not None and features is not None:
        raise click.UsageError("--spectrum and --features are two answers: ask for one")
    if spectrum is not None and device is not None:
        raise click.UsageError("--spectrum multiplies where the model runs: leave --device out")
    network = load_model(model, **reading).astype(dtype)
    x = load_data(data, network)[0][:limit]
    budget: dict[str, Any] = {} if memory is None else {"memory": memory * 2**20}
    result: Any
    if spectrum is not None:
        from tangency.theory.ntk import NTKOperator
        from tangency.theory.ntk import spectrum as lanczos_spectrum

        result = lanczos_spectrum(NTKOperator(network, x), top=spectrum, seed=seed)
        arrays = {name: getattr(result, name) for name in ("top", "residual", "nodes", "weights")}
        numbers, lines = _of_spectrum(result)
    elif features is not None:
        from tangency.theory.ntk import project_ntk

        if plot is not None:
            raise click.UsageError("--features have no picture: leave --plot out")
        chosen = "sum" if outputs == "sum" else "full"
        result = project_ntk(
            network, x, features=features, outputs=chosen, seed=seed, device=device, **budget
        )
        arrays = {"features": result.features}
        numbers = {
            "shape": list(result.features.shape),
            "outputs": chosen,
            "error": result.error,
            "certified": False,
            "seconds": result.seconds,
        }
        lines = [
            f"  features      {tuple(numbers['shape'])}, outputs: {chosen}, seed {seed}",
            f"  error         {result.error:.3g} relative, estimate",
        ]
    else:
        from tangency.theory.ntk import empirical_ntk

        with Progress("tangent kernel") as progress:
            result = empirical_ntk(
                network, x, outputs=outputs, seed=seed, progress=progress, device=device, **budget
            )
        arrays = {"ntk": result.ntk}
        numbers = result.as_dict()
        lines = _of_kernel(numbers, dtype)
    files = Outputs()
    written = files.write(out, save_arrays, **arrays)
    files.write(plot, save_plot, result)
    answer = head(network, model) | numbers | {"out": written}
    title = f"{model}: empirical NTK on {len(x)} samples of {data}"
    text = "\n".join([title, *lines, f"  time          {result.seconds:.2f} s"])
    files.emit(as_json, answer, text)


def _of_kernel(numbers: dict[str, Any], dtype: str) -> list[str]:
    """Lines on a kernel."""
    shape, outputs = tuple(numbers["shape"]), numbers["outputs"]
    lines = [f"  shape         {shape}  {dtype}, outputs: {outputs}"]
    if "largest" in numbers:
        ratio = numbers["largest"] / numbers["least"] if numbers["least"] > 0 else float("inf")
        lines += [
            f"  trace         {numbers['trace']:.6g}",
            f"  eigenvalues   {numbers['largest']:.6g} ... {numbers['least']:.6g}"
            f"  (condition {ratio:.3g}) estimate, {dtype}",
        ]
    if "error" in numbers:
        lines.append(
            f"  error         {numbers['error']:.3g} relative to the full kernel, on "
            f"{numbers['error_samples']} samples"
        )
    return lines


def _of_spectrum(result: Any) -> tuple[dict[str, Any], list[str]]:
    """Numbers and lines on a spectrum."""
    numbers = {
        "size": result.size,
        "top": result.top.tolist(),
        "residual": result.residual.tolist(),
        "trace": result.trace,
        "products": result.products,
        "certified": False,
        "seconds": result.seconds,
    }
    pairs = zip(result.top, result.residual, strict=True)
    lines = [f"  size          {result.size}, {result.products} products"]
    lines.append(f"  trace         {result.trace:.6g} estimate")
    lines += [f"  eigenvalue    {value:.6g}  residual {gap:.1e}" for value, gap in pairs]
    return numbers, lines
