"""``tangency certify MODEL``: a Lipschitz bound, everywhere or near samples, or robustness."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tangency.cli.common import (
    OutputPath,
    Outputs,
    head,
    load_model,
    model_options,
    plot_option,
    round_down,
    round_up,
    save_plot,
)

__all__ = ["command"]

LIPSCHITZ = ("lipsdp", "eclipse_fast", "product")
ROBUST = ("ibp", "crown-ibp", "crown", "forward", "alpha-crown")


if TYPE_CHECKING:
    Converted = click.ParamType[Any]
else:  # older releases of click have no type parameter here
    Converted = click.ParamType


class _Output(Converted):
    """2, 1, inf, or margin:i,j as ("margin", i, j)."""

    name = "NORM"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str | tuple[str, int, int]:
        if value in ("2", "1"):
            return int(value)
        if value == "inf" or isinstance(value, int | tuple):
            return value  # type: ignore[no-any-return]
        kind, _, pair = str(value).partition(":")
        entries = pair.split(",")
        if kind == "margin" and len(entries) == 2 and all(e.strip().isdecimal() for e in entries):
            return "margin", int(entries[0]), int(entries[1])
        self.fail(f"{value!r}: give 2, 1, inf or margin:I,J", param, ctx)


@click.command(name="certify")
@model_options
@click.option(
    "--norm",
    type=click.Choice(["2", "inf", "1"]),
    help="Norm of the input [default: 2]; with --data, of the ball around each sample [default: "
    "inf].",
)
@click.option(
    "--output",
    type=_Output(),
    default="2",
    show_default=True,
    help="Norm of the output: 2, inf, 1, or margin:I,J for the difference of two entries.",
)
@click.option(
    "--method",
    type=click.Choice([*LIPSCHITZ, *ROBUST]),
    help="lipsdp, eclipse_fast or product for a Lipschitz bound [default: lipsdp]; ibp, crown-ibp, "
    "crown, forward or alpha-crown for robustness [default: ibp].",
)
@click.option(
    "--solver",
    type=click.Choice(["engine", "scs", "clarabel"]),
    default="engine",
    show_default=True,
    help="Solver of the LipSDP search; what it says is proved, not trusted.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="For the search (of each sample, with --local); the best so far is proved.",
)
@click.option(
    "--checkpoint",
    type=OutputPath(),
    metavar="FILE",
    help="Keep the engine's best point in this file, every few seconds, and go on from it.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the attack.")
@click.option(
    "--local",
    type=click.Path(path_type=Path),
    help="Bound the Lipschitz constant near these samples: .npz with an array x.",
)
@click.option("--branch", is_flag=True, help="With --local: cut the box (inputs of few entries).")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Certify the robustness of these samples: .npz with arrays x and y (labels).",
)
@click.option("--eps", type=float, help="Radius of the ball around each sample.")
@click.option("--limit", type=click.IntRange(min=1), help="Use the first samples only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--out", type=OutputPath(folder=None), help="Write the result to this file, or folder."
)
@plot_option("Write a picture to this file")
def command(
    model: Path,
    norm: str | None,
    output: Any,
    method: str | None,
    solver: str,
    time_limit: float,
    checkpoint: Path | None,
    seed: int,
    local: Path | None,
    branch: bool,
    data: Path | None,
    eps: float | None,
    limit: int | None,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
    **reading: Any,
) -> None:
    """Prove a bound on the Lipschitz constant of a model, or its robustness on a data set.

    A number called certified was proved in real arithmetic for the exact weights with the hash
    shown; beside it stands what an attack attained. --out FILE.cert writes the certificate, which
    tangency check proves again, and --out FILE.json the answer.

    With --local X.npz --eps E the bounds hold for pairs inside the l-infinity ball of radius E
    around each sample alone. There --out FILE.npz writes the arrays lower and upper, and a folder
    (--out NAME without a suffix) gets one certificate a sample, sample_0000.cert and so on;
    FILE.cert is for one sample, and --plot shows both bounds by sample. Ctrl-C ends the search and
    proves the best bound so far.

    With --checkpoint FILE whatever ends the process, the same command goes on from where it was.

    With --data X.npz --eps E, --out FILE.npz writes the arrays lower and upper (bounds on the
    outputs), margin_lower (proved) and margin_upper (attained), verified and attacked; FILE.cert
    writes a certificate of the samples proved robust.

    Exit status: 0 the bound was proved (with --data: the certified accuracy was found); 1 it was
    not proved; 2 bad input or usage.
    """
    if data is not None and local is not None:
        raise click.UsageError("--data asks for robustness, --local for bounds: give one of them")
    if ((data or local) is None) != (eps is None):
        raise click.UsageError(
            "--data (or --local) and --eps go together: samples and the radius around them"
        )
    if checkpoint is not None and (data is not None or local is not None):
        raise click.UsageError("--checkpoint keeps the search for one global bound")
    if branch and local is None:
        raise click.UsageError("--branch cuts a box: give --local and --eps")
    source = click.get_current_context().get_parameter_source
    if data is not None:
        if method in LIPSCHITZ:
            raise click.UsageError(f"--method {method} bounds a Lipschitz constant: leave --data")
        if out is not None and not out.suffix:
            raise click.UsageError(f"--out {out}: give FILE.npz for arrays, or FILE.cert")
        for name in ("output", "solver", "time_limit"):
            if source(name) is not click.core.ParameterSource.DEFAULT:
                option = name.replace("_", "-")
                raise click.UsageError(f"--{option} is for a Lipschitz bound: leave --data")
    elif method in ROBUST:
        raise click.UsageError(f"--method {method} certifies robustness: give --data and --eps")
    elif limit is not None and local is None:
        raise click.UsageError("--limit cuts a data set: give --data or --local, and --eps")
    network = load_model(model, **reading)
    if data is not None and eps is not None:
        from tangency.cli.certify_data import on_data

        how = method or "ibp"
        on_data(network, model, data, eps, limit, as_json, out, plot, norm or "inf", how, seed)
        return
    options = {
        "method": method or "lipsdp",
        "norm": norm or "2",
        "output": output,
        "solver": solver,
        "time_limit": time_limit,
        "seed": seed,
    }
    if local is not None and eps is not None:
        from tangency.cli.certify_local import near_samples

        options["branch"] = branch
        near_samples(network, model, local, eps, limit, as_json, out, plot, options)
        return
    options["checkpoint"] = checkpoint
    _lipschitz(network, model, as_json, out, plot, options)


def _lipschitz(
    network: Any,
    path: Path,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
    options: dict[str, Any],
) -> None:
    from tangency.cli.certify_local import Status, named, write_json
    from tangency.models.errors import InputError
    from tangency.verify import lipschitz_bound, write_certificate

    if out is not None and out.suffix not in (".cert", ".json"):
        raise InputError(f"{out}: give FILE.cert for the certificate or FILE.json for the answer")

    with Status("Lipschitz bound") as status:
        bound = lipschitz_bound(network, progress=status, **options)
    answer = head(network, path) | bound.as_dict() | {"output": bound.output}
    files = Outputs()
    if out is not None and out.suffix == ".json":
        files.write(out, write_json, answer)
    elif bound.certified:
        answer["certificate"] = files.write(out, write_certificate, bound, network)
    files.write(plot, save_plot, bound)
    upper, lower = round_up(bound.upper), bound.lower
    attained = "none found" if lower is None else f"{round_down(lower)}  attained by attack"
    word = "certified" if bound.certified else "estimate"
    ends = "l2" if (bound.norm, bound.output) == ("2", "2") else f"l{bound.norm} -> {bound.output}"
    lines = [
        f"{path}: {ends} Lipschitz constant of {network!r}",
        f"  upper bound   {upper}  {word}",
        f"  method        {bound.method}",
        f"  lower bound   {attained}",
        f"  ratio         {round_up(bound.ratio, 5)}",
        f"  product bound {round_up(bound.product)}",
        f"  time          {bound.seconds:.2f} s"
        + ("" if bound.finished else "  (stopped before the search had ended)"),
        f"  weights       sha256 {network.hash}",
    ]
    if answer["certificate"] is not None:
        lines.append(f"  certificate   {answer['certificate']}  (tangency check FILE MODEL)")
    if bound.certified:
        lines.append(
            f"Proved: {named(bound, upper)} for all x and y, in real arithmetic, "
            "for exactly these weights."
        )
    else:
        lines.append("Not proved: the rigorous check did not accept the solver's multipliers.")
    files.emit(as_json, answer, "\n".join(lines))
    if not bound.certified:
        raise SystemExit(1)
