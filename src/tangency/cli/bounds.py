"""``tangency bounds MODEL``: output bounds over boxes, certified accuracy over a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tangency.cli.bounds_answers import show_accuracy, show_outputs
from tangency.cli.common import (
    OutputPath,
    load_data,
    load_model,
    model_options,
    number_range,
    output_options,
    read_arrays,
)

if TYPE_CHECKING:
    from tangency.models import Network

__all__ = ["command"]

METHODS = ("ibp", "crown-ibp", "crown", "forward", "alpha-crown")


@click.command(name="bounds")
@model_options
@click.option(
    "--box",
    metavar="BOX",
    help="LO:HI for every entry, a comma-separated LO:HI for each, or FILE.npz with arrays lower "
    "and upper.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Samples: .npz with an array x, and labels y for certified accuracy.",
)
@click.option(
    "--eps",
    metavar="E[,E...]",
    help="Radius of the ball around each sample; several give the certified fraction against eps.",
)
@click.option(
    "--norm",
    type=click.Choice(["inf", "2", "1"]),
    default="inf",
    show_default=True,
    help="Norm of the ball around each sample.",
)
@click.option("--clip", metavar="LO:HI", help="Range of valid inputs, such as 0:1.")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="crown",
    show_default=True,
    help="How the bounds are found.",
)
@click.option(
    "--mode",
    type=click.Choice(["last", "joint"]),
    default="last",
    show_default=True,
    help="alpha-crown: optimise the slopes of the last pass, or of every pass.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="alpha-crown: steps of the optimisation.",
)
@click.option("--plain", is_flag=True, help="The literature's bounds, without interval steps.")
@click.option(
    "--estimate",
    is_flag=True,
    help="Compute in the model's own precision, without proof: faster, and called an estimate.",
)
@click.option(
    "--attack",
    type=click.Choice(["pgd", "corners", "none"]),
    default="pgd",
    show_default=True,
    help="What searches for counterexamples beside the bounds.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the attack.")
@click.option("--limit", type=click.IntRange(min=1), help="Use the first samples only.")
@click.option(
    "--checkpoint",
    type=OutputPath(),
    help="Keep finished batches of certified accuracy in this file, and go on from it: what is "
    "read is proved again (not with --mode joint, and then the answer is not certified).",
)
@output_options
def command(
    model: Path,
    box: str | None,
    data: Path | None,
    eps: str | None,
    norm: str,
    clip: str | None,
    attack: str,
    seed: int,
    limit: int | None,
    checkpoint: Path | None,
    as_json: bool,
    out: Path | None,
    plot: Path | None,
    **options: Any,
) -> None:
    """Bound the outputs of a model over boxes or balls of inputs.

    --box bounds the outputs over one box. --data X.npz --eps E bounds them over the ball around
    each sample; with labels y in the file the answer is the certified accuracy: the fraction of
    samples whose label provably wins on the whole ball, beside what an attack refutes.

    A bound called certified holds in real arithmetic for the exact weights with the hash shown.
    --out FILE.npz writes the arrays lower and upper (or the verdicts by sample), --out FILE.cert a
    certificate that tangency check proves again. --plot draws the mean width by layer, or the
    certified fraction against eps.

    Exit status: 0 the bounds were found; 2 bad input or usage.
    """
    _check_usage(box, data, eps, norm, clip, limit, checkpoint)
    reading = {name: options.pop(name) for name in ("activation", "residual", "per_sample")}
    how = _method_options(options)
    network = load_model(model, **reading)
    if box is not None:
        region = _box(box, network)
        show_outputs(network, model, region, f"the box {box}", how, as_json, out, plot)
        return
    assert data is not None
    assert eps is not None
    radii = _numbers("--eps", eps)
    x, y = load_data(data, network)
    x, y = x[:limit], None if y is None else y[:limit]
    span = None if clip is None else number_range("--clip", clip)
    if y is not None:
        if out is not None and out.suffix == ".cert":
            raise click.UsageError(
                "--out FILE.cert is for bounds; tangency certify MODEL --data X.npz --eps E "
                "--method crown --out FILE.cert writes one of robust samples"
            )
        how |= {"norm": norm, "attack": attack, "seed": seed, "clip": span}
        show_accuracy(network, model, data, x, y, radii, checkpoint, how, as_json, out, plot)
        return
    if checkpoint is not None:
        raise click.UsageError("--checkpoint keeps certified accuracy: the data need labels y")
    if len(radii) > 1:
        raise click.UsageError("several --eps are for certified accuracy: the data need labels y")
    from tangency.verify.certificate.source import Samples
    from tangency.verify.sets import around

    region = around(x, radii[0], norm, span)
    what = f"{len(x)} samples of {data}, {radii[0]:g} in l{norm} around each"
    source = Samples(x, radii[0], norm=norm, clip=span).source()
    show_outputs(network, model, region, what, how, as_json, out, plot, source)


def _check_usage(
    box: str | None,
    data: Path | None,
    eps: str | None,
    norm: str,
    clip: str | None,
    limit: int | None,
    checkpoint: Path | None,
) -> None:
    if (box is None) == (data is None):
        raise click.UsageError("give --box BOX, or --data X.npz with --eps E")
    if (data is None) != (eps is None):
        raise click.UsageError("--data and --eps go together: samples and the radius around them")
    for name, given in (("clip", clip), ("limit", limit), ("checkpoint", checkpoint)):
        if box is not None and given is not None:
            raise click.UsageError(f"--{name} is for samples: leave --box, give --data and --eps")
    if box is not None and norm != "inf":
        raise click.UsageError("--norm is of a ball around samples: leave --box")


def _method_options(options: dict[str, Any]) -> dict[str, Any]:
    how: dict[str, Any] = {
        "method": options["method"],
        "plain": options["plain"],
        "rigorous": not options["estimate"],
    }
    if how["method"] == "alpha-crown":
        how |= {"mode": options["mode"], "steps": options["steps"]}
        return how
    source = click.get_current_context().get_parameter_source
    for name in ("mode", "steps"):
        if source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} is for --method alpha-crown")
    return how


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.UsageError(
            f"{option} {text}: give numbers, such as 0.02 or 0.01,0.02"
        ) from None


def _box(text: str, network: Network) -> Any:
    """The box that the option spells, of the shape of the network's input."""
    import numpy as np

    from tangency.models import InputError
    from tangency.verify import Box

    shape = network.input_shape
    if text.endswith(".npz"):
        arrays = read_arrays(Path(text))
        if not {"lower", "upper"} <= set(arrays):
            raise InputError(f"{text}: needs arrays 'lower' and 'upper', has {sorted(arrays)}")
        return Box(arrays["lower"], arrays["upper"])
    ranges = [number_range("--box", part) for part in text.split(",")]
    size = int(np.prod(shape))
    if len(ranges) not in (1, size):
        raise InputError(f"--box {text}: {len(ranges)} ranges, the network takes {size} (or one)")
    ends = np.broadcast_to(np.array(ranges), (size, 2))
    return Box(ends[:, 0].reshape(shape).copy(), ends[:, 1].reshape(shape).copy())
