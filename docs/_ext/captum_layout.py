"""Docstrings in Captum's layout as reStructuredText, without what Python generates.

Captum writes the list of what is returned right below a line of text, and indents what
follows each name; reStructuredText wants an empty line before, and one indentation.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

ITEM = re.compile(r"(\s*)- \*\*")


def _lists(lines: list[str]) -> list[str]:
    found: list[str] = []
    indent: int | None = None  # of the list that we are in
    for line in lines:
        own = len(line) - len(line.lstrip())
        if item := ITEM.match(line):
            if indent is None and found and found[-1].strip():
                found.append("")
            indent = len(item[1])
        elif not line.strip() or (indent is not None and own <= indent):
            indent = None
        elif indent is not None:
            line = " " * (indent + 2) + line.strip()
        found.append(line)
    return found


def _process(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    lines[:] = _lists(lines)
    lines[:] = [
        # The docstring that a named tuple's constructor has by itself.
        "" if line.startswith("Create new instance of") else line
        for line in lines
    ]
    lines[:] = [
        re.sub(r"^(\s*)\*args, \*\*kwargs:", r"\1\\*args, \\*\\*kwargs:", line)
        for line in lines
    ]


def _skip(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """A field of a named tuple is described with the class."""
    generated = (getattr(obj, "__doc__", None) or "").startswith("Alias for field")
    return True if generated else None


def setup(app: Sphinx) -> dict[str, bool]:
    # Before napoleon's handler, which has the usual priority of 500.
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
