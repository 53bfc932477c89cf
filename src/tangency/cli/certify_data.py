"""``tangency certify MODEL --data X.npz --eps E``: robustness of labelled samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tangency.cli.common import (
    Progress,
    emit,
    head,
    load_data,
    save_plot,
    save_result,
)

__all__ = ["on_data"]


def on_data(
    network: Any,
    path: Path,
    data: Path,
    eps: float,
    limit: int | None,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
    method: str,
    seed: int,
) -> None:
    """Certify the robustness of labelled samples, and print what was proved and refuted."""
    from tangency.verify import certify_robust

    x, y = load_data(data, network, labels=True)
    assert y is not None
    x, y = x[:limit], y[:limit]
    with Progress(f"bounds by {method}") as progress:
        result = certify_robust(network, x, y, eps, method=method, seed=seed, progress=progress)
    certificate = None
    if out is not None:
        certificate = save_result(
            out,
            result,
            network,
            lower=result.lower,
            upper=result.upper,
            margin_lower=result.margin_lower,
            margin_upper=result.margin_upper,
            verified=result.verified,
            attacked=result.attacked,
        )
    if plot is not None:
        save_plot(plot, result)
    n = len(x)
    count = int(result.verified.sum())
    answer = head(network, path) | result.as_dict() | {"out": None if out is None else str(out)}
    answer["certificate"] = certificate
    lines = [
        f"{path}: robustness of {n} samples of {data} within {eps:g} in l-infinity",
        f"  certified     {count} of {n} ({result.certified_accuracy:.1%})  "
        f"method {result.method}, rounded outward",
        f"  under attack  {result.attacked_accuracy:.1%} of the samples keep their label "
        f"({result.attack})",
        f"  clean         {result.clean_accuracy:.1%} are classified as labelled",
        f"  time          {result.seconds:.2f} s",
        f"  weights       sha256 {network.hash}",
        f"Proved: {count} samples keep their label for every input within {eps:g} of them, in real "
        "arithmetic, for exactly these weights.",
    ]
    if certificate is not None:
        lines.append(f"Certificate: {certificate}  (tangency check FILE MODEL)")
    emit(as_json, answer, "\n".join(lines))
