"""What ``tangency bounds`` computes and prints: bounds of outputs, or certified accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tangency.cli.common import (
    Outputs,
    Progress,
    head,
    round_down,
    round_up,
    save_arrays,
    save_plot,
    save_result,
)

if TYPE_CHECKING:
    from tangency.models import Network

__all__ = ["show_accuracy", "show_outputs"]

SHOWN = 12  # rows of a table of outputs


def show_outputs(
    network: Network,
    path: Path,
    region: Any,
    where: str,
    how: dict[str, Any],
    as_json: bool,
    out: Path | None,
    plot: Path | None,
    source: Any = None,
) -> None:
    """Bound the outputs over a box or balls, and print the bounds."""
    from tangency.verify import bound

    result = bound(network, region, **how)
    files = Outputs()
    arrays = {"lower": result.lower, "upper": result.upper}
    written = files.write(out, save_result, result, network, source, **arrays)
    files.write(plot, save_plot, result)
    certificate = written if out is not None and out.suffix == ".cert" else None
    answer = head(network, path) | result.as_dict()
    answer |= {"out": written, "certificate": certificate}
    word = "certified" if result.certified else "estimate"
    rows, columns = len(result.lower), result.lower[0].size
    lines = [
        f"{path}: outputs over {where}",
        f"  method        {result.method}, {word}",
        f"  mean width    {float((result.upper - result.lower).mean()):.6g}",
        f"  time          {result.seconds:.2f} s",
        f"  weights       sha256 {network.hash}",
    ]
    if rows == 1:
        low, high = result.lower.reshape(-1), result.upper.reshape(-1)
        lines += [f"  output {'lower':>16} {'upper':>14}"]
        lines += [
            f"  {i:6d} {round_down(low[i]):>16} {round_up(high[i]):>14}"
            for i in range(min(columns, SHOWN))
        ]
        if columns > SHOWN:
            lines.append(f"  ... {columns - SHOWN} more: --out FILE.npz or --json")
    else:
        lines.append(f"  bounds of {rows} x {columns} outputs: --out FILE.npz or --json")
    if result.certified:
        lines.append(
            "Proved: every output stays within its bounds, in real arithmetic, for exactly these "
            "weights."
        )
    if certificate is not None:
        lines.append(f"Certificate: {certificate}  (tangency check FILE MODEL)")
    files.emit(as_json, answer, "\n".join(lines))


def show_accuracy(
    network: Network,
    path: Path,
    data: Path,
    x: Any,
    y: Any,
    radii: list[float],
    checkpoint: Path | None,
    how: dict[str, Any],
    as_json: bool,
    out: Path | None,
    plot: Path | None,
) -> None:
    """Certify labelled samples at several radii, and print a table of them."""
    from tangency.verify.bounds.accuracy import certified_accuracy

    with Progress(f"bounds by {how['method']}") as progress:
        curve = certified_accuracy(
            network, x, y, radii, checkpoint=checkpoint, progress=progress, **how
        )
    files = Outputs()
    names = ("eps", "verified", "attacked", "margin_lower", "margin_upper")
    written = files.write(out, save_arrays, **{name: getattr(curve, name) for name in names})
    files.write(plot, save_plot, curve)
    answer = head(network, path) | curve.as_dict() | {"out": written}
    read = int(curve.read.sum())
    word = "certified" if curve.certified else "unproved" if read else "estimate"
    lines = [
        f"{path}: {len(x)} samples of {data}, balls in l{curve.norm}",
        f"  method        {curve.method}, {word}",
        f"  clean         {curve.clean_accuracy:.1%} are classified as labelled",
        f"  {'eps':>10} {word:>10} {'unrefuted':>10} {'mean margin':>12}",
    ]
    lines += [
        f"  {eps:10g} {share:10.1%} {left:10.1%} {margin:12.5g}"
        for eps, share, left, margin in zip(
            curve.eps,
            curve.certified_accuracy,
            curve.attacked_accuracy,
            curve.margin_lower.mean(axis=1),
            strict=True,
        )
    ]
    lines += [
        f"  time          {curve.seconds:.2f} s",
        f"  weights       sha256 {network.hash}",
    ]
    if read and how["rigorous"]:
        lines.append(
            f"Not proved: of {curve.read.size} verdicts {read} are read from {checkpoint} as they "
            "stand, and nothing in it proves them; without --checkpoint all are proved."
        )
    if curve.certified:
        lines.append(
            "Proved: a certified sample keeps its label for every input of its ball, in real "
            "arithmetic, for exactly these weights."
        )
    files.emit(as_json, answer, "\n".join(lines))
