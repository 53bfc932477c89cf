"""Scores of the kernel regression that ``tangency kernel`` makes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tangency.cli.common import load_data

if TYPE_CHECKING:
    import numpy as np

__all__ = ["regression"]


def regression(
    engine: Any,
    gram: np.ndarray,
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
        fit = kernel_ridge(gram, columns, ridge=ridge, leave_one_out=True, device=engine.device)
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
        scores["test"] = _score(fit.predict(engine(x_test, x)), y_test, classes)
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
