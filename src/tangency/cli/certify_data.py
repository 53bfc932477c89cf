"""``tangency certify MODEL --data X.npz --eps E``: robustness of labelled samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tangency.cli.common import (
    Outputs,
    Progress,
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
    norm: str,
    method: str,
    seed: int,
) -> None:
    """Certify the robustness of labelled samples, and print what was proved and refuted."""
    from tangency.verify import certify_robust

    x, y = load_data(data, network, labels=True)
    assert y is not None
    x, y = x[:limit], y[:limit]
    how: dict[str, Any] = {"norm": norm, "method": method, "seed": seed}
    with Progress(f"bounds by {method}") as progress:
        result = certify_robust(network, x, y, eps, progress=progress, **how)
    files = Outputs()
    names = ("lower", "upper", "margin_lower", "margin_upper", "verified", "attacked")
    arrays = {name: getattr(result, name) for name in names}
    written = files.write(out, save_result, result, network, **arrays)
    files.write(plot, save_plot, result)
    certificate = written if out is not None and out.suffix == ".cert" else None
    n = len(x)
    count = int(result.verified.sum())
    answer = head(network, path) | result.as_dict()
    answer |= {"out": written, "certificate": certificate}
    lines = [
        f"{path}: robustness of {n} samples of {data} within {eps:g} in l{norm}",
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
    files.emit(as_json, answer, "\n".join(lines))
