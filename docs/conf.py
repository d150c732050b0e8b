"""Sphinx settings of the manual: `make docs` builds it into docs/_build/html."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import captum_attngrad  # noqa: E402

project = "captum_attngrad"
author = "The captum_attngrad developers"
copyright = f"2026, {author}"
version = release = captum_attngrad.__version__

# The last four are in _ext. No intersphinx: the build must not need the network.
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "api_pages",
    "captum_layout",
    "copied_pages",
    "mathml",
]
exclude_patterns = ["_build", "_ext"]
templates_path = []

# The API reference. The docstrings give the types, as Captum's do.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autoclass_content = "both"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

# A function, method or class of ours that a docstring names must exist. Types are
# prose, and other libraries are not linked.
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"(?!captum_attngrad\b).*"),
    ("py:class", r".*\._.*"),
    ("py:(func|meth|class|exc|attr|obj)", r"(torch|captum|numpy|np|nn|F)\..*"),
    ("py:meth", r"\w+"),
    ("py:(attr|data|obj|exc|mod)", r".*"),
]

# Notebooks keep the outputs that they were committed with.
nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = [
    # The notebooks' headings begin where their authors wanted them.
    "myst.header",
    # Progress bars and tables of widgets have a plain-text form as well.
    "mystnb.unknown_mime_type",
]

html_theme = "furo"
html_title = f"captum_attngrad {release}"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_copy_source = False
html_show_sourcelink = False
