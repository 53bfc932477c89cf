"""``tangency kernel MODEL --data X.npz``: the infinitely wide network of a model's architecture."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tangency.cli.common import (
    emit,
    head,
    load_data,
    load_model,
    model_options,
    output_options,
    save_arrays,
    save_plot,
)

if TYPE_CHECKING:
    import numpy as np

__all__ = ["command"]


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
    gram = kernel(x, get=get)
    eigenvalues = np.linalg.eigvalsh(gram)[::-1]
    floor = noise_floor(gram)
    answer: dict[str, Any] = head(network, model) | {
        "kernel": get,
        "shape": list(gram.shape),
        "trace": float(np.trace(gram)),
        "largest": float(eigenvalues[0]),
        "least": float(eigenvalues[-1]),
        "noise_floor": floor * float(np.diag(gram).mean()),
        "certified": False,
    }
    lines = [
        f"{model}: infinite-width {get.upper()} on {len(x)} samples of {data}",
        f"  trace         {answer['trace']:.6g}",
        f"  eigenvalues   {answer['largest']:.6g} ... {answer['least']:.6g}  estimate, "
        f"float64 (noise floor {answer['noise_floor']:.2g})",
    ]
    if y is not None:
        scores = _regression(kernel, gram, get, ridge, (x, y), (data, test), network)
        answer |= {"ridge": ridge} | scores
        measure = scores["measure"]
        lines.append(f"  left out      {measure} {scores['leave_one_out']:.4f}  ridge {ridge:g}")
        if test is not None:
            lines.append(f"  test          {measure} {scores['test']:.4f}  {test}")
    if out is not None:
        save_arrays(out, **{get: gram})
    if plot is not None:
        save_plot(plot, _Picture(get.upper(), gram, eigenvalues, answer["noise_floor"]))
    answer |= {"seconds": time.perf_counter() - start, "out": None if out is None else str(out)}
    lines.append(f"  time          {answer['seconds']:.2f} s")
    emit(as_json, answer, "\n".join(lines))


def _regression(
    kernel: Any,
    gram: np.ndarray,
    get: str,
    ridge: float,
    train: tuple[np.ndarray, np.ndarray],
    files: tuple[Path, Path | None],
    network: Any,
) -> dict[str, Any]:
    """Scores of kernel ridge regression: on what is left out, and on the test file."""
    import numpy as np

    from tangency.theory.prediction import NoiseFloorWarning, kernel_ridge

    x, y = train
    data, test = files
    _check_targets(data, x, y)
    classes = np.unique(y) if y.dtype.kind in "iub" else None
    columns = y if classes is None else (y[:, None] == classes) - 1.0 / len(classes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NoiseFloorWarning)
        fit = kernel_ridge(gram, columns, ridge=ridge, leave_one_out=True)
    for warning in caught:
        click.echo(f"tangency: warning: {warning.message}", err=True)
    scores = {
        "measure": "R^2" if classes is None else "accuracy",
        "leave_one_out": _score(fit.leave_one_out, y, classes),
    }
    if test is not None:
        x_test, y_test = load_data(test, network, labels=True)
        assert y_test is not None
        _check_targets(test, x_test, y_test)
        scores["test"] = _score(fit.predict(kernel(x_test, x, get=get)), y_test, classes)
    return scores


def _check_targets(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    from tangency.models.errors import InputError

    if y.ndim == 0 or len(y) != len(x) or y.dtype.kind not in "iubf":
        raise InputError(
            f"{path}: y is {y.dtype} {y.shape}, one number or row a sample of {len(x)}"
        )
    if y.dtype.kind in "iub" and y.ndim != 1:
        raise InputError(f"{path}: y has shape {y.shape}: labels (integers) are ({len(x)},)")


def _score(f: Any, y: np.ndarray, classes: np.ndarray | None) -> float:
    """Accuracy of the greatest output, or R^2 averaged over outputs."""
    import numpy as np

    if classes is not None:
        return float(np.mean(classes[f.argmax(1)] == y))
    left, spread = np.sum((f - y) ** 2, 0), np.sum((y - y.mean(0)) ** 2, 0)
    return float(np.mean(1.0 - left / np.where(spread > 0, spread, 1.0)))


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
