"""``tangency activations [NAME]``: the catalogue, one record's datasheet, or a page of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tangency._version import __version__
from tangency.cli.common import OutputPath, Outputs, Progress, emit, plot_option, save_plot

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
@plot_option("Write a picture: value and derivative, dual kernel, edge of chaos")
@click.option(
    "--page",
    type=OutputPath(folder=True),
    help="Write the datasheets of all records into this folder, as index.md and pictures.",
)
def command(
    name: str | None,
    parameters: tuple[str, ...],
    as_json: bool,
    plot: Path | None,
    page: Path | None,
) -> None:
    """List the activation records, or print the datasheet of NAME.

    It holds the formula, the rigorous slope range and Lipschitz constant, the Gaussian moments,
    the dual kernel, the critical initialisation, the universality class and the classifier of
    infinite depth.
    """
    from tangency.models import activations
    from tangency.models.activations.groups import GROUP_ACTIVATIONS
    from tangency.theory.propagation import datasheet, write_datasheets

    if page is not None:
        if name is not None or plot is not None or parameters:
            raise click.UsageError("--page is for all records: give it alone")
        with Progress("datasheets") as progress:
            written = write_datasheets(page, progress=progress)
        emit(as_json, {"tangency": __version__, "page": str(written)}, f"written: {written}")
        return
    if name is None:
        if plot is not None or parameters:
            raise click.UsageError("--plot and --set are for one record: give its NAME")
        _list(as_json)
        return
    if name in {group.name for group in GROUP_ACTIVATIONS}:
        if plot is not None or parameters:
            raise click.UsageError(f"{name} acts on groups of neurons: no plot, no parameters")
        _group(name, as_json)
        return
    record = activations.get(name, **dict(map(_parameter, parameters)))
    found, files = datasheet(record), Outputs()
    files.write(plot, save_plot, found)
    answer: dict[str, Any] = {"tangency": __version__, "activation": found.as_dict()}
    files.emit(as_json, answer, str(found))


def _group(name: str, as_json: bool) -> None:
    """The card of an activation of groups of neurons."""
    from dataclasses import asdict

    from tangency.models.activations.groups import get_group

    group = get_group(name)
    rows = {
        "name": group.name,
        "formula": group.formula,
        "group": "any size" if group.group is None else f"{group.group} neurons",
        "Lipschitz (l2)": "by parameters" if group.lipschitz is None else f"{group.lipschitz:g}",
        "keeps": ", ".join(group.preserves),
        "source": group.source,
    }
    width = max(map(len, rows))
    text = "\n".join(f"{label.ljust(width)}  {value}" for label, value in rows.items())
    emit(as_json, {"tangency": __version__, "activation": asdict(group)}, text)


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
