"""``tangency kernel MODEL --data X.npz``: the infinitely wide network of a model's architecture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from tangency.cli.kernel_scores import regression

if TYPE_CHECKING:
    import numpy as np

__all__ = ["command"]

_SMALL = 100_000  # pairs of samples and sites below which no compiled code is worth its loading


@click.command(name="kernel")
@model_options
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    help="File of training inputs: .npz with an array x, and y for a regression; or .npy.",
)
@click.option(
    "--test",
    type=click.Path(path_type=Path),
    help="File of test inputs and targets, .npz with x and y.",
)
@click.option(
    "--get",
    type=click.Choice(["ntk", "nngp"]),
    default="ntk",
    show_default=True,
    help="The tangent kernel (all layers train) or the Gaussian process (the last one does).",
)
@click.option(
    "--ridge",
    type=click.FloatRange(min=0),
    default=1e-4,
    show_default=True,
    help="Of the regression, relative to the mean diagonal.",
)
@click.option(
    "--parametrisation",
    type=click.Choice(["ntk", "standard"]),
    default="ntk",
    show_default=True,
    help="Where the factors 1/sqrt(n) stand: before the weights, or in them.",
)
@click.option(
    "--weight-variance",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="n times the variance of the weights, n the fan-in.",
)
@click.option(
    "--bias-variance",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Variance of the biases.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Use the first samples only.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="Where it is computed [default: cuda where CuPy and a GPU are there, else cpu].",
)
@output_options
def command(
    model: Path,
    data: Path,
    test: Path | None,
    get: str,
    ridge: float,
    parametrisation: str,
    weight_variance: float,
    bias_variance: float,
    limit: int | None,
    device: str | None,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
    **reading: Any,
) -> None:
    """Compute the infinite-width kernel of a model's architecture, and what it predicts.

    The weights of the model do not enter. Where DATA has targets y, kernel ridge regression is
    fitted, and scored on each training sample by the fit to all others and on --test: labels
    (integers) by accuracy, other numbers by R^2. --out FILE.npz writes the Gram matrix.
    """
    import numpy as np

    from tangency.models.errors import InputError
    from tangency.theory.kernels import infinite_kernel
    from tangency.theory.prediction import noise_floor

    start = time.perf_counter()
    network = load_model(model, **reading)
    x, y = load_data(data, network)
    x, y = x[:limit], None if y is None else y[:limit]
    if test is not None and y is None:
        raise InputError(f"{data}: has no targets 'y' to fit for --test")
    kernel = infinite_kernel(
        network,
        parametrisation=parametrisation,
        weight_variance=weight_variance,
        bias_variance=bias_variance,
    )
    engine = _Engine(kernel, x, get, device)
    gram = engine(x)
    eigenvalues = np.linalg.eigvalsh(gram)[::-1]
    floor = noise_floor(gram)
    answer: dict[str, Any] = head(network, model) | {
        "kernel": get,
        "device": engine.device,
        "shape": list(gram.shape),
        "trace": float(np.trace(gram)),
        "largest": float(eigenvalues[0]),
        "least": float(eigenvalues[-1]),
        "noise_floor": floor * float(np.diag(gram).mean()),
        "certified": False,
    }
    lines = [
        f"{model}: infinite-width {get.upper()} on {len(x)} samples of {data}",
        f"  device        {engine.device}",
        f"  trace         {answer['trace']:.6g}",
        f"  eigenvalues   {answer['largest']:.6g} ... {answer['least']:.6g}  estimate, "
        f"float64 (noise floor {answer['noise_floor']:.2g})",
    ]
    if y is not None:
        scores = regression(engine, gram, ridge, (x, y), (data, test), network)
        answer |= {"ridge": ridge} | scores
        measure = scores["measure"]
        lines.append(f"  left out      {measure} {scores['leave_one_out']:.4f}  ridge {ridge:g}")
        if test is not None:
            lines.append(f"  test          {measure} {scores['test']:.4f}  {test}")
    files = Outputs()
    written = files.write(out, save_arrays, **{get: gram})
    picture = _Picture(get.upper(), gram, eigenvalues, answer["noise_floor"])
    files.write(plot, save_plot, picture)
    answer |= {"seconds": time.perf_counter() - start, "out": written}
    lines.append(f"  time          {answer['seconds']:.2f} s")
    files.emit(as_json, answer, "\n".join(lines))


class _Engine:
    """The Gram engine on one device, with a progress line that says how much time is left."""

    def __init__(self, kernel: Any, x: np.ndarray, get: str, device: str | None) -> None:
        from tangency.theory.kernels.backend import resolve

        self.kernel, self.get = kernel, get
        self.sites = kernel.plan(x.shape[1:]).widest_site_pair
        # A small matrix is there before any compiled code is loaded.
        if device is None and len(x) ** 2 * self.sites < _SMALL:
            device = "cpu"
        self.device = resolve(kernel, x.shape[1:], device=device)[0]

    def __call__(self, x1: np.ndarray, x2: np.ndarray | None = None) -> np.ndarray:
        import numpy as np

        from tangency.theory.kernels import gram

        entries = len(x1) * len(x1 if x2 is None else x2) * self.sites
        if self.device == "cpu" and entries < _SMALL:
            return np.asarray(self.kernel(x1, x2, get=self.get))
        with Progress(f"{self.get.upper()} on {self.device}") as progress:
            found = gram(self.kernel, x1, x2, get=self.get, device=self.device, progress=progress)
        return np.asarray(found)


class _Picture:
    """The Gram matrix as an image, and its spectrum."""

    def __init__(self, name: str, gram: np.ndarray, eigenvalues: np.ndarray, floor: float) -> None:
        self.name, self.gram, self.eigenvalues, self.floor = name, gram, eigenvalues, floor

    def plot(self) -> Any:
        import numpy as np
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4), layout="constrained")
        image, spectrum = figure.subplots(1, 2)
        shown = image.imshow(self.gram, interpolation="nearest", cmap="viridis")
        image.set(title=f"infinite-width {self.name}", xlabel="sample", ylabel="sample")
        figure.colorbar(shown, ax=image, label="kernel value")
        values = np.maximum(self.eigenvalues, self.floor)
        spectrum.semilogy(np.arange(1, len(values) + 1), values, ".-")
        spectrum.axhline(self.floor, color="0.6", lw=0.8, ls="--", label="noise floor")
        spectrum.set(title="spectrum", xlabel="index", ylabel="eigenvalue")
        spectrum.legend()
        return figure
