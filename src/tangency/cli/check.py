"""``tangency check FILE MODEL``: whether a certificate holds for a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tangency.cli.common import emit, head, load_model, model_options

if TYPE_CHECKING:
    from tangency.verify import Certificate

__all__ = ["command"]


@click.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
@model_options
@click.option(
    "--exact", is_flag=True, help="Check in rational arithmetic: small networks, extra [exact]."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(file: Path, model: Path, exact: bool, as_json: bool, **reading: Any) -> None:
    """Check the certificate FILE against a model, with code that is not the search's.

    What the certificate claims is proved again from the model's own weights, in rigorous
    arithmetic; of the file only the witness is used, and nothing in it is trusted. A local bound
    derives the slopes over its box, and over each piece of it, from the model again. The MODEL of
    an implicit layer's certificate is the .npz file that ImplicitLayer.save wrote.

    Exit status: 0 the claim holds; 1 it does not hold, or is of another model; 2 bad input, such as
    a damaged certificate.
    """
    from tangency.verify import check, read_certificate

    certificate = read_certificate(file)
    network = _model(certificate, model, reading)
    found = check(certificate, network, exact=exact)
    how = "rational arithmetic" if exact else "float64 with directed rounding"
    text = f"holds: {found.claim}" if found.holds else f"does not hold: {found.reason}"
    if found.holds:
        text += f"\n  proved in {found.seconds:.3f} s in {how} (found by {certificate.method})"
    else:
        text += f"\n  it states {found.claim}"
    emit(as_json, head(network, model) | {"file": str(file)} | found.as_dict(), text)
    if not found.holds:
        raise SystemExit(1)


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
