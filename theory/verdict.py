"""The verdict of a reproduction: what was claimed, what was measured, and whether it holds.

A folder of ``papers/`` has a ``reproduce.py`` of this form::

    def main(quick: bool) -> Verdict:
        ...

    if __name__ == "__main__":
        reproduce(main, Path(__file__).parent)

``reproduce`` runs it and prints the verdict as JSON; a full run (without ``--quick``) also writes
``verdict.json`` into the folder, which is what ``tangency papers`` lists.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tangency.files import write
from tangency.models.errors import InputError

__all__ = ["Verdict", "read_verdict", "reproduce"]

_KEYS = ("name", "claim", "measured", "target", "passed", "figure")


@dataclass(frozen=True)
class Verdict:
    """The outcome of one reproduction.

    Attributes
    ----------
    name : str
        The name of the folder, ``<year>_<author>_<word>``.
    claim : str
        What the paper states, in one plain sentence.
    measured : mapping of str to number, text, or lists and mappings of them
        What this run measured. NumPy's scalars and arrays are taken too.
    target : str
        The line that the measurement must meet, fixed before the run.
    passed : bool
        Whether it met it: computed from ``measured``.
    figure : Path or None
        The plot, where the run drew one.
    """

    name: str
    claim: str
    measured: Mapping[str, Any] = field(repr=False)
    target: str
    passed: bool
    figure: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain numbers and text; the figure is named relative to its folder."""
        return {
            "name": self.name,
            "claim": self.claim,
            "measured": _plain(self.measured),
            "target": self.target,
            "passed": bool(self.passed),
            "figure": None if self.figure is None else self.figure.name,
        }

    def to_json(self) -> str:
        """One JSON object; a number that is not finite is null."""
        return json.dumps(self.as_dict(), indent=2, allow_nan=False, ensure_ascii=False)

    def __str__(self) -> str:
        lines = [f"{self.name}: {'passed' if self.passed else 'FAILED'}", f"  claim   {self.claim}"]
        lines.append(f"  target  {self.target}")
        lines += [f"  {key}: {_short(value)}" for key, value in self.measured.items()]
        return "\n".join(lines)


def read_verdict(path: Path) -> Verdict:
    """Read the ``verdict.json`` of a folder.

    Raises
    ------
    InputError
        If the file cannot be read, or is not a verdict.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        figure = data["figure"]
        parts = {key: data[key] for key in _KEYS}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not a verdict: it needs the keys {', '.join(_KEYS)}") from None
    return Verdict(**parts | {"figure": None if figure is None else path.parent / figure})


def reproduce(
    main: Callable[[bool], Verdict], folder: Path, arguments: list[str] | None = None
) -> Verdict:
    """Run a reproduction as a command: ``--quick`` for the short form, exit status 1 if it fails.

    Parameters
    ----------
    main : callable ``quick -> Verdict``
    folder : Path
        The folder of the paper, where a full run leaves ``verdict.json``.
    arguments : list of str, optional
        By default those of the command line.

    Raises
    ------
    SystemExit
        With status 1 where the target was not met.
    """
    parser = argparse.ArgumentParser(description=main.__doc__ or f"Reproduce {folder.name}.")
    parser.add_argument("--quick", action="store_true", help="under a minute, fewer samples")
    quick: bool = parser.parse_args(arguments).quick
    verdict = main(quick)
    if not quick:
        write(folder / "verdict.json", verdict.to_json() + "\n")
    sys.stdout.write(verdict.to_json() + "\n")
    if not verdict.passed:
        raise SystemExit(1)
    return verdict


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if hasattr(value, "tolist"):  # NumPy's and JAX's arrays and scalars
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | str | None) else str(value)


def _short(value: Any) -> str:
    value = _plain(value)
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(inner)}" for key, inner in value.items())
    return str(value)
