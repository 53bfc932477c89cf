"""``tangency check FILE MODEL``: whether a certificate holds for a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tangency.cli.common import (
    emit,
    head,
    load_data,
    load_model,
    model_options,
    number_range,
)

if TYPE_CHECKING:
    from tangency.verify import Certificate, Check

__all__ = ["command"]


@click.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
@model_options
@click.option(
    "--exact", is_flag=True, help="Check in rational arithmetic: small networks, extra [exact]."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="The samples that the claim must be about: .npz with an array x, and labels y.",
)
@click.option("--eps", type=float, help="Radius of the ball around each sample.")
@click.option(
    "--norm", type=click.Choice(["inf", "2", "1"]), help="Norm of the ball [default: inf]."
)
@click.option("--clip", metavar="LO:HI", help="Range that the balls are cut to, such as 0:1.")
@click.option(
    "--samples",
    metavar="I[,J:K...]",
    help="Samples that must be covered, such as 0:100 or 3,7 [default: those that FILE names].",
)
@click.option(
    "--ignore-labels",
    is_flag=True,
    help="Compare samples and radius alone, though the data have labels.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    file: Path,
    model: Path,
    exact: bool,
    data: Path | None,
    eps: float | None,
    norm: str | None,
    clip: str | None,
    samples: str | None,
    ignore_labels: bool,
    as_json: bool,
    **reading: Any,
) -> None:
    """Check the certificate FILE against a model, with code that is not the search's.

    What the certificate claims is proved again from the model's own weights, in rigorous
    arithmetic; of the file only the witness is used, and nothing in it is trusted. A local bound
    derives the slopes over its box, and over each piece of it, from the model again. The MODEL of
    an implicit layer's certificate is the .npz file that ImplicitLayer.save wrote.

    With --data X.npz --eps E the claim must be about these samples: each set must hold the whole
    ball of radius E around its sample, in exact arithmetic, and where the claim is that labels are
    kept they must be those of the data. Data with labels ask for a claim about labels, unless
    --ignore-labels is given. Without --data, compare what is printed with what you expect:
    numbers and sha256 of the sets determine the claim.

    Exit status: 0 the claim holds (and is about the data); 1 it does not hold, or is of another
    model or other data; 2 bad input, such as a damaged certificate; 3 an unexpected error.
    """
    from tangency.verify import check, read_certificate
    from tangency.verify.certificate.claim import Claim

    if (data is None) != (eps is None):
        raise click.UsageError("--data and --eps go together: samples and the radius around them")
    for name, given in (("norm", norm), ("clip", clip), ("samples", samples)):
        if data is None and given is not None:
            raise click.UsageError(f"--{name} is about samples: give --data and --eps")
    certificate = read_certificate(file)
    network = _model(certificate, model, reading)
    options: dict[str, Any] = {}
    if data is not None:
        labelled = certificate.claim.as_dict().get("labels") is not None
        x, y = load_data(data, network, labels=labelled)
        if isinstance(certificate.claim, Claim) or ignore_labels:
            y = None  # a Lipschitz constant is about no label
        options = {"x": x, "eps": eps, "y": y, "norm": norm or "inf"}
        options["clip"] = None if clip is None else number_range("--clip", clip)
        options["samples"] = None if samples is None else _places(samples, len(x))
    found = check(certificate, network, exact=exact, **options)
    answer = head(network, model) | {"file": str(file)} | found.as_dict()
    emit(as_json, answer, _text(found, certificate, data))
    if not found.holds:
        raise SystemExit(1)


def _text(found: Check, certificate: Certificate, data: Path | None) -> str:
    """The verdict, the claim, what it was made from and what it was compared with."""
    how = "rational arithmetic" if found.exact else "float64 with directed rounding"
    if not found.holds:
        lines = [f"does not hold: {found.reason}", f"  it states {found.claim}"]
    else:
        lines = [
            f"holds: {found.claim}",
            f"  proved in {found.seconds:.3f} s in {how} (found by {certificate.method})",
        ]
    if found.samples is not None:
        from tangency.verify.certificate.regions import listed

        labels = " and its label" if found.statement.get("labels") is not None else ""
        lines.append(
            f"  compared: the claim covers the ball around each of the samples "
            f"{listed(found.samples)} of {data}{labels}"
        )
    elif found.source is not None:
        lines.append(
            f"  the file says, unproved, that it is about {found.source}: "
            "--data X.npz --eps E compares"
        )
    return "\n".join(lines)


def _places(text: str, count: int) -> list[int]:
    """The samples that the option spells, of so many that there are."""
    found: list[int] = []
    try:
        for part in text.split(","):
            first, colon, last = part.partition(":")
            own = range(int(first), int(last)) if colon else range(int(first), int(first) + 1)
            if own and not 0 <= own[0] <= own[-1] < count:
                raise click.UsageError(f"--samples {text}: the data hold {count} samples")
            found += own
    except ValueError:
        raise click.UsageError(f"--samples {text}: give places, such as 0:100 or 3,7") from None
    if not found:
        raise click.UsageError(f"--samples {text}: these are none")
    return found


def _model(certificate: Certificate, path: Path, reading: dict[str, Any]) -> Any:
    """Read the kind of model that a certificate speaks about."""
    from tangency.models import InputError
    from tangency.verify import ImplicitLayer
    from tangency.verify.certificate.claim import IMPLICIT

    if not isinstance(certificate.witness, IMPLICIT):
        return load_model(path, **reading)
    if any(reading.values()):
        raise InputError(f"{path}: an implicit layer is read without options")
    return ImplicitLayer.load(path)
