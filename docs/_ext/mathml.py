"""Formulas as MathML, which browsers draw themselves.

Sphinx's own renderers need a script from the network or a TeX installation.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def _markup(node: nodes.Element, block: bool) -> str:
    # Docutils does not know \big; a browser sizes brackets by what is in them.
    tex = re.sub(r"\\[bB]igg?[lrm]?(?![a-zA-Z])", "", node.astext())
    try:
        markup = str(latex2mathml.tex2mathml(tex, as_block=block))
    except MathError as error:
        logger.warning("cannot draw %r: %s", node.astext(), error, location=node)
        return ""
    # Few fonts have the sign that docutils takes for \setminus.
    return markup.replace("\N{REVERSE SOLIDUS OPERATOR}", "\\")


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_markup(node, block=False))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{_markup(node, block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
