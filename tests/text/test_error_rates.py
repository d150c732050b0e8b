from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captum_attngrad.text import edit_distance, phoneme_error_rate, word_error_rate


def _reference(one: Sequence[str], two: Sequence[str]) -> int:
    """The definition: what happens to the first token, then the rest."""

    @functools.cache
    def distance(i: int, j: int) -> int:
        if i == len(one) or j == len(two):
            return len(one) - i + len(two) - j
        if one[i] == two[j]:
            return distance(i + 1, j + 1)
        return 1 + min(distance(i + 1, j), distance(i, j + 1), distance(i + 1, j + 1))

    return distance(0, 0)


tokens = st.lists(st.sampled_from(["AA", "B", "K"]), max_size=7)


@given(tokens, tokens)
def test_against_the_definition(one: list[str], two: list[str]) -> None:
    assert edit_distance(one, two) == edit_distance(two, one) == _reference(one, two)


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ("", "", 0),
        ("N AY T", "N AY T", 0),
        ("K N AY T", "N AY T", 1),
        ("N AY T", "", 3),
        ("N IH G T", "N AY T", 2),
        # "T" once shifted: one insertion and one deletion, not three substitutions.
        ("T K AE", "K AE T", 2),
    ],
)
def test_by_hand(one: str, two: str, expected: int) -> None:
    assert edit_distance(one.split(), two.split()) == expected


def test_rates_by_hand() -> None:
    right = [
        [["K", "AE", "T"]],
        [["R", "IY", "D"], ["R", "EH", "D"]],
        [["N", "AY", "T"]],
        [["AO", "L", "W", "EY", "Z"], ["AO", "L", "W", "IY", "Z", "D"]],
    ]
    found = [
        ["K", "AE", "T"],  # right
        ["R", "EH", "D"],  # right, by its second reference
        ["K", "N", "IH", "T"],  # 2 edits of 3
        ["AO", "W", "IY", "Z", "D"],  # 1 edit of the second's 6, 3 of the first's 5
    ]
    assert phoneme_error_rate(found, right) == (0 + 0 + 2 + 1) / (3 + 3 + 3 + 6)
    assert word_error_rate(found, right) == 2 / 4
    # Tuples and lists are the same transcription.
    assert word_error_rate([("K", "AE", "T")], right[:1]) == 0.0


def test_a_rate_can_exceed_one() -> None:
    assert phoneme_error_rate([["S", "S", "S"]], [[["Z"]]]) == 3.0
    assert word_error_rate([["S", "S", "S"]], [[["Z"]]]) == 1.0


def test_errors_say_what_is_expected() -> None:
    for rate in (phoneme_error_rate, word_error_rate):
        with pytest.raises(ValueError, match="got 0 hypotheses and 0 references"):
            rate([], [])
        with pytest.raises(ValueError, match="got 1 hypotheses and 2 references"):
            rate([["K"]], [[["K"]], [["K"]]])
        with pytest.raises(ValueError, match=r"word 1 has \[\]"):
            rate([["K"], ["K"]], [[["K"]], []])
        with pytest.raises(ValueError, match=r"word 0 has \['K'\].*\[reference\]"):
            rate([["K"]], [["K"]])
    with pytest.raises(ValueError, match="hold no phonemes"):
        phoneme_error_rate([["K"]], [[[]]])
