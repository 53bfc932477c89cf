"""Settings of Sphinx; ``python docs/build.py`` puts the pages together and runs it."""

import html
import re

from docstrings import process, skip
from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from tangency._version import __version__

project = "tangency"
author = "the tangency developers"
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
]
exclude_patterns: list[str] = []

html_theme = "furo"
html_title = f"tangency {__version__}"
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"  # of the browser: the pages need nothing from the network

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give types with shapes
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes of a dataclass are listed, not documented twice

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are executed where they are written

# Classes of one name live in different rooms (`GroupSort` is an op, and a layer of a proof): an
# annotation that names one without its room is ambiguous to Sphinx, not to a reader.
suppress_warnings = ["ref.python"]


_SIZES = re.compile(r"\\[bB]igg?[lmr]?(?![A-Za-z])")  # MathML sizes brackets by itself


def _mathml(tex: str, block: bool) -> str:
    """A formula as MathML, or its source where docutils does not know a command of it."""
    try:
        return str(latex2mathml.tex2mathml(_SIZES.sub("", tex), as_block=block))
    except (MathError, AttributeError):  # the latter from commands where it expects none
        return f"<code>{html.escape(tex)}</code>"


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_mathml(node.astext(), block=False))
    raise nodes.SkipNode


def _display(translator: HTML5Translator, node: nodes.math_block) -> None:
    body = _mathml(node.astext(), block=True)
    translator.body.append(f'<div style="margin: 1em 0">{body}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Draw formulas as MathML by docutils' own translator; read docstrings of the house."""
    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip)
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
