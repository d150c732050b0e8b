"""Labels: what is drawn for a token, in which font, and how signs are told apart."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.colors import to_rgb

from captum_attngrad.visualization import _labels
from captum_attngrad.visualization._labels import labels_for, spaced
from captum_attngrad.visualization._signs import (
    DIVERGING,
    NEGATIVE,
    POSITIVE,
    signed_number,
)


@pytest.fixture
def no_further_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the font that comes with Matplotlib, whatever this machine has."""
    monkeypatch.setattr(_labels, "_families_with", lambda missing: ([], missing))


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("plain", "plain"),
        ("naïve", "naïve"),
        ("##ing", "##ing"),
        ("$5", "$5"),
        ("", '""'),
        ("  ", "␣␣"),
        ("\n", "\\n"),
        ("a\tb", "a\\tb"),
        ("\x00", "U+0000"),
        ("\ud83e", "U+D83E"),
        ("👍🏽", "U+1F44D"),  # the tone is left out
        ("电影", "U+7535U+5F71"),
        ("x" * 22, "x" * 22),
        ("x" * 23, "x" * 21 + "…"),
        ("电" * 23, "U+7535U+7535U+7535U+7…"),
    ],
)
@pytest.mark.usefixtures("no_further_fonts")
def test_what_is_drawn(token: str, text: str) -> None:
    assert labels_for([token]).texts == [text]


def test_other_fonts_are_asked_for_what_the_first_lacks() -> None:
    # A Computer Modern font that Matplotlib brings has no Hebrew; DejaVu Sans has.
    with mpl.rc_context({"font.family": ["cmr10"]}):
        labels = labels_for(["abc", "שלום"])
    assert labels.families[0] == "cmr10"
    assert len(labels.families) > 1
    fonts = [font_manager.findfont(name) for name in labels.families[1:]]
    assert any(font_manager.get_font(f).get_char_index(ord("ש")) for f in fonts)
    assert "U+" not in labels.texts[1]


def test_no_font_is_searched_for_where_the_first_has_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(font_manager.fontManager, "ttflist", None)
    assert labels_for(["plain", "naïve"]).families == mpl.rcParams["font.family"]


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_any_text_has_a_label(tokens: list[str]) -> None:
    labels = labels_for(tokens)
    assert len(labels.texts) == len(tokens)
    assert all(len(text) <= 22 for text in labels.texts)
    assert labels_for(tokens) == labels


def test_spaced_keeps_the_strongest() -> None:
    strength = np.array([0, 5, 4, 0, 0, 3, 9, 1], dtype=float)
    assert spaced(strength, 12.0) == list(range(8))
    assert spaced(strength, 6.0) == [1, 3, 6]  # two places for a label


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.1, 15), st.data()
)
def test_spaced_leaves_room_and_wastes_none(
    strength: list[float], points: float, data: st.DataObject
) -> None:
    chosen = spaced(np.array(strength), points)
    gaps = np.diff(chosen)
    assert (gaps * points >= _labels.LINE_HEIGHT - 1e-9).all()
    assert int(np.argmax(strength)) in chosen
    # No label could be added.
    i = data.draw(st.integers(0, len(strength) - 1))
    assert i in chosen or min(abs(i - j) for j in chosen) * points < _labels.LINE_HEIGHT


@pytest.mark.parametrize(
    ("value", "peak", "text"),
    [
        (0.0, 1.0, "0"),
        (1.0, 1.0, "+1.00"),
        (-0.5, 1.0, "−0.50"),
        (0.0123, 0.05, "+0.0123"),
        (-123.4, 500.0, "−123"),
        (1e-7, 1e-7, "+1.0e−07"),
        (-2e9, 2e9, "−2.0e+09"),
    ],
)
def test_numbers_carry_their_sign(value: float, peak: float, text: str) -> None:
    assert signed_number(value, peak) == text


# The matrices of Machado, Oliveira and Fernandes (2009) for full color blindness.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def lab(linear: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray:  # type: ignore[type-arg]
    to_xyz = np.array(
        [
            [0.4124, 0.3576, 0.1805],
            [0.2126, 0.7152, 0.0722],
            [0.0193, 0.1192, 0.9505],
        ]
    )
    x, y, z = np.cbrt(to_xyz @ linear / (0.9505, 1.0, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def difference(a: str, b: str, matrix: np.ndarray) -> float:  # type: ignore[type-arg]
    """CIE76 difference of two colors; 2.3 can just be noticed."""
    seen = []
    for color in (a, b):
        rgb = np.array(to_rgb(color))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen.append(lab(np.clip(matrix @ linear, 1e-4, 1)))
    return float(np.linalg.norm(seen[0] - seen[1]))


@pytest.mark.parametrize("eyes", BLINDNESS)
def test_the_two_colors_can_be_told_apart(eyes: str) -> None:
    assert difference(POSITIVE, NEGATIVE, BLINDNESS[eyes]) > 40
    half_plus, half_minus = DIVERGING(0.75), DIVERGING(0.25)
    assert difference(half_plus, half_minus, BLINDNESS[eyes]) > 15


def test_the_plain_green_and_red_of_the_text_view_would_not_do() -> None:
    # The reason for the choice; and the test above can fail.
    assert difference("#14600f", "#8f1010", BLINDNESS["deuteranopia"]) < 15


def test_white_lies_in_the_middle() -> None:
    assert DIVERGING(0.5) == (1, 1, 1, 1)
    assert DIVERGING.N % 2 == 1
