from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captum_attngrad.text import WordTokenizer


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A fine film", ["a", "fine", "film"]),
        ("It doesn't work.", ["it", "doesn't", "work", "."]),
        ("It doesn’t work.", ["it", "doesn't", "work", "."]),
        ("Well ... no!!", ["well", "...", "no", "!!"]),
        ("so-so, ''they'' say", ["so", "-", "so", ",", "''", "they", "''", "say"]),
        ("don't, 'tis", ["don't", ",", "'", "tis"]),
        ("(3.5/5)", ["(", "3", ".", "5", "/", "5", ")"]),
        ("Amélie 👍👍", ["amélie", "👍👍"]),
        (" \t\n", []),
        ("", []),
    ],
)
def test_tokens_of_known_texts(text: str, tokens: list[str]) -> None:
    assert WordTokenizer()(text) == tokens


def test_case_is_kept_on_request() -> None:
    assert WordTokenizer(lowercase=False)("Oh No") == ["Oh", "No"]


@given(st.text())
def test_only_white_space_is_lost(text: str) -> None:
    expected = "".join(text.replace("’", "'").lower().split())
    tokens = WordTokenizer()(text)
    assert "".join(tokens) == expected
    assert "" not in tokens


def test_a_list_of_texts_is_refused() -> None:
    with pytest.raises(TypeError, match=r"takes one string, got list: \['a film'\]"):
        WordTokenizer()(["a film"])  # type: ignore[arg-type]


def test_it_can_be_pickled() -> None:
    copy = pickle.loads(pickle.dumps(WordTokenizer(lowercase=False)))
    assert copy("Oh No") == ["Oh", "No"]
    assert repr(copy) == "WordTokenizer(lowercase=False)"
