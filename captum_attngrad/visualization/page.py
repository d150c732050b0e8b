r"""Whole HTML pages that load nothing from anywhere."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from captum.attr import visualization as viz
from markupsafe import Markup

from captum_attngrad._files import write_file
from captum_attngrad.visualization.words import ExplainedText, heading, row_of

if TYPE_CHECKING:
    from jinja2 import Environment


@runtime_checkable
class _HasData(Protocol):
    data: str


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("captum_attngrad.visualization"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def render_page(template: str, title: str, **values: Any) -> str:
    r"""
    A page from one of the templates. What it shows is escaped.

    Args:
        template (str): File name of the template.
        title (str): Title of the page.
        values (Any): What the template shows.

    Returns:
        *str*: The page.
    """
    return _templates().get_template(template).render(title=title, **values)


def data_uri(content: bytes, media_type: str) -> str:
    """A file inside a URI, such as the source of an image."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def write_page(page: str, path: str | os.PathLike[str]) -> Path:
    r"""
    Writes a page, all of it or nothing; missing folders are made.

    Args:
        page (str): The page.
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
    content: str | _HasData | Iterable[viz.VisualizationDataRecord],
    path: str | os.PathLike[str],
    title: str = "Explained texts",
) -> Path:
    r"""
    Saves explained texts as a page of its own.

    The page needs no network, and reads well on a phone and in a dark theme. Records
    of :func:`text_records` become words with their scores on hover; a line under each
    colored word (solid for, dotted against) keeps the sign readable without color. If
    the scores of a text have vanished, the page says so and colors nothing. The file is
    replaced in one step.

    Args:
        content (Iterable of VisualizationDataRecord, str or IPython.display.HTML): The
            records, from :func:`text_records`; or the table that Captum's
            ``visualize_text`` or :func:`text_html` makes of them.
        path (str or os.PathLike): File to write; missing folders are made.
        title (str, optional): Title of the page.
            Default: "Explained texts"

    Returns:
        *Path*: The file.

    Raises:
        TypeError: If ``content`` is none of these.
        OSError: If the file cannot be written, or something other than a regular file
            is there.

    Examples::

        >>> save_html(records, "explained.html", title="My reviews")
    """
    if isinstance(content, _HasData):
        content = content.data
    if isinstance(content, str):
        # visualize_text escapes nothing; text_records did.
        page = render_page("captum.html", title, table=Markup(content))
    else:
        page = texts_page(_texts_of(content), title)
    return write_page(page, path)


def texts_page(texts: Sequence[ExplainedText], title: str) -> str:
    """The page that shows explained texts."""
    return render_page("texts.html", title, texts=texts)


def _texts_of(records: object) -> list[ExplainedText]:
    """Records with one row each; neighbors that explain the same answer share a
    heading."""
    found: list[Any] = list(records) if isinstance(records, Iterable) else [records]
    for record in found:
        if not isinstance(record, viz.VisualizationDataRecord):
            raise TypeError(
                f"content holds a {type(record).__name__}; expected the records of "
                "text_records, or the table that visualize_text returns."
            )

    def answer(record: viz.VisualizationDataRecord) -> Any:
        words = list(record.raw_input_ids)
        return record.pred_class, record.pred_prob, record.true_class, words

    texts = []
    for (predicted, probability, true, _), group in groupby(found, answer):
        rows = []
        for record in group:
            # A plain record of Captum's has nothing but what its table shows.
            words: list[str] = getattr(record, "words", record.raw_input_ids)
            scores: Any = getattr(record, "scores", record.word_attributions)
            label = _text(record.attr_class)
            rows.append(row_of(label, words, scores, merge_pieces=False))
        title = heading(_text(predicted), probability, _text(true))
        texts.append(ExplainedText(title, rows))
    return texts


def _text(label: Any) -> str:
    # text_records escapes names for Captum's table.
    return Markup(label).unescape() if isinstance(label, str) else str(label)
