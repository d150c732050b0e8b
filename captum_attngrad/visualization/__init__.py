r"""Showing token scores through Captum's ``visualize_text``."""

from captum_attngrad.visualization.page import (
    LEGEND,
    image_tag,
    render_page,
    save_html,
    write_page,
)
from captum_attngrad.visualization.text import text_html, text_records

__all__ = [
    "LEGEND",
    "image_tag",
    "render_page",
    "save_html",
    "text_html",
    "text_records",
    "write_page",
]
