"""``tangency activations [NAME]``: the catalogue, or one record's card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tangency._version import __version__
from tangency.cli.common import emit, save_plot

__all__ = ["command"]


@click.command(name="activations")
@click.argument("name", required=False)
@click.option(
    "--set",
    "parameters",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the record, as negative_slope=0.2; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="Write a picture of value and derivative (.png, .pdf, .svg).",
)
def command(
    name: str | None, parameters: tuple[str, ...], as_json: bool, plot: Path | None
) -> None:
    """List the activation records, or print the card of NAME.

    The card holds the formula, the rigorous slope range and Lipschitz constant, the Gaussian
    moments, the critical initialisation and the limit of infinite depth.
    """
    from tangency.models import activations
    from tangency.models.activations.card import card

    if name is None:
        if plot is not None or parameters:
            raise click.UsageError("--plot and --set are for one record: give its NAME")
        _list(as_json)
        return
    record = activations.get(name, **dict(map(_parameter, parameters)))
    if plot is not None:
        save_plot(plot, _Plot(record))
    found = card(record)
    answer: dict[str, Any] = {"tangency": __version__, "activation": found.as_dict()}
    emit(as_json, answer, str(found))


class _Plot:
    """What :func:`save_plot` takes, for a record."""

    def __init__(self, record: Any) -> None:
        self.record = record

    def plot(self) -> Any:
        from tangency.models.activations.plot import plot

        return plot(self.record)


def _parameter(text: str) -> tuple[str, float]:
    key, _, value = text.partition("=")
    try:
        return key, float(value)
    except ValueError:
        raise click.UsageError(f"--set {text}: give KEY=VALUE with a number") from None


def _list(as_json: bool) -> None:
    from tangency.models import activations
    from tangency.models.activations.groups import GROUP_ACTIVATIONS as GROUPS

    records = [activations.get(name) for name in activations.names()]
    data = {
        "tangency": __version__,
        "activations": [
            {"name": r.name, "params": dict(r.params), "formula": r.formula} for r in records
        ],
        "groups": [{"name": g.name, "formula": g.formula} for g in GROUPS],
    }
    width = max(len(name) for name in [*(r.name for r in records), *(g.name for g in GROUPS)])
    lines = [f"{len(records)} functions of one variable"]
    lines += [f"  {r.name.ljust(width)}  {r.formula}" for r in records]
    lines += [f"{len(GROUPS)} functions of a group of entries"]
    lines += [f"  {g.name.ljust(width)}  {g.formula}" for g in GROUPS]
    emit(as_json, data, "\n".join(lines))
