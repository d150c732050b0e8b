"""Pages: whole, written in one step, readable without colour."""

from pathlib import Path

import pytest
import torch

from captum_attngrad.visualization import (
    image_tag,
    render_page,
    save_html,
    text_html,
    text_records,
    write_page,
)


def test_saved_page_is_whole(tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    records = text_records([["a", "b"]], torch.tensor([[1.0, -1.0]]), 0.5, 1, 1, 1)
    target = tmp_path / "deep" / "page.html"
    assert save_html(text_html(records), target, title="<Mine> & yours") == target
    page = target.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert page.rstrip().endswith("</html>")
    assert "<title>&lt;Mine&gt; &amp; yours</title>" in page
    assert "http" not in page
    # Solid for positive, dotted for negative: the sign without the hue.
    assert 'mark[style*="hsl(120"]' in page
    assert "dotted" in page


def test_html_objects_are_taken(tmp_path: Path) -> None:
    display = pytest.importorskip("IPython.display")
    page = save_html(display.HTML("<p>hello</p>"), tmp_path / "page.html")
    assert "<p>hello</p>" in page.read_text(encoding="utf-8")


def test_other_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="content is a int"):
        save_html(3, tmp_path / "page.html")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    with pytest.raises(OSError, match=r"Cannot write .*taken"):
        write_page(render_page("t", "b"), folder)
    assert folder.is_dir()
    assert list(tmp_path.iterdir()) == [folder]


def test_images_travel_with_the_page() -> None:
    tag = image_tag(b"<svg/>", "image/svg+xml", 'a "bar" & more')
    assert 'src="data:image/svg+xml;base64,PHN2Zy8+"' in tag
    assert 'alt="a &quot;bar&quot; &amp; more"' in tag
