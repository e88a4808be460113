"""Sphinx's settings. `python docs/site/build.py` gathers the sources first. All that a page loads is in the site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pygments.lexers.special import TextLexer

from bertkit.version import __version__
from reference import as_rst

project = "bertkit"
author = "the authors of bertkit"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]

html_theme = "furo"
html_title = f"bertkit {release}"
html_static_path = [str(Path(__file__).resolve().parent / "static")]
html_css_files = ["wide-tables.css"]
html_favicon = str(Path(__file__).resolve().parent / "static" / "icon.svg")
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False

myst_heading_anchors = 3
copybutton_prompt_text = "$ "  # only commands are copied, without the prompt
copybutton_copy_empty_lines = False
highlight_language = "text"
smartquotes = False  # --train is an option

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
python_use_unqualified_type_names = True
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # signatures name inner types, which have no page


def _as_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = as_rst(lines)


def setup(app: Any) -> None:
    app.add_lexer("csv", TextLexer)
    app.connect("autodoc-process-docstring", _as_rst)
