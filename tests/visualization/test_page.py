"""Pages: whole, written in one step, inert, readable without color."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from captum.attr import visualization as viz

from captum_attngrad.visualization import (
    save_html,
    text_html,
    text_records,
    write_page,
)
from captum_attngrad.visualization.page import data_uri
from captum_attngrad.visualization.words import MIN_PEAK


class Words(HTMLParser):
    """The words of a page with their class and title, and all of its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[tuple[str, str, str]] = []
        self.tags: set[str] = set()
        self._open: tuple[str, str] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        if "title" in found:
            self._open = (found.get("class") or "", found["title"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open:
            self.words.append((data, *self._open))


def page_of(tokens: list[str], scores: list[float], path: Path, **options: bool) -> str:
    records = text_records(
        [tokens], [torch.tensor(scores)], 0.5, "good", "bad", "method", **options
    )
    return save_html(records, path / "page.html").read_text("utf-8")


def test_a_page_is_whole_and_asks_for_nothing(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "page.html"
    records = text_records([["a", "b"]], torch.tensor([[1.0, -1.0]]), 0.5, 1, 1, 1)
    for content in (records, iter(records), text_html(records)):
        assert save_html(content, target, title="<Mine> & yours") == target
        page = target.read_text("utf-8")
        assert page.startswith("<!DOCTYPE html>")
        assert page.rstrip().endswith("</html>")
        assert "<title>&lt;Mine&gt; &amp; yours</title>" in page
        assert "http" not in page
        assert "script" not in Words(page).tags
        # For phones and dark themes.
        assert 'name="viewport"' in page
        assert "max-width: 40rem" in page
        assert "prefers-color-scheme: dark" in page
        # The sign without the hue: solid for positive, dotted for negative.
        assert "3px solid" in page
        assert "3px dotted" in page


def test_words_of_pieces_have_sign_and_number(tmp_path: Path) -> None:
    tokens = ["[CLS]", "un", "##watch", "##able", "fine", "plot", "[SEP]"]
    scores = [9.0, -1.0, -0.5, -0.5, 1.0, 0.01, -7.0]
    page = page_of(tokens, scores, tmp_path)
    assert Words(page).words == [
        ("[CLS]", "special", "+9.00"),
        ("unwatchable", "against", "−2.00"),
        ("fine", "for", "+1.00"),
        ("plot", "", "+0.01"),
        ("[SEP]", "special", "−7.00"),
    ]
    # Special tokens do not count as the strongest.
    assert 'class="against" style="--s:1.00"' in page
    assert "Predicted good (0.50), labeled bad" in page
    pieces = Words(page_of(tokens, scores, tmp_path, merge_pieces=False)).words
    assert [word for word, _, _ in pieces] == tokens


def test_what_is_quoted_stays_text(tmp_path: Path) -> None:
    tokens = ["<script>alert(1)</script>", "a&b", '"><img src=x>', "🙂", "\ud83d"]
    records = text_records(
        [tokens], torch.ones(1, 5), 0.5, "<b>x</b>", "<i>", "<script>"
    )
    page = save_html(records, tmp_path / "p.html", "</title><script>").read_text()
    found = Words(page)
    assert [word for word, _, _ in found.words] == [*tokens[:4], "\\ud83d"]
    assert not found.tags & {"script", "img", "b", "i"}


def test_scores_that_vanished_have_no_color(tmp_path: Path) -> None:
    page = page_of(["a", "b"], [MIN_PEAK / 3, -MIN_PEAK / 2], tmp_path)
    assert "scores have vanished: the strongest is 3e-08" in page
    assert [kind for _, kind, _ in Words(page).words] == ["", ""]
    assert "all scores are 0" in page_of(["a", "b"], [0.0, 0.0], tmp_path)
    page = page_of(["a", "b"], [MIN_PEAK * 2, 0.0], tmp_path)
    assert "vanished" not in page
    assert [kind for _, kind, _ in Words(page).words] == ["for", ""]


def test_records_of_captum_alone_are_shown(tmp_path: Path) -> None:
    record = viz.VisualizationDataRecord(
        torch.ones(1), 0.9, 1, 0, 1, 1.0, ["fine"], 0.0
    )
    page = save_html([record], tmp_path / "page.html").read_text("utf-8")
    assert Words(page).words == [("fine", "for", "+1.00")]


def test_html_objects_are_taken(tmp_path: Path) -> None:
    display = pytest.importorskip("IPython.display")
    page = save_html(display.HTML("<p>hello</p>"), tmp_path / "page.html")
    assert "<p>hello</p>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [3, [3]])
def test_other_objects_are_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="content holds a int; expected the records"):
        save_html(content, tmp_path / "page.html")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    with pytest.raises(OSError, match=r"Cannot write .*taken"):
        write_page("page", folder)
    assert folder.is_dir()
    assert list(tmp_path.iterdir()) == [folder]


def test_images_travel_with_the_page() -> None:
    found = data_uri(b"<svg/>", "image/svg+xml")
    assert found == "data:image/svg+xml;base64,PHN2Zy8+"
