"""Tokens as labels: in fonts that have their characters, where there is room."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes

from captum_attngrad._scores import Array

FONT_SIZE = 9.0
# The mean in a long word, in points.
CHARACTER_WIDTH = 0.62 * FONT_SIZE
# Between the baselines of neighboring labels.
LINE_HEIGHT = 11.5
_MAX_CHARACTERS = 22


class Labels(NamedTuple):
    """Texts that can be drawn, and the font families to draw them in."""

    texts: list[str]
    families: list[str]

    @property
    def style(self) -> dict[str, Any]:
        # A token may hold dollar signs, which are not formulas.
        return {
            "fontfamily": self.families,
            "fontsize": FONT_SIZE,
            "parse_math": False,
            "usetex": False,
        }

    def width(self, shown: Iterable[int] | None = None) -> float:
        """About the width of the longest label, in points."""
        places = range(len(self.texts)) if shown is None else shown
        longest = max((_columns(self.texts[i]) for i in places), default=0)
        return CHARACTER_WIDTH * longest


def labels_for(tokens: Sequence[str]) -> Labels:
    """Makes labels of tokens. Long ones are cut. Characters that no installed font has
    are shown by their code points."""
    # What is cut off needs no font.
    cut = [token[: _MAX_CHARACTERS + 1] for token in tokens]
    families = list(mpl.rcParams["font.family"])
    own = font_manager.findfont(font_manager.FontProperties(family=families))
    missing = _lacking(str(own), frozenset("".join(cut)))
    further, missing = _families_with(
        frozenset(c for c in missing if not _invisible(c))
    )
    texts = [_shown(token, missing) for token in cut]
    return Labels(texts, families + further)


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(1, length - 1)] + "…"


def _shown(token: str, missing: frozenset[str]) -> str:
    if not token.strip(" "):
        return token.replace(" ", "␣") or '""'
    return shortened("".join(_drawn(c, missing) for c in token), _MAX_CHARACTERS)


def _drawn(character: str, missing: frozenset[str]) -> str:
    if character in "\n\t\r":
        return repr(character)[1:-1]
    if _invisible(character):
        return ""
    if character in missing or unicodedata.category(character) in ("Cc", "Cs"):
        return f"U+{ord(character):04X}"
    return character


def _invisible(character: str) -> bool:
    """Joiners, and selectors of a variant or a tone of an emoji."""
    name = unicodedata.name(character, "")
    return unicodedata.category(character) == "Cf" or name.startswith(
        ("VARIATION SELECTOR", "EMOJI MODIFIER")
    )


def _lacking(font: str, characters: frozenset[str]) -> frozenset[str]:
    """The characters that a font file has no glyph for."""
    charmap = font_manager.get_font(font).get_charmap()
    return frozenset(c for c in characters if ord(c) not in charmap)


@lru_cache(maxsize=64)
def _families_with(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Installed font families with these characters, and the characters that none has.
    Matplotlib draws a character in the first of a label's families that has it."""
    families: list[str] = []
    fonts = {
        entry.name: entry.fname
        for entry in font_manager.fontManager.ttflist
        if entry.style == "normal"
        and entry.weight in (400, "normal", "regular")
        # A font of placeholders has a glyph for everything.
        and not entry.name.lower().replace(" ", "").startswith(("lastresort", "."))
    }
    for family, path in sorted(fonts.items()):
        if all(unicodedata.category(c).startswith("C") for c in characters):
            break
        try:
            left = _lacking(path, characters)
            scalable = font_manager.get_font(path).scalable
        except (OSError, RuntimeError):  # a font file that cannot be read
            continue
        if scalable and len(left) < len(characters):
            families.append(family)
            characters = left
    return families, characters


def _columns(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide


def spaced(strength: Array, points_per_token: float) -> list[int]:
    """Where labels stand if all of them do not fit: the strongest first, each with room
    for itself."""
    gap = math.ceil(LINE_HEIGHT / points_per_token)
    if gap <= 1:
        return list(range(len(strength)))
    blocked = np.zeros(len(strength), dtype=bool)
    chosen = []
    for i in np.argsort(-strength, kind="stable"):
        if not blocked[i]:
            chosen.append(int(i))
            blocked[max(0, i - gap + 1) : i + gap] = True
    return sorted(chosen)


def size_in_points(ax: Axes) -> tuple[float, float]:
    """Width and height of what is inside the axes."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    box = ax.get_window_extent()
    return box.width * 72 / figure.dpi, box.height * 72 / figure.dpi
