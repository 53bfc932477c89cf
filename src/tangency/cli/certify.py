"""``tangency certify MODEL``: a Lipschitz bound, or with --data the robustness of each sample."""

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
    round_down,
    round_up,
    save_arrays,
    save_plot,
    to_json,
)

__all__ = ["command"]


@click.command(name="certify")
@model_options
@click.option(
    "--norm", type=click.Choice(["2"]), default="2", show_default=True, help="Norm on both sides."
)
@click.option(
    "--method",
    type=click.Choice(["lipsdp", "product", "ibp"]),
    help="lipsdp or product for a Lipschitz bound [default: lipsdp]; ibp for robustness.",
)
@click.option(
    "--solver",
    type=click.Choice(["scs", "clarabel"]),
    default="scs",
    show_default=True,
    help="Solver of the LipSDP search; what it says is proved, not trusted.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the attack.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Certify the robustness of these samples: .npz with arrays x and y (labels).",
)
@click.option("--eps", type=float, help="Radius of the l-infinity ball around each sample.")
@click.option("--limit", type=click.IntRange(min=1), help="Use the first samples only.")
@output_options
def command(
    model: Path,
    norm: str,
    method: str | None,
    solver: str,
    seed: int,
    data: Path | None,
    eps: float | None,
    limit: int | None,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
    **reading: Any,
) -> None:
    """Prove a bound on the l2 Lipschitz constant of a model, or its robustness on a data set.

    A number called certified was proved in real arithmetic for the exact weights with the hash
    shown; beside it stands what an attack attained. Without --data, --out FILE.json writes the
    answer; with --data, --out FILE.npz writes the arrays lower and upper (bounds on the outputs),
    margin_lower (proved) and margin_upper (attained), verified and attacked.

    Exit status: 0 the bound was proved (with --data: the certified accuracy was found); 1 it was
    not proved; 2 bad input or usage.
    """
    if (data is None) != (eps is None):
        raise click.UsageError("--data and --eps go together: samples and the radius around them")
    network = load_model(model, **reading)
    if data is not None and eps is not None:
        if method not in (None, "ibp"):
            raise click.UsageError(f"--method {method} bounds a Lipschitz constant: leave --data")
        _robustness(network, model, data, eps, limit, as_json, out, plot, seed)
        return
    if method == "ibp":
        raise click.UsageError("--method ibp certifies robustness: give --data and --eps")
    if limit is not None:
        raise click.UsageError("--limit cuts a data set: give --data and --eps")
    _lipschitz(network, model, method or "lipsdp", solver, seed, as_json, out, plot)


def _lipschitz(
    network: Any,
    path: Path,
    method: str,
    solver: str,
    seed: int,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
) -> None:
    from tangency.models.errors import InputError
    from tangency.verify import lipschitz_bound

    bound = lipschitz_bound(network, method=method, solver=solver, seed=seed)
    answer = head(network, path) | bound.as_dict()
    if out is not None:
        try:
            out.write_text(to_json(answer) + "\n")
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror})") from None
    if plot is not None:
        save_plot(plot, bound)
    upper, lower = round_up(bound.upper), bound.lower
    word = "certified" if bound.certified else "estimate"
    lines = [
        f"{path}: l2 Lipschitz constant of {network!r}",
        f"  upper bound   {upper}  {word}",
        f"  method        {bound.method}",
        f"  lower bound   {'none' if lower is None else round_down(lower)}  attained by attack",
        f"  ratio         {round_up(bound.ratio, 5)}",
        f"  product bound {round_up(bound.product)}",
        f"  time          {bound.seconds:.2f} s",
        f"  weights       sha256 {network.hash}",
    ]
    if bound.certified:
        lines.append(
            f"Proved: |f(x) - f(y)|_2 <= {upper} |x - y|_2 for all x and y, in real arithmetic, "
            "for exactly these weights."
        )
    else:
        lines.append("Not proved: the rigorous check did not accept the solver's multipliers.")
    emit(as_json, answer, "\n".join(lines))
    if not bound.certified:
        raise SystemExit(1)


def _robustness(
    network: Any,
    path: Path,
    data: Path,
    eps: float,
    limit: int | None,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
    seed: int,
) -> None:
    from tangency.verify import certify_robust

    x, y = load_data(data, network, labels=True)
    assert y is not None
    x, y = x[:limit], y[:limit]
    with Progress("interval bounds") as progress:
        result = certify_robust(network, x, y, eps, seed=seed, progress=progress)
    if out is not None:
        save_arrays(
            out,
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
    emit(as_json, answer, "\n".join(lines))
