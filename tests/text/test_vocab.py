from __future__ import annotations

import pickle
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captum_attngrad.text import Vocab, build_vocab_from_iterator


@pytest.fixture
def vocab() -> Vocab:
    return Vocab(["<unk>", "good", "bad"])


def test_lookups(vocab: Vocab) -> None:
    assert len(vocab) == 3
    assert vocab["bad"] == 2
    assert vocab(["bad", "good"]) == [2, 1]
    assert vocab.forward(["bad", "good"]) == [2, 1]
    assert vocab.lookup_indices(["bad", "good"]) == [2, 1]
    assert vocab.lookup_token(1) == "good"
    assert vocab.lookup_tokens([0, 2]) == ["<unk>", "bad"]
    assert vocab.get_itos() == ["<unk>", "good", "bad"]
    assert vocab.get_stoi() == {"<unk>": 0, "good": 1, "bad": 2}
    assert "good" in vocab
    assert "film" not in vocab
    assert vocab([]) == []


def test_unknown_tokens_need_a_default_index(vocab: Vocab) -> None:
    assert vocab.get_default_index() is None
    with pytest.raises(RuntimeError, match="'film' is not in the vocabulary"):
        vocab["film"]
    with pytest.raises(RuntimeError, match="set_default_index"):
        vocab(["good", "film"])
    vocab.set_default_index(vocab["<unk>"])
    assert vocab.get_default_index() == 0
    assert vocab(["good", "film"]) == [1, 0]
    assert "film" not in vocab
    vocab.set_default_index(-1)  # torchtext allows an id that no token has
    assert vocab["film"] == -1
    vocab.set_default_index(None)
    with pytest.raises(RuntimeError, match="film"):
        vocab["film"]


@pytest.mark.parametrize("index", [-1, 3])
def test_an_id_out_of_range_is_refused(vocab: Vocab, index: int) -> None:
    with pytest.raises(RuntimeError, match=f"id {index}.* 0 to 2"):
        vocab.lookup_token(index)
    with pytest.raises(RuntimeError, match=f"id {index}"):
        vocab.lookup_tokens([0, index])


def test_insert_and_append(vocab: Vocab) -> None:
    vocab.insert_token("fine", 1)
    vocab.append_token("dull")
    assert vocab.get_itos() == ["<unk>", "fine", "good", "bad", "dull"]
    assert vocab(vocab.get_itos()) == [0, 1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="'good' is already"):
        vocab.append_token("good")
    with pytest.raises(RuntimeError, match="'new' at 6"):
        vocab.insert_token("new", 6)
    assert len(vocab) == 5


def test_the_lists_handed_out_are_copies(vocab: Vocab) -> None:
    vocab.get_itos().append("new")
    vocab.get_stoi()["new"] = 9
    assert "new" not in vocab
    assert len(vocab) == 3


def test_a_string_in_place_of_tokens_is_refused(vocab: Vocab) -> None:
    with pytest.raises(TypeError, match="got the string 'good'"):
        vocab("good")
    with pytest.raises(TypeError, match="got the string 'good'"):
        build_vocab_from_iterator(["good"])


def test_tokens_given_twice_are_refused() -> None:
    with pytest.raises(RuntimeError, match="'a'"):
        Vocab(["a", "b", "a"])


def test_it_can_be_pickled(vocab: Vocab) -> None:
    vocab.set_default_index(0)
    copy = pickle.loads(pickle.dumps(vocab))
    assert copy.get_itos() == vocab.get_itos()
    assert copy["film"] == 0
    assert repr(copy) == "Vocab(3 tokens, default_index=0)"


TEXTS = [["b", "a", "b"], ["c", "<unk>"], ["c", "b", "d"]]


@pytest.mark.parametrize(
    ("options", "itos"),
    [
        ({}, ["b", "c", "<unk>", "a", "d"]),
        ({"min_freq": 2}, ["b", "c"]),
        ({"specials": ["<pad>", "<unk>"]}, ["<pad>", "<unk>", "b", "c", "a", "d"]),
        (
            {"specials": ["<pad>", "<unk>"], "special_first": False},
            ["b", "c", "a", "d", "<pad>", "<unk>"],
        ),
        ({"specials": ["<pad>"], "max_tokens": 3}, ["<pad>", "b", "c"]),
        # As in torchtext, a special that is counted takes up its place before it is
        # taken out: 4 - 1 = 3 most frequent tokens, one of which is the special.
        ({"specials": ["<unk>"], "max_tokens": 4}, ["<unk>", "b", "c"]),
        ({"specials": ["<pad>"], "min_freq": 9}, ["<pad>"]),
    ],
)
def test_building(options: dict[str, object], itos: list[str]) -> None:
    built = build_vocab_from_iterator(iter(TEXTS), **options)  # type: ignore[arg-type]
    assert built.get_itos() == itos
    assert built.get_default_index() is None


def test_max_tokens_must_leave_room() -> None:
    with pytest.raises(ValueError, match="max_tokens=2 leaves no room"):
        build_vocab_from_iterator(TEXTS, specials=["<pad>", "<unk>"], max_tokens=2)


@given(st.lists(st.lists(st.sampled_from("abcdefg"))), st.integers(1, 3))
def test_building_against_counting(texts: list[list[str]], min_freq: int) -> None:
    built = build_vocab_from_iterator(texts, min_freq=min_freq, specials=["<unk>"])
    counts = Counter(token for text in texts for token in text)
    words = built.get_itos()[1:]
    assert set(words) == {t for t in counts if counts[t] >= min_freq}
    ranks = [(-counts[word], word) for word in words]
    assert ranks == sorted(ranks)
    assert built.lookup_tokens(built(words)) == words
