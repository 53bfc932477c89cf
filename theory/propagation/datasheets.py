"""A page with the datasheets of all activations, generated: Markdown and a picture each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tangency.files import replacing, why, write
from tangency.models.activations import names
from tangency.models.activations.groups import GROUP_ACTIVATIONS
from tangency.models.errors import InputError
from tangency.theory.propagation.datasheet import Datasheet, datasheet

__all__ = ["write_datasheets"]


def write_datasheets(
    folder: Path | str,
    activations: Iterable[str] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``index.md`` and a picture of each activation into a folder, which is made.

    Parameters
    ----------
    folder : Path or str
    activations : names, optional
        By default the whole catalogue.
    progress : callable ``(done, total)``, optional

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        If the folder cannot be written, or a name is unknown.
    """
    folder = Path(folder)
    chosen = list(names() if activations is None else activations)
    sheets = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for done, name in enumerate(chosen, 1):
            sheet = datasheet(name)
            with replacing(folder / f"{name}.png") as file:
                sheet.plot().savefig(file, format="png", dpi=80)
            sheets.append((name, sheet))
            if progress is not None:
                progress(done, len(chosen))
        page = folder / "index.md"
        write(page, _page(sheets))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({why(error)})") from None
    return page


def _page(sheets: list[tuple[str, Datasheet]]) -> str:
    lines = [
        "# Activation datasheets",
        "",
        "Slope ranges are proved; the rest is computed. Moments, duals and the rate at the edge of",
        "chaos are at unit variance.",
        "",
        "| activation | slopes | universality class | infinitely deep classifier |",
        "| --- | --- | --- | --- |",
    ]
    for name, sheet in sheets:
        slopes = sheet.card.slope_range
        shown = "unknown" if slopes is None else f"[{slopes[0]:.4f}, {slopes[1]:.4f}]"
        kind = "no Gaussian moments" if sheet.universality is None else sheet.universality.name
        deep = "" if sheet.card.limit is None else str(sheet.card.limit)
        lines.append(f"| [{name}](#{name}) | {shown} | {_plain(kind)} | {deep} |")
    for name, sheet in sheets:
        lines += ["", f"## {name}", "", f"![{name}]({name}.png)", "", "| | |", "| --- | --- |"]
        lines += [f"| {_plain(label)} | {_plain(text)} |" for label, text in sheet.rows()]
    lines += ["", "## Functions of a group of neurons", ""]
    lines += ["| activation | formula | Lipschitz (l2) | keeps |", "| --- | --- | --- | --- |"]
    for group in GROUP_ACTIVATIONS:
        constant = "by parameters" if group.lipschitz is None else f"{group.lipschitz:g}"
        cells = (group.name, _plain(group.formula), constant, ", ".join(group.preserves))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text that a table of Markdown does not take for markup."""
    for sign in ("\\", "|", "*", "_", "`"):
        text = text.replace(sign, "\\" + sign)
    return text
