"""The house's docstrings as reStructuredText: shapes with stars, norms in bars, numbered papers.

They are written to be read in a terminal: ``(N, *shape) array``, ``|A - midpoint|``, ``[1]_``. To
docutils these are emphasis, a substitution and a label that may stand once a page.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["escaped", "process", "skip"]

_LITERAL = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)  # literals, and roles such as :math:
_STAR = re.compile(r"(?<![*\\\w])\*(?=[A-Za-z_])(?![^\s*][^*]*[^\s*(]\*(?=[\s,.;:)]|$))")
_CITED = re.compile(r"\[(\d+)\]_")
_ENTRY = re.compile(r"^(\s*)\.\. \[\d+\] ", re.MULTILINE)


def escaped(text: str) -> str:
    """Text with the signs that are not markup escaped outside literals."""
    parts = _LITERAL.split(text)
    parts[::2] = [_STAR.sub(r"\\*", p.replace("|", "\\|")) for p in parts[::2]]
    return _CITED.sub(r"[\1]", "".join(parts))


def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring before napoleon reads it (``autodoc-process-docstring``)."""
    written: list[str] = []
    prose: list[str] = []  # of several lines, for a literal may cross their ends

    def flush() -> None:
        if prose:
            text = _ENTRY.sub(r"\1#. ", "\n".join(prose))
            written.extend(escaped(text).split("\n"))
            prose.clear()

    verbatim = -1  # the indent of the directive, or of the line before a block, that we are in
    for line in lines:
        text = line.lstrip()
        indent = len(line) - len(text)
        if text and verbatim >= 0 and indent <= verbatim:
            verbatim = -1
        if verbatim >= 0 or text.startswith((">>>", "... ")):
            flush()
            written.append(line)
            continue
        if text.startswith(".. math::"):
            flush()
            written.append(line)
            verbatim = indent
            continue
        prose.append(line)
        if text.endswith("::"):
            verbatim = indent
    flush()
    lines[:] = written


def skip(app: Any, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn adds to estimators by itself (``autodoc-skip-member``)."""
    return True if re.fullmatch(r"set_\w+_request", name) else None
