r"""Whole, self-contained HTML pages around Captum's text tables."""

import base64
import html
import os
from pathlib import Path
from typing import Protocol, runtime_checkable

from captum_attngrad._files import write_file

# Captum's markup carries a token's sign in its hue alone (120 for positive, 0 for
# negative, lightness 100% for zero). The attribute selectors add a line under the word,
# so that the sign can be read without seeing colours. `tr:empty` hides the empty rows
# that Captum's unclosed <tr> tags leave behind.
PAGE_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff;
  max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; }
h3 { font-size: 1rem; margin: 2rem 0 .25rem; }
table { border-collapse: collapse; }
th { text-align: left; vertical-align: bottom; }
td { vertical-align: top; }
.captum { overflow-x: auto; }
.captum table { width: 100%; }
.captum th, .captum td { padding: .3rem .75rem .3rem 0; }
.captum tr { border-bottom: 1px solid #e3e3e3; }
.captum tr:empty { display: none; }
mark { padding: 0 .15em; }
mark[style*="hsl(120"]:not([style*=" 100%)"]) { border-bottom: 3px solid #14600f; }
mark[style*="hsl(0"]:not([style*=" 100%)"]) { border-bottom: 3px dotted #8f1010; }
.legend mark { margin-right: .25em; }
"""

LEGEND = (
    '<p class="legend">'
    '<mark style="background-color: hsl(120, 75%, 70%)">green, solid line</mark> '
    "supports the explained class; "
    '<mark style="background-color: hsl(0, 75%, 76%)">red, dotted line</mark> '
    "argues against it. The strongest token of each row has full colour.</p>"
)


@runtime_checkable
class _HasData(Protocol):
    data: str


def render_page(title: str, body: str, style: str = "") -> str:
    r"""
    A whole HTML page that loads nothing from anywhere.

    Args:
        title (str): Title of the page, plain text.
        body (str): HTML of the body; what it quotes must already be escaped.
        style (str, optional): More CSS, after the style that every page has.
            Default: ""

    Returns:
        *str*: The page.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n"
        f"<style>{PAGE_STYLE}{style}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def image_tag(data: bytes, media_type: str, alt: str) -> str:
    r"""
    An ``<img>`` that carries its image in itself.

    Args:
        data (bytes): The image file.
        media_type (str): Such as ``"image/svg+xml"``.
        alt (str): What the image says, for those who cannot see it.

    Returns:
        *str*: The tag, with the image as a data URI.
    """
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img src="data:{media_type};base64,{encoded}" alt="{html.escape(alt)}">'


def write_page(page: str, path: "str | os.PathLike[str]") -> Path:
    r"""
    Writes a page, all of it or nothing; missing folders are made.

    Args:
        page (str): The page, from :func:`render_page`.
        path (str or os.PathLike): Where to write it; an existing file is replaced, a
            symbolic link followed.

    Returns:
        *Path*: Where it was written.

    Raises:
        OSError: If it cannot be written there, or something other than a regular file
            is there.
    """
    return write_file(path, encoded(page))


def encoded(page: str) -> bytes:
    r"""A page as it is stored. Half a surrogate pair, which is not a character, is
    shown by its number, as ``\ud83d``."""
    return page.encode("utf-8", "backslashreplace")


def save_html(
    content: "str | _HasData",
    path: "str | os.PathLike[str]",
    title: str = "Explained texts",
) -> Path:
    r"""
    Saves what Captum's ``visualize_text`` returns as a page of its own.

    The page needs no network. It adds a line under each coloured token (solid for
    positive, dotted for negative), so that the sign does not rest on colour alone. The
    file is replaced in one step.

    Args:
        content (str or IPython.display.HTML): The table, from :func:`text_html` or from
            ``visualize_text`` itself.
        path (str or os.PathLike): File to write; missing folders are made.
        title (str, optional): Title of the page.
            Default: "Explained texts"

    Returns:
        *Path*: The file.

    Raises:
        TypeError: If ``content`` is neither a string nor an HTML object.
        OSError: If the file cannot be written, or something other than a regular file
            is there.

    Examples::

        >>> save_html(visualize_text(records), "explained.html", title="My reviews")
    """
    return write_page(page_of(content, title), path)


def page_of(content: "str | _HasData", title: str) -> str:
    """The page that :func:`save_html` writes."""
    table = content.data if isinstance(content, _HasData) else content
    if not isinstance(table, str):
        raise TypeError(
            f"content is a {type(content).__name__}; expected the HTML that "
            "visualize_text returns, or a string."
        )
    body = f'<h1>{html.escape(title)}</h1>\n{LEGEND}\n<div class="captum">{table}</div>'
    return render_page(title, body)
