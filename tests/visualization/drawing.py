"""Drawing figures and reading what they show."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

# Right to left, emoji with modifiers, scripts that few fonts have, formulas, markup,
# half a character, nothing, and too much.
HARD_TOKENS = [
    *("שלום", "فيلم", "🙂", "🤩", "👍🏽", "❤️", "电影", "हिन्दी", "naïve", "Ωmega"),
    *("$x^2$", "$", "\\frac", "_a_{b}", "<script>", "&amp;", "##ing", "▁the", "Ġa"),
    *("\ud83e", "", " ", "\n", "\t", "\x00", "a" * 200),
]


def draw(figure: Figure) -> None:
    """Draws as savefig does; a missing glyph or other trouble is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FigureCanvasAgg(figure)
        figure.savefig(io.BytesIO(), format="png")


def tick_texts(ax: Axes, axis: str) -> list[str]:
    return [text.get_text() for text in tick_labels(ax, axis)]


def tick_labels(ax: Axes, axis: str) -> list[Text]:
    return ax.get_xticklabels() if axis == "x" else ax.get_yticklabels()


def marks(ax: Axes) -> dict[str, set[tuple[int, int]]]:
    """The (row, column) of every plus and of every minus."""
    found = {}
    for collection in ax.collections:
        assert isinstance(collection, PathCollection)
        offsets = collection.get_offsets()
        found[str(collection.get_label())] = {(int(y), int(x)) for x, y in offsets}
    return found


def boxes(texts: Sequence[Text]) -> list[Bbox]:
    return [text.get_window_extent() for text in texts if text.get_text()]


def assert_apart(texts: Sequence[Text]) -> None:
    """No two texts overlap, by more than the rim of their letters."""
    found = [(text.get_text(), text.get_window_extent()) for text in texts]
    found = [(text, box) for text, box in found if text]
    for i, (text, box) in enumerate(found):
        for other_text, other in found[i + 1 :]:
            shared = Bbox.intersection(box, other)
            assert shared is None or min(shared.width, shared.height) <= 2, (
                text,
                other_text,
            )


def assert_inside(figure: Figure, texts: Sequence[Text]) -> None:
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= -1, text.get_text()
        assert box.y0 >= -1, text.get_text()
        assert box.x1 <= figure.bbox.x1 + 1, text.get_text()
        assert box.y1 <= figure.bbox.y1 + 1, text.get_text()
