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
# Of a long word in points.
CHARACTER_WIDTH = 0.62 * FONT_SIZE
# Between the baselines of neighbouring labels.
LINE_HEIGHT = 11.5
_MOST_CHARACTERS = 22
# A font of placeholders has a glyph for everything.
_PLACEHOLDERS = ("Last Resort", ".Last", "LastResort")
# Shaping, with the order of right-to-left text, came with Matplotlib 3.11.
_NEEDS_VISUAL_ORDER = mpl.__version_info__ < (3, 11)


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
    are named: emoji by their names, all others by their code points."""
    # Of what is cut off nothing needs a font.
    cut = [token[: _MOST_CHARACTERS + 1] for token in tokens]
    families = list(mpl.rcParams["font.family"])
    missing = _not_in(_own_fonts(families), frozenset("".join(cut)))
    further, missing = _fonts_with(missing)
    texts = [_shown(token, missing) for token in cut]
    if _NEEDS_VISUAL_ORDER:
        texts = [visual_order(text) for text in texts]
    return Labels(texts, families + further)


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(1, length - 1)] + "…"


def _shown(token: str, missing: frozenset[str]) -> str:
    if not token.strip(" "):
        return token.replace(" ", "␣") or '""'
    return shortened("".join(_drawn(c, missing) for c in token), _MOST_CHARACTERS)


def _drawn(character: str, missing: frozenset[str]) -> str:
    category = unicodedata.category(character)
    if character in "\n\t\r":
        return repr(character)[1:-1]
    if category in ("Cc", "Cs"):
        return f"U+{ord(character):04X}"
    if character not in missing:
        return character
    if _invisible(character):
        return ""
    if category == "So":
        return f":{unicodedata.name(character, 'symbol').lower()}:"
    return f"U+{ord(character):04X}"


def _invisible(character: str) -> bool:
    """Joiners, and selectors of a variant or a tone of an emoji."""
    return (
        unicodedata.category(character) == "Cf"
        or "VARIATION SELECTOR" in unicodedata.name(character, "")
        or "EMOJI MODIFIER" in unicodedata.name(character, "")
    )


def _own_fonts(families: list[str]) -> list[str]:
    found = []
    for family in families:
        try:
            found.append(str(font_manager.findfont(family, fallback_to_default=False)))
        except ValueError:
            continue
    return found or [str(font_manager.findfont(font_manager.FontProperties()))]


def _not_in(fonts: Iterable[str], characters: frozenset[str]) -> frozenset[str]:
    for path in fonts:
        if not characters:
            break
        font = font_manager.get_font(path)
        characters = frozenset(c for c in characters if not font.get_char_index(ord(c)))
    return characters


@lru_cache(maxsize=64)
def _fonts_with(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Installed font families with these characters, and the characters that none
    has."""
    families: list[str] = []
    if not any(_worth_a_search(c) for c in characters):
        return families, characters
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda e: e.name):
        regular = entry.style == "normal" and entry.weight in (400, "normal", "regular")
        if not regular or entry.name.startswith(_PLACEHOLDERS):
            continue
        try:
            if not font_manager.get_font(entry.fname).scalable:
                continue
            left = _not_in([entry.fname], characters)
        except (OSError, RuntimeError):  # a font file that cannot be read
            continue
        if len(left) < len(characters):
            families.append(entry.name)
            characters = left
        if not any(_worth_a_search(c) for c in characters):
            break
    return families, characters


def _worth_a_search(character: str) -> bool:
    return not _invisible(character) and unicodedata.category(character)[0] != "C"


def visual_order(text: str) -> str:
    """Right-to-left runs turned round, for drawing from left to right."""
    runs: list[tuple[bool, list[str]]] = []
    for character in text:
        if unicodedata.combining(character) and runs:
            runs[-1][1][-1] += character
            continue
        right_to_left = unicodedata.bidirectional(character) in ("R", "AL")
        if runs and runs[-1][0] == right_to_left:
            runs[-1][1].append(character)
        else:
            runs.append((right_to_left, [character]))
    if not any(right_to_left for right_to_left, _ in runs):
        return text
    # The first run that has a direction is that of the whole text.
    if runs[0][0]:
        runs.reverse()
    return "".join(
        "".join(reversed(run) if right_to_left else run) for right_to_left, run in runs
    )


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
